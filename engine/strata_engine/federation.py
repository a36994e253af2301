"""The pasts of several workspaces as one, for a build of all of them: each is left as a build there would leave it.

What is known of a label is asked of the workspaces that have it, under their own names for it, and what a build learns
is written to each of these. The hard part is what several of them share: which of them want it is known only at the
end, so nothing is handed on before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from strata_engine.build_result import BuildResult
from strata_engine.compose import Composition
from strata_engine.digest import Digest
from strata_engine.events import Outcome
from strata_engine.history import Past, Pasts, PlacedOutput
from strata_engine.run_record import ActionReport
from strata_engine.sources import Sources
from strata_engine.staleness import Reason
from strata_engine.tree import Artifact, File, Store, Tree
from strata_engine.workspace import Workspace


class Local(NamedTuple):
    """What one workspace remembers."""

    history: Pasts
    sources: Sources


class Federation:
    """The histories of several workspaces, by the prefixes that their labels have in the whole."""

    def __init__(self, parts: Mapping[str, Local]) -> None:
        self._parts = dict(parts)
        self._composition: Composition | None = None
        self._placed: dict[Path, str] = {}
        self._recorded: dict[str, Past] = {}
        self._seconds: dict[str, float] | None = None
        self._run = ""
        self.warning = None
        """What was wrong with it is told by each workspace."""

    def compose(self, composition: Composition, places: Mapping[Path, str]) -> None:
        """Say what is built next, and which member (its prefix) puts something at which place."""
        self._composition = composition
        self._placed.update(places)

    @property
    def run(self) -> str:
        """The build that records what follows."""
        return self._run

    @run.setter
    def run(self, run: str) -> None:
        self._run = run
        for part in self._parts.values():
            part.history.run = run

    # -- labels ------------------------------------------------------------------------------------------------------

    def past(self, label: str) -> Past | None:
        """Give what is known of a label; of a shared one, what the first workspace knows that knows anything."""
        found = self._recorded.get(label)
        if found is not None:
            return found
        owners = self._owners(label)
        if label in owners.values():
            # Whoever has built it before, also where it is not known yet to want it now.
            owners = {**owners, **dict.fromkeys(self._parts, label)}
        pasts = (self._parts[prefix].history.past(local) for prefix, local in owners.items())
        return next((past for past in pasts if past is not None), None)

    def labels(self) -> dict[str, Past]:
        """Give all that is known, by label; what any workspace knows of a name that may be shared is there, too."""
        found: dict[str, Past] = {}
        for prefix, part in self._parts.items():
            for local, past in part.history.labels().copy().items():
                found[prefix + local] = past
                found.setdefault(local, past)
        return found | self._recorded

    def record(self, label: str, past: Past) -> None:
        """Note how a label ended."""
        self._recorded[label] = past

    def seconds(self) -> dict[str, float]:
        """Give the recorded duration of each label that was ever executed in its workspace."""
        if self._seconds is None:
            self._seconds = {label: past.seconds for label, past in self.labels().items() if past.seconds}
        # A copy, because worker threads record meanwhile.
        recorded = self._recorded.copy()
        return self._seconds | {label: past.seconds for label, past in recorded.items() if past.seconds}

    def _owners(self, label: str) -> Mapping[str, str]:
        return self._composition.owners(label) if self._composition is not None else {}

    # -- places ------------------------------------------------------------------------------------------------------

    def placed(self, path: Path) -> PlacedOutput | None:
        """Give what was last put at a place."""
        return self._at(path).placed(path)

    def intact(self, path: Path, artifact: Artifact) -> bool:
        """Tell whether `artifact` still stands at `path`."""
        return self._at(path).intact(path, artifact)

    def record_placed(self, path: Path, artifact: Artifact) -> None:
        """Note what has been put at a place."""
        self._at(path).record_placed(path, artifact)

    def forget_placed(self, path: Path) -> None:
        """Trust nothing that stands at a place."""
        self._at(path).forget_placed(path)

    def _at(self, path: Path) -> Pasts:
        return self._parts[self._placed[path]].history

    # -- the end -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Hand on to each workspace what it had a part in, and write it. Raises OSError."""
        for label, past in self._recorded.items():
            for prefix, local in self._owners(label).items():
                self._parts[prefix].history.record(local, past)
        histories = {id(part.history): part.history for part in self._parts.values()}
        sources = {id(part.sources): part.sources for part in self._parts.values()}
        for history in histories.values():
            history.save()
        for each in sources.values():
            each.save()


class RoutedSources:
    """What a build of several workspaces reads, each file through the workspace that it lies in."""

    def __init__(self, workspace: Workspace, parts: Iterable[Sources]) -> None:
        self.workspace = workspace
        # The innermost folder first: workspaces may lie within each other.
        distinct = {id(part): part for part in parts}.values()
        self._parts = sorted(distinct, key=lambda part: len(part.workspace.root.parts), reverse=True)

    def file(self, path: str | Path) -> File:
        """Name a file as an input."""
        place = self.workspace.root / path
        return self._of(place).file(place)

    def tree(
        self,
        store: Store,
        path: str | Path,
        accept: Callable[[str, bool], bool] | None = None,
        *,
        follow: bool = False,
        empty: Callable[[str], bool] | None = None,
    ) -> Tree:
        """Capture a folder as an input."""
        place = self.workspace.root / path
        return self._of(place).tree(store, place, accept, follow=follow, empty=empty)

    def heal(self, store: Store, digest: Digest) -> bool:
        """Put a source file into the store again; False when no source seen in this build has this content."""
        return any(part.heal(store, digest) for part in self._parts)

    def _of(self, place: Path) -> Sources:
        return next((part for part in self._parts if place.is_relative_to(part.workspace.root)), self._parts[-1])


def result_in(composition: Composition, prefix: str, result: BuildResult) -> BuildResult:
    """Give what a build of the whole came to for one of its members, in that one's words."""
    actions = tuple(
        _report_in(composition, prefix, report, local)
        for report in result.actions
        if (local := composition.local(prefix, report.label)) is not None
    )
    counted = Counter(report.outcome for report in actions)
    good = not any(counted[outcome] for outcome in (Outcome.FAILED, Outcome.SKIPPED))
    artifacts = {
        local: artifact
        for label, artifact in result.artifacts.items()
        if (local := composition.local(prefix, label)) is not None
    }
    return msgspec.structs.replace(
        result,
        counts={outcome.value: counted[outcome] for outcome in Outcome},
        actions=actions,
        artifacts=artifacts,
        exit_code=0 if good else result.exit_code,
        interrupted=result.interrupted and not good,
    )


def _report_in(composition: Composition, prefix: str, report: ActionReport, label: str) -> ActionReport:
    def named(other: str) -> str:
        return composition.local(prefix, other) or other

    folder = composition.members[prefix].folder

    def subject(reason: Reason) -> Reason:
        local = composition.local(prefix, reason.subject)
        return msgspec.structs.replace(reason, subject=local or reason.subject.removeprefix(folder))

    return msgspec.structs.replace(
        report,
        label=label,
        reasons=tuple(subject(reason) for reason in report.reasons),
        because=named(report.because),
        upstream=tuple(named(other) for other in report.upstream),
        deciders=tuple(named(other) for other in report.deciders),
    )
