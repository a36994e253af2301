"""What is written to a terminal, and what then stands there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from terminals import Screen

from strata_engine.console.frame import Frame, frame, rewraps

LINE = st.text(alphabet="ab 数…", min_size=1, max_size=30).map(lambda text: f"|{text}|")


def test_the_first_frame_and_the_last_are_plain_lines() -> None:
    first, text = frame(Frame(), ["a"], ["b"], 80)
    assert text == "a\nb\n"
    last, text = frame(first, ["c"], [], 80)
    assert text == "\r\x1b[1Ac\x1b[K\n\x1b[J"
    assert last == Frame((), 80)
    assert frame(last, [], [], 80) == (last, "")


@given(st.lists(st.tuples(st.lists(LINE, max_size=4), st.lists(LINE, max_size=4)), max_size=8))
def test_lasting_lines_stay_in_their_order_and_live_ones_are_below(steps: list[tuple[list[str], list[str]]]) -> None:
    screen, now, lasting = Screen(40), Frame(), list[str]()
    for more, live in steps:
        # Live lines are never wider than the terminal; others wrap.
        lasting += [line * 2 for line in more]
        now, text = frame(now, [line * 2 for line in more], [line[:30] for line in live], 40)
        screen.write(text)
        expected = Screen(40)
        expected.write("".join(f"{line}\n" for line in (*lasting, *(line[:30] for line in live))))
        assert screen.lines == expected.lines
        assert screen.column == 0


@given(st.lists(st.integers(10, 60), min_size=1, max_size=6))
def test_nothing_is_left_nor_lost_when_the_width_changes(widths: list[int]) -> None:
    screen, now, lasting = Screen(60), Frame(), list[str]()
    for number, width in enumerate([60, *widths]):
        screen.resize(width)
        lasting.append(f"lasting-{number}")
        live = [
            f"{number}-live-line-{each}-that-is-as-wide-as-there-is-room".ljust(60, "-")[: width - 1]
            for each in range(3)
        ]
        now, text = frame(now, lasting[-1:], live, width)
        screen.write(text)
    assert "".join(screen.lines) == "".join([*lasting, *live])


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)"}, False),
        ({"TERM": "linux"}, False),
        ({"TERM": "screen", "STY": "1.pts-0"}, False),
        ({"TERM": "screen", "TMUX": "/run/tmux", "XTERM_VERSION": "XTerm(390)"}, True),
    ],
)
def test_terminals_that_cut_lines_off_are_known(environ: dict[str, str], expected: bool) -> None:
    assert rewraps(environ) is expected
    before = Frame((50, 3), 60)
    assert frame(before, [], [], 20, rewraps=expected)[1].startswith("\r\x1b[4A" if expected else "\r\x1b[2A")
