"""How long a build would have taken: with other numbers of workers, or with results that a cache had had. Pure.

It plays the build again with the durations that were measured, as the scheduler would: of what is ready, the longest
way to the end goes first. Durations are taken to be the same however much runs at once, so what it gives are bounds
for a person to think with, and nothing decides by them.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from strata_engine.report.data import Saving
from strata_engine.run_record import ActionReport

UNBOUNDED = 0
"""As a number of workers: as many as there is work for."""


class Work(NamedTuple):
    """What was not up to date in a build, in an order in which it could be done."""

    labels: tuple[str, ...]
    seconds: tuple[float, ...]
    pools: tuple[str, ...]
    needs: tuple[tuple[int, ...], ...]
    """Positions among `labels`; all of them are smaller than one's own."""
    needing: tuple[tuple[int, ...], ...]


def work_of(reports: Sequence[ActionReport], pools: Mapping[str, str]) -> Work:
    """Put actions in order; `pools` is by label. What a record that names a cycle has in it is cut once."""
    known = {report.label: report for report in reports}
    order: dict[str, int] = {}
    needed: dict[str, list[str]] = {}
    for start in known:
        waiting = [start]
        while waiting:
            label = waiting[-1]
            fresh = []
            if label not in needed:
                needed[label] = [name for name in (*known[label].upstream, *known[label].deciders) if name in known]
                fresh = [name for name in needed[label] if name not in needed]
            if fresh:
                waiting += fresh
            else:
                order.setdefault(waiting.pop(), len(order))
    needs = tuple(tuple({order[name] for name in needed[label] if order[name] < at}) for label, at in order.items())
    needing: list[list[int]] = [[] for _ in order]
    for at, above in enumerate(needs):
        for each in above:
            needing[each].append(at)
    return Work(
        tuple(order),
        tuple(known[label].seconds for label in order),
        tuple(pools.get(label, "cpu") for label in order),
        needs,
        tuple(map(tuple, needing)),
    )


def longest(work: Work, cached: Container[int] = ()) -> float:
    """Give how long it takes with workers without end, where those in `cached` take no time."""
    ends = [0.0] * len(work.labels)
    for at, needs in enumerate(work.needs):
        own = 0.0 if at in cached else work.seconds[at]
        ends[at] = own + max((ends[each] for each in needs), default=0.0)
    return max(ends, default=0.0)


def played(work: Work, workers: Mapping[str, int], cached: Container[int] = ()) -> float:
    """Give how long it takes with so many workers per pool; a pool that is not named has no bound."""
    missing = [len(needs) for needs in work.needs]
    seconds = [0.0 if at in cached else each for at, each in enumerate(work.seconds)]
    ways = list(seconds)
    for at in range(len(ways) - 1, -1, -1):
        ways[at] += max((ways[each] for each in work.needing[at]), default=0.0)
    free = {pool: workers.get(pool, UNBOUNDED) or len(work.labels) for pool in set(work.pools)}
    ready: dict[str, list[tuple[float, int]]] = {pool: [] for pool in free}
    running: list[tuple[float, int]] = []
    now = 0.0
    done = [at for at, count in enumerate(missing) if not count]
    for at in done:
        heapq.heappush(ready[work.pools[at]], (-ways[at], at))
    while True:
        for pool, waiting in ready.items():
            while waiting and free[pool]:
                _, at = heapq.heappop(waiting)
                free[pool] -= 1
                heapq.heappush(running, (now + seconds[at], at))
        if not running:
            return now
        now, at = heapq.heappop(running)
        free[work.pools[at]] += 1
        for each in work.needing[at]:
            missing[each] -= 1
            if not missing[each]:
                heapq.heappush(ready[work.pools[each]], (-ways[each], each))


def savings(work: Work, mnemonics: Mapping[str, str], workers: Mapping[str, int] | None, *, most: int) -> list[Saving]:
    """List the most worthwhile results to have had, the best first."""
    by_seconds = sorted(range(len(work.labels)), key=lambda at: -work.seconds[at])
    kinds: dict[str, list[int]] = {}
    for at, label in enumerate(work.labels):
        kinds.setdefault(mnemonics.get(label, ""), []).append(at)
    # What saves most is among what took longest, or is on the way on which all waits.
    tried = [(work.labels[at], False, [at]) for at in by_seconds[: 2 * most]]
    tried += [(kind, True, ats) for kind, ats in kinds.items() if len(ats) > 1]
    base = longest(work), played(work, workers) if workers is not None else 0.0
    found = []
    for name, kind, ats in tried:
        gone = set(ats)
        # Another order may come out a little worse: that is chance, no loss.
        now = max(0.0, base[1] - played(work, workers, gone)) if workers is not None else None
        takes = sum(work.seconds[at] for at in ats)
        found.append(Saving(name, kind, takes, now, max(0.0, base[0] - longest(work, gone))))
    least = 0.002 * base[0]
    found = [each for each in found if max(each.now or 0.0, each.unbounded) > least]
    found.sort(key=lambda each: (-(each.now if each.now is not None else each.unbounded), -each.unbounded, each.name))
    return found[:most]
