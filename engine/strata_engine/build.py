"""The facade: one build of one workspace, from a graph to outputs in their places, a history and a record."""

from __future__ import annotations

import contextlib
import os
import signal
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import anyio
import msgspec

from strata_engine import known, run_record
from strata_engine.action import Expansion, Placement, Ref, Source, SourceTree
from strata_engine.decision import Decider, Settings, entry_of
from strata_engine.errors import Diagnostic, HostError, host_error
from strata_engine.events import Aborted, BuildFinished, BuildStarted, Event, Listener, Outcome, Waiting, Warned
from strata_engine.executor import Executor
from strata_engine.graph import ActionGraph, check_placements, needs
from strata_engine.history import History, Past
from strata_engine.recorded_graph import record_graph
from strata_engine.results import Finished
from strata_engine.revision import revision
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.scheduler import Scheduler
from strata_engine.sources import Sources
from strata_engine.store import LocalStore, open_store, store_folder
from strata_engine.tree import Artifact, File, Tree
from strata_engine.workspace import Workspace, command_line, exclusive

GOODBYE_SECONDS = 1.0
"""How long the second signal waits for consoles."""


class BuildResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a build came to."""

    run: str
    seconds: float
    counts: dict[str, int]
    """Actions of the requested closure by outcome; each distinct action is counted once."""
    actions: tuple[ActionReport, ...]
    diagnostics: tuple[Diagnostic, ...]
    """Errors, the first failure's first."""
    artifacts: dict[str, Artifact]
    exit_code: int
    interrupted: bool = False


class Build:
    """An opened workspace and store. Made by `open_build`."""

    def __init__(self, workspace: Workspace, store: LocalStore, listeners: Sequence[Listener]) -> None:
        self.workspace = workspace
        self.store = store
        self._listeners = tuple(listeners)
        self._lock = threading.Lock()
        self.sources = Sources(workspace)
        self.version = ""
        """What run records are to call the program."""
        self.history = History(workspace.state / "history")
        for warning in (self.history.warning, self.sources.warning):
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
        started, begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), time.monotonic()
        wanted = list(wanted)
        wanted_items = [graph.item(label) for label in graph.closure(wanted)]
        self.emit(BuildStarted(run, sum(not isinstance(item, Expansion) for item in wanted_items)))
        before = self.history.labels().copy()
        decider = Decider(self.store.cas, self.store.cache, self.sources, self.history, settings, placements)
        executor = Executor(self.store.cas, self.store.scratch, self.emit)
        scheduler = Scheduler(graph, decider, executor, self.emit, self.store.locks)
        try:
            _drive(scheduler, executor, wanted, placements, self.emit)
        finally:
            executor.close()
            self.store.cache.flush()
        seconds = time.monotonic() - begun
        result = _result(run, scheduler, seconds, graph, before)
        if earlier is not None:
            result = _joined(earlier, result)
        if last or result.exit_code:
            if not settings.dry_run:
                self._save(result, started, graph, placements, settings)
            self.emit(BuildFinished(result.seconds, result.counts, result.interrupted))
        return result

    def look(self, graph: ActionGraph, wanted: Iterable[str]) -> dict[str, Finished]:
        """Decide about the wanted labels in silence and execute nothing; the graph grows by what is known by now.

        Gives `executed` for what would run.
        """
        graph.validate()
        settings = Settings(dry_run=True)
        decider = Decider(self.store.cas, self.store.cache, self.sources, self.history, settings, ())
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
        return self.sources.tree(self.store.cas, source.path, source.accept)

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
            settings=_told(settings or Settings()),
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
            run_record.append(self.workspace.state / run_record.FILE, record)
        except OSError as error:
            [diagnostic] = host_error(error, str(self.workspace.state)).diagnostics
            self.emit(Warned(diagnostic._replace(severity="warning")))


@contextlib.contextmanager
def open_build(
    workspace: Workspace,
    listeners: Sequence[Listener] = (),
    store: LocalStore | None = None,
    *,
    reading: bool = False,
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
        known.remember(opened.folder, workspace)
        yield Build(workspace, opened, listeners)


def _silent(_: Event) -> None:
    """Listen to nothing."""


def _joined(earlier: BuildResult, later: BuildResult) -> BuildResult:
    """Tell of two parts of a build as one: what the first part did, the second found done."""
    did = {report.label: report for report in earlier.actions if report.outcome is not Outcome.UP_TO_DATE}
    actions = tuple(did.get(report.label, report) for report in later.actions)
    counted = Counter(report.outcome for report in actions)
    return msgspec.structs.replace(
        later,
        seconds=earlier.seconds + later.seconds,
        counts={outcome.value: counted[outcome] for outcome in Outcome},
        actions=actions,
    )


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


def _told(settings: Settings) -> dict[str, str]:
    """Give the settings that are not the default, as text."""
    default = Settings()
    return {
        name: str(value)
        for name in Settings.__struct_fields__
        if (value := getattr(settings, name)) != getattr(default, name)
    }


def _result(
    run: str, scheduler: Scheduler, seconds: float, graph: ActionGraph, before: Mapping[str, Past]
) -> BuildResult:
    by_label = scheduler.done
    done = sorted(by_label.values(), key=lambda finished: finished.label)
    counted = Counter(finished.outcome for finished in done)
    failures = [finished for finished in done if finished.outcome is Outcome.FAILED]
    first = scheduler.first_failure
    if first is not None:
        failures.sort(key=lambda finished: finished is not first)
    diagnostics = [diagnostic for failure in failures for diagnostic in failure.diagnostics]
    exit_code = first.exit_code if first is not None else 0
    if scheduler.error is not None:
        diagnostics += scheduler.error.diagnostics
        exit_code = exit_code or scheduler.error.exit_code
    if scheduler.interrupted:
        exit_code = 130
    return BuildResult(
        run=run,
        seconds=seconds,
        counts={outcome.value: counted[outcome] for outcome in Outcome},
        actions=tuple(_report(finished, by_label, graph, before) for finished in done),
        diagnostics=tuple(diagnostics),
        artifacts={finished.label: finished.artifact for finished in done if finished.artifact is not None},
        exit_code=exit_code,
        interrupted=scheduler.interrupted,
    )


def _report(
    finished: Finished, done: Mapping[str, Finished], graph: ActionGraph, before: Mapping[str, Past]
) -> ActionReport:
    label, past = finished.label, before.get(finished.label)

    def moved(labels: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in labels if name in done and done[name].outcome is not Outcome.UP_TO_DATE)

    idle = finished.outcome is Outcome.UP_TO_DATE
    item = graph.item(label)
    return ActionReport(
        label=finished.label,
        mnemonic=finished.mnemonic,
        key=str(finished.key) if finished.key is not None else "",
        outcome=finished.outcome,
        reasons=finished.reasons,
        seconds=round(finished.seconds, 6),
        bytes=finished.bytes,
        because=finished.because,
        previous=str(past.key) if past is not None else "",
        output=_named(finished.artifact),
        former=_named(past.artifact) if past is not None else "",
        origin="store" if finished.outcome is Outcome.CACHED else "",
        upstream=() if idle or item is None else moved(needs(item)),
        deciders=() if idle else moved(graph.deciders(label)),
    )


def _named(artifact: Artifact | None) -> str:
    match artifact:
        case None:
            return ""
        case File(digest=digest):
            return str(digest)
        case Tree(root=root):
            return str(root)
