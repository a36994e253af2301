"""Write TOML, one value to a line: the few kinds of values that locks and uv's settings are made of.

It reads nothing and keeps no order of its own: equal values give equal bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def value(item: Any) -> str:
    """Write a value on one line; tables inline."""
    match item:
        case str():
            # TOML's basic strings are JSON's, but that DEL has to be escaped as well.
            return json.dumps(item, ensure_ascii=False).replace("\x7f", "\\u007f")
        case bool():
            return "true" if item else "false"
        case int() | float():
            return str(item)
        case datetime() if item.tzinfo is not None:
            return item.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date() | time():
            return item.isoformat()
        case Mapping():
            inner = ", ".join(f"{key(name)} = {value(each)}" for name, each in item.items())
            return f"{{ {inner} }}" if inner else "{}"
        case list() | tuple():
            return f"[{', '.join(value(each) for each in item)}]"
        case _:
            raise TypeError(f"no TOML for {type(item).__name__}")


def key(name: str) -> str:
    """Write a key, quoted where it must be."""
    return name if _BARE.fullmatch(name) else value(name)


def lines(table: Mapping[str, Any]) -> Iterable[str]:
    """Write a table's own lines, without its header; an array of tables gets a line for each."""
    for name, item in table.items():
        if isinstance(item, (list, tuple)) and len(item) > 1 and all(isinstance(each, Mapping) for each in item):
            yield f"{key(name)} = ["
            yield from (f"    {value(each)}," for each in item)
            yield "]"
        else:
            yield f"{key(name)} = {value(item)}"
