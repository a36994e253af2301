"""What the far end can take: colour, redrawing, an encoding, or nothing at all because nobody reads any more.

Decides from plain values (the wish, the environment, whether it is a terminal), so that every rule is testable without
a terminal. A build must never fail because its messages cannot be shown: `Sink` swallows what a stream throws.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple, TextIO

from strata_engine.console import github as actions
from strata_engine.errors import Diagnostic, render
from strata_engine.words import printable

ASCII = str.maketrans({"→": "->", "…": "...", "·": "|", "├": "|", "└": "`", "─": "-", "│": "|", "←": "<-", "✓": "ok"})
"""What is written where the encoding lacks the character."""

CODES = {"good": "32", "bad": "1;31", "warn": "33", "hint": "36", "faint": "2", "bold": "1", "place": "34"}

UNABLE = ("dumb", "unknown")
"""What `TERM` says of terminals that know no escape sequences."""


class Kind(StrEnum):
    """How a build is shown."""

    LIVE = "live"
    PLAIN = "plain"
    NONE = "none"
    """Nothing but failures."""


class Paint(NamedTuple):
    """Colours, or their absence. Everything must read as well without."""

    on: bool = False

    def __call__(self, text: str, style: str) -> str:
        """Give `text` in a style: `good`, `bad`, `warn`, `hint`, `faint`, `bold`, `place`."""
        return f"\x1b[{CODES[style]}m{text}\x1b[0m" if self.on and text else text

    def diagnostic(self, diagnostic: Diagnostic) -> list[str]:
        """Give the lines of a rendered diagnostic, coloured."""
        lines = render(diagnostic).splitlines()
        if not self.on:
            return lines
        head, colon, message = lines[0].partition(": ")
        painted = [self(head, "bad" if diagnostic.severity == "error" else "warn") + colon + self(message, "bold")]
        for line in lines[1:]:
            mark, rest = line[: len(line) - len(line.lstrip())], line.lstrip()
            if rest.startswith("--> "):
                painted.append(f"{mark}{self(rest, 'place')}")
            elif rest.startswith("hint: "):
                painted.append(f"{mark}{self('hint', 'hint')}{rest[4:]}")
            elif rest.startswith("| ") and not rest.strip("|^ "):
                painted.append(f"{mark}|{self(rest[1:], 'bad')}")
            else:
                painted.append(line)
        return painted


PLAIN = Paint()


def _set(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() not in ("", "0", "false")


def wants_color(wish: str, environ: Mapping[str, str], *, tty: bool) -> bool:
    """Decide on colour: the option, else NO_COLOR, else FORCE_COLOR, else whether a capable terminal reads."""
    if wish != "auto":
        return wish == "always"
    if environ.get("NO_COLOR"):
        return False
    if _set(environ, "FORCE_COLOR"):
        return True
    return tty and environ.get("TERM") not in UNABLE


def console_kind(wish: str, environ: Mapping[str, str], *, tty: bool, unicode: bool = True) -> Kind:
    """Decide how to show a build: `auto` redraws only where a person watches a terminal that can."""
    if wish != "auto":
        return Kind(wish)
    able = tty and unicode and environ.get("TERM") not in UNABLE
    return Kind.LIVE if able and not _set(environ, "CI") else Kind.PLAIN


def speaks_unicode(stream: TextIO | None) -> bool:
    """Tell whether a stream takes any text."""
    try:
        return codecs.lookup(getattr(stream, "encoding", None) or "ascii").name.startswith("utf")
    except LookupError:
        return False


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person may be reading; a closed stream is none."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


class Sink:
    """A stream that never throws: unknown characters are replaced, and after the first error all is dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.encoding: str = getattr(stream, "encoding", None) or "ascii"
        self.dead = stream is None

    def write(self, text: str) -> int:
        """Write `text` as well as the stream can."""
        if self.dead or self.stream is None:
            return len(text)
        try:
            try:
                self.stream.write(text)
            except UnicodeEncodeError:
                spelt = text.translate(ASCII).encode(self.encoding, "backslashreplace").decode(self.encoding)
                self.stream.write(spelt)
        except (OSError, ValueError, LookupError):
            self.dead = True
        return len(text)

    def flush(self) -> None:
        """Hand over what was written."""
        if self.dead or self.stream is None:
            return
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self.dead = True

    def isatty(self) -> bool:
        """Tell whether the stream is a terminal."""
        return is_terminal(self.stream)

    def fileno(self) -> int:
        """Give the stream's descriptor. Raises OSError."""
        if self.stream is None:
            raise OSError("no stream")
        return self.stream.fileno()

    def lines(self, lines: Iterable[str]) -> None:
        """Write whole lines at once, so that other processes' lines do not come between."""
        text = "".join(f"{line}\n" for line in lines)
        if text:
            self.write(text)
            self.flush()


def harmless(diagnostic: Diagnostic) -> Diagnostic:
    """Give the diagnostic without what could steer a terminal: its words may come from a wheel or an index."""
    place = diagnostic.place
    if place is not None and place.text is not None:
        # One character for one: the carets must stay under what they point at.
        place = place._replace(text="".join(c if c.isprintable() else " " for c in place.text))
    if place is not None:
        place = place._replace(file=printable(place.file))
    return diagnostic._replace(
        message=printable(diagnostic.message),
        place=place,
        notes=tuple(printable(note) for note in diagnostic.notes),
        hint=printable(diagnostic.hint) if diagnostic.hint else None,
    )


def diagnostic_lines(diagnostic: Diagnostic, paint: Paint, *, github: bool) -> list[str]:
    """Give a diagnostic's lines, followed by its annotation where GitHub Actions reads."""
    clean = harmless(diagnostic)
    lines = paint.diagnostic(clean)
    return [*map(actions.defused, lines), actions.annotation(clean)] if github else lines


def show_diagnostics(
    diagnostics: Iterable[Diagnostic], stream: TextIO | None, *, color: str, environ: Mapping[str, str]
) -> None:
    """Write diagnostics in full."""
    paint = Paint(wants_color(color, environ, tty=is_terminal(stream)))
    github = actions.reads(environ)
    Sink(stream).lines(
        line for diagnostic in diagnostics for line in diagnostic_lines(diagnostic, paint, github=github)
    )
