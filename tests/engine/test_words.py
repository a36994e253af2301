from __future__ import annotations

import subprocess
import sys

import pytest

from strata_engine import words


@pytest.mark.parametrize(
    ("counts", "seconds", "line"),
    [
        (
            {"up_to_date": 24, "cached": 4, "remote": 2, "executed": 1, "failed": 0, "skipped": 0},
            1.23,
            "31 actions: 24 up to date, 4 cached, 2 remote, 1 executed in 1.2 s",
        ),
        ({"up_to_date": 31}, 0.04, "31 actions: 31 up to date in 0.0 s"),
        ({"executed": 1}, 754.26, "1 action: 1 executed in 754.3 s"),
        (
            {"executed": 2, "failed": 1, "skipped": 5},
            3,
            "8 actions: 2 executed, 1 failed, 5 skipped in 3.0 s",
        ),
        ({}, 0.1, "0 actions: 0 up to date, 0 cached, 0 remote, 0 executed in 0.1 s"),
    ],
)
def test_summary(counts: dict[str, int], seconds: float, line: str) -> None:
    assert line == words.summary(counts, seconds)


def test_a_dry_run_does_not_claim_to_have_executed() -> None:
    line = words.summary({"up_to_date": 4, "executed": 1}, 0.2, dry_run=True)
    assert line == "5 actions: 4 up to date, 1 would run in 0.2 s"


def test_sizes_and_durations() -> None:
    assert [words.size(n) for n in (0, 999, 1000, 999_999, 12_345_678, 5 * 10**9)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.0 MB",
        "12.3 MB",
        "5.0 GB",
    ]
    assert words.size_of(12_300_000, 48_100_000) == "12.3/48.1 MB"
    assert words.size_of(1000, None) == "1.0 kB"
    assert [words.duration(s) for s in (0, 59.94, 125.9, 3700)] == ["0.0 s", "59.9 s", "2 min 05 s", "1 h 01 min"]


def test_text_from_outside_cannot_steer_a_terminal() -> None:
    assert words.printable("\x1b[31mred\x1b[0m \x1b]0;owned\x07title\x1b[2J bell\x07x\n") == "red title bell x"
    assert words.printable("a\rb") == "a b"


def test_the_null_build_can_say_its_line_cheaply() -> None:
    heavy = "asyncio,networkx,msgspec,rich,click"
    code = f"import sys, strata_engine.words; sys.exit(bool(set('{heavy}'.split(',')) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
