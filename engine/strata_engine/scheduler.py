"""Brings wanted labels up to date: decides as inputs become known, runs what must run, most critical first.

States of a label, each transition made in one place::

    waiting ──(all it needs is done)──> ready ──_settle──> done            up to date, cached
                  ^                       ├──> asked ──_ask──> done        remote
                  |                       |      └──(no remote has it, or it takes too long)
                  |                       └──> queued <──┘ ──_work──> done executed, failed
                  └──(an input is lost: made again, or the same thing is being made)
    waiting ──(something it needs failed, or the build stops)──> done      skipped

One coroutine decides, one per slot executes. Work starts as soon as one action is known to be stale; nothing waits
for the whole graph to be looked at. How one action is executed is `execution`'s business.

Hard part: thousands of actions that take no time, and a few on which everything waits. Decisions are made on a
thread, many at a time; a slot that has done one plain action takes the next one on its own thread; the loop hears of
both as `news`. But a slot whose action leads on to something more critical than all that waits lets that go first.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import anyio

from strata_engine.action import Action, Expansion, Placement, Ref
from strata_engine.cas import BlobLost
from strata_engine.claims import Unwanted
from strata_engine.deciding import Decided, Deciding
from strata_engine.decision import Decider, Decision, Done, MustRun, Settings, entry_of
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, InternalError, StrataError
from strata_engine.events import GraphGrew, Listener, Outcome, Warned
from strata_engine.execution import ATTEMPTS, Executions, as_failure
from strata_engine.executor import Executor, in_thread, is_plain
from strata_engine.frontier import Frontier
from strata_engine.graph import ActionGraph, needs
from strata_engine.groups import Groups
from strata_engine.history import Past
from strata_engine.locks import KeyLocks
from strata_engine.news import News
from strata_engine.placing import Placing
from strata_engine.pool import Pool
from strata_engine.results import Finished, failed
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.tree import File

if TYPE_CHECKING:
    from strata_engine.remote.caches import RemoteCaches


class Ask(NamedTuple):
    """To be asked of remotes before it is executed."""

    decision: MustRun


Work: TypeAlias = MustRun | Ask | None
"""What a slot is to do: execute, ask remotes, or (None) see to it that the inputs of a label are in the store."""

ASKED = 16
"""How many results remotes are asked for at once."""

BATCH = 256
"""Actions that are decided about at once, at most."""


class Scheduler:
    """One build's run over one graph."""

    def __init__(
        self,
        graph: ActionGraph,
        decider: Decider,
        executor: Executor,
        emit: Listener,
        locks: Path,
        remotes: RemoteCaches | None = None,
    ) -> None:
        self._graph = graph
        self._decider = decider
        self._children = executor.children
        self._emit = emit
        self._settings: Settings = decider.settings
        cores = os.cpu_count() or 1
        self._pools: dict[str, Pool[Work]] = {
            "cpu": Pool(self._settings.jobs or cores),
            "network": Pool(self._settings.network_jobs),
        }
        self._remotes = None if self._settings.dry_run else remotes
        if self._remotes is not None:
            self._pools["remote"] = Pool(ASKED)
        self._changed = anyio.Event()
        """Set when something was settled or has become ready."""
        self._frontier = Frontier(graph, self._wake)
        self._done: dict[str, Finished] = {}
        self._locks = KeyLocks(locks / "actions")
        self._groups = Groups(decider.cache, self._locks)
        self._execution = Executions(
            graph, decider, executor, emit, self._locks, self._groups, self._done, self._remotes
        )
        self._making: dict[str, Digest] = {}
        """The key of each label that is queued or runs."""
        self._same: dict[Digest, list[str]] = {}
        """By a key that is being made: the other labels that have it."""
        self._racing: set[str] = set()
        """Labels that are executed while remotes are asked for them."""
        self._recoveries: Counter[str] = Counter()
        self._news: News[Finished | Decided] = News()
        self._deciding = Deciding(decider, self._execution.artifact, self._news.post, self._children.cancelled)
        self._turn = anyio.Event()
        """Set when news has been heard."""
        self._scope: anyio.CancelScope | None = None
        self._first_failure: Finished | None = None
        self.interrupted = False
        self.error: StrataError | None = None
        """What kept results or outputs from being written."""

    @property
    def done(self) -> dict[str, Finished]:
        """How each action ended, by label; an expansion is among them only where it failed."""
        return {
            label: finished
            for label, finished in self._done.items()
            if self._is_action(label) or finished.outcome is Outcome.FAILED
        }

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

    async def run(
        self, wanted: Iterable[str], placements: Sequence[Placement] = (), whole: Sequence[Ref] = ()
    ) -> dict[str, Finished]:
        """Bring the wanted labels up to date, then put outputs at their places. Never raises for a failed action.

        What is `whole` is in the store afterwards, with all its blobs.
        """
        self._news.open()
        self._frontier.want(wanted, self._decider.history.seconds())
        self._tell_total()
        try:
            with anyio.CancelScope() as self._scope:
                if self.interrupted:
                    self._scope.cancel()
                async with anyio.create_task_group() as group:
                    group.start_soon(self._hear_often)
                    group.start_soon(self._groups.commit_often)
                    for name, pool in self._pools.items():
                        for slot in range(pool.slots):
                            group.start_soon(self._work, name, pool, slot)
                    await self._settle_all()
                    if not self._settings.dry_run and (self._first_failure is None or self._settings.keep_going):
                        self.error = await self._place(placements, whole)
                    # What still runs has lost a race, and nobody waits for it.
                    self._children.cancel()
                    group.cancel_scope.cancel()
            self._hear()
            self._groups.commit()
        except StrataError as error:
            self.error = self.error or error
        finally:
            # Only a defect comes here with children that still run; nobody would wait for them any more.
            self._children.cancel()
            self._locks.close()
        because = self._first_failure.label if self._first_failure is not None else "interrupted"
        for label in sorted(self._frontier.open):
            if self._is_action(label):
                self._finish(self._skipped(label, because))
        return self.done

    async def _place(self, placements: Sequence[Placement], whole: Sequence[Ref]) -> StrataError | None:
        try:
            await in_thread(self._groups.commit)
            for ref in whole:
                if self._execution.has(ref.label):
                    await self._execution.secure(ref)
        except StrataError as error:
            return error
        return await Placing(self._decider, self._execution, self._emit).place_all(placements)

    def _is_action(self, label: str) -> bool:
        return not isinstance(self._graph.item(label), Expansion)

    def _tell_total(self) -> None:
        self._emit(GraphGrew(sum(map(self._is_action, self._frontier.closure))))

    # -- deciding ----------------------------------------------------------------------------------------------------

    async def _settle_all(self) -> None:
        """Decide about each label as it becomes ready, until every wanted one is done."""
        while self._frontier.open:
            changed = self._changed = anyio.Event()
            if not await self._settle_some() and self._frontier.open:
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()

    async def _settle_some(self) -> bool:
        """Settle what is ready, up to a batch of actions; False where nothing was."""
        batch: list[Action] = []
        any_ready = False
        while len(batch) < BATCH and (label := self._frontier.next()) is not None:
            any_ready = True
            item = self._graph.item(label)
            blocker = self._blocker(label)
            if blocker is not None:
                self._finish(self._skipped(label, blocker))
            elif item is None:
                error = InternalError.of("broken-promise", f"no expansion added `{label}`, which one had promised")
                self._finish(failed(label, "", error))
            elif isinstance(item, Expansion):
                self._expand(item)
            elif self._unknown_input(item) is not None:
                changes = self._decider.changes_so_far(item, lambda needed: self._done[needed].artifact)
                self._finish(self._would_run(item, None, *changes))
            else:
                batch.append(item)
        decided = await in_thread(self._deciding.some, batch) if batch else 0
        for action in batch[decided:]:
            self._frontier.put_back(action.label)
        self._hear()
        # Slots that have waited for this begin.
        await anyio.sleep(0)
        return any_ready

    def _apply(self, action: Action, decision: Decision | StrataError) -> None:
        """Do what was decided about an action."""
        self._frontier.decided(action.label)
        match decision:
            case BlobLost():
                self._recover(action, decision)
            case StrataError():
                self._finish(failed(action.label, action.mnemonic, decision, place=action.place))
            case Done():
                self._take(action, decision)
            case MustRun() if self._settings.dry_run:
                self._finish(self._would_run(action, decision.key.digest, *decision.reasons))
            case MustRun():
                if any(reason.reason is ReasonCode.CACHE_ENTRY_CORRUPT for reason in decision.reasons):
                    self._emit(Warned(_damaged_result(action.label), action.label))
                self._queue(action, decision)

    def _queue(self, action: Action, decision: MustRun) -> None:
        """Queue an action, unless another one with its key is being made: that one's result will do for both."""
        key = decision.key.digest
        if key in self._same:
            self._same[key].append(action.label)
            return
        self._same[key] = []
        self._making[action.label] = key
        if self._remotes is not None and decision.elsewhere:
            self._push("remote", action.label, Ask(decision))
        else:
            self._push(action.pool, action.label, decision)

    def _push(self, pool: str, label: str, work: Work) -> None:
        slots = self._pools.get(pool) or self._pools["cpu"]
        slots.push(self._frontier.priority(label), label, work)

    def _recover(self, item: Action | Expansion, lost: BlobLost) -> None:
        """Have a slot make the inputs of an item again, and settle it anew after that."""
        self._frontier.decided(item.label)
        self._recoveries[item.label] += 1
        if self._settings.dry_run:
            self._give_up(item, Reason(ReasonCode.CACHE_BLOB_LOST, str(lost.digest)))
        elif self._recoveries[item.label] < ATTEMPTS:
            self._push("cpu", item.label, None)
        else:
            self._finish(failed(item.label, self._mnemonic(item.label), self._execution.given_up(item.label, lost)))

    def _blocker(self, label: str) -> str | None:
        """Name what stands in the way of a label: the first failure on its way."""
        for needed in self._graph.predecessors(label):
            there = self._done.get(needed)
            if there is not None and there.outcome in (Outcome.FAILED, Outcome.SKIPPED):
                return there.because or needed
        return None

    def _unknown_input(self, item: Action | Expansion) -> str | None:
        """Name an input that a dry run cannot know, because its producer would run."""
        if not self._settings.dry_run:
            return None
        return next((label for label in needs(item) if self._done[label].artifact is None), None)

    def _would_run(self, action: Action, key: Digest | None, *reasons: Reason) -> Finished:
        return Finished(
            label=action.label, mnemonic=action.mnemonic, outcome=Outcome.EXECUTED, key=key, reasons=reasons
        )

    def _take(self, action: Action, decision: Done) -> None:
        """File a result that did not have to be made."""
        past = self._decider.history.past(action.label)
        seconds = past.seconds if past is not None else 0.0
        if not self._settings.dry_run:
            if past is None:
                # A fresh checkout's lock was made elsewhere: without these blobs its next change could not be told.
                self._decider.keep(decision.key)
            self._decider.record(action, Past.of(decision.key.digest, decision.artifact, seconds, decision.size))
            if not decision.fresh or past is None:
                self._execution.offer(action, decision.key.digest, decision.size, made=False)
        for warning in decision.warnings:
            self._emit(Warned(warning, action.label))
        self._finish(
            Finished(
                label=action.label,
                mnemonic=action.mnemonic,
                outcome=Outcome.UP_TO_DATE if decision.fresh else Outcome.CACHED,
                key=decision.key.digest,
                artifact=decision.artifact,
                reasons=decision.reasons,
                bytes=decision.size,
                diagnostics=decision.warnings,
            )
        )

    # -- expanding ---------------------------------------------------------------------------------------------------

    def _expand(self, expansion: Expansion) -> None:
        """Let an output decide how the graph goes on."""
        unknown = self._unknown_input(expansion)
        if unknown is not None:
            self._give_up(expansion, Reason(ReasonCode.UPSTREAM_CHANGED, unknown))
            return
        try:
            with as_failure(expansion):
                self._graph.grow(expansion.expand(self._read), expansion.label)
        except BlobLost as lost:
            self._recover(expansion, lost)
        except StrataError as error:
            self._finish(failed(expansion.label, "", error))
        else:
            self._frontier.grow(self._decider.history.seconds(), expansion.label)
            self._tell_total()

    def _read(self, ref: Ref) -> bytes:
        node = entry_of(self._decider.cas, self._execution.artifact(ref.label), ref)
        if not isinstance(node, File):
            raise InternalError.of("not-a-file", f"`{ref.label}` `{ref.path}` is not a file")
        return self._decider.cas.get(node.digest)

    def _give_up(self, item: Action | Expansion, reason: Reason) -> None:
        """Leave open, in a dry run, what cannot be known without making something; it would run."""
        if isinstance(item, Action):
            self._finish(self._would_run(item, None, reason))
            return
        for promise in item.promises:
            if promise in self._frontier.closure:
                self._finish(Finished(label=promise, mnemonic="", outcome=Outcome.EXECUTED, reasons=(reason,)))
        self._frontier.settle(item.label)

    # -- executing ----------------------------------------------------------------------------------------------------

    async def _work(self, name: str, pool: Pool[Work], slot: int) -> None:
        """Be a slot."""
        while True:
            label, decision = await pool.pop()
            done = False
            if self._is_plain((label, decision)):
                label, decision, done = await in_thread(self._work_here, name, pool, slot, label, decision)
            if not done:
                # What comes back undone has to wait for something, which threads cannot.
                await self._work_async(name, slot, label, decision)
            await self._let_go_first(label, pool)

    async def _work_async(self, name: str, slot: int, label: str, decision: Work) -> None:
        item = self._graph.item(label)
        assert item is not None
        if decision is None:
            await self._make_inputs_again(item)
            return
        assert isinstance(item, Action)
        if isinstance(decision, Ask):
            await self._ask(item, decision.decision)
        elif label not in self._racing or label not in self._done:
            finished = await self._execution.execute(item, decision, name, slot)
            if finished is not None:
                self._finish(finished)

    async def _ask(self, action: Action, decision: MustRun) -> None:
        """Ask remotes for a result, and have it executed where none has it, or where that is sooner done."""
        label = action.label
        self._execution.contested(label)
        async with anyio.create_task_group() as group:
            group.start_soon(self._begin_anyway, action, decision)
            try:
                found = await in_thread(self._asked, action, decision)
            except StrataError as error:
                found = failed(label, action.mnemonic, error, place=action.place, key=decision.key.digest)
            group.cancel_scope.cancel()
        if isinstance(found, Finished):
            self._finish(found)
        elif found is not None and label not in self._racing:
            self._push(action.pool, label, found)

    def _asked(self, action: Action, decision: MustRun) -> Finished | MustRun | None:
        try:
            return self._execution.find_elsewhere(action, decision, lambda: action.label not in self._done)
        except Unwanted:
            return None

    async def _begin_anyway(self, action: Action, decision: MustRun) -> None:
        """Have an action executed once asking for it has taken as long as it took to execute it the last time.

        So it takes twice as long at worst; and at once where it takes less time than an answer.
        """
        past = self._decider.history.past(action.label)
        if past is None or not past.seconds or past.artifact is None:
            return
        assert self._remotes is not None
        if past.seconds > self._remotes.latency:
            await anyio.sleep(past.seconds)
        if not await in_thread(self._execution.lacks_inputs, action):
            self._racing.add(action.label)
            self._push(action.pool, action.label, decision)

    async def _make_inputs_again(self, item: Action | Expansion) -> None:
        try:
            await self._execution.secure_all(item)
        except StrataError as error:
            self._finish(failed(item.label, self._mnemonic(item.label), error))
        else:
            self._frontier.put_back(item.label)

    def _is_plain(self, work: tuple[str, Work]) -> bool:
        item = self._graph.item(work[0])
        is_run = isinstance(work[1], MustRun) and work[0] not in self._racing
        return is_run and isinstance(item, Action) and is_plain(item)

    def _work_here(self, name: str, pool: Pool[Work], slot: int, label: str, work: Work) -> tuple[str, Work, bool]:
        """Execute plain actions on this thread, one after the other; give the last one, and whether it is done."""
        while True:
            item = self._graph.item(label)
            if not isinstance(work, MustRun) or not self._is_plain((label, work)):
                return label, work, False
            assert isinstance(item, Action)
            finished = self._execution.try_here(item, work, name, slot)
            if finished is None:
                return label, work, False
            self._news.post(finished)
            stop = self._children.cancelled.is_set() or finished.outcome is Outcome.FAILED
            following = None if stop or self._frontier.after(label, pool.top()) else pool.take()
            if following is None:
                return label, work, True
            label, work = following

    async def _let_go_first(self, label: str, pool: Pool[Work]) -> None:
        """Before a slot takes something less critical: wait until it is known what the end of `label` lets begin."""
        self._hear()
        while self._frontier.is_undecided(self._frontier.after(label, pool.top())):
            await self._turn.wait()

    async def _hear_often(self) -> None:
        while True:
            await self._news.wait()
            self._hear()

    def _hear(self) -> None:
        """Act on what threads have posted."""
        for news in self._news.take():
            if isinstance(news, Finished):
                self._finish(news)
            else:
                self._apply(*news)
        self._turn.set()
        self._turn = anyio.Event()

    # -- ends --------------------------------------------------------------------------------------------------------

    def _finish(self, finished: Finished) -> None:
        label = finished.label
        if label in self._done:
            return
        self._done[label] = finished
        key = self._making.pop(label, None)
        for same in self._same.pop(key) if key is not None else ():
            self._frontier.put_back(same)
        if self._is_action(label) or finished.outcome is Outcome.FAILED:
            self._emit(finished.event())
        if finished.outcome is Outcome.FAILED:
            self._first_failure = self._first_failure or finished
            if not self._settings.keep_going:
                self._stop()
        self._frontier.settle(label)

    def _skipped(self, label: str, because: str) -> Finished:
        return Finished(label=label, mnemonic=self._mnemonic(label), outcome=Outcome.SKIPPED, because=because)

    def _mnemonic(self, label: str) -> str:
        item = self._graph.item(label)
        return item.mnemonic if isinstance(item, Action) else ""


def _damaged_result(label: str) -> Diagnostic:
    return Diagnostic(
        "corrupt-result",
        f"the result of `{label}` in the store is damaged",
        notes=("it is made or fetched again",),
        severity="warning",
    )
