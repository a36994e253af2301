from __future__ import annotations

import itertools
import random

from strata_engine.critical import critical_path
from strata_engine.events import Outcome
from strata_engine.run_record import ActionReport


def report(label: str, seconds: float, *upstream: str, deciders: tuple[str, ...] = ()) -> ActionReport:
    return ActionReport(
        label=label,
        mnemonic="M",
        key="",
        outcome=Outcome.EXECUTED,
        seconds=seconds,
        upstream=upstream,
        deciders=deciders,
    )


def test_the_longest_way_in_seconds_not_in_actions() -> None:
    reports = [
        report("short1", 1), report("short2", 1, "short1"), report("short3", 1, "short2"),
        report("long", 5), report("end", 1, "short3", "long", "up-to-date"), report("after", 0.5, deciders=("end",)),
    ]  # fmt: skip
    assert critical_path(reports) == ["long", "end", "after"]
    assert critical_path([]) == []
    assert critical_path([report("alone", 0)]) == ["alone"]


def test_as_long_as_any_way_through_random_graphs() -> None:
    chance = random.Random(7)
    for _ in range(50):
        size = chance.randrange(1, 9)
        reports = [
            report(str(n), chance.random(), *[str(m) for m in range(n) if chance.random() < 0.4]) for n in range(size)
        ]
        seconds = {each.label: each.seconds for each in reports}

        def longest(label: str, reports: list[ActionReport] = reports) -> float:
            own = reports[int(label)]
            return own.seconds + max((longest(name) for name in own.upstream), default=0.0)

        found = critical_path(reports)
        assert abs(sum(seconds[label] for label in found) - max(map(longest, seconds))) < 1e-9
        assert all(one in reports[int(two)].upstream for one, two in itertools.pairwise(found))


def test_a_record_that_names_a_cycle_ends_all_the_same() -> None:
    assert set(critical_path([report("a", 1, "b"), report("b", 1, "a")])) <= {"a", "b"}
