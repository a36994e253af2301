"""Brings wanted labels up to date: decides as inputs become known, runs what must run, most critical first.

States of a label, each transition made in one place::

    waiting ──(all it needs is done)──> ready ──_settle──> done            up to date, cached
                                          └──> queued ──_work──> done      executed, failed
    waiting ──(something it needs failed, or the build stops)──> done      skipped

One coroutine decides, one per slot executes. Work starts as soon as one action is known to be stale; nothing waits
for the whole graph to be looked at. How one action is executed is `execution`'s business.
"""

from __future__ import annotations

import heapq
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread

from strata_engine.action import Action, Expansion, Placement, Ref, Source, SourceTree
from strata_engine.cas import BlobLost
from strata_engine.decision import Decider, Done, MustRun, Settings, entry_of
from strata_engine.errors import InternalError, StrataError
from strata_engine.events import GraphGrew, Listener, Outcome, Warned
from strata_engine.execution import ATTEMPTS, Executions
from strata_engine.executor import Executor
from strata_engine.graph import ActionGraph, needs
from strata_engine.history import Past
from strata_engine.results import Finished, failed
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.tree import File


class _Pool:
    """Slots of one kind, and what waits for one: the longest remaining path first, then by label."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._heap: list[tuple[float, str, MustRun]] = []
        self._filled = anyio.Semaphore(0)

    def push(self, priority: float, label: str, decision: MustRun) -> None:
        heapq.heappush(self._heap, (-priority, label, decision))
        self._filled.release()

    async def pop(self) -> tuple[str, MustRun]:
        await self._filled.acquire()
        _, label, decision = heapq.heappop(self._heap)
        return label, decision


class Scheduler:
    """One build's run over one graph."""

    def __init__(
        self,
        graph: ActionGraph,
        decider: Decider,
        executor: Executor,
        emit: Listener,
        locks: Path,
    ) -> None:
        self._graph = graph
        self._decider = decider
        self._children = executor.children
        self._emit = emit
        self._settings: Settings = decider.settings
        cores = os.cpu_count() or 1
        self._pools = {
            "cpu": _Pool(self._settings.jobs or cores),
            "network": _Pool(self._settings.network_jobs),
        }
        self._wanted: set[str] = set()
        self._closure: set[str] = set()
        self._waiting: dict[str, int] = {}
        self._ready: deque[str] = deque()
        self._seen: set[str] = set()
        """Labels that have left `waiting`."""
        self._expanded: set[str] = set()
        self._done: dict[str, Finished] = {}
        self._execution = Executions(graph, decider, executor, emit, locks, self._done)
        self._priorities: dict[str, float] = {}
        self._wake = anyio.Event()
        self._scope: anyio.CancelScope | None = None
        self._first_failure: Finished | None = None
        self.interrupted = False
        self.error: StrataError | None = None
        """What kept outputs from being placed."""

    @property
    def done(self) -> dict[str, Finished]:
        """How each action ended, by label."""
        return self._done

    @property
    def first_failure(self) -> Finished | None:
        """The failure that came first in time."""
        return self._first_failure

    def interrupt(self) -> None:
        """Stop: end children, cancel what runs, start nothing more. Safe to call more than once."""
        self.interrupted = True
        self._stop()

    def _stop(self) -> None:
        self._children.cancel()
        if self._scope is not None:
            self._scope.cancel()

    async def run(self, wanted: Iterable[str], placements: Sequence[Placement] = ()) -> dict[str, Finished]:
        """Bring the wanted labels up to date, then put outputs at their places. Never raises for a failed action."""
        self._wanted = set(wanted)
        self._grow()
        with anyio.CancelScope() as self._scope:
            async with anyio.create_task_group() as group:
                for name, pool in self._pools.items():
                    for slot in range(pool.slots):
                        group.start_soon(self._work, name, pool, slot)
                await self._settle_all()
                if not self._settings.dry_run and (self._first_failure is None or self._settings.keep_going):
                    self.error = await self._execution.place_all(placements)
                group.cancel_scope.cancel()
        because = self._first_failure.label if self._first_failure is not None else "interrupted"
        for label in sorted(self._closure - self._done.keys()):
            if self._is_action(label):
                self._finish(self._skipped(label, because))
        return self._done

    # -- the graph ---------------------------------------------------------------------------------------------------

    def _is_action(self, label: str) -> bool:
        return not isinstance(self._graph.item(label), Expansion)

    def _settled(self, label: str) -> bool:
        return label in self._done or label in self._expanded

    def _grow(self) -> None:
        """Take in what the graph has become: what is wanted, what waits for how much, what is critical."""
        self._closure = self._graph.closure(self._wanted)
        self._priorities = self._graph.priorities(self._decider.history.seconds())
        for label in sorted(self._closure - self._seen):
            self._waiting[label] = sum(not self._settled(needed) for needed in self._graph.predecessors(label))
            if not self._waiting[label]:
                self._make_ready(label)
        self._emit(GraphGrew(sum(self._is_action(label) for label in self._closure)))

    def _make_ready(self, label: str) -> None:
        if label not in self._seen:
            self._seen.add(label)
            self._ready.append(label)
            self._wake.set()

    def _release(self, label: str) -> None:
        """Count `label` as settled for all that waits for it."""
        for successor in self._graph.successors(label):
            if successor in self._waiting and successor not in self._seen:
                self._waiting[successor] -= 1
                if not self._waiting[successor]:
                    self._make_ready(successor)
        self._wake.set()

    # -- deciding ----------------------------------------------------------------------------------------------------

    async def _settle_all(self) -> None:
        """Decide about each label as it becomes ready, until every wanted one is done."""
        decided = 0
        while True:
            while self._ready:
                await self._settle(self._ready.popleft())
                decided += 1
                if decided % 64 == 0:
                    await anyio.lowlevel.checkpoint()
            if all(self._settled(label) for label in self._closure):
                return
            self._wake = anyio.Event()
            await self._wake.wait()

    async def _settle(self, label: str) -> None:
        item = self._graph.item(label)
        blocker = self._blocker(label)
        if blocker is not None:
            self._finish(self._skipped(label, blocker))
            return
        try:
            match item:
                case None:
                    raise InternalError.of("broken-promise", f"no expansion added `{label}`, which one had promised")
                case Expansion():
                    await self._expand(item)
                case Action():
                    await self._settle_action(item)
        except StrataError as error:
            self._finish(failed(label, self._mnemonic(label), error))

    def _blocker(self, label: str) -> str | None:
        """Name what stands in the way of a label: the first failure on its way."""
        for needed in self._graph.predecessors(label):
            there = self._done.get(needed)
            if there is not None and there.outcome in (Outcome.FAILED, Outcome.SKIPPED):
                return there.because or needed
        return None

    async def _settle_action(self, action: Action) -> None:
        unknown = self._unknown_input(action)
        if unknown is not None:
            reason = Reason(ReasonCode.UPSTREAM_CHANGED, unknown)
            self._finish(
                Finished(label=action.label, mnemonic=action.mnemonic, outcome=Outcome.EXECUTED, reasons=(reason,))
            )
            return

        def decide() -> Done | MustRun:
            return self._decider.decide(action, self._decider.resolve(action, self._execution.artifact))

        reads = any(isinstance(source, (Source, SourceTree)) for source in action.inputs.values())
        if reads or action.committed is not None:
            decision = await anyio.to_thread.run_sync(decide)
        else:
            try:
                decision = decide()
            except BlobLost:
                await self._execution.secure_inputs(action)
                decision = decide()
        match decision:
            case Done():
                await self._take(action, decision)
            case MustRun() if self._settings.dry_run:
                self._finish(
                    Finished(
                        label=action.label,
                        mnemonic=action.mnemonic,
                        outcome=Outcome.EXECUTED,
                        key=decision.key.digest,
                        reasons=decision.reasons,
                    )
                )
            case MustRun():
                pool = self._pools.get(action.pool) or self._pools["cpu"]
                pool.push(self._priorities.get(action.label, 0.0), action.label, decision)

    def _unknown_input(self, action: Action | Expansion) -> str | None:
        """Name an input that a dry run cannot know, because its producer would run."""
        if not self._settings.dry_run:
            return None
        return next((label for label in needs(action) if self._done[label].artifact is None), None)

    async def _take(self, action: Action, decision: Done) -> None:
        """File a result that did not have to be made."""
        stale = not decision.fresh and not self._settings.dry_run
        if stale or action.committed is not None:
            # A fresh checkout's lock was made elsewhere: without these blobs its next change could not be explained.
            self._decider.keep(decision.key)
        if stale and (committed := action.committed) is not None:
            await anyio.to_thread.run_sync(committed.write, decision.key.digest, decision.artifact, self._decider.cas)
        outcome = Outcome.UP_TO_DATE if decision.fresh else Outcome.CACHED
        past = self._decider.history.past(action.label)
        seconds = past.seconds if past is not None else 0.0
        size = decision.size
        if not self._settings.dry_run:
            if not decision.fresh and not size:
                size = self._execution.size(decision.artifact)
            self._decider.history.record(action.label, Past.of(decision.key.digest, decision.artifact, seconds, size))
        for warning in decision.warnings:
            self._emit(Warned(warning, action.label))
        self._finish(
            Finished(
                label=action.label,
                mnemonic=action.mnemonic,
                outcome=outcome,
                key=decision.key.digest,
                artifact=decision.artifact,
                reasons=decision.reasons,
                bytes=size,
                diagnostics=decision.warnings,
            )
        )

    async def _expand(self, expansion: Expansion) -> None:
        unknown = self._unknown_input(expansion)
        if unknown is not None:
            reason = Reason(ReasonCode.UPSTREAM_CHANGED, unknown)
            self._expanded.add(expansion.label)
            for promise in expansion.promises:
                self._seen.add(promise)
                self._finish(Finished(label=promise, mnemonic="", outcome=Outcome.EXECUTED, reasons=(reason,)))
            self._release(expansion.label)
            return

        def read(ref: Ref) -> bytes:
            node = entry_of(self._decider.cas, self._execution.artifact(ref.label), ref)
            if not isinstance(node, File):
                raise InternalError.of("not-a-file", f"`{ref.label}` `{ref.path}` is not a file")
            return self._decider.cas.get(node.digest)

        for item in await self._read_again(expansion, read):
            self._graph.add(item)
        self._graph.validate()
        # What was promised may need more than the expansion: everything that waits is counted anew.
        self._expanded.add(expansion.label)
        self._grow()

    async def _read_again(self, expansion: Expansion, read: Callable[[Ref], bytes]) -> Iterable[Action | Expansion]:
        """Expand; where what is read has been lost, after making it again."""
        for _ in range(ATTEMPTS - 1):
            try:
                return list(expansion.expand(read))
            except BlobLost:
                for ref in expansion.after:
                    await self._execution.secure(ref.label)
        return list(expansion.expand(read))

    # -- executing ----------------------------------------------------------------------------------------------------

    async def _work(self, name: str, pool: _Pool, slot: int) -> None:
        while True:
            label, decision = await pool.pop()
            action = self._graph.item(label)
            assert isinstance(action, Action)
            self._finish(await self._execution.execute(action, decision, name, slot))

    # -- ends --------------------------------------------------------------------------------------------------------

    def _finish(self, finished: Finished) -> None:
        label = finished.label
        if label in self._done:
            return
        self._seen.add(label)
        self._done[label] = finished
        if self._is_action(label) or finished.outcome is Outcome.FAILED:
            self._emit(finished.event())
        if finished.outcome is Outcome.FAILED:
            self._first_failure = self._first_failure or finished
            if not self._settings.keep_going:
                self._stop()
        self._release(label)

    def _skipped(self, label: str, because: str) -> Finished:
        return Finished(label=label, mnemonic=self._mnemonic(label), outcome=Outcome.SKIPPED, because=because)

    def _mnemonic(self, label: str) -> str:
        item = self._graph.item(label)
        return item.mnemonic if isinstance(item, Action) else ""
