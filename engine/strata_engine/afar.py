"""Why a result is not in a remote cache: what a build would ask it for, and what others have sent instead.

Nothing is executed and nothing is filed. The graph is decided about as a dry run does it, but that what remotes have
counts as made, so that the keys of what stands on it are known as well: those that a build now would come to. What is
then not there is told as a build would tell it that had found the nearest of what was sent, so that causes are told
from consequences in the same way (`compare`, `why`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from strata_engine.action import Action, Ref
from strata_engine.action_cache import ActionCache, Hit, Lookup, Missing, result_of
from strata_engine.cas import BlobLost, Cas
from strata_engine.codec import decode_action
from strata_engine.decision import Decider, Settings, is_expected, may_come, may_leave
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, SpecError, StrataError
from strata_engine.events import Outcome
from strata_engine.graph import ActionGraph, needs
from strata_engine.history import Pasts
from strata_engine.key import Key
from strata_engine.remote.abreast import abreast
from strata_engine.remote.backend import Check
from strata_engine.remote.endpoint import Endpoint
from strata_engine.remote.explaining import Explanations
from strata_engine.remote.found import Found, NotTaken, Standing
from strata_engine.remote.nearest import Candidate, Nearest, candidates, nearest
from strata_engine.remote.reads import Reads, Wanted
from strata_engine.remote.settings import RemoteSettings
from strata_engine.remote.signing import public_key
from strata_engine.remote.tally import Tally
from strata_engine.results import Finished
from strata_engine.run_record import ActionReport
from strata_engine.sources import Reads as Sources
from strata_engine.staleness import Reason, ReasonCode, explain
from strata_engine.store import LocalStore
from strata_engine.tree import Artifact, File, Node, Tree, lookup

_SLACK = 300
"""Seconds by which clocks of senders may differ."""


class Survey(NamedTuple):
    """How it is with results in remotes."""

    caches: tuple[str, ...]
    """Where they are, as a person may see it."""
    zones: tuple[str, ...]
    standings: Mapping[str, Standing]
    """By label: how it is with the results of what was asked about, where keys are known and results are shared."""
    unknown: tuple[str, ...]
    """Labels, asked about, that have no key before something else was executed."""
    kept: tuple[str, ...]
    """Labels, asked about, whose results stay where they were made."""
    reports: tuple[ActionReport, ...]
    """What would not be taken, and what explains that, as if a build had run it."""
    nearest: Mapping[str, Candidate]
    """By label: what it was compared with."""
    reader: Explanations
    """What explains all of these keys."""


class _Asked(NamedTuple):
    """Why another one is looked at: what it had come to, and when that was known."""

    outputs: frozenset[Digest] = frozenset()
    at: int | None = None


class Afar:
    """What remotes have of the results of one build; see `Build.look_afar`."""

    def __init__(self, settings: RemoteSettings, store: LocalStore, warn: Callable[[Diagnostic], None]) -> None:
        tally = Tally()
        self._settings = settings
        self._cas = store.cas
        self._endpoints = [
            # Whoever asks is to be told that nobody answers.
            Endpoint(access, store.folder, tally, warn, required=True, timeout=settings.timeout)
            for access in settings.caches
        ]
        accepted = [public_key(text) for text in settings.public_keys]
        reads = Reads(self._endpoints, settings.zones, store.cas, tally, accepted)
        self._reads = reads
        self.cache = _WithRemotes(store, reads)
        self._reader = Explanations(store.cas)
        self._graph = ActionGraph()
        self._done: Mapping[str, Finished] = {}
        self._reports: dict[str, ActionReport] = {}
        self._nearest: dict[str, Candidate] = {}
        self._relative: Callable[[str], str] = str

    def reach(self) -> None:
        """See that each remote is there: a folder that is not mounted looks empty. Raises HostError."""
        for endpoint in self._endpoints:
            for zone in endpoint.places(self._settings.zones)[:1]:
                endpoint.read(zone, lambda backend: backend.capabilities(_never), None)

    def decider(self, sources: Sources, history: Pasts, settings: Settings) -> Decider:
        """Make what decides as a dry run does, and asks remotes for what is not here."""
        self._relative = sources.workspace.relative
        return _Decider(self.cache, self._cas, sources, history, settings)

    def saw(self, graph: ActionGraph, done: Mapping[str, Finished]) -> None:
        """Note what was decided. Raises HostError where a remote does not answer, SpecError for what cannot be."""
        if self.cache.error is not None:
            raise self.cache.error
        for finished in done.values():
            if finished.outcome is Outcome.FAILED:
                raise SpecError(*finished.diagnostics)
        self._graph, self._done = graph, done
        self._reader.keep(blob for key in self.cache.keys.values() for blob in (key.action, key.command))

    def labels(self) -> list[str]:
        """List what was decided about."""
        return list(self._done)

    def close(self) -> None:
        """Close connections."""
        for endpoint in self._endpoints:
            endpoint.close()

    def survey(self, labels: Collection[str], *, wholly: bool) -> Survey:
        """Tell how it is with the results of these labels, and why; `wholly` with all their blobs. Raises HostError."""
        unknown = [label for label in labels if self._done[label].key is None]
        shared = [label for label in labels if label not in unknown and _is_shared(self._action(label))]
        found = abreast(
            shared, lambda label, check: self._reads.look(self._wanted(label), check, wholly=wholly), _never
        )
        standings = dict(zip(shared, found, strict=True))
        wanting = [label for label, standing in standings.items() if standing is None]
        noted = abreast(wanting, self._noted, _never)
        waiting: dict[str, _Asked] = {}
        for label, candidates_of in zip(wanting, noted, strict=True):
            waiting |= self._miss(label, candidates_of)
        for label, standing in standings.items():
            if isinstance(standing, NotTaken):
                self._file(label, (_not_taken(label, standing),))
        kept = [label for label in labels if label not in shared and label not in unknown]
        waiting |= dict.fromkeys((*unknown, *kept), _Asked())
        self._explain(waiting)
        return Survey(
            tuple(endpoint.shown for endpoint in self._endpoints),
            self._settings.zones,
            standings,
            tuple(unknown),
            tuple(kept),
            self._finished_reports(),
            self._nearest,
            self._reader,
        )

    # -- one label ---------------------------------------------------------------------------------------------------

    def _action(self, label: str) -> Action:
        action = self._graph.item(label)
        assert isinstance(action, Action)
        return action

    def _needs(self, label: str) -> list[str]:
        """List the actions that a label waits for; of one that is only promised, those that decide what it is."""
        item = self._graph.item(label)
        found: dict[str, None] = {}
        waiting = list(needs(item) if isinstance(item, Action) else self._graph.predecessors(label))
        for name in waiting:
            if name in self._done:
                found[name] = None
            else:
                waiting += self._graph.predecessors(name)
        return list(found)

    def _wanted(self, label: str) -> Wanted:
        key = self.cache.keys[label]
        return Wanted(key.digest, key.action, self._action(label).fixed)

    def _noted(self, label: str, check: Check) -> list[Candidate]:
        return candidates(self._endpoints, self._settings.zones, self._done[label].mnemonic, label, check)

    def _compared(self, label: str, known: Iterable[Candidate]) -> Nearest | None:
        action, key = self._action(label), self.cache.keys[label].digest

        def compare(old: Digest) -> Sequence[Reason]:
            return explain(self._reader, old, key, action, self._relative)

        return nearest(known, self._reader, compare)

    def _miss(self, label: str, known: Sequence[Candidate]) -> dict[str, _Asked]:
        """Tell of a result that is not there; give what is to be explained with it."""
        if not known:
            self._file(label, (Reason(ReasonCode.FIRST_BUILD, label),))
            return dict.fromkeys(self._graph.deciders(label), _Asked())
        near = self._compared(label, known)
        if near is None:
            self._file(label, (Reason(ReasonCode.EVICTED, label),))
            return {}
        reasons = near.reasons or (Reason(ReasonCode.CACHE_ENTRY_MISSING, label),)
        self._file(label, reasons, near.candidate)
        return self._behind(label, reasons, near.candidate)

    def _explain(self, waiting: Mapping[str, _Asked]) -> None:
        """Tell of others what explains those that were told of, and of what explains them in turn."""
        queue = dict(waiting)
        while queue:
            label = next(iter(queue))
            asked = queue.pop(label)
            if label not in self._reports:
                queue |= {name: why for name, why in self._other(label, asked).items() if name not in self._reports}

    def _other(self, label: str, asked: _Asked) -> dict[str, _Asked]:
        finished = self._done.get(label)
        if finished is None:
            return {}
        if finished.key is None:
            # Whatever else differs, it waits for what would have to be executed first.
            above = [name for name in self._needs(label) if self._done[name].artifact is None]
            self._file(label, tuple(Reason(ReasonCode.UPSTREAM_CHANGED, name) for name in above))
            return dict.fromkeys(above, asked)
        known = self._noted(label, _never)
        fitting = [each for each in known if each.recent.output in asked.outputs]
        if not fitting and asked.at is not None:
            fitting = [each for each in known if each.recent.at <= asked.at + _SLACK][:1]
        near = self._compared(label, fitting or known)
        if near is not None and near.reasons:
            self._file(label, near.reasons, near.candidate)
            return self._behind(label, near.reasons, near.candidate)
        if near is None and not known:
            # Nobody has sent anything of it: what it is there for is of interest then, and what is known of it here.
            local = finished.outcome is Outcome.EXECUTED and not _is_shared(self._action(label))
            self._file(label, finished.reasons if local else (Reason(ReasonCode.FIRST_BUILD, label),))
            return {name: _Asked(at=asked.at) for name in self._graph.deciders(label)}
        return {}

    def _behind(self, label: str, reasons: Iterable[Reason], candidate: Candidate) -> dict[str, _Asked]:
        """List what reasons of a label follow from, with what it had come to where the candidate was made."""
        action, at = self._action(label), candidate.recent.at
        found: dict[str, _Asked] = {}
        for reason in reasons:
            if reason.reason is ReasonCode.UPSTREAM_CHANGED and reason.subject in self._done:
                found[reason.subject] = _Asked(self._former(action, reason.subject, candidate), at)
            elif reason.reason in {ReasonCode.INPUT_ADDED, ReasonCode.INPUT_REMOVED}:
                found |= {name: _Asked(at=at) for name in self._graph.deciders(label) if name not in found}
        return found

    def _former(self, action: Action, label: str, candidate: Candidate) -> frozenset[Digest]:
        """Give what an input of an action was that another one makes, as the key of a candidate says."""
        names = [name for name, source in action.inputs.items() if isinstance(source, Ref) and source.label == label]
        try:
            root = Tree(decode_action(self._reader.get(candidate.recent.key)).input_root_digest)
            nodes = [lookup(self._reader, root, name) for name in names]
        except (BlobLost, ValueError):
            return frozenset()
        return frozenset(digest for node in nodes if isinstance(node, Artifact) and (digest := _digest(node)))

    # -- reports -----------------------------------------------------------------------------------------------------

    def _file(self, label: str, reasons: tuple[Reason, ...], candidate: Candidate | None = None) -> None:
        finished = self._done[label]
        output = _digest(finished.artifact)
        if candidate is not None:
            self._nearest[label] = candidate
        recent = candidate.recent if candidate is not None else None
        self._reports[label] = ActionReport(
            label=label,
            mnemonic=finished.mnemonic,
            key=str(finished.key or ""),
            outcome=Outcome.EXECUTED,
            reasons=reasons,
            previous=str(recent.key) if recent is not None else "",
            output=str(output or ""),
            former=str(recent.output or "") if recent is not None else "",
        )

    def _finished_reports(self) -> tuple[ActionReport, ...]:
        """Give the reports, each with those of the others that it follows from."""
        there = self._reports.keys()
        return tuple(
            msgspec.structs.replace(
                report,
                upstream=tuple(name for name in self._needs(label) if name in there),
                deciders=tuple(name for name in self._graph.deciders(label) if name in there),
            )
            for label, report in sorted(self._reports.items())
        )


class _WithRemotes(ActionCache):
    """The local action cache, and what remotes have besides; nothing of that is kept as a result."""

    def __init__(self, store: LocalStore, reads: Reads) -> None:
        super().__init__(store.index, store.cas)
        self._reads = reads
        self._tree = store.cas
        self._actions: dict[Digest, tuple[Action, Key]] = {}
        self.keys: dict[str, Key] = {}
        """By label, as they were computed."""
        self.error: StrataError | None = None
        """What a remote has said that must answer."""

    def learn(self, action: Action, key: Key) -> None:
        """Note whose key one is."""
        self.keys[action.label] = key
        self._actions[key.digest] = (action, key)

    def lookup_many(self, keys: Iterable[Digest]) -> dict[Digest, Lookup]:
        """Find results here, and of those that are not here the ones that remotes have."""
        found = super().lookup_many(keys)
        lacking = [key for key, there in found.items() if isinstance(there, Missing) and self._may_come(key)]
        try:
            came = abreast(lacking, self._ask, _never)
        except StrataError as error:
            # Whoever decides goes on with what is here; the question is not answered in the end.
            self.error = self.error or error
            return found
        return found | {key: hit for key, hit in zip(lacking, came, strict=True) if hit is not None}

    def _may_come(self, key: Digest) -> bool:
        known = self._actions.get(key)
        return self.error is None and known is not None and may_come(known[0])

    def _ask(self, digest: Digest, check: Check) -> Hit | None:
        action, key = self._actions[digest]

        def accept(artifact: Artifact) -> bool:
            return is_expected(action, artifact, self._tree)

        answer = self._reads.find(key.digest, key.action, action.fixed, accept, check)
        return Hit(result_of(answer.artifact, stderr=answer.result.stderr_raw)) if isinstance(answer, Found) else None


class _Decider(Decider):
    """Decides as a dry run does, and notes each key as it is computed."""

    def __init__(self, cache: _WithRemotes, cas: Cas, sources: Sources, history: Pasts, settings: Settings) -> None:
        super().__init__(cas, cache, sources, history, settings, ())
        self._noting = cache

    def key(self, action: Action, inputs: Mapping[str, Node]) -> Key:
        """Compute the action's key."""
        key = super().key(action, inputs)
        self._noting.learn(action, key)
        return key


def _is_shared(action: Action) -> bool:
    """Tell whether results of an action come from remotes, or go there."""
    return may_come(action) or may_leave(action)


def _not_taken(label: str, standing: NotTaken) -> Reason:
    if standing.lost:
        return Reason(ReasonCode.CACHE_BLOB_LOST, label, f"{standing.lost} of its blobs")
    return Reason(ReasonCode.CACHE_UNTRUSTED, standing.origin, standing.why)


def _digest(artifact: Artifact | None) -> Digest | None:
    match artifact:
        case File(digest=digest) | Tree(root=digest):
            return digest
        case _:
            return None


def _never() -> None:
    """Is never called off: whoever waits for the answer ends the process."""
