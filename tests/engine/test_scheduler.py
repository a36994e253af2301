from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import anyio
import pytest
from builds import Site, counts, make, outcomes, reasons, report, text_of

from strata_engine.action import Action, Execution, Expansion, Literal, Ref, Source, SourceTree
from strata_engine.errors import ActionError, SpecError
from strata_engine.events import (
    ActionFinished,
    ActionStarted,
    BuildFinished,
    BuildStarted,
    Event,
    GraphGrew,
    Outcome,
    Waiting,
)
from strata_engine.history import History, Past
from strata_engine.tree import Artifact, File


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "w")


class Gauge:
    """Counts how many are inside at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.order: list[str] = []

    def enter(self, label: str) -> None:
        with self.lock:
            self.order.append(label)
            self.inside += 1
            self.most = max(self.most, self.inside)

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1

    def run(self, seconds: float = 0.01) -> Callable[[Execution], Artifact]:
        def run(execution: Execution) -> Artifact:
            self.enter(execution.label)
            time.sleep(seconds)
            self.leave()
            return File(execution.store.put(execution.label.encode()))

        return run

    async def run_async(self, execution: Execution) -> Artifact:
        self.enter(execution.label)
        await anyio.sleep(0.01)
        self.leave()
        return File(execution.store.put(execution.label.encode()))


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_run_at_once_than_there_are_slots(site: Site, jobs: int) -> None:
    gauge = Gauge()
    # Plain ones and coroutines, with sources and without, share the slots.
    site.write("src", "x")
    items = [make(f"p{n}", run=gauge.run(), inputs={"s": Source("src")} if n % 2 else {}) for n in range(12)]
    items += [make(f"c{n}", run=gauge.run_async) for n in range(12)]
    assert counts(site.build(items, jobs=jobs)) == {"executed": 24}
    assert gauge.most == jobs


def test_slots_are_numbered(site: Site) -> None:
    gauge = Gauge()
    site.build([make(f"p{n}", run=gauge.run(0.002)) for n in range(30)], jobs=3)
    assert {(event.pool, event.slot) for event in site.heard(ActionStarted)} == {("cpu", n) for n in range(3)}


def test_downloads_do_not_take_the_slots_of_work(site: Site) -> None:
    together = threading.Barrier(3, timeout=30)

    def run(execution: Execution) -> Artifact:
        together.wait()
        return File(execution.store.put(execution.label.encode()))

    items = [make("one", run=run, pool="network"), make("two", run=run, pool="network"), make("work", run=run)]
    assert counts(site.build(items, jobs=1, network_jobs=2)) == {"executed": 3}
    gauge = Gauge()
    site.build([make(f"f{n}", run=gauge.run(), pool="network") for n in range(8)], jobs=8, network_jobs=2)
    assert gauge.most == 2
    # A pool that nobody knows is the one of work.
    gauge = Gauge()
    site.build([make(f"g{n}", run=gauge.run(), pool="gpu") for n in range(8)], jobs=2, network_jobs=8)
    assert gauge.most == 2


def test_the_longest_way_goes_first_by_what_was_recorded(site: Site) -> None:
    gauge = Gauge()
    items = [
        make("a-short", run=gauge.run(0)), make("b-long", run=gauge.run(0)), make("c-leads-on", run=gauge.run(0)),
        make("d-end", "c-leads-on", run=gauge.run(0)), make("zero", run=gauge.run(0)),
    ]  # fmt: skip
    seconds = {"a-short": 1.0, "b-long": 3.0, "c-leads-on": 0.5, "d-end": 9.0, "zero": 2.0}
    site.build(items, jobs=1)
    history = History(site.root / ".strata" / "history")
    for label, value in seconds.items():
        past = history.past(label)
        assert past is not None
        history.record(label, Past.of(past.key, past.artifact, value))
    history.save()
    gauge.order.clear()
    gate = make("gate", run=gauge.run(0.05))
    # All become ready at once, behind a gate; which of them runs first is the pool's choice.
    behind = [
        make(item.label, "gate", *[i.label for i in item.inputs.values() if isinstance(i, Ref)], run=item.run)
        for item in items
    ]
    site.build([gate, *behind], jobs=1)
    assert gauge.order == ["gate", "c-leads-on", "d-end", "b-long", "zero", "a-short"]
    assert {event.label: event.expected_seconds for event in site.heard(ActionStarted)} == seconds | {"gate": None}


def test_work_starts_before_the_whole_graph_is_known(site: Site) -> None:
    running = threading.Event()

    def run(execution: Execution) -> Artifact:
        running.set()
        return File(execution.store.put(b"x"))

    def slow_filter(path: str, is_folder: bool) -> bool:
        assert running.wait(30), "an action that is known to be stale waits for decisions about others"
        return True

    site.write("lib/m", "x")
    items = [make("a-stale", run=run)]
    items += [make("b-undecided", inputs={"lib": SourceTree("lib", slow_filter)}, run=run)]
    assert counts(site.build(items, jobs=1)) == {"executed": 2}


def fail(execution: Execution) -> Artifact:
    raise ActionError.of("no", f"`{execution.label}` said no")


def test_a_failure_stops_what_comes_after_and_tells_why(site: Site) -> None:
    def fail_loudly(execution: Execution) -> Artifact:
        raise ActionError(*ActionError.of("no", "no").diagnostics, output="what it printed")

    items = [make("bad", run=fail_loudly), make("after", "bad"), make("end", "after"), make("good")]
    result = site.build(items, ["end", "good"], jobs=1, keep_going=True)
    assert outcomes(result) == {"bad": "failed", "after": "skipped", "end": "skipped", "good": "executed"}
    assert (report(result, "after").because, report(result, "end").because) == ("bad", "bad")
    assert result.exit_code == 1
    [failed] = [event for event in site.heard(ActionFinished) if event.outcome is Outcome.FAILED]
    assert failed.output == "what it printed"
    assert {event.label: event.because for event in site.heard(ActionFinished) if event.outcome is Outcome.SKIPPED} == {
        "after": "bad", "end": "bad",
    }  # fmt: skip


def test_without_keep_going_nothing_starts_after_the_first_failure(site: Site) -> None:
    gauge = Gauge()
    items = [make("a-bad", run=fail), *(make(f"z{n}", run=gauge.run()) for n in range(20))]
    result = site.build(items, jobs=1)
    assert counts(result)["failed"] == 1
    assert len(gauge.order) < 20
    assert counts(result).get("skipped", 0) >= 20 - len(gauge.order)
    assert {report(result, f"z{n}").because for n in range(20)} <= {"", "a-bad"}
    assert sum(result.counts.values()) == 21


def test_what_runs_is_ended_by_the_first_failure(site: Site) -> None:
    running = threading.Event()

    def long(execution: Execution) -> Artifact:
        running.set()
        execution.command(["sleep", "100"])
        raise AssertionError

    def fail_then(execution: Execution) -> Artifact:
        assert running.wait(30)
        raise ActionError.of("no", "no")

    result = site.build([make("long", run=long), make("bad", run=fail_then)], jobs=2)
    assert outcomes(result) == {"long": "skipped", "bad": "failed"}
    assert report(result, "long").because == "bad"


def test_the_first_failure_in_time_comes_first_whatever_its_name(site: Site) -> None:
    first = threading.Event()

    def fail_first(execution: Execution) -> Artifact:
        raise SpecError.of("first", "first")

    def fail_second(execution: Execution) -> Artifact:
        assert first.wait(30)
        raise ActionError.of("second", "second")

    def release(event: Event) -> None:
        if isinstance(event, ActionFinished) and event.label == "z":
            first.set()

    site.listeners = (release,)
    result = site.build([make("a", run=fail_second), make("z", run=fail_first)], jobs=2, keep_going=True)
    assert [diagnostic.id for diagnostic in result.diagnostics] == ["first", "second"]
    assert result.exit_code == 2


def test_a_rule_with_a_bug_fails_and_leaves_its_traceback(site: Site) -> None:
    def plain(execution: Execution) -> Artifact:
        raise KeyError("plain")

    async def coroutine(execution: Execution) -> Artifact:
        raise KeyError("coroutine")

    result = site.build([make("p", run=plain), make("c", run=coroutine), make("ok")], keep_going=True)
    assert outcomes(result) == {"p": "failed", "c": "failed", "ok": "executed"}
    assert {diagnostic.id for diagnostic in result.diagnostics} == {"rule-crashed"}
    assert any("the rule of `p` raised KeyError: 'plain'" in d.message for d in result.diagnostics)
    outputs = {event.label: event.output for event in site.heard(ActionFinished)}
    assert 'raise KeyError("plain")' in outputs["p"]
    assert 'raise KeyError("coroutine")' in outputs["c"]


# -- one thing under many labels -------------------------------------------------------------------------------------


def test_equal_keys_run_once(site: Site) -> None:
    gauge = Gauge()

    def run(execution: Execution) -> Artifact:
        gauge.enter(execution.label)
        time.sleep(0.02)
        return File(execution.store.put(b"x"))

    items = [make(f"same{n}", say="same", run=run) for n in range(6)] + [make("after", *(f"same{n}" for n in range(6)))]
    result = site.build(items, jobs=4)
    assert len(gauge.order) == 1
    assert counts(result) == {"executed": 2, "cached": 5}
    assert counts(site.build(items)) == {"up_to_date": 7}


def test_what_fails_under_one_label_is_tried_under_the_next(site: Site) -> None:
    tried: list[str] = []

    def run(execution: Execution) -> Artifact:
        tried.append(execution.label)
        if len(tried) == 1:
            raise ActionError.of("once", "once")
        return File(execution.store.put(b"x"))

    result = site.build([make(f"same{n}", say="same", run=run) for n in range(3)], jobs=1, keep_going=True)
    assert counts(result) == {"failed": 1, "executed": 1, "cached": 1}
    assert len(tried) == 2


# -- a graph that grows ----------------------------------------------------------------------------------------------


def lines(execution: Execution) -> Artifact:
    return File(execution.store.put(execution.read("in")))


def lock(text: str) -> Action:
    return make("lock", run=lines, inputs={"in": Literal(text.encode())}, say="")


def expand(
    more: Callable[[str], Iterable[Action | Expansion]], *promises: str, label: str = "lock/more", after: str = "lock"
) -> Expansion:
    ref = Ref(after)
    return Expansion(label=label, after=(ref,), promises=promises, expand=lambda read: list(more(read(ref).decode())))


def wheels(text: str) -> list[Action]:
    names = text.split()
    return [make("install", *(f"wheel/{name}" for name in names)), *(make(f"wheel/{name}") for name in names)]


def test_an_outputs_content_decides_what_there_is_to_do(site: Site) -> None:
    def items(text: str) -> list[Action | Expansion]:
        return [lock(text), expand(wheels, "install"), make("link", "install")]

    result = site.build(items("a b"), ["link"])
    assert outcomes(result) == dict.fromkeys(["link", "install", "lock", "wheel/a", "wheel/b"], "executed")
    assert text_of(site, result, "link") == "link+install+wheel/a+wheel/b"
    result = site.build(items("b c"), ["link"])
    assert outcomes(result) == {
        "lock": "executed", "wheel/b": "up_to_date", "wheel/c": "executed", "install": "executed", "link": "executed",
    }  # fmt: skip
    assert counts(site.build(items("b c"), ["link"])) == {"up_to_date": 5}
    totals = [event.total for event in site.heard(GraphGrew)]
    assert totals == [3, 5]
    assert site.heard(BuildStarted)[0].total == 3


def test_expansions_may_promise_what_their_own_expansions_add(site: Site) -> None:
    def outer(text: str) -> list[Action | Expansion]:
        return [make("second", say=text), expand(wheels, "install", label="second/more", after="second")]

    result = site.build([lock("x"), expand(outer, "install"), make("link", "install")], ["link"])
    assert outcomes(result) == dict.fromkeys(["link", "install", "lock", "second", "wheel/x"], "executed")


@pytest.mark.parametrize(
    ("more", "id"),
    [
        (lambda text: [make(text[9])], "rule-crashed"),
        (lambda text: [make("install", "nobody")], "unknown-label"),
        (lambda text: [make("install", "link")], "action-cycle"),
        (lambda text: [make("install"), make("good", say="another")], "duplicate-action"),
        (lambda text: [make("elsewhere")], "broken-promise"),
    ],
)
def test_an_expansion_that_fails_fails_alone(site: Site, more: Callable[[str], list[Action]], id: str) -> None:
    def later(text: str) -> list[Action]:
        return [make("late", "good")]

    items = [lock("x"), expand(more, "install"), make("link", "install"), make("good"),
             expand(later, "late", label="good/more", after="good")]  # fmt: skip
    result = site.build(items, ["link", "late"], keep_going=True)
    found = outcomes(result)
    assert {label: found[label] for label in ("lock", "link", "good", "late")} == {
        "lock": "executed", "link": "skipped", "good": "executed", "late": "executed",
    }  # fmt: skip
    assert [diagnostic.id for diagnostic in result.diagnostics] == [id]
    assert found["install"] == ("failed" if id == "broken-promise" else "skipped")
    assert report(result, "link").because == ("install" if id == "broken-promise" else "lock/more")
    assert counts(result)["failed"] == 1


def test_an_expansion_behind_a_failure_is_not_counted(site: Site) -> None:
    items = [make("lock", run=fail), expand(wheels, "install"), make("link", "install")]
    result = site.build(items, ["link"], keep_going=True)
    assert outcomes(result) == {"lock": "failed", "install": "skipped", "link": "skipped"}
    assert sum(result.counts.values()) == 3


# -- dry runs --------------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_what_would_run_and_writes_nothing(site: Site) -> None:
    site.write("src", "1")

    def items() -> list[Action | Expansion]:
        return [
            make("lock", inputs={"in": Source("src")}), expand(wheels, "install", "unwanted"), make("link", "install"),
            make("free"), make("end", "link", "free"),
        ]  # fmt: skip

    site.build([make("free")])
    before = files_of(site)
    result = site.build(items(), ["end"], {"out": "end"}, dry_run=True)
    assert outcomes(result) == {
        "lock": "executed", "install": "executed", "link": "executed", "end": "executed", "free": "up_to_date",
    }  # fmt: skip
    assert reasons(result, "lock") == ["first-build lock"]
    assert reasons(result, "install") == ["upstream-changed lock"]
    assert reasons(result, "end") == ["first-build end", "upstream-changed link"]
    assert result.exit_code == 0
    assert files_of(site) == before
    with site.opened_store() as store:
        assert len(list(store.cache.everything())) == 1
    built = site.build(items(), ["end"], {"out": "end"})
    assert built.counts["executed"] == 5
    assert counts(site.build(items(), ["end"], {"out": "end"}, dry_run=True)) == {"up_to_date": 6}
    (site.root / "out").unlink()
    result = site.build(items(), ["end"], {"out": "end"}, dry_run=True)
    assert outcomes(result)["end"] == "cached"
    assert not (site.root / "out").exists()


def files_of(site: Site) -> dict[str, bytes]:
    """Read all of the workspace but the store, whose unreferenced blobs are nobody's business."""
    return {
        str(path.relative_to(site.root)): path.read_bytes()
        for path in site.root.rglob("*") if path.is_file() and site.store not in path.parents and path.name != "lock"
    }  # fmt: skip


# -- events ----------------------------------------------------------------------------------------------------------


def test_events_come_in_an_order_that_can_be_relied_on(site: Site) -> None:
    items = [make("a"), make("b", "a"), make("c", "b"), *(make(f"w{n}") for n in range(30))]
    result = site.build(items, jobs=3, places={"out": "c"})
    assert isinstance(site.events[0], BuildStarted)
    assert isinstance(site.events[-1], BuildFinished)
    assert site.events[0].total == 33
    assert site.events[-1].counts == result.counts
    at = {(type(event), event.label): index for index, event in enumerate(site.events)
          if isinstance(event, (ActionStarted, ActionFinished))}  # fmt: skip
    assert len(at) == 66
    for item in items:
        assert at[ActionStarted, item.label] < at[ActionFinished, item.label]
    for first, second in (("a", "b"), ("b", "c")):
        assert at[ActionFinished, first] < at[ActionStarted, second]
    assert site.heard(Waiting) == []


def test_many_small_actions_are_no_trouble(site: Site) -> None:
    def run(execution: Execution) -> Artifact:
        return File(execution.store.put(execution.label.encode()))

    items = [make(f"{n}", *([str(n - 50)] if n >= 50 else []), run=run) for n in range(2000)]
    assert counts(site.build(items, jobs=2)) == {"executed": 2000}
    assert counts(site.build(items)) == {"up_to_date": 2000}
