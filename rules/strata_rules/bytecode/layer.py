"""The Compile action: a linked layer and the bytecode of all its modules, as one tree.

It compiles as little as it can: what the bytecode of a wheel or a runtime was made of under that name has that one
here too, wherever it lies. That leaves what belongs to the layer alone, its boot module and the user's modules.

Hard part: bytecode must never be taken for that of another source. What replaces a whole folder may have the kind that
is taken without a look; what is unpacked over an older version must not, for of that one some bytecode may remain.
So there are two kinds, which differ in one bit.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from strata_engine.action import Action, Execution, Input
from strata_engine.tree import File, Node, Store, Tree, edit, entries
from strata_rules.bytecode.interpreter import ENVIRONMENT, Module, Pyc, compiled, interpreter, runtime_inputs
from strata_rules.bytecode.modules import FOLDER, bytecode_path, modules
from strata_rules.providers import LinkInfo, RuntimeInfo

VERSION = 1

LIBRARIES = "lib/"
"""The folder of a layer that modules are imported from, as `postinstall.py` knows it too."""

CHECK_SOURCE = 0b10
"""The bit of a bytecode file's flags that has its source hashed and compared at each import (PEP 552)."""
_FLAGS = 4
"""Where the byte with that bit is."""


def compile_action(
    label: str, link: LinkInfo, runtime: RuntimeInfo, made: Mapping[str, tuple[Input, Input]], *, checked: bool
) -> Action:
    """Make the action for one layer. `made` has, by any name, trees and the outputs of their Bytecode actions."""
    inputs: dict[str, Input] = {"tree": link.tree, **runtime_inputs(runtime)}
    for name, (sources, bytecode) in made.items():
        inputs[f"sources/{name}"] = sources
        inputs[f"bytecode/{name}"] = bytecode
    return Action(
        label=label,
        mnemonic="Compile",
        version=VERSION,
        params={"interpreter": interpreter(runtime), "checked": checked},
        inputs=inputs,
        environment=ENVIRONMENT,
        run=run,
        description=f"compile {link.install_target}",
    )


def run(execution: Execution) -> Tree:
    """Put each module's bytecode beside it. Raises ActionError `no-bytecode`."""
    store, tree = execution.store, execution.node("tree")
    assert isinstance(tree, Tree)
    found = {path: module for path, module in modules(store, tree) if path.startswith(LIBRARIES)}
    known = _known(execution)
    fresh = compiled(execution, (module for module in found.values() if module not in known))
    made = {**{module: pyc for module, pyc in known.items() if pyc is not None}, **fresh}
    if execution.params["checked"]:
        used = {module for module in found.values() if module in made}
        made = {module: made[module]._replace(content=_checked(store, made[module].content)) for module in used}
    files: dict[str, Node | None] = {
        bytecode_path(path, made[module].file): made[module].content for path, module in found.items() if module in made
    }
    return edit(store, tree, files)


def _known(execution: Execution) -> dict[Module, Pyc | None]:
    """List the modules that are compiled already, those that do not compile with None."""
    store = execution.store
    known: dict[Module, Pyc | None] = {}
    for name in execution.names("sources/"):
        execution.check_cancelled()
        sources, bytecode = execution.node(name), execution.node(name.replace("sources/", "bytecode/", 1))
        assert isinstance(sources, Tree)
        assert isinstance(bytecode, Tree)
        made = {
            _source_path(path): Pyc(posixpath.basename(path), node)
            for path, node in entries(store, bytecode)
            if isinstance(node, File)
        }
        known.update((module, made.get(path)) for path, module in modules(store, sources))
    return known


def _source_path(path: str) -> str:
    """Give the path of the module whose bytecode is at `path`."""
    folder, file = posixpath.split(path)
    return posixpath.join(folder.removesuffix(FOLDER), f"{file.rsplit('.', 2)[0]}.py")


def _checked(store: Store, pyc: File) -> File:
    """Give the same bytecode file with the bit set."""
    data = bytearray(store.get(pyc.digest))
    data[_FLAGS] |= CHECK_SOURCE
    return File(store.put(bytes(data)))
