"""Causes and roots, from records alone."""

from __future__ import annotations

from typing import Any

import msgspec

from strata_engine.events import Outcome
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.why import Root, Story, last_move_of, last_run_of

EDIT = Reason(ReasonCode.INPUT_CHANGED, "app.py", "aa", "bb")
PIN = Reason(ReasonCode.PARAMETER_CHANGED, "stack.toml#requirements", "a", "b")


def upstream(label: str) -> Reason:
    return Reason(ReasonCode.UPSTREAM_CHANGED, label, "1", "2")


def first(label: str) -> Reason:
    return Reason(ReasonCode.FIRST_BUILD, label)


def report(
    label: str, *reasons: Reason, seconds: float = 1.0, outcome: Outcome = Outcome.EXECUTED, **more: Any
) -> ActionReport:
    fields = {"key": f"{label}-2", "previous": f"{label}-1", "output": "new", "former": "old"} | more
    return ActionReport(label=label, mnemonic="M", outcome=outcome, reasons=reasons, seconds=seconds, **fields)


def record(*reports: ActionReport, run: str = "r") -> RunRecord:
    return RunRecord(run=run, started="", seconds=1.0, command=(), exit_code=0, counts={}, actions=reports)


BUILD = record(
    report("lock", PIN, seconds=4.0),
    report("install", upstream("lock"), seconds=2.0),
    report("link", upstream("install"), EDIT, seconds=1.0),
    report("archive", upstream("link"), seconds=8.0),
)


def roots(story: Story, *labels: str) -> list[tuple[Reason, tuple[str, ...], int, float]]:
    return [tuple(root) for root in story.roots(*labels)]


def test_a_chain_leads_to_every_cause_nearest_first() -> None:
    found = Story([BUILD]).chain("archive")
    assert [(c.report.label, c.depth, c.own) for c in found] == [
        ("archive", 0, ()),
        ("link", 1, (EDIT,)),
        ("install", 2, ()),
        ("lock", 3, (PIN,)),
    ]


def test_roots_say_what_each_cause_cost() -> None:
    story = Story([BUILD])
    assert roots(story) == [(PIN, ("lock",), 4, 15.0), (EDIT, ("link",), 2, 9.0)]
    assert roots(story, "install") == [(PIN, ("lock",), 4, 15.0)]
    assert roots(story, "archive") == roots(story)


def test_one_change_that_reaches_several_actions_at_once_is_one_cause() -> None:
    build = record(report("a/lock", PIN), report("b/lock", PIN), report("b/install", upstream("b/lock")))
    assert roots(Story([build])) == [(PIN, ("a/lock", "b/lock"), 3, 3.0)]


def test_what_a_lock_selects_is_there_because_of_the_lock() -> None:
    removed = Reason(ReasonCode.INPUT_REMOVED, "wheels/old", "1", None)
    added = Reason(ReasonCode.INPUT_ADDED, "wheel/new", None, "2")
    known = Reason(ReasonCode.INPUT_ADDED, "wheel/known-elsewhere", None, "3")
    build = record(
        report("app/lock", PIN),
        report("fetch/new", first("fetch/new"), deciders=("app/lock",), previous=""),
        report("wheel/new", first("wheel/new"), upstream=("fetch/new",), deciders=("app/lock",), previous=""),
        report("app/install", added, known, removed, upstream=("wheel/new",), deciders=("app/lock",)),
    )
    assert roots(Story([build])) == [(PIN, ("app/lock",), 4, 4.0)]
    chain = Story([build]).chain("app/install")
    assert [(cause.report.label, cause.own) for cause in chain] == [
        ("app/install", ()), ("wheel/new", ()), ("app/lock", (PIN,)),
    ]  # fmt: skip


def test_of_a_first_build_what_comes_first_is_the_cause() -> None:
    build = record(
        report("python/capture", first("python/capture")),
        report("app/lock", first("app/lock"), EDIT),
        report("wheel/x", first("wheel/x"), deciders=("app/lock",)),
        report("app/install", first("app/install"), upstream=("wheel/x",), deciders=("app/lock",)),
        report("app/link", first("app/link"), upstream=("app/install", "python/capture")),
        report("new/link", first("new/link"), upstream=("other",)),
        report("other", EDIT),
    )
    assert {root.reason: root.actions for root in Story([build]).roots()} == {
        first("python/capture"): 2, first("app/lock"): 4, EDIT: 5, first("new/link"): 1,
    }  # fmt: skip


def test_what_an_earlier_build_had_brought_up_to_date_is_told_from_its_record() -> None:
    earlier = record(report("lock", PIN), report("install", upstream("lock")), run="1")
    between = record(run="2")
    later = record(report("link", upstream("install"), since="0"), run="3")
    story = Story([earlier, between, later])
    assert [(cause.report.label, cause.run) for cause in story.chain("link")] == [
        ("link", "3"), ("install", "1"), ("lock", "1"),
    ]  # fmt: skip
    assert roots(story) == [(PIN, ("lock",), 1, 1.0)]
    done = record(report("lock", PIN), report("link", EDIT), run="1")
    own = Story([done, record(report("link", upstream("lock"), since="1"), run="2")])
    assert roots(own) == [(upstream("lock"), ("link",), 1, 1.0)], "that change had reached it already"


def test_all_changes_since_an_action_was_last_looked_at_are_its_causes() -> None:
    pins = [msgspec.structs.replace(PIN, new=str(number)) for number in range(4)]

    def changed(number: int, former: str, output: str) -> RunRecord:
        return record(report("lock", pins[number], former=former, output=output), run=f"r{number}")

    def causes(*earlier: RunRecord) -> set[Reason]:
        story = Story([seen, *earlier, record(report("link", upstream("lock"), since="0"), run="last")])
        return {root.reason for root in story.roots()}

    seen = record(report("lock", pins[0], former="", output="a"), report("link", upstream("lock")), run="0")
    assert causes(changed(1, "a", "b"), record(run="idle"), changed(2, "b", "c")) == {pins[1], pins[2]}
    # What ran and came out as before, and what was taken back, changed nothing.
    assert causes(changed(1, "a", "b"), changed(2, "b", "b")) == {pins[1]}
    assert causes(changed(1, "a", "b"), changed(2, "b", "a"), changed(3, "a", "d")) == {pins[3]}
    both = [report("lock", pins[3], former="b", output="d"), report("link", upstream("lock"), since="0")]
    assert {root.reason for root in Story([seen, changed(1, "a", "b"), record(*both)]).roots("link")} == {*pins[1::2]}


def test_what_failed_runs_again_for_what_it_had_run_for() -> None:
    failed = Reason(ReasonCode.PREVIOUS_FAILED, "link")
    broke = record(report("link", EDIT, outcome=Outcome.FAILED, output=""), run="1")
    still = record(report("link", failed, outcome=Outcome.FAILED, output="", since="1"), run="2")
    mended = record(report("link", failed, PIN, since="2"), report("archive", upstream("link"), since="0"), run="3")
    story = Story([broke, still, mended])
    assert {root.reason for root in story.roots()} == {EDIT, PIN}
    assert [(cause.report.label, cause.run) for cause in story.chain("archive")] == [
        ("archive", "3"), ("link", "3"), ("link", "2"), ("link", "1"),
    ]  # fmt: skip
    assert {root.reason for root in Story([mended]).roots()} == {failed, PIN}, "no record tells of that failure"


def test_a_blob_that_is_lost_is_lost_once() -> None:
    def lost(label: str, blob: str) -> Reason:
        return Reason(ReasonCode.CACHE_BLOB_LOST, label, blob, None)

    build = record(
        report("wheel", lost("wheel", "x")),
        report("install", lost("install", "x"), upstream=("wheel",)),
        report("link", lost("link", "x"), upstream=("install", "other")),
        report("other", lost("other", "y")),
    )
    assert {root.reason for root in Story([build]).roots()} == {lost("wheel", "x"), lost("other", "y")}


def test_a_list_that_goes_on_where_one_below_ends() -> None:
    below, above = (
        Reason(ReasonCode.INPUT_ADDED, f"stack.toml#{layer}.frameworks", None, "low2") for layer in ("up", "app")
    )
    build = record(report("up/link", below), report("app/link", above, upstream("up/link"), upstream=("up/link",)))
    assert {root.reason for root in Story([build]).roots()} == {below}
    other = record(report("up/link", EDIT), report("app/link", above, upstream=("up/link",)))
    assert {root.reason for root in Story([other]).roots()} == {EDIT, above}


def test_an_upstream_that_no_record_knows_is_a_cause_of_its_own() -> None:
    build = record(report("link", upstream("install"), Reason(ReasonCode.OUTPUT_MISSING, "_build/x")))
    [cause] = Story([build]).chain("link")
    assert cause.own == build.actions[0].reasons


def test_what_came_from_the_cache_passes_causes_on_and_costs_nothing() -> None:
    build = record(report("lock", PIN, outcome=Outcome.CACHED, seconds=9.0), report("link", upstream("lock")))
    assert roots(Story([build])) == [(PIN, ("lock",), 1, 1.0)]


def test_where_the_wave_stopped() -> None:
    build = record(
        report("same", PIN, output="x", former="x"),
        report("placed-again", PIN, output="x", former="x", key="1", previous="1"),
        report("other", upstream("same")),
        report("failed", PIN, outcome=Outcome.FAILED, output="", former=""),
    )
    assert Story([build]).cutoffs() == ["same"]


def test_a_long_chain_and_many_causes_are_no_matter() -> None:
    reports = [report("0", PIN)]
    reports += [report(str(n), upstream(str(n - 1)), Reason(ReasonCode.FORCED, str(n))) for n in range(1, 3000)]
    found: list[Root] = Story([record(*reversed(reports))]).roots()
    assert len(found) == 3000
    assert found[0][2:] == (3000, 3000.0)


def test_the_last_run_of_a_label_is_found_behind_builds_that_did_not_run_it() -> None:
    cached = record(report("lock", PIN, outcome=Outcome.CACHED), run="3")
    records = [BUILD, record(run="2"), cached]
    found = last_run_of(records, "lock"), last_run_of(records, None), last_move_of(records, "lock")
    assert [each.run for each in found if each is not None] == ["r", "r", "3"]
    assert last_run_of(records, "unknown") is None
    assert last_run_of([], None) is None


def test_what_a_lock_made_earlier_selects_is_there_because_of_that_lock() -> None:
    deciders = dict.fromkeys(("fetch/new", "wheel/new", "app/install"), ("app/lock",))
    removed = Reason(ReasonCode.INPUT_REMOVED, "wheels/old", "1", None)
    locked = record(report("app/lock", PIN), run="1")
    built = record(
        report("fetch/new", first("fetch/new"), previous=""),
        report("wheel/new", first("wheel/new"), upstream=("fetch/new",), previous=""),
        report(
            *("app/install", removed, Reason(ReasonCode.INPUT_ADDED, "wheel/new", None, "2")),
            upstream=("wheel/new",),
            since="0",
        ),
        run="2",
    )
    assert roots(Story([locked, built], deciders=lambda: deciders)) == [(PIN, ("app/lock",), 3, 3.0)]
    other = record(report("app/install[win_amd64]", first("app/install[win_amd64]"), previous=""), run="3")
    deciders["app/install[win_amd64]"] = ("app/lock",)
    asked = Story([locked, built, other], deciders=lambda: deciders)
    assert [root.reason for root in asked.roots()] == [first("app/install[win_amd64]")], "the lock is not new to it"


def test_a_way_is_the_shortest_and_begins_at_the_cause() -> None:
    build = record(
        report("lock", PIN),
        report("install", upstream("lock")),
        report("link", upstream("install"), upstream("lock")),
        report("archive", upstream("link")),
    )
    story = Story([build])
    assert [cause.report.label for cause in story.way(["archive"], PIN)] == ["lock", "link", "archive"]
    assert story.way(["archive"], EDIT) == []
    assert story.tops(["lock", "archive", "install"]) == ["archive"]
    assert story.tops(["lock"]) == ["lock"]


def test_many_causes_of_one_kind_are_told_as_one() -> None:
    build = record(*(report(f"w{n}", first(f"w{n}"), seconds=2.0) for n in range(4)), report("link", EDIT))
    groups = Story([build]).groups(most=3)
    assert [(len(group.reasons), group.actions, group.seconds) for group in groups] == [(4, 4, 8.0), (1, 1, 1.0)]
    assert [cause.report.label for cause in groups[0].first] == ["w0", "w1", "w2", "w3"]
    assert len(Story([build]).groups(most=4)) == 5


def test_cutoffs_of_a_label_are_those_its_causes_had_reached() -> None:
    build = record(
        report("a", PIN, output="x", former="x"), report("b", EDIT, output="y", former="y"), report("top", PIN)
    )
    assert Story([build]).cutoffs() == ["a", "b"]
    assert Story([build]).cutoffs("top") == ["a"]
