"""The null build of a stack: finding the snapshot that answers a command line, and writing one after a good build.

Paths are strings here, because `pathlib` costs more than the rest of a null build. Reading imports the standard
library, xxhash and the engine's lowest modules only (design §6).
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from strata_engine.digest import Stamp, stamp
from strata_engine.snapshot import answer, pack, prune, request_name
from strata_engine.workspace import STATE_FOLDER, Workspace, write_atomically

SPEC_NAMES = ("venvstacks.toml", "strata.toml")
"""The stack files that are found without being named."""

COMMANDS = ("build", "publish")

_VARIABLES = ("CI", "GITHUB_ACTIONS", "HOME", "MACOSX_DEPLOYMENT_TARGET", "NETRC", "PATH", "XDG_CACHE_HOME")
_PREFIXES = ("STRATA_", "UV_")

_CODE = ("strata_engine", "strata_rules")


def request(argv: list[str]) -> bytes:
    """Give all that was asked: arguments, current folder, and the environment that can matter."""
    chosen = sorted(
        f"{name}={value}" for name, value in os.environ.items() if name in _VARIABLES or name.startswith(_PREFIXES)
    )
    return "\0".join([*argv, "", os.getcwd(), "", *chosen]).encode("utf-8", "surrogateescape")


def _root(argv: list[str]) -> str | None:
    """Guess the workspace without parsing the command line: a wrong guess finds no snapshot, nothing worse."""
    folder = os.getcwd()
    for option, value in itertools.pairwise(argv):
        if option == "-C":
            folder = os.path.join(folder, value)
    for argument in argv:
        if argument.endswith(".toml"):
            return os.path.dirname(os.path.join(folder, argument))
        inner = os.path.join(folder, argument)
        if not argument.startswith("-") and any(os.path.isfile(os.path.join(inner, name)) for name in SPEC_NAMES):
            return inner
    while True:
        if any(os.path.isfile(os.path.join(folder, name)) for name in SPEC_NAMES):
            return folder
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def find_answer(argv: list[str]) -> tuple[str, str] | None:
    """Give what a build that has nothing to do prints to standard error and output; None where it may have work."""
    root = _root(argv)
    if root is None:
        return None
    path = os.path.join(root, STATE_FOLDER, "snapshots", request_name(argv, os.getcwd()))
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError:
        return None
    found = answer(data, request(argv))
    if found is None:
        return None
    error, _, output = found.decode("utf-8", "replace").partition("\0")
    return error, output


def code_files() -> list[str]:
    """List the files of this program: a change of any is a change of everything."""
    files = []
    for name in _CODE:
        package = sys.modules[name].__file__ if name in sys.modules else None
        if package is not None:
            files += [str(path) for path in Path(package).parent.rglob("*.py")]
    return files


def remember(
    workspace: Workspace,
    argv: list[str],
    observed: Mapping[str, Stamp],
    outputs: Iterable[Path],
    error: str,
    output: str,
) -> None:
    """Write the snapshot of a build that ended well.

    `observed` are the stamps of all that was read, which still hold; `outputs` are stamped now, when no change of
    them can hide in the clock's grain any more. Raises OSError.
    """
    time.sleep(0.021)
    stamps = dict(observed)
    for path in [*map(str, outputs), *code_files()]:
        stamps[path] = stamp(path)
    folder = workspace.state / "snapshots"
    folder.mkdir(exist_ok=True)
    text = f"{error}\0{output}".encode()
    write_atomically(folder / request_name(argv, os.getcwd()), pack(request(argv), text, stamps))
    prune(folder)
