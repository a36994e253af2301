"""What a build came to: its outcome as a value, made of how each action ended and what was known of it before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set

import msgspec

from strata_engine.decision import Settings
from strata_engine.errors import Diagnostic
from strata_engine.events import Outcome
from strata_engine.graph import ActionGraph, needs
from strata_engine.history import Past
from strata_engine.remote.tally import Told
from strata_engine.results import Finished
from strata_engine.run_record import ActionReport
from strata_engine.scheduler import Scheduler
from strata_engine.tree import Artifact, File, Tree


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
    remote: Told | None = None
    """What remote caches did, where there are any."""


def told(settings: Settings) -> dict[str, str]:
    """Give the settings that are not the default, as text."""
    default = Settings()
    return {
        name: str(value)
        for name in Settings.__struct_fields__
        if (value := getattr(settings, name)) != getattr(default, name)
    }


def result_of(
    run: str,
    scheduler: Scheduler,
    seconds: float,
    graph: ActionGraph,
    before: Mapping[str, Past],
    earlier: BuildResult | None = None,
) -> BuildResult:
    """Give what a build came to; `before` is the history as it was when it began, `earlier` its first part."""
    done = sorted(scheduler.done.values(), key=lambda finished: finished.label)
    moved = {finished.label for finished in done if finished.outcome is not Outcome.UP_TO_DATE}
    if earlier is not None:
        moved |= {report.label for report in earlier.actions if report.outcome is not Outcome.UP_TO_DATE}
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
        actions=tuple(_report(finished, moved, graph, before) for finished in done),
        diagnostics=tuple(diagnostics),
        artifacts={finished.label: finished.artifact for finished in done if finished.artifact is not None},
        exit_code=exit_code,
        interrupted=scheduler.interrupted,
    )


def _report(finished: Finished, moved: Set[str], graph: ActionGraph, before: Mapping[str, Past]) -> ActionReport:
    label, past = finished.label, before.get(finished.label)
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
        since=past.run if past is not None and not idle else "",
        output=_named(finished.artifact),
        former=_named(past.artifact) if past is not None else "",
        origin="store" if finished.outcome is Outcome.CACHED else finished.origin,
        upstream=() if idle or item is None else tuple(name for name in needs(item) if name in moved),
        deciders=() if idle else tuple(name for name in graph.deciders(label) if name in moved),
    )


def _named(artifact: Artifact | None) -> str:
    match artifact:
        case None:
            return ""
        case File(digest=digest):
            return str(digest)
        case Tree(root=root):
            return str(root)


def joined(earlier: BuildResult, later: BuildResult) -> BuildResult:
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
