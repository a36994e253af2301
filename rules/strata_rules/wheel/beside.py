"""What lies beside a layer's interpreter: which names there are the interpreter's, and what of a wheel lands there.

It knows no layer: it is given folders and names. The hard part is that a wheel need not call a program a script to have
it among the scripts: `data` is the layer's own folder, so `data/bin/tool` is `bin/tool` where scripts go to `bin`, and
so is `data/Bin/tool` where case does not count.
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from strata_engine.errors import Diagnostic, SpecError
from strata_engine.tree import File, Store, Tree, edit, listing

_INTERPRETER = re.compile(r"(python|pythonw|pypy|pypyw)(3(\.\d+t?)?)?(\.exe)?|python_", re.ASCII)
"""What interpreters and the links to them are called."""


class Divided(NamedTuple):
    """What a wheel puts into the layer's own folder, by whether it lands among the scripts."""

    programs: tuple[Tree, ...]
    """What goes into the folder of the scripts: several where case does not count and the wheel spells it twice."""
    rest: Tree


def is_interpreter(name: str, *, ignores_case: bool) -> bool:
    """Tell whether what has this name beside a layer's interpreter is one, or a link to it."""
    return _INTERPRETER.fullmatch(name.casefold() if ignores_case else name) is not None


def lands_among(name: str, scripts: str, *, ignores_case: bool) -> bool:
    """Tell whether a name in the layer's own folder is that of the scripts' folder there."""
    return name == scripts or (ignores_case and name.casefold() == scripts.casefold())


def divide(store: Store, data: Tree, scripts: str, *, ignores_case: bool) -> Divided:
    """Take what lands in the folder `scripts` out of what a wheel puts into the layer's own folder.

    A file of that name is left out: the layer has a folder there.
    """
    found = {name: node for name, node in listing(store, data) if lands_among(name, scripts, ignores_case=ignores_case)}
    rest = edit(store, data, dict.fromkeys(found)) if found else data
    return Divided(tuple(node for node in found.values() if isinstance(node, Tree)), rest)


def refuse_interpreters(
    store: Store, distribution: str, divided: Divided, scripts: str, interpreter: str, *, ignores_case: bool
) -> None:
    """Refuse what would replace the layer's interpreter or a link to it. Raises SpecError: `reserved-script`."""
    wrong = [
        f"{scripts}/{name}"
        for programs in divided.programs
        for name, _ in listing(store, programs)
        if is_interpreter(name, ignores_case=ignores_case)
    ]
    # A runtime for Windows has its interpreter at its root.
    if not posixpath.dirname(interpreter):
        wrong += [
            name
            for name, node in listing(store, divided.rest)
            if isinstance(node, File) and is_interpreter(name, ignores_case=ignores_case)
        ]
    if wrong:
        raise SpecError(*(_refused(distribution, path, among_scripts="/" in path) for path in wrong))


def _refused(distribution: str, path: str, *, among_scripts: bool) -> Diagnostic:
    cure = "turn `entry_points` off for this layer" if among_scripts else "leave it out of the runtime layer"
    return Diagnostic(
        "reserved-script",
        f"`{distribution}` installs `{path}`, which is the layer's interpreter",
        hint=f"{cure}, or require another version of it",
    )
