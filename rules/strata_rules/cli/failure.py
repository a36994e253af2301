"""What a person is told when a command ends with an exception, and the exit code for it.

Knows nothing of commands. A StrataError says all by itself; a few errors of the operating system are nobody's defect;
all else is ours, so a traceback is kept in a file where a report can take it from, and not thrown at the user.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from strata_engine.console.terminal import Sink, show_diagnostics
from strata_engine.errors import ActionError, Diagnostic, HostError, InternalError, StrataError
from strata_engine.words import printable

HOST_ERRNOS = {
    errno.ENOSPC: "free some space; `strata cache gc --max-size 5GB` makes the store smaller",
    errno.EDQUOT: "free some space; `strata cache gc --max-size 5GB` makes the store smaller",
    errno.EROFS: "choose a store that can be written with `STRATA_CACHE_DIR`",
    errno.EACCES: "check who owns it and who may write there",
    errno.EPERM: "check who owns it and who may write there",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "raise the limit of open files (`ulimit -n`)",
    errno.EIO: "the disk reports a fault: check it",
}
"""What the machine may refuse at any time, and what can be done about it."""

CREDENTIALS = re.compile(r"(?<=://)[^/\s\"'@]+@")
OUTPUT_LINES = 20


def report(error: BaseException, argv: list[str], stream: TextIO | None, environ: Mapping[str, str]) -> int:
    """Tell what happened and give the exit code."""
    leaves = list(_leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        Sink(stream).lines(["interrupted"])
        return 130
    told = [leaf for leaf in leaves if isinstance(leaf, StrataError) and not isinstance(leaf, InternalError)]
    if told and len(told) == len(leaves):
        color = wanted_color(argv)
        for leaf in told:
            show_diagnostics(leaf.diagnostics, stream, color=color, environ=environ)
            if isinstance(leaf, ActionError):
                output = [line for line in map(printable, leaf.output.splitlines()) if line.strip()]
                Sink(stream).lines(f"  | {line}" for line in output[-OUTPUT_LINES:])
        return told[0].exit_code
    if all(isinstance(leaf, BrokenPipeError) for leaf in leaves):
        # Whoever read our output has gone: there is nobody to tell.
        return HostError.exit_code
    diagnostic = _of_host(leaves[0]) if len(leaves) == 1 else None
    if diagnostic is None:
        return _internal(error, argv, stream, environ)
    show_diagnostics([diagnostic], stream, color=wanted_color(argv), environ=environ)
    return HostError.exit_code


def wanted_color(argv: list[str]) -> str:
    """Find `--color` in a command line that may be wrong in every other way."""
    wish = "auto"
    for position, word in enumerate(argv):
        if word == "--":
            break
        if word.startswith("--color="):
            wish = word.partition("=")[2]
        elif word == "--color" and position + 1 < len(argv):
            wish = argv[position + 1]
    return wish if wish in ("always", "never") else "auto"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """List what a task group wrapped."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _of_host(error: BaseException) -> Diagnostic | None:
    """Say what the machine refused, where it was the machine."""
    if not isinstance(error, OSError) or error.errno not in HOST_ERRNOS:
        return None
    where = f" at `{error.filename}`" if error.filename else ""
    return Diagnostic("host-refused", f"{error.strerror}{where}", hint=HOST_ERRNOS[error.errno])


def _internal(error: BaseException, argv: list[str], stream: TextIO | None, environ: Mapping[str, str]) -> int:
    text = CREDENTIALS.sub("***@", "".join(traceback.format_exception(error)))
    summary = CREDENTIALS.sub("***@", f"{type(error).__name__}: {error}".partition("\n")[0])
    if environ.get("STRATA_TRACEBACK") == "1":
        Sink(stream).lines(text.splitlines())
        notes: tuple[str, ...] = ()
    else:
        kept = _keep(text)
        notes = (f"the details are in `{kept}`",) if kept else ("`STRATA_TRACEBACK=1` shows the details",)
    diagnostic = Diagnostic(
        "internal-error",
        f"internal error: {summary}",
        notes=notes,
        hint="this is a defect of strata: please report it, with these details",
    )
    show_diagnostics([diagnostic], stream, color=wanted_color(argv), environ=environ)
    return InternalError.exit_code


def _keep(text: str) -> str | None:
    """Write the traceback to the workspace's state folder, else to the temporary one; give the file's path."""
    folders: list[Path] = []
    try:
        here = Path.cwd()
        folders = [folder / ".strata" for folder in (here, *here.parents) if (folder / ".strata").is_dir()][:1]
    except OSError:
        pass
    for folder in (*folders, None):
        try:
            handle, name = tempfile.mkstemp(prefix="strata-internal-error-", suffix=".txt", dir=folder, text=True)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return name
    return None
