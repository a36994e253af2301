"""The patterns of `dynlib_exclude`, which mean what they mean in venvstacks.

A pattern is matched against the end of a path, from some folder's start on: `**` stands for any folders, `*` alone for
one name, and hidden names are names as others. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def excluder(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Give the test for paths relative to a layer."""
    compiled = [re.compile(_translate(pattern)) for pattern in patterns]

    def excluded(path: str) -> bool:
        return any(pattern.search("/" + path) for pattern in compiled)

    return excluded


def _translate(pattern: str) -> str:
    """Turn a glob into a regular expression as `glob.translate(recursive=True, include_hidden=True)` of 3.13 does."""
    parts = pattern.split("/")
    out = ["/"]
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            out.append(".*" if last else "(?:.+/)?")
        else:
            out.append("[^/]+" if part == "*" else _segment(part))
            out.append("" if last else "/")
    return f"(?s:{''.join(out)})\\Z"


def _segment(part: str) -> str:
    out = []
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and (end := part.find("]", at + (part[at : at + 1] in ("!", "]")) + 1)) > 0:
            body = part[at:end].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"[{'^' + body[1:] if body.startswith('!') else body}]")
            at = end + 1
        else:
            out.append(re.escape(char))
    return "".join(out)
