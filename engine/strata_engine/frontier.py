"""The frontier of a build: how much of the graph is wanted, what each label of it still waits for, what is ready.

It knows labels and what needs what, not how a label is settled. For the event loop only, but for `after`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping

from strata_engine.graph import ActionGraph


class Frontier:
    """Labels by their state: waiting, ready, or settled."""

    def __init__(self, graph: ActionGraph, wake: Callable[[], None]) -> None:
        self._graph = graph
        self._wake = wake
        """Called when something was settled or has become ready."""
        self._wanted: frozenset[str] = frozenset()
        self.closure: set[str] = set()
        """What is to be settled, for what is wanted."""
        self.open: set[str] = set()
        """What of it is not settled."""
        self._settled: set[str] = set()
        self._waiting: dict[str, int] = {}
        self._seen: set[str] = set()
        """Labels that wait no more."""
        self._ready: list[tuple[float, str]] = []
        self._undecided: set[str] = set()
        """Labels that are ready, and of which it is not known what there is to do."""
        self._priorities: Mapping[str, float] = {}

    def want(self, labels: Iterable[str], seconds: Mapping[str, float]) -> None:
        """Begin. Raises SpecError for a label that nobody makes."""
        self._wanted = frozenset(labels)
        self.grow(seconds)

    def grow(self, seconds: Mapping[str, float], settled: str | None = None) -> None:
        """Take in what the graph has become: everything that waits is counted anew.

        `settled` is the expansion that made it grow. What it promised may need more than it, so nothing is released.
        """
        if settled is not None:
            self._settled.add(settled)
            self._undecided.discard(settled)
        self.closure = self._graph.closure(self._wanted)
        self.open = self.closure - self._settled
        self._priorities = self._graph.priorities(seconds)
        for label in sorted(self.closure - self._seen):
            self._waiting[label] = sum(needed not in self._settled for needed in self._graph.predecessors(label))
            if not self._waiting[label]:
                self._make_ready(label)
        self._wake()

    def settle(self, label: str) -> None:
        """Count a label as settled for all that waits for it."""
        self._settled.add(label)
        self._seen.add(label)
        self._undecided.discard(label)
        self.open.discard(label)
        for successor in self._graph.successors(label):
            if successor in self._waiting and successor not in self._seen:
                self._waiting[successor] -= 1
                if not self._waiting[successor]:
                    self._make_ready(successor)
        self._wake()

    def next(self) -> str | None:
        """Take the most critical label that is ready."""
        return heapq.heappop(self._ready)[1] if self._ready else None

    def put_back(self, label: str) -> None:
        """Make a label ready again that has been taken."""
        heapq.heappush(self._ready, (-self.priority(label), label))
        self._undecided.add(label)
        self._wake()

    def decided(self, label: str) -> None:
        """Note that it is known what there is to do about a label."""
        self._undecided.discard(label)

    def priority(self, label: str) -> float:
        """Tell how much hangs on a label, in seconds."""
        return self._priorities.get(label, 0.0)

    def after(self, label: str, above: float) -> list[str]:
        """List what may begin after a label and is more critical than `above`; from any thread."""
        return [after for after in self._graph.successors(label) if self.priority(after) > above]

    def is_undecided(self, labels: Iterable[str]) -> bool:
        """Tell whether any of these labels is ready and not decided about."""
        return not self._undecided.isdisjoint(labels)

    def _make_ready(self, label: str) -> None:
        if label not in self._seen:
            self._seen.add(label)
            self.put_back(label)
