"""The patterns of `dynlib_exclude`, which mean what they mean in venvstacks.

A pattern is matched against the end of a path, from some folder's start on: `**` stands for any folders, `*` alone for
one name, and hidden names are names as others. Only the layer's own folders count, where venvstacks also looks at
those that the layer lies in: what is excluded must not depend on where a project was checked out. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def excluder(patterns: Iterable[str]) -> Callable[[str], str | None]:
    """Give what tells, for paths relative to a layer, the first pattern that matches; None where none does."""
    compiled = [(pattern, re.compile(_translate(pattern))) for pattern in patterns]

    def excluded(path: str) -> str | None:
        return next((pattern for pattern, expression in compiled if expression.search("/" + path)), None)

    return excluded


def _translate(pattern: str) -> str:
    """Turn a glob into a regular expression as `glob.translate(recursive=True, include_hidden=True)` of 3.13 does."""
    parts = pattern.split("/")
    out = ["/"]
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        if part == "**":
            # Several in a row are one.
            out.append(".*" if following is None else "" if following == "**" else "(?:.+/)?")
        else:
            out.append("[^/]+" if part == "*" else _segment(part))
            out.append("" if following is None else "/")
    return f"(?s:{''.join(out)})\\Z"


def _segment(part: str) -> str:
    out: list[str] = []
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            if out[-1:] != ["[^/]*"]:
                out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and (end := part.find("]", at + 1 + part.startswith("!", at))) > 0:
            out.append(_any_of(part[at:end]))
            at = end + 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _any_of(body: str) -> str:
    """Translate what stands in brackets: characters and ranges, `!` for all but those; an empty range is nothing."""
    negated, body = body.startswith("!"), body.removeprefix("!")
    chosen = ""
    while body:
        if len(body) > 2 and body[1] == "-":
            first, last, body = body[0], body[2], body[3:]
            chosen += f"{re.escape(first)}-{re.escape(last)}" if first <= last else ""
        else:
            chosen += re.escape(body[0])
            body = body[1:]
    if chosen:
        return f"[{'^' if negated else ''}{chosen}]"
    return "." if negated else "(?!)"
