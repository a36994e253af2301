"""Tables of a TOML file into structs, with every problem at its place.

It must not know any particular table. msgspec's own conversion stops at the first problem and cannot say which element
of a mapping it means, so the few types that a stack file uses are checked here, and structs are made from what is good:
one wrong field hides no other problem of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Generic, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from strata_engine.errors import Diagnostic, Place, SpecError
from strata_rules.spec.near import did_you_mean, near
from strata_rules.spec.source import Document, Path

T = TypeVar("T", bound=msgspec.Struct)


class Problems:
    """What is wrong with a file, collected while reading it."""

    def __init__(self) -> None:
        self.errors: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []

    def error(
        self, id: str, message: str, place: Place | None = None, *, notes: Iterable[str] = (), hint: str | None = None
    ) -> None:
        """Note something that must be mended."""
        self.errors.append(Diagnostic(id, message, place, tuple(notes), hint))

    def warn(self, id: str, message: str, place: Place | None = None, *, hint: str | None = None) -> None:
        """Note something that works, but should be looked at."""
        self.warnings.append(Diagnostic(id, message, place, hint=hint, severity="warning"))

    def stop(self) -> None:
        """Raise SpecError with all errors in the order of the text, if there are any."""
        if self.errors:
            raise SpecError(*_in_order(self.errors))

    def in_order(self) -> tuple[Diagnostic, ...]:
        """List the warnings in the order of the text."""
        return tuple(_in_order(self.warnings))


def _in_order(diagnostics: list[Diagnostic]) -> list[Diagnostic]:
    return sorted(diagnostics, key=lambda each: (each.place.line, each.place.column) if each.place else (0, 0))


class Table(NamedTuple):
    """A table of a document: where it stands, what messages call it, what it holds."""

    document: Document
    at: Path
    who: str
    values: Mapping[str, Any]

    def place(self, *path: str | int, of: Literal["value", "key"] = "value") -> Place:
        """Locate something in the table, or the table itself."""
        return self.document.place((*self.at, *path), of=of)

    def inner(self, name: str, who: str) -> Table:
        """Give a table in this table."""
        return Table(self.document, (*self.at, name), who, self.values[name])


class Decoded(NamedTuple, Generic[T]):
    """A struct, and the fields of it that stand in for something wrong or missing."""

    value: T
    bad: frozenset[str]


def decode(
    kind: type[T], table: Table, problems: Problems, *, elsewhere: Mapping[str, str] | None = None
) -> Decoded[T]:
    """Read a table into a struct.

    `elsewhere` says of field names of other kinds of tables where they belong.
    """
    hints = get_type_hints(kind)
    who = table.who
    good: dict[str, Any] = {}
    bad: set[str] = set()
    meant: set[str | None] = set()
    for name, value in table.values.items():
        if name not in hints:
            meant.add(near(name, hints))
            hint = (elsewhere or {}).get(name) or did_you_mean(name, hints) or f"{who} may have {_listed(hints)}"
            problems.error("unknown-field", f"{who} has no field `{name}`", table.place(name, of="key"), hint=hint)
        elif misfit := _misfit(value, hints[name]):
            bad.add(name)
            problems.error(
                misfit.id,
                f"`{name}` of {who} must be {misfit.expected}, {misfit.said}",
                table.place(name, *misfit.where),
                hint=misfit.hint,
            )
        else:
            good[name] = _build(hints[name], name, table, problems)
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in good:
            # A misspelt field has been reported already, and is not missing as well.
            if field.name not in bad | meant:
                message = f"{who} has no `{field.name}`"
                problems.error("missing-field", message, table.place(of="key"), hint=_example(field.name))
            bad.add(field.name)
            good[field.name] = "" if hints[field.name] is str else ()
    return Decoded(kind(**good), frozenset(bad))


def _build(hint: Any, name: str, table: Table, problems: Problems) -> Any:
    """Turn a value that fits into what the struct holds."""
    value = table.values[name]
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, dict):
        return value
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return decode(hint, table.inner(name, f"`{name}`"), problems).value
    element = get_args(hint)[-1]
    if isinstance(element, type) and issubclass(element, msgspec.Struct):
        outer = table.inner(name, f"`{name}`")
        return {key: decode(element, outer.inner(key, f"`{name}.{key}`"), problems).value for key in value}
    return dict(value)


class _Misfit(NamedTuple):
    """A value that is not of the type: where inside the field, what it is, what the field must be."""

    where: Path
    got: str
    expected: str
    hint: str | None = None
    id: str = "wrong-type"

    @property
    def said(self) -> str:
        element = ", ".join(f"element {each + 1}" if isinstance(each, int) else f"`{each}`" for each in self.where)
        return f"but {element} is {self.got}" if self.where else f"not {self.got}"


def _misfit(value: Any, hint: Any) -> _Misfit | None:
    """Find where a value is not of the type, or None."""
    origin, args = get_origin(hint), get_args(hint)
    wrong = _Misfit((), kind_of(value), _words(hint))
    if origin in (Union, UnionType):
        found = [_misfit(value, each) for each in args if each is not NoneType]
        # Of several types the one is meant that the value is of in part, or whose word it nearly is.
        meant = [each for each in found if each is not None and (each.where or each.id != wrong.id)]
        return None if None in found else (meant or [wrong])[0]
    if origin is Literal and isinstance(value, str):
        advice = did_you_mean(value, args)
        return None if value in args else _Misfit((), f"`{value}`", _words(hint), advice, "bad-value")
    if origin is tuple:
        if isinstance(value, list):
            return _first(enumerate(value), args[0], wrong)
        return wrong._replace(hint="put it in brackets: `[…]`" if isinstance(value, str) else None)
    if origin in (dict, Mapping):
        return _first(value.items(), args[1], wrong) if isinstance(value, dict) else wrong
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return None if isinstance(value, dict) else wrong
    return None if type(value) is hint else wrong


def _first(items: Iterable[tuple[str | int, Any]], hint: Any, whole: _Misfit) -> _Misfit | None:
    for name, each in items:
        if (found := _misfit(each, hint)) is not None:
            return found._replace(where=(name, *found.where), expected=whole.expected)
    return None


_WORDS: dict[Any, tuple[str, str]] = {
    str: ("a string", "strings"),
    bool: ("`true` or `false`", "booleans"),
    int: ("an integer", "integers"),
}


def _words(hint: Any, *, plural: bool = False) -> str:
    """Say a type for a person."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(each, plural=plural) for each in args if each is not NoneType)
    if origin is Literal:
        return " or ".join(filter(None, [_listed(args[:-1]), f"`{args[-1]}`"]))
    if origin is tuple:
        return f"an array of {_words(args[0], plural=True)}"
    if origin in (dict, Mapping):
        return f"a table of {_words(args[1], plural=True)}"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "tables" if plural else "a table"
    return _WORDS[hint][plural]


def kind_of(value: Any) -> str:
    """Say what kind of TOML value this is."""
    match value:
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a float"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


_EXAMPLES = {
    "name": 'name = "…"',
    "requirements": 'requirements = ["numpy"]` or `requirements = []',
    "python_implementation": 'python_implementation = "cpython@3.12.9"',
    "launch_module": 'launch_module = "app.py"',
    "url": 'url = "…"',
}


def _example(name: str) -> str | None:
    return f"add `{_EXAMPLES[name]}`" if name in _EXAMPLES else None
