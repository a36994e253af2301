"""The scripts of a wheel, written so that they work wherever their layer is unpacked.

It knows no layer: it is given the interpreter's path relative to the scripts' own folder. On POSIX what is written
equals what uv writes into a relocatable virtual environment: a shell line that starts the interpreter beside the
script, hidden from Python in a string. On Windows scripts become programs, as with pip.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from strata_engine.errors import Diagnostic, SpecError
from strata_engine.tree import File, Node, Store, Tree, entries
from strata_rules.contents import EntryPoint, WheelContents
from strata_rules.wheel import launchers
from strata_rules.wheel.beside import is_interpreter

_PLACEHOLDER = b"#!python"
"""How a script that is shipped ready-made asks for the interpreter of the place that it is installed to."""


def script_files(
    store: Store,
    contents: WheelContents,
    own: Tree,
    interpreter: str,
    *,
    windows: str = "",
    ignores_case: bool = False,
) -> Mapping[str, Node]:
    """Make the scripts that a wheel ships in `own` and those of its entry points, by name.

    `windows` names the platform where that is one. Raises SpecError (`reserved-script`) for the name of an interpreter.
    """
    start = _shebang(interpreter)
    points = {point.name: point for point in contents.entry_points}

    def script(code: bytes, *, gui: bool = False) -> File:
        if not windows:
            return File(store.put(start + b"\n" + code), executable=True)
        starts = posixpath.join(posixpath.dirname(interpreter), "pythonw.exe") if gui else interpreter
        return File(store.put(launchers.program(windows, starts, code, gui=gui)), executable=True)

    made: dict[str, Node] = {}
    for name, node in entries(store, own):
        assert isinstance(node, File)
        # As pip and uv: what a wheel ships to call its own entry point is made anew instead.
        stem = next((name.removesuffix(end) for end in (".exe", "-script.py", ".pya") if name.endswith(end)), name)
        if stem in points:
            continue
        with store.open(node.digest) as stream:
            placeholder = stream.read(len(_PLACEHOLDER)) == _PLACEHOLDER
        if not placeholder:
            made[name] = File(node.digest, executable=True)
            continue
        # As uv: arguments of the placeholder go with it.
        line, _, rest = store.get(node.digest).partition(b"\n")
        made[_program(name) if windows else name] = script(rest, gui=line.startswith(_PLACEHOLDER + b"w"))
    for name, point in points.items():
        made[f"{name}.exe" if windows else name] = script(_call(point), gui=point.gui)
    if reserved := [name for name in made if is_interpreter(name, ignores_case=ignores_case)]:
        raise SpecError(*(_refused(contents.name, name) for name in reserved))
    return made


def _program(name: str) -> str:
    """Name the program that stands for a script, as pip does."""
    stem, end = posixpath.splitext(name)
    return f"{stem if end.startswith('.py') else name}.exe"


def _shebang(interpreter: str) -> bytes:
    quoted = interpreter.replace("'", "'\"'\"'")
    return f"""#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")"/'{quoted}' "$0" "$@"
' '''""".encode()


def _call(point: EntryPoint) -> bytes:
    return f"""# -*- coding: utf-8 -*-
import sys
from {point.module} import {point.attr.partition(".")[0]}
if __name__ == "__main__":
    if sys.argv[0].endswith("-script.pyw"):
        sys.argv[0] = sys.argv[0][:-11]
    elif sys.argv[0].endswith(".exe"):
        sys.argv[0] = sys.argv[0][:-4]
    sys.exit({point.attr}())
""".encode()


def _refused(distribution: str, name: str) -> Diagnostic:
    return Diagnostic(
        "reserved-script",
        f"`{distribution}` installs a script called `{name}`, which is the layer's interpreter",
        hint="turn `entry_points` off for this layer, or require another version of it",
    )
