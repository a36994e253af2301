"""The facade: one build of one workspace, from a graph to outputs in their places, a history and a record."""

from __future__ import annotations

import contextlib
import os
import signal
import sysconfig
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import anyio

from strata_engine import known, run_record, trace
from strata_engine.action import Expansion, Placement, Ref, Source, SourceTree
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
    Waiting,
    Warned,
)
from strata_engine.executor import Executor
from strata_engine.graph import ActionGraph, check_placements
from strata_engine.history import History, Pasts
from strata_engine.recorded_graph import record_graph
from strata_engine.results import Finished
from strata_engine.revision import revision
from strata_engine.run_record import RunRecord
from strata_engine.scheduler import Scheduler
from strata_engine.sources import Reads, Sources
from strata_engine.store import LocalStore, open_store, store_folder
from strata_engine.tree import Artifact
from strata_engine.workspace import Workspace, command_line, exclusive

GOODBYE_SECONDS = 1.0
"""How long the second signal waits for consoles."""


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
        earlier: BuildResult | None = None,
        last: bool = True,
    ) -> BuildResult:
        """Bring the wanted labels up to date and put outputs at their places.

        A build may have two parts, where what is wanted is known only after the first: that one is not `last`, and the
        second one is given it as `earlier` and tells of both.
        A failed action is in the result, not an exception. Raises SpecError for a graph that cannot be built and
        InternalError for a defect.
        """
        settings = settings or Settings()
        graph.validate()
        check_placements(placements)
        run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"
        # The parts of a build are one build, in the history too.
        self.history.run = run = earlier.run if earlier is not None else run
        started, begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), time.monotonic()
        wanted = list(wanted)
        wanted_items = [graph.item(label) for label in graph.closure(wanted)]
        before = self.history.labels().copy()
        self.emit(BuildStarted(run, sum(not isinstance(item, Expansion) for item in wanted_items), first=not before))
        decider = Decider(self.store.cas, self.store.cache, self._reads, self.history, settings, placements)
        executor = Executor(self.store.cas, self.store.scratch, self.emit)
        emit = self.emit if earlier is None else self._unless_told(earlier)
        scheduler = Scheduler(graph, decider, executor, emit, self.store.locks)
        try:
            _drive(scheduler, executor, wanted, placements, self.emit)
        finally:
            executor.close()
            self.store.cache.flush()
        seconds = time.monotonic() - begun
        result = result_of(run, scheduler, seconds, graph, before, earlier)
        if earlier is not None:
            result = joined(earlier, result)
        if last or result.exit_code:
            if not settings.dry_run:
                self._save(result, started, graph, placements, settings)
            took = {each.label: each for each in result.actions if each.outcome is not Outcome.UP_TO_DATE}
            critical = tuple((label, took[label].seconds) for label in critical_path(took.values()))
            self.emit(BuildFinished(result.seconds, result.counts, result.interrupted, critical))
        return result

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
        graph.validate()
        settings = Settings(dry_run=True)
        decider = Decider(self.store.cas, self.store.cache, self._reads, self.history, settings, placements)
        executor = Executor(self.store.cas, self.store.scratch, _silent)
        scheduler = Scheduler(graph, decider, executor, _silent, self.store.locks)
        _drive(scheduler, executor, list(wanted), (), _silent)
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
        yield Build(workspace, opened, listeners, shared)


def _silent(_: Event) -> None:
    """Listen to nothing."""


def _drive(
    scheduler: Scheduler, executor: Executor, wanted: list[str], placements: Sequence[Placement], emit: Listener
) -> None:
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
            await scheduler.run(wanted, placements)
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
