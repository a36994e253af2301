from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from strata_engine.console.state import BuildView, fold, render
from strata_engine.console.terminal import Paint
from strata_engine.events import (
    ActionFinished,
    ActionOutput,
    ActionProgress,
    ActionStarted,
    BuildFinished,
    BuildStarted,
    Event,
    Fetched,
    Fetching,
    GraphGrew,
    Outcome,
    Waiting,
)
from strata_engine.words import ESCAPE_SEQUENCE, cells


def started(label: str) -> ActionStarted:
    return ActionStarted(label=label, mnemonic="Fetch", pool="network", slot=0, reasons=())


def finished(label: str, outcome: Outcome = Outcome.EXECUTED) -> ActionFinished:
    return ActionFinished(label=label, mnemonic="Fetch", outcome=outcome, seconds=1.0)


def told(*events: tuple[float, Event]) -> BuildView:
    view = BuildView(started=100.0)
    for now, event in events:
        view = fold(view, event, now)
    return view


def test_what_comes_from_a_remote_is_shown_while_it_comes() -> None:
    coming = (
        (100.0, BuildStarted(run="1", total=2)),
        (100.0, finished("app-x/link", Outcome.REMOTE)),
        (100.0, Fetching(label="app-x/link", done=0, total=48_100_000)),
        (101.0, Fetching(label="app-x/link", done=12_300_000, total=48_100_000)),
    )
    assert render(told(*coming), 102.0, 100) == [
        "1/2 actions · 1 hit · 1 running · 2.0 s",
        "     2.0 s  app-x/link from remote  12.3/48.1 MB  6.2 MB/s",
    ]
    # Where it did not come whole, the action itself runs.
    view = told(*coming, (102.0, Fetched("app-x/link", 12_300_000, 2.0)), (102.0, started("app-x/link")))
    assert render(view, 103.0, 100)[1:] == ["     1.0 s  app-x/link"]


def test_a_build_in_the_middle() -> None:
    view = told(
        (100.0, BuildStarted(run="1", total=4)),
        (100.1, finished("a/lock", Outcome.UP_TO_DATE)),
        (100.1, finished("b/lock", Outcome.CACHED)),
        (100.2, started("fetch/numpy.whl")),
        (100.5, started("framework-sklearn/lock")),
        (101.0, GraphGrew(total=31)),
        (101.0, ActionProgress(label="fetch/numpy.whl", done=2_300_000, total=48_100_000)),
        (101.5, ActionOutput(label="framework-sklearn/lock", line="\x1b[2mResolved 12 packages\x1b[0m in 0.4s")),
        (102.0, ActionProgress(label="fetch/numpy.whl", done=6_300_000, total=48_100_000)),
        (103.0, ActionProgress(label="fetch/numpy.whl", done=12_300_000, total=48_100_000)),
        (103.0, started("app-x/link")),
        (103.1, finished("app-x/link")),
    )
    assert render(view, 103.5, 100) == [
        "3/31 actions · 2 hits · 1 executed · 2 running · 3.5 s",
        "     3.3 s  fetch/numpy.whl  12.3/48.1 MB  4.0 MB/s",
        "     3.0 s  framework-sklearn/lock  Resolved 12 packages in 0.4s",
    ]
    # A silent build ticks all the same.
    assert render(view, 225.0, 100)[0] == "3/31 actions · 2 hits · 1 executed · 2 running · 2 min 05 s"
    assert render(view, 103.5, 40) == [
        "3/31 · 2 running · 3.5 s",
        "3.3 s  fetch/numpy.whl  12.3/48.1 MB",
        "3.0 s  framework-sklearn/lock",
    ]
    assert render(view, 103.5, 20) == ["3/31 · 3.5 s", "3.3 s  fetch/nu….whl", "3.0 s  framewor…lock"]


def test_a_long_label_gives_way_to_its_bytes() -> None:
    label = "fetch/numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"
    view = told(
        (100.0, started(label)),
        (100.0, ActionProgress(label=label, done=1_000_000, total=16_900_000)),
        (101.0, ActionProgress(label=label, done=12_000_000, total=16_900_000)),
    )
    assert render(view, 101.0, 64)[1] == "     1.0 s  fetch/numpy-2.4.6-…6_64.whl  12.0/16.9 MB  11.0 MB/s"


def test_more_running_than_rows() -> None:
    view = told((100.0, BuildStarted(run="1", total=9)), *((100.0 + n, started(f"wheel/{n}")) for n in range(5)))
    assert render(view, 105.0, 60, rows=4) == [
        "0/9 actions · 5 running · 5.0 s",
        "     5.0 s  wheel/0",
        "     4.0 s  wheel/1",
        "            … and 3 more",
    ]


def test_waiting_is_shown_until_the_build_goes_on() -> None:
    waiting = (100.0, Waiting(what="the workspace", holder="process 4711"))
    assert render(told(waiting), 102, 80) == [
        "getting ready · 2.0 s",
        "  waiting for the workspace, held by process 4711",
    ]
    assert render(told(waiting, (101, BuildStarted(run="1", total=3))), 102, 80) == ["0/3 actions · 2.0 s"]


def test_the_end_leaves_nothing_running_and_late_news_are_ignored() -> None:
    view = told(
        (100.0, BuildStarted(run="1", total=2)),
        (100.0, started("a/link")),
        (101.0, BuildFinished(seconds=1.0, counts={"skipped": 2}, interrupted=True)),
        (102.0, ActionProgress(label="a/link", done=1, total=2)),
        (102.0, ActionOutput(label="a/link", line="late")),
    )
    assert view.running == {}
    assert view.finished is not None


def test_a_view_is_never_changed() -> None:
    before = told((100.0, BuildStarted(run="1", total=2)), (100.0, started("a/link")))
    fold(before, finished("a/link"), 101.0)
    assert list(before.running) == ["a/link"]
    assert before.done == 0


@given(
    label=st.text(max_size=90),
    said=st.text(alphabet="ab 日本\u0301\U0001f600\u200b\x1b[2J\t", max_size=60),
    done=st.integers(0, 10**12),
    total=st.none() | st.integers(0, 10**12),
    width=st.integers(1, 130),
    rows=st.integers(1, 8),
    running=st.integers(0, 12),
)
def test_nothing_is_wider_than_the_terminal_nor_higher_than_its_rows(
    label: str, said: str, done: int, total: int | None, width: int, rows: int, running: int
) -> None:
    view = told((100.0, BuildStarted(run="1", total=9000)), (100.0, Waiting(what="the workspace", holder=said)))
    for number in range(running):
        name = f"{number}{label}"
        for event in (started(name), ActionProgress(name, 1, total), ActionProgress(name, done, total)):
            view = fold(view, event, 100.0)
        view = fold(view, ActionOutput(name, said), 100.0)
    lines = render(view, 4000.0, width, rows)
    assert len(lines) <= rows
    assert all(cells(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)
    painted = [ESCAPE_SEQUENCE.sub("", line) for line in render(view, 4000.0, width, rows, Paint(on=True))]
    assert painted == lines, "colour changes nothing else"
