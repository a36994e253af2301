"""Executes one action of a graph to a filed result, whatever happens to its inputs' blobs meanwhile.

Between the scheduler, which chooses what runs, and the executor, which runs it. Equal keys are executed once, among
the actions of a build and among builds. A result found in a cache is provisional until its blobs are needed: what
turns out to be lost or corrupt is made again by running its producer within the same build ("rewinding",
engines.md §4.4).
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from strata_engine.action import Action, Literal, Placement, Scope, Source, SourceTree
from strata_engine.action_cache import Hit, artifact_of, result_of
from strata_engine.cas import BlobLost
from strata_engine.decision import Decider, MustRun, entry_of, warnings_of, warnings_to_bytes
from strata_engine.digest import Digest
from strata_engine.errors import ActionError, Diagnostic, InternalError, StrataError, host_error
from strata_engine.events import ActionStarted, Listener, Outcome, Placed, Waiting, Warned
from strata_engine.executor import Executor
from strata_engine.graph import ActionGraph, needs
from strata_engine.history import Past
from strata_engine.key import Key
from strata_engine.place import place
from strata_engine.results import Finished, failed
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.tree import Artifact, File, Node, total_size
from strata_engine.workspace import HeldLock, try_exclusive

ATTEMPTS = 3
"""How often an action is begun anew because a blob that it reads is lost, before the build gives up."""


class Executions:
    """The executions of one build. `done` is the scheduler's: how each label ended."""

    def __init__(
        self,
        graph: ActionGraph,
        decider: Decider,
        executor: Executor,
        emit: Listener,
        locks: Path,
        done: dict[str, Finished],
    ) -> None:
        self._graph = graph
        self._decider = decider
        self._executor = executor
        self._emit = emit
        self._locks = locks
        self._done = done
        self._running: dict[Digest, anyio.Event] = {}
        self._recovering: dict[str, anyio.Lock] = {}

    async def execute(self, action: Action, decision: MustRun, pool: str, slot: int) -> Finished:
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
            return failed(
                action.label,
                action.mnemonic,
                error,
                key=decision.key.digest,
                reasons=decision.reasons,
                seconds=time.monotonic() - begun,
            )
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
                size = self.size(artifact)
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
                await self.secure_inputs(action)
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
        inputs = self._decider.resolve(action, self.artifact)
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
        size = self.size(artifact)
        self._decider.history.record(action.label, Past.of(key.digest, artifact, seconds, size))
        return size

    def size(self, artifact: Artifact) -> int:
        """Give the size of an output's files together; 0 where it cannot be known."""
        try:
            return artifact.digest.size if isinstance(artifact, File) else total_size(self._decider.cas, artifact)
        except BlobLost:
            return 0

    def artifact(self, label: str) -> Artifact:
        """Give the output of a label that is done."""
        artifact = self._done[label].artifact
        assert artifact is not None, label
        return artifact

    async def secure_inputs(self, action: Action) -> None:
        """See to it that the content of every input is in the store."""
        for label in needs(action):
            await self.secure(label)
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

    async def secure(self, label: str) -> None:
        """See to it that an output is in the store whole, making it again where it is not."""
        async with self._recovering.setdefault(label, anyio.Lock()):
            finished = self._done[label]
            lost = await anyio.to_thread.run_sync(self._decider.cas.lost, self.artifact(label))
            if not lost:
                return
            action = self._graph.item(label)
            assert isinstance(action, Action)
            reasons = (*finished.reasons, Reason(ReasonCode.CACHE_BLOB_LOST, label, str(lost[0]), None))
            self._emit(ActionStarted(label, action.mnemonic, action.pool, -1, reasons, action.description))
            again = await self._attempt(action, reasons, time.monotonic())
            self._done[label] = again
            self._emit(again.event())

    async def place_all(self, placements: Sequence[Placement]) -> StrataError | None:
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
                    await self.secure(placement.ref.label)
                except OSError as error:
                    return host_error(error)
                except StrataError as error:
                    return error
        return None

    def _place(self, placement: Placement) -> None:
        history = self._decider.history
        node = entry_of(self._decider.cas, self.artifact(placement.ref.label), placement.ref)
        if history.intact(placement.path, node):
            return
        begun = time.monotonic()
        placement.path.parent.mkdir(parents=True, exist_ok=True)
        placed = place(self._decider.cas, node, placement.path)
        history.record_placed(placement.path, node)
        path = self._decider.sources.workspace.relative(placement.path)
        self._emit(Placed(placement.ref.label, path, time.monotonic() - begun, placed.files))


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
