"""A TOML file whose every table, key and value knows its line and column.

It must not know what the file means. `tomllib` alone judges syntax and gives the values; it gives no positions, and
tomlkit gives none either, so a scanner walks the same text again, only ever text that `tomllib` has accepted. That
lets it be simple: it finds where things begin and end, and never has to say what is wrong.
"""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

from strata_engine.errors import Diagnostic, Place, SpecError

Path: TypeAlias = tuple[str | int, ...]
"""Keys and array indexes from the top of the document."""

_SECRET = re.compile(r"(?<=://)(?![\w-]+(?:\.[\w-]+)+(?::\d+)?/)[^\"']*(?=@)")
"""The user information of a URL, even of one that is not written as it must be: masked in every line that is shown."""


class Span(NamedTuple):
    """A piece of the text, by offsets."""

    start: int
    end: int


class Spans(NamedTuple):
    """Where one path's key and value stand; for a table with a header of its own both are in the header."""

    key: Span
    value: Span


class Document:
    """The values of a TOML file, and where they stand."""

    def __init__(self, text: str, file: str, values: dict[str, Any]) -> None:
        self.text = text
        self.file = file
        """The file's name as messages give it."""
        self.values = values

    @cached_property
    def spans(self) -> dict[Path, Spans]:
        """Every path of the document. Scanned on first use: a file without problems is never scanned."""
        return _Scanner(self.text).scan()

    def place(self, path: Path, *, of: Literal["value", "key"] = "value") -> Place:
        """Locate a value or a key; what is not there is located at the nearest table or array round it."""
        while path and path not in self.spans:
            path = path[:-1]
        if not path:
            return Place(self.file, 0)
        spans = self.spans[path]
        return place_of(self.text, self.file, spans.value if of == "value" else spans.key)

    def has(self, path: Path) -> bool:
        """Tell whether the document has something at `path`."""
        return path in self.spans


def parse_toml(text: str, file: str) -> Document:
    """Parse `text`; `file` is its name for messages. Raises SpecError `toml-syntax` with its place."""
    try:
        return Document(text, file, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(text, file, str(error)) from error
    except RecursionError as error:
        said = "this is not TOML that can be read: it is nested too deeply"
        raise SpecError.of("toml-syntax", said, Place(file, 0)) from error
    except ValueError as error:
        # Python reads no integer of more than some thousand digits.
        said = "this is not TOML that can be read: an integer is too large"
        raise SpecError.of("toml-syntax", said, _long_number(text, file)) from error


def decode_toml(data: bytes, file: str) -> Document:
    """Parse the bytes of a TOML file. Raises SpecError `toml-syntax`."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = len(data[data.rfind(b"\n", 0, error.start) + 1 : error.start].decode("utf-8")) + 1
        said, place = "this is not TOML: it is not UTF-8", Place(file, line, column)
        raise SpecError.of("toml-syntax", said, place, hint="save the file with the encoding UTF-8") from error
    if text.startswith("\ufeff"):
        said, hint = "this is not TOML: it begins with a byte order mark", "save the file as UTF-8 without one"
        raise SpecError.of("toml-syntax", said, Place(file, 1), hint=hint)
    return parse_toml(text, file)


def _syntax_error(text: str, file: str, message: str) -> SpecError:
    """Say what `tomllib` has against a text, in words for who has never read TOML's grammar."""
    found = re.search(r" \((?:at line (\d+), column (\d+)|at end of document)\)$", message)
    said = message[: found.start()] if found else message
    said, hint = f"{said[:1].lower()}{said[1:]}", None
    if found is None:
        place = Place(file, 0)
    elif found[1]:
        place = _point(text, file, int(found[1]), int(found[2]))
        if said.startswith("cannot overwrite") or (said.startswith("cannot declare") and "twice" in said):
            # Reported at the statement's end: the whole line is meant.
            said, place = "this name is defined twice", _line(text, file, place.line)
            hint = "remove one of the two, or write `[[…]]` for one more table of an array"
        elif said == "illegal character '\\n'":
            said, hint = "the string does not end on its line", 'close it with `"`; `"""` is for text of several lines'
        elif said.startswith("invalid value"):
            hint = "strings are in quotes"
    else:
        stripped = text.rstrip()
        place = place_of(text, file, Span(max(0, len(stripped) - 1), max(1, len(stripped))))
        said, hint = "it ends in the middle of a value", "write the rest of it, or close its bracket or quote"
    return SpecError(Diagnostic("toml-syntax", f"this is not TOML: {said}", place, hint=hint))


def _line(text: str, file: str, number: int) -> Place:
    """Locate a whole line, without what only indents it."""
    line = text.split("\n")[number - 1]
    column = len(line) - len(line.lstrip()) + 1
    return _point(text, file, number, column)._replace(length=max(1, len(line.strip())))


def _long_number(text: str, file: str) -> Place:
    found = re.search(r"[0-9_]{4000,}", text)
    return place_of(text, file, Span(*found.span()))._replace(length=1, text=None) if found else Place(file, 0)


def place_of(text: str, file: str, span: Span) -> Place:
    """Turn offsets into a place; the carets stop at the line's end."""
    first = text.rfind("\n", 0, span.start) + 1
    last = text.find("\n", span.start)
    line = text[first : last if last >= 0 else len(text)].removesuffix("\r")
    column = span.start - first + 1
    length = max(1, min(span.end - span.start, len(line) - column + 1))
    shown = _SECRET.sub(lambda match: "*" * len(match[0]), line)
    return Place(file, text.count("\n", 0, span.start) + 1, column, length, shown)


def _point(text: str, file: str, line: int, column: int) -> Place:
    lines = text.split("\n")
    start = sum(len(before) + 1 for before in lines[: line - 1]) + column - 1
    return place_of(text, file, Span(min(start, len(text)), start + 1))


class _Scanner:
    """One walk over accepted TOML, collecting spans."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.spans: dict[Path, Spans] = {}
        self.lengths: dict[Path, int] = {}
        """Arrays of tables met so far, and how many tables each has."""

    def scan(self) -> dict[Path, Spans]:
        table: Path = ()
        while self._blank("\n"):
            if self.text.startswith("[", self.at):
                table = self._header()
            else:
                self._pair(table)
        return self.spans

    def _blank(self, also: str = "") -> bool:
        """Skip white space and comments; False at the end of the text."""
        text, end = self.text, len(self.text)
        while self.at < end:
            if text[self.at] in " \t\r" or text[self.at] in also:
                self.at += 1
            elif text[self.at] == "#":
                stop = text.find("\n", self.at)
                self.at = stop if stop >= 0 else end
            else:
                return True
        return False

    def _header(self) -> Path:
        """Take `[a.b]` or `[[a.b]]`; keys go through the last table of an array of tables."""
        start = self.at
        several = self.text.startswith("[[", start)
        self.at += 2 if several else 1
        keys = self._keys()
        self._blank()
        self.at += 2 if several else 1
        whole = Span(start, self.at)
        path: Path = ()
        for number, (name, span) in enumerate(keys):
            path = (*path, name)
            is_last = number == len(keys) - 1
            if is_last and several:
                index = self.lengths.get(path, 0)
                self.lengths[path] = index + 1
                self.spans.setdefault(path, Spans(whole, whole))
                path = (*path, index)
                self.spans[path] = Spans(whole, whole)
            elif is_last:
                self.spans[path] = Spans(whole, whole)
            else:
                self.spans.setdefault(path, Spans(span, span))
                if path in self.lengths:
                    path = (*path, self.lengths[path] - 1)
        return path

    def _pair(self, table: Path) -> None:
        """Take `a.b = value`."""
        keys = self._keys()
        self._blank()
        self.at += 1
        path = table
        for name, span in keys[:-1]:
            path = (*path, name)
            self.spans.setdefault(path, Spans(span, span))
        name, span = keys[-1]
        path = (*path, name)
        self.spans[path] = Spans(span, self._value(path))

    def _keys(self) -> list[tuple[str, Span]]:
        """Take a dotted key."""
        keys = []
        while self._blank():
            start = self.at
            if self.text[start] in "\"'":
                self._string()
                name = tomllib.loads(f"k = {self.text[start : self.at]}")["k"]
            else:
                while self.text[self.at] not in " \t.=]":
                    self.at += 1
                name = self.text[start : self.at]
            keys.append((name, Span(start, self.at)))
            self._blank()
            if not self.text.startswith(".", self.at):
                break
            self.at += 1
        return keys

    def _value(self, path: Path) -> Span:
        self._blank("\n")
        start = self.at
        first = self.text[start]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            stop = re.compile(r"[,\]}#\n]").search(self.text, start)
            self.at = start + len(self.text[start : stop.start() if stop else len(self.text)].rstrip())
        return Span(start, self.at)

    def _string(self) -> None:
        quote = self.text[self.at]
        triple = quote * 3
        if not self.text.startswith(triple, self.at):
            self._until(quote, self.at + 1)
            return
        self._until(triple, self.at + 3)
        # Up to two quotes may stand before the closing three.
        for _ in range(2):
            if self.text.startswith(quote, self.at):
                self.at += 1

    def _until(self, closing: str, start: int) -> None:
        """Go past `closing`, over escapes where the string has them."""
        self.at = start
        while not self.text.startswith(closing, self.at):
            self.at += 2 if closing[0] == '"' and self.text[self.at] == "\\" else 1
        self.at += len(closing)

    def _array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while self._blank("\n,") and self.text[self.at] != "]":
            element = (*path, index)
            span = self._value(element)
            self.spans[element] = Spans(span, span)
            index += 1
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while self._blank("\n,") and self.text[self.at] != "}":
            self._pair(path)
        self.at += 1
