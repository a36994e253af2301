"""Brings wanted labels up to date: decides as inputs become known, runs what must run, most critical first.

States of a label, each transition made in one place::

    waiting ──(all it needs is done)──> ready ──_settle──> done            up to date, cached
                                          └──> queued ──_work──> done      executed, failed
    waiting ──(something it needs failed, or the build stops)──> done      skipped

One coroutine decides, one per slot executes. Work starts as soon as one action is known to be stale; nothing waits
for the whole graph to be looked at. A result is provisional until its blobs are needed: what turns out to be lost or
corrupt is made again by running its producer within the same build ("rewinding", engines.md §4.4).
"""

from __future__ import annotations

import heapq
import os
import time
import traceback
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from strata_engine.action import Action, Expansion, Literal, Placement, Ref, Scope, Source, SourceTree
from strata_engine.action_cache import Hit, artifact_of, result_of
from strata_engine.cas import BlobLost
from strata_engine.decision import Decider, Done, MustRun, Settings, entry_of, warnings_of, warnings_to_bytes
from strata_engine.digest import Digest
from strata_engine.errors import ActionError, Diagnostic, InternalError, StrataError, host_error
from strata_engine.events import (
    ActionFinished,
    ActionStarted,
    GraphGrew,
    Listener,
    Outcome,
    Placed,
    Waiting,
    Warned,
)
from strata_engine.executor import Executor
from strata_engine.graph import ActionGraph, needs
from strata_engine.history import Past
from strata_engine.key import Key
from strata_engine.place import place
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.tree import Artifact, File, Node, total_size
from strata_engine.workspace import HeldLock, try_exclusive

ATTEMPTS = 3
"""How often an action is begun anew because a blob that it reads is lost, before the build gives up."""


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """How one action ended."""

    label: str
    mnemonic: str
    outcome: Outcome
    key: Digest | None = None
    artifact: Artifact | None = None
    reasons: tuple[Reason, ...] = ()
    seconds: float = 0.0
    bytes: int = 0
    diagnostics: tuple[Diagnostic, ...] = ()
    output: str = ""
    because: str = ""
    exit_code: int = 0


class _Pool:
    """Slots of one kind, and what waits for one: the longest remaining path first, then by label."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._heap: list[tuple[float, str, MustRun]] = []
        self._changed = anyio.Event()

    def push(self, priority: float, label: str, decision: MustRun) -> None:
        heapq.heappush(self._heap, (-priority, label, decision))
        self._changed.set()

    async def pop(self) -> tuple[str, MustRun]:
        while not self._heap:
            self._changed = anyio.Event()
            await self._changed.wait()
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
        self._executor = executor
        self._emit = emit
        self._locks = locks
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
        self._priorities: dict[str, float] = {}
        self._running: dict[Digest, anyio.Event] = {}
        self._recovering: dict[str, anyio.Lock] = {}
        self._wake = anyio.Event()
        self._scope = anyio.CancelScope()
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
        self._executor.children.cancel()
        self._scope.cancel()

    async def run(self, wanted: Iterable[str], placements: Sequence[Placement] = ()) -> dict[str, Finished]:
        """Bring the wanted labels up to date, then put outputs at their places. Never raises for a failed action."""
        self._wanted = set(wanted)
        self._grow()
        with self._scope:
            async with anyio.create_task_group() as group:
                for name, pool in self._pools.items():
                    for slot in range(pool.slots):
                        group.start_soon(self._work, name, pool, slot)
                await self._settle_all()
                if not self._settings.dry_run and (self._first_failure is None or self._settings.keep_going):
                    await self._place_all(placements)
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
            self._finish(self._failed(label, error))

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
            return self._decider.decide(action, self._decider.resolve(action, self._artifact))

        reads = any(isinstance(source, (Source, SourceTree)) for source in action.inputs.values())
        if reads or action.committed is not None:
            decision = await anyio.to_thread.run_sync(decide)
        else:
            try:
                decision = decide()
            except BlobLost:
                await self._secure_inputs(action)
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
        if not decision.fresh and not self._settings.dry_run:
            self._decider.keep(decision.key)
            if action.committed is not None:
                committed = action.committed
                await anyio.to_thread.run_sync(
                    committed.write, decision.key.digest, decision.artifact, self._decider.cas
                )
        outcome = Outcome.UP_TO_DATE if decision.fresh else Outcome.CACHED
        past = self._decider.history.past(action.label)
        seconds = past.seconds if past is not None else 0.0
        size = decision.size
        if not self._settings.dry_run:
            if not decision.fresh and not size:
                size = self._size(decision.artifact)
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
            node = entry_of(self._decider.cas, self._artifact(ref.label), ref)
            if not isinstance(node, File):
                raise InternalError.of("not-a-file", f"`{ref.label}` `{ref.path}` is not a file")
            return self._decider.cas.get(node.digest)

        for attempt in range(ATTEMPTS):
            try:
                added = list(expansion.expand(read))
                break
            except BlobLost:
                if attempt == ATTEMPTS - 1:
                    raise
                for ref in expansion.after:
                    await self._secure(ref.label)
        else:
            return
        for item in added:
            self._graph.add(item)
        self._graph.validate()
        self._expanded.add(expansion.label)
        self._release(expansion.label)
        self._grow()

    # -- executing ---------------------------------------------------------------------------------------------------

    async def _work(self, name: str, pool: _Pool, slot: int) -> None:
        while True:
            label, decision = await pool.pop()
            action = self._graph.item(label)
            assert isinstance(action, Action)
            self._finish(await self._execute(action, decision, name, slot))

    async def _execute(self, action: Action, decision: MustRun, pool: str, slot: int) -> Finished:
        """Execute one action, or take the result that someone else made of it meanwhile."""
        past = self._decider.history.past(action.label)
        expected = past.seconds if past is not None and past.seconds else None
        while (other := self._running.get(decision.key.digest)) is not None:
            await other.wait()
            if action.scope is not Scope.VOLATILE and (found := self._look_again(action, decision)) is not None:
                return found
        mine = self._running[decision.key.digest] = anyio.Event()
        begun = time.monotonic()
        try:
            async with self._exclusively(decision.key) as waited:
                if waited and (found := self._look_again(action, decision)) is not None:
                    return found
                begun = time.monotonic()
                self._emit(
                    ActionStarted(
                        action.label, action.mnemonic, pool, slot, decision.reasons, action.description, expected
                    )
                )
                return await self._attempt(action, decision.reasons, begun)
        except StrataError as error:
            self._decider.history.record(action.label, Past.of(decision.key.digest, None, time.monotonic() - begun))
            return self._failed(action.label, error, decision, time.monotonic() - begun)
        finally:
            del self._running[decision.key.digest]
            mine.set()

    def _exclusively(self, key: Key) -> _ActionLock:
        return _ActionLock(self._locks / key.digest.hash, self._emit)

    def _look_again(self, action: Action, decision: MustRun) -> Finished | None:
        """Look in the cache once more after having waited for whoever made the same thing."""
        match self._decider.cache.lookup(decision.key.digest):
            case Hit(result=result):
                artifact = artifact_of(result)
                if self._decider.cas.lost(artifact):
                    return None
                size = self._size(artifact)
                self._decider.history.record(action.label, Past.of(decision.key.digest, artifact, 0.0, size))
                return Finished(
                    label=action.label,
                    mnemonic=action.mnemonic,
                    outcome=Outcome.CACHED,
                    key=decision.key.digest,
                    artifact=artifact,
                    reasons=decision.reasons,
                    bytes=size,
                    diagnostics=warnings_of(result),
                )
            case _:
                return None

    async def _attempt(self, action: Action, reasons: tuple[Reason, ...], begun: float) -> Finished:
        """Run an action whose input blobs may turn out to be lost; file its result in the order of design §5."""
        for attempt in range(ATTEMPTS):
            try:
                await self._secure_inputs(action)
                inputs, key = await anyio.to_thread.run_sync(self._prepare, action)
                artifact, warnings = await self._run(action, inputs)
                break
            except BlobLost as lost:
                if attempt == ATTEMPTS - 1:
                    raise ActionError.of(
                        "blob-lost",
                        f"`{action.label}` could not read `{lost.digest}`, which the store keeps losing",
                        hint="check the disk that the store is on",
                    ) from lost
        else:  # pragma: no cover - the last attempt raises
            raise InternalError.of("no-attempt", action.label)
        seconds = time.monotonic() - begun
        size = await anyio.to_thread.run_sync(self._file, action, key, artifact, warnings, seconds)
        for warning in warnings:
            self._emit(Warned(warning, action.label))
        return Finished(
            label=action.label,
            mnemonic=action.mnemonic,
            outcome=Outcome.EXECUTED,
            key=key.digest,
            artifact=artifact,
            reasons=reasons,
            seconds=seconds,
            bytes=size,
            diagnostics=tuple(warnings),
        )

    def _prepare(self, action: Action) -> tuple[dict[str, Node], Key]:
        inputs = self._decider.resolve(action, self._artifact)
        return inputs, self._decider.key(action, inputs)

    async def _run(self, action: Action, inputs: dict[str, Node]) -> tuple[Artifact, list[Diagnostic]]:
        try:
            return await self._executor.run(action, inputs)
        except (StrataError, BlobLost):
            raise
        except OSError as error:
            raise host_error(error) from error
        except Exception as error:
            # A rule is a user's code too: its defect is this action's failure, not the build's.
            text = "".join(traceback.format_exception(error))
            message = f"the rule of `{action.label}` raised {type(error).__name__}: {error}"
            raise ActionError(Diagnostic("rule-crashed", message, action.place), output=text) from error

    def _file(
        self, action: Action, key: Key, artifact: Artifact, warnings: Sequence[Diagnostic], seconds: float
    ) -> int:
        """Keep a result: blobs, then the action result, then what git keeps, then history."""
        self._decider.keep(key)
        if action.scope is not Scope.VOLATILE:
            self._decider.cache.put(key.digest, result_of(artifact, stderr=warnings_to_bytes(warnings)))
        if action.committed is not None:
            action.committed.write(key.digest, artifact, self._decider.cas)
        size = self._size(artifact)
        self._decider.history.record(action.label, Past.of(key.digest, artifact, seconds, size))
        return size

    def _size(self, artifact: Artifact) -> int:
        try:
            return artifact.digest.size if isinstance(artifact, File) else total_size(self._decider.cas, artifact)
        except BlobLost:
            return 0

    # -- lost blobs --------------------------------------------------------------------------------------------------

    def _artifact(self, label: str) -> Artifact:
        artifact = self._done[label].artifact
        assert artifact is not None, label
        return artifact

    async def _secure_inputs(self, action: Action) -> None:
        """See to it that the content of every input is in the store."""
        for label in needs(action):
            await self._secure(label)
        for source in action.inputs.values():
            if isinstance(source, Literal):
                self._decider.cas.put(source.data)
        reads = [source for source in action.inputs.values() if isinstance(source, (Source, SourceTree))]
        if reads:
            await anyio.to_thread.run_sync(self._secure_sources, reads)

    def _secure_sources(self, reads: Sequence[Source | SourceTree]) -> None:
        cas, sources = self._decider.cas, self._decider.sources
        for source in reads:
            node: Artifact
            match source:
                case Source(path=path):
                    node = sources.file(path)
                case SourceTree(path=path, accept=accept):
                    node = sources.tree(cas, path, accept)
            for digest in cas.lost(node):
                sources.heal(cas, digest)

    async def _secure(self, label: str) -> None:
        """See to it that an output is in the store whole, making it again where it is not."""
        async with self._recovering.setdefault(label, anyio.Lock()):
            finished = self._done[label]
            lost = await anyio.to_thread.run_sync(self._decider.cas.lost, self._artifact(label))
            if not lost:
                return
            action = self._graph.item(label)
            assert isinstance(action, Action)
            reasons = (*finished.reasons, Reason(ReasonCode.CACHE_BLOB_LOST, label, str(lost[0]), None))
            self._emit(ActionStarted(label, action.mnemonic, action.pool, -1, reasons, action.description))
            again = await self._attempt(action, reasons, time.monotonic())
            self._done[label] = again
            self._emit(_event(again))

    # -- placing -----------------------------------------------------------------------------------------------------

    async def _place_all(self, placements: Sequence[Placement]) -> None:
        """Put outputs at their places, all after every action: a failed build leaves the old ones whole."""
        for placement in placements:
            finished = self._done.get(placement.ref.label)
            if finished is None or finished.artifact is None:
                continue
            for attempt in range(ATTEMPTS):
                try:
                    await anyio.to_thread.run_sync(self._place, placement)
                    break
                except BlobLost:
                    if attempt == ATTEMPTS - 1:
                        raise
                    await self._secure(placement.ref.label)
                except OSError as error:
                    self.error = host_error(error)
                    return
                except StrataError as error:
                    self.error = error
                    return

    def _place(self, placement: Placement) -> None:
        history = self._decider.history
        node = entry_of(self._decider.cas, self._artifact(placement.ref.label), placement.ref)
        if history.intact(placement.path, node):
            return
        begun = time.monotonic()
        placement.path.parent.mkdir(parents=True, exist_ok=True)
        placed = place(self._decider.cas, node, placement.path)
        history.record_placed(placement.path, node)
        path = self._decider.sources.workspace.relative(placement.path)
        self._emit(Placed(placement.ref.label, path, time.monotonic() - begun, placed.files))

    # -- ends --------------------------------------------------------------------------------------------------------

    def _finish(self, finished: Finished) -> None:
        label = finished.label
        if label in self._done:
            return
        self._seen.add(label)
        self._done[label] = finished
        if self._is_action(label) or finished.outcome is Outcome.FAILED:
            self._emit(_event(finished))
        if finished.outcome is Outcome.FAILED:
            self._first_failure = self._first_failure or finished
            if not self._settings.keep_going:
                self._stop()
        self._release(label)

    def _skipped(self, label: str, because: str) -> Finished:
        return Finished(label=label, mnemonic=self._mnemonic(label), outcome=Outcome.SKIPPED, because=because)

    def _failed(
        self, label: str, error: StrataError, decision: MustRun | None = None, seconds: float = 0.0
    ) -> Finished:
        return Finished(
            label=label,
            mnemonic=self._mnemonic(label),
            outcome=Outcome.FAILED,
            key=decision.key.digest if decision is not None else None,
            reasons=decision.reasons if decision is not None else (),
            seconds=seconds,
            diagnostics=error.diagnostics,
            output=error.output if isinstance(error, ActionError) else "",
            exit_code=error.exit_code,
        )

    def _mnemonic(self, label: str) -> str:
        item = self._graph.item(label)
        return item.mnemonic if isinstance(item, Action) else ""


class _ActionLock:
    """The lock of one action key among processes: who holds it makes the result, the others take it."""

    def __init__(self, path: Path, emit: Listener) -> None:
        self._path = path
        self._emit = emit
        self._held: HeldLock | None = None

    async def __aenter__(self) -> bool:
        """Wait for the lock; True where someone else had it."""
        waited = False
        while (held := try_exclusive(self._path)) is None:
            if not waited:
                self._emit(Waiting(f"action {self._path.name[:12]}", "another build that makes the same thing"))
            waited = True
            await anyio.sleep(0.05)
        self._held = held
        return waited

    async def __aexit__(self, *_: object) -> None:
        if self._held is not None:
            self._held.close()


def _event(finished: Finished) -> ActionFinished:
    return ActionFinished(
        finished.label,
        finished.mnemonic,
        finished.outcome,
        finished.seconds,
        finished.reasons,
        finished.bytes,
        finished.diagnostics,
        finished.output,
        finished.because,
    )
