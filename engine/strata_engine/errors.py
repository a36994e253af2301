"""What can go wrong, and how it is said.

Errors carry `Diagnostic` values; renderers turn those into text. Who is to act decides the class, the class decides
the exit code (design §8)::

    StrataError
    ├── SpecError       2   the user's spec, lock or command line
    ├── HostError       3   network, disk, a missing tool
    ├── ActionError     1   one action failed (the scheduler turns it into an outcome)
    └── InternalError  70   a defect of this program

Only the standard library is imported here: the null build goes through this module.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import NamedTuple, Self


class Place(NamedTuple):
    """Where in a text file something stands."""

    file: str
    """The path as the user would type it, relative to the current folder where that is shorter."""
    line: int
    """1-based; 0 when only the file is known."""
    column: int = 1
    """1-based, in characters."""
    length: int = 1
    """How many characters the caret line underlines."""
    text: str | None = None
    """The source line, without its line end."""


class Diagnostic(NamedTuple):
    """One thing to tell the user: what, where, what was expected, what to do."""

    id: str
    """Stable kebab-case name, such as `unknown-field`."""
    message: str
    place: Place | None = None
    notes: tuple[str, ...] = ()
    hint: str | None = None
    severity: str = "error"
    """`error` or `warning`."""


class StrataError(Exception):
    """Base of every error that is shown without a traceback."""

    exit_code = 70

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("; ".join(d.message for d in diagnostics))
        self.diagnostics: tuple[Diagnostic, ...] = diagnostics

    @classmethod
    def of(
        cls, id: str, message: str, place: Place | None = None, *, notes: Iterable[str] = (), hint: str | None = None
    ) -> Self:
        """Make an error of this class that carries one diagnostic."""
        return cls(Diagnostic(id, message, place, tuple(notes), hint))


class SpecError(StrataError):
    """The spec, a lock or the command line is wrong: the user can mend it."""

    exit_code = 2


class HostError(StrataError):
    """The network, the disk or another program failed."""

    exit_code = 3


class ActionError(StrataError):
    """An action failed; `output` is what its subprocess printed, if there was one."""

    exit_code = 1

    def __init__(self, *diagnostics: Diagnostic, output: str = "") -> None:
        super().__init__(*diagnostics)
        self.output = output


class InternalError(StrataError):
    """A defect of this program; the message asks for a report."""


def host_error(error: OSError, what: str = "") -> HostError:
    """Say what the operating system refused: a full disk, a read-only file system, a missing permission."""
    place = what or str(error.filename or "a file")
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            hint = "free some space; `strata cache gc --max-size 5GB` makes the store smaller"
            return HostError.of("disk-full", f"no space is left for `{place}`", hint=hint)
        case errno.EROFS | errno.EACCES | errno.EPERM:
            hint = "check who owns it and who may write there"
            return HostError.of("not-writable", f"cannot write `{place}`: {error.strerror}", hint=hint)
        case errno.EEXIST | errno.ENOTDIR | errno.EISDIR:
            hint = "a file stands where a folder is needed, or a folder where a file is"
            return HostError.of("host-error", f"cannot use `{place}`: {error.strerror}", hint=hint)
        case _:
            return HostError.of("host-error", f"cannot use `{place}`: {error.strerror or error}")


def render(diagnostic: Diagnostic) -> str:
    """Give the full text form: message, place, source line with carets, notes, hint.

    >>> print(render(Diagnostic("bad", "no `x`", Place("a.toml", 3, 5, 2, "q = xy"), hint="use `y`")))
    error[bad]: no `x`
      --> a.toml:3:5
       |
     3 | q = xy
       |     ^^
    hint: use `y`
    """
    lines = [f"{diagnostic.severity}[{diagnostic.id}]: {diagnostic.message}"]
    place = diagnostic.place
    if place is not None:
        position = f":{place.line}:{place.column}" if place.line else ""
        number = str(place.line)
        gutter = " " * (len(number) + 1)
        lines.append(f"{gutter}--> {place.file}{position}")
        if place.text is not None:
            # A tab in the source line would shift the carets away from what they point at.
            caret = " " * (place.column - 1) + "^" * max(1, place.length)
            lines += [f"{gutter} |", f" {number} | {place.text.replace(chr(9), ' ')}", f"{gutter} | {caret}"]
    lines += [f"note: {note}" for note in diagnostic.notes]
    if diagnostic.hint:
        lines.append(f"hint: {diagnostic.hint}")
    return "\n".join(lines)
