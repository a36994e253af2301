"""Where in a stack file a person has written what changed: the line, and the old and new of it.

It reads the file as it is now, which may be another one than was built: a place that it no longer has is the nearest
one that it has. Subjects are `FILE#TABLE.NAME.FIELD`, where arrays of tables are entered by their tables' `name`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from strata_engine.errors import SpecError
from strata_engine.staleness import Reason, ReasonCode
from strata_rules.spec.source import Document, decode_toml

MAX_SIZE = 1 << 20
"""Stack files above this are not read."""

_REQUIREMENTS = "requirements"


class _Found(NamedTuple):
    """A value in a document, or as much of the way to it as there is."""

    path: tuple[str | int, ...]
    value: Any
    rest: str
    """What of the way is not there."""


def lines(root: Path, reason: Reason) -> Iterator[str]:
    """Say where a parameter comes from."""
    file, sharp, way = reason.subject.partition("#")
    if not sharp:
        # A variable, or a pin of what this machine has; what has only Strata's own name is nothing that anybody wrote.
        if file.startswith("$"):
            yield f"{file}  {_change(reason)}"
        elif file.endswith(".json"):
            yield f"{file}  Python {_change(reason)}"
        return
    document = _read(root / file, file)
    if document is None:
        return
    found = _enter(document.values, way)
    path = _element(found, reason) if not found.rest else found.path
    line = document.place(path).line
    place = f"{file}:{line}" if line else file
    field = way.rpartition(".")
    if reason.reason is ReasonCode.DEFINITION_CHANGED:
        old, new = ((side or "").rpartition(":")[2][:12] for side in (reason.old, reason.new))
        yield f"{place}  archive sha256 {old} → {new}"
    elif field[2] == _REQUIREMENTS:
        yield f"{place}  {_change(reason)}"
    else:
        table = f"[{field[0]}] " if field[0] else ""
        yield f"{place}  {table}{field[2]}  {_change(reason)}"


def _change(reason: Reason) -> str:
    match reason.old, reason.new:
        case None, new:
            return f"+ {new}"
        case old, None:
            return f"- {old}"
        case old, new:
            return f"{old} → {new}"


def _read(path: Path, file: str) -> Document | None:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_SIZE + 1)
        return decode_toml(data, file) if len(data) <= MAX_SIZE else None
    except (OSError, SpecError):
        return None


def _enter(values: Mapping[str, Any], way: str) -> _Found:
    """Follow a way into a document. Names may have dots in them, so the longest one that fits is taken."""
    path: tuple[str | int, ...] = ()
    value: Any = values
    while way:
        if isinstance(value, Mapping):
            names: dict[str, str | int] = {str(name): name for name in value}
        elif isinstance(value, list):
            names = {f"[{number}]": number for number in range(len(value))}
            names |= {each["name"]: n for n, each in enumerate(value) if isinstance(each, dict) and "name" in each}
        else:
            break
        fits = [name for name in names if way == name or (way.startswith(name) and way[len(name)] in ".[")]
        if not fits:
            break
        name = max(fits, key=len)
        path, value = (*path, names[name]), value[names[name]]
        way = way[len(name) :].removeprefix(".")
    return _Found(path, value, way)


def _element(found: _Found, reason: Reason) -> tuple[str | int, ...]:
    """Give the way to the element of a list that a reason is about."""
    if not isinstance(found.value, list) or reason.new is None:
        return found.path
    wanted = _plain(reason.new)
    for number, each in enumerate(found.value):
        if isinstance(each, str) and (_plain(each) == wanted or wanted == f"framework-{each}"):
            return (*found.path, number)
    return found.path


def _plain(text: str) -> str:
    """Leave out how a requirement is spaced: keys have them as `packaging` writes them."""
    return "".join(text.split()).replace("'", '"')
