"""The null build of a stack: finding the snapshot that answers a command line.

It must not know how a snapshot is made (`remember`). Paths are strings here and nothing is imported that Python has
not loaded by itself, but for the engine's two lowest modules: `pathlib` or `typing` alone would cost more than all
the rest of a null build (design §6).
"""

from __future__ import annotations

import os
import sys
import time

from strata_engine.seal import seal
from strata_engine.snapshot import answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SPEC_NAMES = ("venvstacks.toml", "strata.toml")
"""The stack files that are found without being named."""

COMMANDS = frozenset(("build", "local-export", "publish"))

STATE_FOLDER = ".strata"
"""The workspace's, written here too because `workspace` costs too much to import; a test compares them."""

_VARIABLES = frozenset(
    (
        *("CI", "FORCE_COLOR", "GITHUB_ACTIONS", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "MACOSX_DEPLOYMENT_TARGET"),
        *("NETRC", "NO_COLOR", "PATH", "PYENV_ROOT", "PYTHONIOENCODING", "PYTHONPATH", "PYTHONUTF8", "TERM"),
        *("USERPROFILE", "XDG_CACHE_HOME", "XDG_DATA_HOME"),
    )
)
_PREFIXES = ("STRATA_", "UV_")
_SECRET = ("_USERNAME", "_PASSWORD", "_TOKEN", "_HEADER", "_SIGNING_KEY")


def file_name(request: bytes) -> str:
    """Name the file of a request's snapshot."""
    return seal(request).hex()


def request(argv: list[str], environ: Mapping[str, str]) -> bytes:
    """Give all that was asked: arguments, folder, interpreter, who reads, and the environment that can matter.

    It is kept, so it holds no login; none changes what a build that has nothing to do would say.
    """
    chosen = sorted(
        f"{name}={_public(value)}"
        for name, value in environ.items()
        if name in _VARIABLES or (name.startswith(_PREFIXES) and not name.endswith(_SECRET))
    )
    readers = "".join("t" if stream is not None and stream.isatty() else "-" for stream in (sys.stdout, sys.stderr))
    parts = [*map(_public, argv), "", os.getcwd(), sys.prefix, sys.version, readers, *chosen]
    return "\0".join(parts).encode("utf-8", "surrogateescape")


def _public(value: str) -> str:
    """Leave the logins out of the URLs in a value."""
    if "@" not in value:
        return value
    parts = []
    for part in value.split("://"):
        host, slash, path = part.partition("/")
        parts.append(host.rpartition("@")[2] + slash + path)
    return "://".join(parts)


def _root(argv: list[str]) -> str | None:
    """Guess the workspace without parsing the command line: a wrong guess finds no snapshot, nothing worse."""
    folder = os.getcwd()
    for number, option in enumerate(argv[:-1]):
        if option == "-C":
            folder = os.path.join(folder, argv[number + 1])
    for argument in argv:
        if argument.endswith(".toml"):
            return os.path.dirname(os.path.join(folder, argument))
        inner = os.path.join(folder, argument)
        if not argument.startswith("-") and _has_spec(inner):
            return inner
    while not _has_spec(folder):
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above
    return folder


def _has_spec(folder: str) -> bool:
    return any(os.path.isfile(f"{folder}/{name}") for name in SPEC_NAMES)


RUN, STARTED = "@run@", "@started@"
"""What stands for the name and the time of a build in the record that a snapshot keeps of it."""

_RECORDS = "runs.jsonl"
"""The engine's `run_record.FILE`, written here too as above."""

_MOST_RECORDS = 1 << 26
"""Bytes of records beyond which nothing is added here: full builds, which look at all of them, keep them few."""


def find_answer(argv: list[str]) -> tuple[str, str, str, str] | None:
    """Give what a build that has nothing to do prints to standard error and output, its record, and the workspace.

    None where it may have work.
    """
    root = _root(argv)
    if root is None:
        return None
    asked = request(argv, os.environ)
    try:
        with open(f"{root}/{STATE_FOLDER}/snapshots/{file_name(asked)}", "rb") as stream:
            data = stream.read()
    except OSError:
        return None
    found = answer(data, asked)
    if found is None:
        return None
    error, output, record = found.decode("utf-8", "replace").split("\0")
    return error, output, record, root


def note(record: str, root: str) -> None:
    """Add the record of this build to those of the workspace. Raises OSError."""
    now = time.gmtime()
    run = f"{time.strftime('%Y%m%dT%H%M%S', now)}-{os.urandom(3).hex()}"
    line = record.replace(RUN, run).replace(STARTED, time.strftime("%Y-%m-%dT%H:%M:%SZ", now)) + "\n"
    handle = os.open(f"{root}/{STATE_FOLDER}/{_RECORDS}", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.fstat(handle).st_size < _MOST_RECORDS:
            # One write: two builds at once do not get into each other's lines.
            os.write(handle, line.encode("utf-8", "replace"))
    finally:
        os.close(handle)
