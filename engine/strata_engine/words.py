"""Numbers and outcomes in words: the one place where a size, a duration or a build's last line gets its form.

Knows nothing of events or terminals, and imports the standard library only: the null build says its line with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

OUTCOMES = ("up_to_date", "cached", "remote", "executed", "failed", "skipped")
"""The outcomes of design §8 in the order in which they are counted."""

ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
LONG_HEX = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")
UNITS = ("B", "kB", "MB", "GB", "TB")


def summary(counts: Mapping[str, int], seconds: float, *, dry_run: bool = False) -> str:
    """Give the last line of a build; in a dry run nothing was executed, so it says what would be.

    >>> summary({"up_to_date": 24, "cached": 4, "remote": 2, "executed": 1}, 1.23)
    '31 actions: 24 up to date, 4 cached, 2 remote, 1 executed in 1.2 s'
    """
    total = sum(counts.get(name, 0) for name in OUTCOMES)
    said = [name for name in OUTCOMES if counts.get(name, 0)] or list(OUTCOMES[:4])
    parts = ", ".join(f"{counts.get(name, 0)} {outcome_word(name, dry_run=dry_run)}" for name in said)
    return f"{total} action{'' if total == 1 else 's'}: {parts} in {seconds:.1f} s"


def outcome_word(outcome: str, *, dry_run: bool = False) -> str:
    """Give an outcome in words: `up to date` for `up_to_date`."""
    return "would run" if dry_run and outcome == "executed" else outcome.replace("_", " ")


def duration(seconds: float) -> str:
    """Give a duration as a person says it: `0.4 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _unit(size: int) -> int:
    power = 0
    # 999,950 bytes would be said as 1000.0 kB: go on one unit earlier.
    while size >= 999.95 * 1000**power and power < len(UNITS) - 1:
        power += 1
    return power


def _in_unit(size: int, power: int) -> str:
    return str(size) if power == 0 else f"{size / 1000**power:.1f}"


def size(count: int) -> str:
    """Give a number of bytes in decimal units: `12.3 MB`."""
    power = _unit(count)
    return f"{_in_unit(count, power)} {UNITS[power]}"


def size_of(done: int, total: int | None) -> str:
    """Give bytes done of how many, in one unit: `12.3/48.1 MB`."""
    if total is None:
        return size(done)
    power = _unit(max(done, total))
    return f"{_in_unit(done, power)}/{_in_unit(total, power)} {UNITS[power]}"


def short(text: str) -> str:
    """Cut long digests in `text` to the twelve digits that a person compares."""
    return LONG_HEX.sub(r"\1", text)


def printable(text: str) -> str:
    """Make text from outside harmless on a terminal: escape sequences go, other control characters become spaces."""
    text = ESCAPE_SEQUENCE.sub("", text)
    return "".join(c if c.isprintable() else " " for c in text).rstrip()


def cells(text: str) -> int:
    """Count the columns that `text` takes on a terminal.

    >>> cells("数 x")
    4
    """
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(char: str) -> int:
    # Here and not above: a null build says its line in ASCII.
    import unicodedata  # noqa: PLC0415 - see the comment above

    if char == "\N{VARIATION SELECTOR-16}":
        # It makes an emoji of the character before it, which then may be wide.
        return 1
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _head(text: str, width: int) -> str:
    """Give as much of the beginning of `text` as `width` columns hold."""
    if text.isascii():
        return text[: max(0, width)]
    taken = 0
    for position, char in enumerate(text):
        taken += _cells(char)
        if taken > width:
            return text[:position]
    return text


def fit(text: str, width: int) -> str:
    """Cut `text` to `width` columns, with an ellipsis where something was cut."""
    return text if cells(text) <= width else _head(text, width - 1) + "…"[: max(0, width)]


def fit_middle(text: str, width: int) -> str:
    """Cut out of the middle of `text` what does not fit into `width` columns: both ends tell, of a file's name.

    >>> fit_middle("fetch/numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl", 34)
    'fetch/numpy-2.4.6-cp311…x86_64.whl'
    """
    if cells(text) <= width:
        return text
    end = max(0, (width - 1) // 3)
    tail = _head(text[::-1], end)[::-1]
    return _head(text, width - 1 - end) + "…"[: max(0, width)] + tail
