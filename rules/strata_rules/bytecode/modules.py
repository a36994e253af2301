"""The Bytecode action: the modules of one tree, an unpacked wheel or a runtime, compiled by a runtime's interpreter.

It knows no layer: the output has for each module `FOLDER/NAME.py` of the tree, wherever it lies, the file
`FOLDER/__pycache__/NAME.TAG.pyc`, and nothing for modules that do not compile. The bytecode is never compared with its
source (PEP 552, unchecked), and names no folder.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from strata_engine.action import Action, Execution, Input
from strata_engine.tree import EMPTY_TREE, File, Node, Store, Symlink, Tree, assemble, entries, lookup
from strata_rules.bytecode.interpreter import ENVIRONMENT, Module, compiled, interpreter, runtime_inputs
from strata_rules.providers import RuntimeInfo

VERSION = 1

FOLDER = "__pycache__"


def bytecode_action(label: str, tree: Input, what: str, runtime: RuntimeInfo) -> Action:
    """Make the action that compiles the modules of `tree`, which is called `what`, for a runtime."""
    return Action(
        label=label,
        mnemonic="Bytecode",
        version=VERSION,
        params={"interpreter": interpreter(runtime)},
        inputs={"tree": tree, **runtime_inputs(runtime)},
        environment=ENVIRONMENT,
        run=run,
        description=f"compile {what}",
    )


def run(execution: Execution) -> Tree:
    """Compile the modules. Raises ActionError `no-bytecode`."""
    tree = execution.node("tree")
    assert isinstance(tree, Tree)
    found = dict(modules(execution.store, tree))
    made = compiled(execution, found.values())
    files: dict[str, Node] = {
        bytecode_path(path, made[module].file): made[module].content for path, module in found.items() if module in made
    }
    return assemble(execution.store, files) if files else EMPTY_TREE


def modules(store: Store, tree: Tree) -> Iterator[tuple[str, Module]]:
    """List the modules of a tree by path; a symlink to one within the tree is one too."""
    for path, found in entries(store, tree):
        name = posixpath.basename(path)
        if not name.endswith(".py") or name == ".py":
            continue
        node: Node | None = found
        if isinstance(node, Symlink):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), node.target))
            node = lookup(store, tree, target)
        if isinstance(node, File):
            yield path, Module(name, node.digest)


def bytecode_path(path: str, file: str) -> str:
    """Give the place of the bytecode file called `file` of the module at `path`."""
    return posixpath.join(posixpath.dirname(path), FOLDER, file)
