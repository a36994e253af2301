"""The facade: one build of one workspace, from a graph to outputs in their places, a history and a record."""

from __future__ import annotations

import contextlib
import os
import signal
import sysconfig
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import anyio
import msgspec

from strata_engine import known, run_record, trace
from strata_engine.action import Expansion, Placement, Ref, Source, SourceTree
from strata_engine.afar import Afar
from strata_engine.build_result import BuildResult as BuildResult  # noqa: PLC0414 - a part of the facade
from strata_engine.build_result import joined, result_of, told
from strata_engine.critical import critical_path
from strata_engine.decision import Decider, Settings, entry_of
from strata_engine.errors import HostError, host_error
from strata_engine.events import (
    Aborted,
    ActionFinished,
    BuildFinished,
    BuildStarted,
    Event,
    Listener,
    Outcome,
    Uploading,
    Waiting,
    Warned,
)
from strata_engine.executor import Executor, in_thread
from strata_engine.graph import ActionGraph, check_placements
from strata_engine.history import History, Pasts
from strata_engine.recorded_graph import record_graph
from strata_engine.remote.settings import RemoteSettings, Upload
from strata_engine.results import Finished
from strata_engine.revision import revision
from strata_engine.run_record import RunRecord
from strata_engine.scheduler import Scheduler
from strata_engine.sources import Reads, Sources
from strata_engine.store import LocalStore, open_store, store_folder
from strata_engine.tree import Artifact
from strata_engine.workspace import Workspace, command_line, exclusive

if TYPE_CHECKING:
    from strata_engine.remote.caches import RemoteCaches

GOODBYE_SECONDS = 1.0
"""How long the second signal waits for consoles."""

MOST_USUAL_PARTS = 2
"""Parts of a path, `/` among them, that many machines have alike."""


class Shared(NamedTuple):
    """What a build of several workspaces goes by in the place of its own past and sources."""

    pasts: Pasts
    reads: Reads


class Build:
    """An opened workspace and store. Made by `open_build`."""

    def __init__(
        self,
        workspace: Workspace,
        store: LocalStore,
        listeners: Sequence[Listener],
        shared: Shared | None = None,
    ) -> None:
        self.workspace = workspace
        self.store = store
        self._trace = trace.Recorder()
        self._listeners: tuple[Listener, ...] = (self._trace, *listeners)
        self._lock = threading.Lock()
        self.sources = Sources(workspace)
        self.history: Pasts
        self._reads: Reads
        self.version = ""
        """What run records are to call the program."""
        self.remotes = RemoteSettings()
        """The remote caches that builds ask and fill."""
        self.epoch = ""
        """The operator's, in all keys that can be disowned; settings may have another."""
        self._caches: RemoteCaches | None = None
        if shared is not None:
            self.history, self._reads = shared
            return
        history = History(workspace.state / "history")
        self.history, self._reads = history, self.sources
        for warning in (history.warning, self.sources.warning):
            if warning is not None:
                self.emit(Warned(warning))

    def emit(self, event: Event) -> None:
        """Tell every listener, one event at a time whichever thread it comes from."""
        with self._lock:
            for listener in self._listeners:
                listener(event)

    def run(
        self,
        graph: ActionGraph,
        wanted: Iterable[str],
        placements: Sequence[Placement] = (),
        settings: Settings | None = None,
        *,
        whole: Sequence[Ref] = (),
        earlier: BuildResult | None = None,
        last: bool = True,
    ) -> BuildResult:
        """Bring the wanted labels up to date and put outputs at their places.

        What is `whole` is in the store afterwards with all its blobs: of other outputs, what came from a remote may be
        known by name only.
        A build may have two parts, where what is wanted is known only after the first: that one is not `last`, and the
        second one is given it as `earlier` and tells of both.
        A failed action is in the result, not an exception. Raises SpecError for a graph that cannot be built and
        InternalError for a defect.
        """
        settings = self._in_epoch(settings or Settings())
        graph.validate()
        check_placements(placements)
        run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"
        # The parts of a build are one build, in the history too.
        self.history.run = run = earlier.run if earlier is not None else run
        started, begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), time.monotonic()
        wanted = list(wanted)
        wanted_items = [graph.item(label) for label in graph.closure(wanted)]
        before = self.history.labels().copy()
        self.emit(BuildStarted(run, sum(not isinstance(item, Expansion) for item in wanted_items)))
        decider = Decider(self.store.cas, self.store.cache, self._reads, self.history, settings, placements)
        executor = Executor(self.store.cas, self.store.scratch, self.emit)
        emit = self.emit if earlier is None else self._unless_told(earlier)
        caches = None if settings.dry_run else self._opened_caches()
        scheduler = Scheduler(graph, decider, executor, emit, self.store.locks, caches)

        async def work() -> None:
            await scheduler.run(wanted, placements, whole)
            if caches is not None and last and not scheduler.interrupted:
                await self._finish_uploads(caches, lambda: scheduler.interrupted)

        try:
            _drive(scheduler, executor, work, self.emit)
        finally:
            executor.close()
            self.store.cache.flush()
        seconds = time.monotonic() - begun
        result = result_of(run, scheduler, seconds, graph, before, earlier)
        if earlier is not None:
            result = joined(earlier, result)
        if caches is not None:
            result = _with_remotes(result, caches)
        if last or result.exit_code:
            if not settings.dry_run:
                self._save(result, started, graph, placements, settings)
            took = {each.label: each for each in result.actions if each.outcome is not Outcome.UP_TO_DATE}
            critical = tuple((label, took[label].seconds) for label in critical_path(took.values()))
            idle = all(each.outcome in (Outcome.UP_TO_DATE, Outcome.CACHED) for each in result.actions)
            remote = "" if result.remote is None or (idle and result.remote.is_nothing) else str(result.remote)
            self.emit(BuildFinished(result.seconds, result.counts, result.interrupted, critical, remote))
        return result

    def _in_epoch(self, settings: Settings) -> Settings:
        return settings if settings.salt else msgspec.structs.replace(settings, salt=self.epoch)

    def _opened_caches(self) -> RemoteCaches | None:
        """Open the remote caches, where there are any: once for all parts of a build."""
        if self._caches is None and self.remotes.caches:
            # Here and not above: who has no remote caches does not pay for them.
            from strata_engine.remote.caches import RemoteCaches  # noqa: PLC0415 - see the comment above

            self._caches = RemoteCaches(
                self.remotes,
                self.store.folder,
                self.store.cas,
                self.store.cache,
                lambda diagnostic: self.emit(Warned(diagnostic)),
                self._private(),
                revision(self.workspace.root),
            )
        return self._caches

    def _private(self) -> tuple[bytes, ...]:
        """List the paths of this machine that nothing which leaves it may name."""
        folders = (self.workspace.root.absolute(), self.store.folder.absolute())
        # One that is as short as `/app` is found in files that know nothing of this machine.
        return tuple(os.fsencode(f"{folder}/") for folder in folders if len(folder.parts) > MOST_USUAL_PARTS)

    async def _finish_uploads(self, caches: RemoteCaches, interrupted: Callable[[], bool]) -> None:
        """Wait for what is to be sent, where that is wanted, until the build is told to stop."""
        if self.remotes.upload is not Upload.WAIT:
            return
        begun, told = time.monotonic(), False
        while not interrupted() and not await in_thread(caches.wait, 0.1):
            if not told and time.monotonic() - begun > 1.0:
                told = True
                self.emit(Uploading(caches.left))

    def close_remotes(self) -> None:
        """Stop sending, and leave what has not gone to a process of its own where that is wanted."""
        caches, self._caches = self._caches, None
        if caches is None:
            return
        left = caches.left
        caches.close()
        if left and self.remotes.upload is Upload.DETACH:
            from strata_engine.detached import Charge, detach  # noqa: PLC0415 - see above

            detach(Charge(store=os.fsencode(self.store.folder), settings=self.remotes, private=self._private()))

    def _unless_told(self, earlier: BuildResult) -> Listener:
        """Emit events, but that what the first part of a build has told of is still as that left it."""
        known = {action.label for action in earlier.actions}

        def emit(event: Event) -> None:
            match event:
                case ActionFinished(label=label, outcome=Outcome.UP_TO_DATE) if label in known:
                    return
            self.emit(event)

        return emit

    def look(
        self, graph: ActionGraph, wanted: Iterable[str], placements: Sequence[Placement] = ()
    ) -> dict[str, Finished]:
        """Decide about the wanted labels in silence and execute nothing; the graph grows by what is known by now.

        Gives `executed` for what would run.
        """
        settings = self._in_epoch(Settings(dry_run=True))
        decider = Decider(self.store.cas, self.store.cache, self._reads, self.history, settings, placements)
        return self._decided(graph, wanted, decider)

    def look_afar(self, graph: ActionGraph, wanted: Iterable[str]) -> Afar:
        """Decide likewise, but that what remotes have counts as made; it is to be closed. Raises StrataError."""
        afar = Afar(self.remotes, self.store, lambda diagnostic: self.emit(Warned(diagnostic)))
        try:
            afar.reach()
            decider = afar.decider(self._reads, self.history, self._in_epoch(Settings(dry_run=True)))
            afar.saw(graph, self._decided(graph, wanted, decider))
        except BaseException:
            afar.close()
            raise
        return afar

    def _decided(self, graph: ActionGraph, wanted: Iterable[str], decider: Decider) -> dict[str, Finished]:
        graph.validate()
        executor = Executor(self.store.cas, self.store.scratch, _silent)
        scheduler = Scheduler(graph, decider, executor, _silent, self.store.locks)

        async def work() -> None:
            await scheduler.run(list(wanted))

        _drive(scheduler, executor, work, _silent)
        return scheduler.done

    def entry(self, artifact: Artifact, ref: Ref) -> Artifact:
        """Give the part of an output that a Ref names. Raises SpecError, `BlobLost`."""
        return entry_of(self.store.cas, artifact, ref)

    def source(self, source: Source | SourceTree) -> Artifact:
        """Give the content of a source as actions see it. Raises SpecError, HostError."""
        if isinstance(source, Source):
            return self.sources.file(source.path)
        return self.sources.tree(self.store.cas, source.path, source.accept, follow=source.follow, empty=source.empty)

    def record(self, result: BuildResult, started: str, settings: Settings | None = None) -> RunRecord:
        """Give the record of a build."""
        return RunRecord(
            run=result.run,
            started=started,
            seconds=result.seconds,
            command=tuple(command_line()),
            exit_code=result.exit_code,
            counts=result.counts,
            actions=result.actions,
            revision=revision(self.workspace.root),
            settings=told(settings or Settings()),
            version=self.version,
            platform=sysconfig.get_platform(),
            remote=str(result.remote or ""),
        )

    def _save(
        self,
        result: BuildResult,
        started: str,
        graph: ActionGraph,
        placements: Sequence[Placement],
        settings: Settings,
    ) -> None:
        """Write history last of all (design §5); a state folder that cannot be written costs only speed."""
        record = run_record.short(self.record(result, started, settings))
        try:
            self.history.save()
            self.sources.save()
            record_graph(self.workspace, graph, placements)
            self._keep_trace(record)
            run_record.append(self.workspace.state / run_record.FILE, record)
        except OSError as error:
            [diagnostic] = host_error(error, str(self.workspace.state)).diagnostics
            self.emit(Warned(diagnostic._replace(severity="warning")))

    def _keep_trace(self, record: RunRecord) -> None:
        heard = self._trace
        # A warning alone is told by each build that has nothing to do.
        if heard.spans or heard.failed:
            data = trace.document(record.run, heard.spans, critical_path(record.actions), heard.messages)
            trace.keep(self.workspace.state, record.run, data)


@contextlib.contextmanager
def open_build(
    workspace: Workspace,
    listeners: Sequence[Listener] = (),
    store: LocalStore | None = None,
    *,
    reading: bool = False,
    shared: Shared | None = None,
) -> Iterator[Build]:
    """Open a workspace for building: its lock is held until the end, unless nothing but `look` is to be called.

    A state folder that cannot be written is a warning: nothing is remembered, and nobody else builds there either.
    Raises HostError.
    """

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    with contextlib.ExitStack() as stack:
        try:
            workspace.prepare()
            if not reading:
                path = workspace.state / "lock"
                stack.enter_context(exclusive(path, lambda holder: tell(Waiting("the workspace", holder))))
        except HostError as error:
            for diagnostic in error.diagnostics:
                tell(Warned(diagnostic._replace(severity="warning")))
        opened = store
        if opened is None:
            opened = open_store(store_folder(), lambda diagnostic: tell(Warned(diagnostic)))
            stack.callback(opened.close)
        if shared is None:
            known.remember(opened.folder, workspace)
        build = Build(workspace, opened, listeners, shared)
        stack.callback(build.close_remotes)
        yield build


def _silent(_: Event) -> None:
    """Listen to nothing."""


def _with_remotes(result: BuildResult, caches: RemoteCaches) -> BuildResult:
    """Add what remotes did; where one must do its part and has not, that is an error."""
    error = caches.error()
    result = msgspec.structs.replace(result, remote=caches.told(result.counts[Outcome.REMOTE]))
    if error is None:
        return result
    code = result.exit_code or error.exit_code
    return msgspec.structs.replace(result, diagnostics=(*result.diagnostics, *error.diagnostics), exit_code=code)


def _drive(scheduler: Scheduler, executor: Executor, work: Callable[[], Awaitable[None]], emit: Listener) -> None:
    async def watch_signals() -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if scheduler.interrupted:
                    # The second signal means now: nothing that is half-written has a name yet.
                    executor.children.kill()
                    _say_goodbye(emit)
                    os._exit(130)
                scheduler.interrupt()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            if threading.current_thread() is threading.main_thread():
                group.start_soon(watch_signals)
            await work()
            group.cancel_scope.cancel()

    try:
        anyio.run(main)
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _say_goodbye(emit: Listener) -> None:
    """Let consoles give the terminal back, unless that takes longer than a person waits: it may be stopped itself."""
    saying = threading.Thread(target=emit, args=(Aborted(),), daemon=True)
    saying.start()
    saying.join(GOODBYE_SECONDS)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Give the first exception inside nested groups: one cause is what a person can act on."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
