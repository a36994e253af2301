"""Writing the snapshot by which `null` answers the next identical command.

What was asked is taken down before anything is done, the program's own files among it: who changes them during a
build gets no answer from what the old ones did.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from strata_engine.digest import Stamp, stamp
from strata_engine.errors import Diagnostic, HostError
from strata_engine.snapshot import is_damaged, pack, prune
from strata_engine.workspace import Workspace, write_atomically
from strata_rules import null

_PACKAGES = ("strata_engine", "strata_rules")


class Asked(NamedTuple):
    """A command line as it was given, and the program that it was given to."""

    request: bytes
    program: Mapping[str, Stamp]


def ask(argv: list[str]) -> Asked | None:
    """Take down what is asked; None for a command that no snapshot answers."""
    if null.COMMANDS.isdisjoint(argv):
        return None
    try:
        program = {path: stamp(path) for path in program_files()}
        return Asked(null.request(argv, os.environ), program)
    except OSError:
        # A current folder that is gone, for example: the command has words for it.
        return None


def program_files() -> list[str]:
    """List what this program is made of: its modules, uv, and the folders where a package of another version shows."""
    # Here and not above: what only reads records comes through this module, and would pay for all that uv's needs.
    from strata_rules import uv  # noqa: PLC0415 - see the comment above

    files = []
    for name in _PACKAGES:
        for folder, _, found in os.walk(Path(str(sys.modules[name].__file__)).parent):
            files += [f"{folder}/{file}" for file in found if file.endswith(".py")]
    files += [path for path in sys.path if path.endswith("-packages")]
    with contextlib.suppress(HostError):
        files.append(uv.find())
    return files


def remember(
    workspace: Workspace,
    asked: Asked,
    observed: Mapping[str, Stamp],
    outputs: Mapping[str, Stamp],
    answer: tuple[str, str, str],
) -> Diagnostic | None:
    """Write the snapshot of a build that ended well; warn of a damaged one in its place. Raises OSError.

    `answer` is what the same command prints to standard error and output as long as all stamps hold, and its record. A
    second stack file in the folder would be an error, so both names are looked at.
    """
    specs = {name: stamp(name) for name in (str(workspace.root / name) for name in null.SPEC_NAMES)}
    stamps = {**specs, **observed, **outputs, **asked.program}
    folder = workspace.state / "snapshots"
    folder.mkdir(exist_ok=True)
    path = folder / null.file_name(asked.request)
    damaged = path.exists() and is_damaged(path.read_bytes())
    write_atomically(path, pack(asked.request, "\0".join(answer).encode(), stamps))
    prune(folder)
    return _damaged(workspace.relative(path)) if damaged else None


def _damaged(path: str) -> Diagnostic:
    return Diagnostic(
        "state-damaged",
        "what was remembered of the last build for the next one is damaged and was begun anew",
        notes=(f"file: {path}",),
        hint="nothing is lost: everything was looked at instead",
        severity="warning",
    )


def stamp_at_rest(paths: Iterable[Path]) -> dict[str, Stamp]:
    """Stamp what has just been written, when no change of it can hide in the clock's grain any more. Raises OSError."""
    time.sleep(0.021)
    return {str(path): stamp(path) for path in paths}
