"""Random changes of text, from one byte to whole values: what a slip of the hand, a merge or malice makes of a file."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

ODD_TOML = (
    "3", "-1", "true", "1.5", "inf", "nan", '""', '" "', '"x"', "[]", "{}", '[""]', "[[]]", "[3]",
    '["x", 3]', "{ x = 1 }",
    "1979-05-27T07:32:00Z", "07:32:00", "9" * 400, '"' + "n" * 5000 + '"', '"\\u0000"',
    '"\\uFEFF"', '"a\\nb"', '"../../x"',
    '"/etc/passwd"', '"~"', '"\\\\"', "'''\n'''", '"http://[::1"', '"sys_platform == \'from_lower_layer\'"',
    '"=="', '"*"',
    '["' + '", "'.join("abcdefgh") + '"]', "[" * 60 + "]" * 60, '"\u202e\u0301"', '"cpython@3.11.9"',
    '"glibc@9999999999.1"',
    "2147483648", "-0", "0x10", '"1.0"', '"file:///etc/x-1.0-py3-none-any.whl"', "[{}]",
    "[{ name = 3 }]", "{ a = { b = 1 } }",
)  # fmt: skip
"""Values that a key of a TOML file may be given."""

ODD_JSON = (
    "3", "-1", "true", "null", "1.5", "1e999", "NaN", '""', '" "', '"x"', "[]", "{}", "[[]]", '{"x": 1}',
    "9" * 400, "1e5",
    '"' + "n" * 5000 + '"', '"\\u0000"', '"\\ud800"', '"2026-13-45"', '"0001-01-01T00:00:00+14:00"', '"sha256:"',
    '"../../x"',
    "[" * 2000 + "]" * 2000, "0", "2147483648", '"9999-12-31T23:59:59-14:00"', "[null]", '{"": null}', '"2026-01-01"',
)  # fmt: skip
"""The same for JSON."""

_TOML_VALUE = re.compile(
    r"""(?<== )(?:\[[^\]\n]*\]|"[^"\n]*"|'[^'\n]*'|\{[^}\n]*\}|[^\s,}\]]+)|(?<=[\[ ])"[^"\n]*"(?=[,\]])"""
)
_JSON_VALUE = re.compile(r"""(?<=: )(?:"[^"\n]*"|\[\]|\{\}|[\w.+-]+)""")
_BYTES = (
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b'"',
    b"'",
    b"[",
    b"]",
    b"{",
    b"}",
    b"=",
    b",",
    b"#",
    b"\xc3",
    b" ",
)


def mutated(random: random.Random, data: bytes, *, values: Sequence[str], times: int = 1) -> bytes:
    """Change a file in one or several places."""
    for _ in range(times):
        data = random.choice((_value, _value, _value, _line, _line, _byte, _cut))(random, data, values)
    return data


def _value(random: random.Random, data: bytes, values: Sequence[str]) -> bytes:
    text = data.decode("utf-8", "surrogateescape")
    found = list((_JSON_VALUE if values is ODD_JSON else _TOML_VALUE).finditer(text))
    if not found:
        return data
    place = random.choice(found)
    other = random.choice((random.choice(values), random.choice(found)[0]))
    return (text[: place.start()] + other + text[place.end() :]).encode("utf-8", "surrogateescape")


def _line(random: random.Random, data: bytes, values: Sequence[str]) -> bytes:
    lines = data.split(b"\n")
    at, other = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(other, lines[at])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            key, equals, rest = lines[at].partition(b"=")
            lines[at] = key.strip()[: random.randrange(9)] + b"x " + equals + rest
        case _:
            lines.insert(
                at,
                random.choice(
                    (b"[[runtimes]]", b"[tool.strata]", b"[tool]", b"x = 1", b"<<<<<<< HEAD", b"[[packages]]")
                ),
            )
    return b"\n".join(lines)


def _byte(random: random.Random, data: bytes, values: Sequence[str]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice((*_BYTES, bytes([random.randrange(256)]))) + data[at + random.randrange(3) :]


def _cut(random: random.Random, data: bytes, values: Sequence[str]) -> bytes:
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:start] if random.random() < 0.3 else data[:start] + data[min(end, start + 40) :]
