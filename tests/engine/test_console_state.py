from __future__ import annotations

from strata_engine.console.state import BuildView, fold, render
from strata_engine.events import (
    ActionFinished,
    ActionOutput,
    ActionProgress,
    ActionStarted,
    BuildFinished,
    BuildStarted,
    Event,
    GraphGrew,
    Outcome,
    Waiting,
)


def started(label: str) -> ActionStarted:
    return ActionStarted(label=label, mnemonic="Fetch", pool="network", slot=0, reasons=())


def finished(label: str, outcome: Outcome = Outcome.EXECUTED) -> ActionFinished:
    return ActionFinished(label=label, mnemonic="Fetch", outcome=outcome, seconds=1.0)


def told(*events: tuple[float, Event]) -> BuildView:
    view = BuildView(started=100.0)
    for now, event in events:
        view = fold(view, event, now)
    return view


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
    assert all(len(line) <= 30 for line in render(view, 103.5, 30))
    assert render(view, 103.5, 30)[1] == "     3.3 s  fetch/numpy.whl  …"


def test_a_long_label_gives_way_to_its_bytes() -> None:
    label = "fetch/numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"
    view = told(
        (100.0, started(label)),
        (100.0, ActionProgress(label=label, done=1_000_000, total=16_900_000)),
        (101.0, ActionProgress(label=label, done=12_000_000, total=16_900_000)),
    )
    assert render(view, 101.0, 64)[1] == "     1.0 s  fetch/numpy-2.4.6-cp311-cp…  12.0/16.9 MB  11.0 MB/s"


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
