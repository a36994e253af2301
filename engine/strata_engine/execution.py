"""Executes one action of a graph to a filed result, whatever happens to its inputs' blobs meanwhile.

Between the scheduler, which chooses what runs, and the executor, which runs it. Equal keys are executed once among
builds (the scheduler sees to it within one). A result found in a cache is provisional until its blobs are needed: what
turns out to be lost or corrupt is fetched from a remote or made again, by running its producer within the same build
("rewinding", engines.md §4.4).

Hard part: an action that takes no time must cost no time. So `try_here` does all of it on one thread, and leaves to
`execute` what has to wait for something. Results are in `groups`' hands afterwards.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import anyio
import msgspec

from strata_engine.action import Action, Expansion, Ref, Scope, Source, SourceTree
from strata_engine.action_cache import Hit, artifact_of, result_of
from strata_engine.arriving import Arriving
from strata_engine.cas import BlobLost
from strata_engine.claims import Claim, Unwanted, Who
from strata_engine.decision import (
    Decider,
    MustRun,
    entry_of,
    is_expected,
    may_leave,
    size_of,
    warnings_of,
    warnings_to_bytes,
)
from strata_engine.digest import Digest
from strata_engine.errors import ActionError, Diagnostic, HostError, StrataError, host_error
from strata_engine.events import ActionStarted, Listener, Outcome, Waiting, Warned
from strata_engine.executor import Cancelled, Executor, in_thread, is_plain
from strata_engine.graph import ActionGraph
from strata_engine.groups import Groups
from strata_engine.history import Past
from strata_engine.key import Key
from strata_engine.locks import KeyLocks
from strata_engine.remote.explaining import folders_of
from strata_engine.remote.found import FROM_REMOTE, Found
from strata_engine.remote.spool import About
from strata_engine.results import Finished, failed
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.tree import Artifact, Node

if TYPE_CHECKING:
    # Who has no remote caches does not pay for them.
    from strata_engine.remote.caches import RemoteCaches

ATTEMPTS = 3
"""How often an action is begun anew because a blob that it reads is lost, before the build gives up."""

POLL_SECONDS = 0.05
"""How often a lock that another build has is tried."""


class Executions:
    """The executions of one build. `done` is the scheduler's: how each label ended."""

    def __init__(
        self,
        graph: ActionGraph,
        decider: Decider,
        executor: Executor,
        emit: Listener,
        locks: KeyLocks,
        groups: Groups,
        done: dict[str, Finished],
        remotes: RemoteCaches | None = None,
    ) -> None:
        self._graph = graph
        self._decider = decider
        self._executor = executor
        self._emit = emit
        self._locks = locks
        self._done = done
        self._recovering: dict[str, anyio.Lock] = {}
        self._in_doubt = False
        """Whether a blob turned out to be lost or damaged: then all that is needed is read before it is relied on."""
        self._groups = groups
        self._remotes = remotes
        self._claims: dict[str, Claim] = {}

    def try_here(self, action: Action, decision: MustRun, pool: str, slot: int) -> Finished | None:
        """Execute an action that is a plain function on this thread, or take the result that someone made meanwhile.

        None where something has to be waited for first: then `execute` does it.
        """
        key = decision.key.digest
        if self.lacks_inputs(action) or not self._locks.take(key):
            return None
        recorded = False
        begun = time.monotonic()
        try:
            found = self._look_again(action, decision)
            if found is not None:
                return found
            self._secure_sources(action)
            self._tell_start(action, decision, pool, slot)
            finished = self._make(action, decision.reasons, begun, decision)
            recorded = True
        except BlobLost:
            self._in_doubt = True
            return None
        except StrataError as error:
            return self._failed(action, decision, error, begun)
        finally:
            if not recorded:
                self._locks.release([key])
        self._groups.add(key, finished.seconds)
        return finished

    def lacks_inputs(self, action: Action) -> bool:
        """Tell whether the content of any input is not in the store."""
        return any(self._lost(ref) for ref in refs_of(action))

    def find_elsewhere(self, action: Action, decision: MustRun, wanted: Callable[[], bool]) -> Finished | MustRun:
        """Take the result of another machine where a remote has it; else say what is to be done here.

        It is asked as long as it is `wanted`; `Unwanted` is raised where it is not any more. Raises HostError where a
        remote must answer and does not.
        """
        assert self._remotes is not None
        key = decision.key

        def check() -> None:
            if self._executor.children.cancelled.is_set():
                raise Cancelled
            if not wanted():
                raise Unwanted

        def accept(artifact: Artifact) -> bool:
            return is_expected(action, artifact, self._decider.cas)

        begun = time.monotonic()
        answer = self._remotes.find(key.digest, key.action, action.fixed, accept, check)
        match answer:
            case Found():
                finished = self._taken(action, decision, answer)
                self._remotes.took(key.digest, answer.seconds - (time.monotonic() - begun))
                return finished
            case None:
                return decision
            case _:
                reason = Reason(ReasonCode.CACHE_UNTRUSTED, answer.origin, answer.why)
                return msgspec.structs.replace(decision, reasons=(*decision.reasons, reason))

    def contested(self, label: str) -> None:
        """Let a label be executed while remotes are asked for its result: whichever is first, is filed."""
        self._claims[label] = Claim()

    def _wins(self, label: str, who: Who) -> bool:
        """Claim that `who` says how a label ended; tell whether that is so."""
        claim = self._claims.get(label)
        return claim is None or claim.take(who)

    def _claim(self, label: str, who: Who) -> None:
        """Claim it. Raises `Unwanted` where another has done so."""
        if not self._wins(label, who):
            raise Unwanted

    def _taken(self, action: Action, decision: MustRun, found: Found) -> Finished:
        self._claim(action.label, Who.REMOTE)
        key, artifact = decision.key.digest, found.artifact
        size = size_of(self._decider.cas, artifact)
        self._decider.keep(decision.key)
        result = found.result
        kept = result_of(
            artifact,
            stderr=result.stderr_raw,
            worker=FROM_REMOTE,
            started_ns=result.started_ns,
            completed_ns=result.completed_ns,
        )
        self._decider.cache.put_later(key, kept)
        self._decider.record(action, Past.of(key, artifact, found.seconds, size))
        warnings = warnings_of(result)
        for warning in warnings:
            self._emit(Warned(warning, action.label))
        return Finished(
            label=action.label,
            mnemonic=action.mnemonic,
            outcome=Outcome.REMOTE,
            key=key,
            artifact=artifact,
            reasons=decision.reasons,
            bytes=size,
            diagnostics=warnings,
            origin=found.origin,
        )

    async def execute(self, action: Action, decision: MustRun, pool: str, slot: int) -> Finished | None:
        """Execute one action, or take the result that someone else made of it meanwhile.

        None where a remote that was asked at the same time was faster.
        """
        key = decision.key.digest
        waited = await self._lock(key)
        recorded = False
        begun = time.monotonic()
        try:
            found = self._look_again(action, decision, waited=waited)
            if found is not None:
                return found
            self._tell_start(action, decision, pool, slot)
            finished = await self._attempt(action, decision.reasons, begun, decision)
            recorded = True
        except Unwanted:
            return None
        except StrataError as error:
            return self._failed(action, decision, error, begun) if self._wins(action.label, Who.HERE) else None
        finally:
            if not recorded:
                self._locks.release([key])
        await in_thread(self._groups.add, key, finished.seconds)
        return finished

    async def _lock(self, key: Digest) -> bool:
        """Wait for the lock of a key; True where someone else had it."""
        waited = False
        while not self._locks.take(key):
            if not waited:
                self._emit(Waiting(f"action {key.hash[:12]}", "another build that makes the same thing"))
            waited = True
            await anyio.sleep(POLL_SECONDS)
        return waited

    def _tell_start(self, action: Action, decision: MustRun, pool: str, slot: int) -> None:
        past = self._decider.history.past(action.label)
        expected = past.seconds if past is not None and past.seconds else None
        self._emit(
            ActionStarted(action.label, action.mnemonic, pool, slot, decision.reasons, action.description, expected)
        )

    def _failed(self, action: Action, decision: MustRun, error: StrataError, begun: float) -> Finished:
        seconds = time.monotonic() - begun
        key = decision.key.digest
        # Kept so that the next build can say what has changed since.
        self._decider.keep(decision.key)
        self._decider.record(action, Past.of(key, None, seconds))
        return failed(
            action.label,
            action.mnemonic,
            error,
            place=action.place,
            key=key,
            reasons=decision.reasons,
            seconds=seconds,
        )

    def _look_again(self, action: Action, decision: MustRun, *, waited: bool = False) -> Finished | None:
        """Look in the cache once more: another build may have made the same thing since it was decided to make it."""
        forced = any(reason.reason is ReasonCode.FORCED for reason in decision.reasons)
        if action.scope is Scope.VOLATILE or (forced and not waited) or self._locks.alone():
            return None
        match self._decider.cache.lookup(decision.key.digest):
            case Hit(result=result):
                artifact = artifact_of(result)
                if action.committed is not None or self._decider.cas.lost(artifact):
                    return None
                self._claim(action.label, Who.HERE)
                past = self._decider.history.past(action.label)
                seconds = past.seconds if past is not None else 0.0
                size = size_of(self._decider.cas, artifact)
                self._decider.keep(decision.key)
                self._decider.record(action, Past.of(decision.key.digest, artifact, seconds, size))
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

    async def _attempt(
        self,
        action: Action,
        reasons: tuple[Reason, ...],
        begun: float,
        decision: MustRun | None = None,
        who: Who = Who.HERE,
    ) -> Finished:
        """Run an action whose input blobs may turn out to be lost. Raises `Unwanted` where another than `who` files."""
        for attempt in range(ATTEMPTS):
            try:
                await self.secure_inputs(action)
                if is_plain(action):
                    return await in_thread(self._make, action, reasons, begun, decision, who)
                inputs, key = await in_thread(self._prepare, action, decision)
                with as_failure(action):
                    artifact, warnings = await self._executor.run(action, inputs)
                return await in_thread(self._file, action, reasons, begun, key, artifact, warnings, who)
            except BlobLost as lost:
                self._in_doubt = True
                if attempt == ATTEMPTS - 1:
                    raise self.given_up(action.label, lost) from lost
        raise AssertionError("the last attempt returns or raises")

    @staticmethod
    def given_up(label: str, lost: BlobLost) -> HostError:
        """Say that a blob is lost again and again."""
        return HostError.of(
            "blob-lost",
            f"`{label}` could not read `{lost.digest}`, which the store keeps losing",
            hint="check the disk that the store is on",
        )

    def _make(
        self,
        action: Action,
        reasons: tuple[Reason, ...],
        begun: float,
        decision: MustRun | None,
        who: Who = Who.HERE,
    ) -> Finished:
        inputs, key = self._prepare(action, decision)
        with as_failure(action):
            artifact, warnings = self._executor.run_here(action, inputs)
        return self._file(action, reasons, begun, key, artifact, warnings, who)

    def _prepare(self, action: Action, decision: MustRun | None) -> tuple[dict[str, Node], Key]:
        """Give the inputs as they are now, and their key: an input that was made again may have become another."""
        inputs = self._decider.resolve(action, self.artifact)
        if decision is not None and decision.inputs == inputs:
            return inputs, decision.key
        return inputs, self._decider.key(action, inputs)

    def _file(
        self,
        action: Action,
        reasons: tuple[Reason, ...],
        begun: float,
        key: Key,
        artifact: Artifact,
        warnings: Sequence[Diagnostic],
        who: Who,
    ) -> Finished:
        """Keep a result: blobs, then the action result, then what git keeps, then history."""
        self._claim(action.label, who)
        seconds = time.monotonic() - begun
        self._decider.keep(key)
        size = size_of(self._decider.cas, artifact)
        if action.scope is not Scope.VOLATILE:
            completed = time.time_ns()
            result = result_of(
                artifact,
                stderr=warnings_to_bytes(warnings),
                started_ns=completed - int(seconds * 1e9),
                completed_ns=completed,
            )
            self._decider.cache.put_later(key.digest, result)
            self.offer(action, key.digest, size, made=True)
        if action.committed is not None:
            self._decider.cache.flush()
            action.committed.write(key.digest, artifact, self._decider.cas)
        self._decider.record(action, Past.of(key.digest, artifact, seconds, size))
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

    def has(self, label: str) -> bool:
        """Tell whether a label has an output."""
        finished = self._done.get(label)
        return finished is not None and finished.artifact is not None

    def artifact(self, label: str) -> Artifact:
        """Give the output of a label that is done."""
        artifact = self._done[label].artifact
        assert artifact is not None, label
        return artifact

    def offer(self, action: Action, key: Digest, size: int, *, made: bool) -> None:
        """Have a result of this machine sent to remotes, where it is one that may leave it, and noted there.

        One that was not `made` by this build is sent where a remote does not have it.
        """
        if self._remotes is None or not self._remotes.sends:
            return
        # What git keeps goes without its result: who asks something else is told what.
        about = About(action.mnemonic, action.label, folders_of(action), is_question=not may_leave(action))
        if not about.is_question or action.committed is not None:
            self._remotes.offer(key, size, made=made, about=about)

    # -- lost blobs --------------------------------------------------------------------------------------------------

    async def secure_inputs(self, action: Action) -> None:
        """See to it that the content of every input is in the store."""
        for ref in refs_of(action):
            await self.secure(ref)
        if any(isinstance(source, (Source, SourceTree)) for source in action.inputs.values()):
            await in_thread(self._secure_sources, action)

    async def secure_all(self, item: Action | Expansion) -> None:
        """See to it that all that an item reads is in the store."""
        if isinstance(item, Action):
            await self.secure_inputs(item)
        else:
            for ref in item.after:
                await self.secure(ref)

    def _secure_sources(self, action: Action) -> None:
        cas, sources = self._decider.cas, self._decider.sources
        for source in action.inputs.values():
            node: Artifact
            match source:
                case Source(path=path):
                    node = sources.file(path)
                case SourceTree(path=path, accept=accept, follow=follow, empty=empty):
                    node = sources.tree(cas, path, accept, follow=follow, empty=empty)
                case _:
                    continue
            for digest in cas.damaged(node) if self._in_doubt else cas.lost(node):
                sources.heal(cas, digest)

    async def secure(self, ref: Ref) -> None:
        """See to it that an output, or the part of it that is meant, is in the store whole.

        What is not there is fetched from a remote, and made again where none has it.
        """
        label = ref.label
        async with self._recovering.setdefault(label, anyio.Lock()):
            lost = await in_thread(self._lost, ref)
            if lost and self._remotes is not None:
                lost = await in_thread(self._fetched, ref, lost)
            if not lost:
                return
            finished = self._done[label]
            action = self._graph.item(label)
            assert isinstance(action, Action)
            reasons = (*finished.reasons, Reason(ReasonCode.CACHE_BLOB_LOST, label, str(lost[0]), None))
            self._emit(ActionStarted(label, action.mnemonic, action.pool, -1, reasons, action.description))
            # Whoever still makes it, having lost a race, files it no more.
            self._claims[label] = Claim(Who.AGAIN)
            again = await self._attempt(action, reasons, time.monotonic(), who=Who.AGAIN)
            self._done[label] = again
            self._emit(again.event())

    def _lost(self, ref: Ref) -> list[Digest]:
        """List what is not in the store of an output, or of a part of it."""
        cas = self._decider.cas
        look = cas.damaged if self._in_doubt else cas.lost
        try:
            return look(entry_of(cas, self.artifact(ref.label), ref))
        except BlobLost as lost:
            return [lost.digest]

    def _fetched(self, ref: Ref, lost: list[Digest]) -> list[Digest]:
        """Fetch from remotes what is lost; give what still is. Then no remote is believed about this output again."""
        assert self._remotes is not None
        children = self._executor.children

        def check() -> None:
            if children.cancelled.is_set():
                raise Cancelled

        came = Arriving(ref.label, sum(digest.size for digest in lost), self._emit)
        try:
            self._remotes.fetch(lost, self.artifact(ref.label), check, came.add)
        finally:
            came.end()
        finished, action = self._done[ref.label], self._graph.item(ref.label)
        lost = self._lost(ref)
        if lost and finished.key is not None and isinstance(action, Action) and may_leave(action):
            self._remotes.disbelieve(finished.key)
        return lost


def refs_of(action: Action) -> list[Ref]:
    """List what an action reads of the outputs of others."""
    return [source for source in action.inputs.values() if isinstance(source, Ref)]


@contextlib.contextmanager
def as_failure(item: Action | Expansion) -> Iterator[None]:
    """Make of whatever a rule raises an error that is this item's and not the build's: it is a user's code too."""
    try:
        yield
    except (StrataError, Cancelled):
        raise
    except OSError as error:
        raise host_error(error) from error
    except Exception as error:
        message = f"the rule of `{item.label}` raised {type(error).__name__}: {error}"
        place = item.place if isinstance(item, Action) else None
        output = "".join(traceback.format_exception(error))
        raise ActionError(Diagnostic("rule-crashed", message, place), output=output) from error
