"""`strata graph why --against remote`: what a build now would ask remote caches for, and what they have instead."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from strata_engine.afar import Survey
from strata_engine.errors import SpecError
from strata_engine.remote.found import NotTaken, Standing, There
from strata_engine.remote.nearest import Candidate
from strata_engine.run_record import RunRecord
from strata_engine.tree import Reader
from strata_engine.why import Story
from strata_rules.cli.given import Given
from strata_rules.cli.graph import documents
from strata_rules.cli.graph.asked import Kept, matching, unknown_label
from strata_rules.cli.graph.told import Answer, Kind, ago
from strata_rules.cli.output import emit_document
from strata_rules.cli.session_call import session_options, wishes_of
from strata_rules.selection import Wish
from strata_rules.session import Session, open_session

_CLOCK = "%Y-%m-%dT%H:%M:%SZ"


class Seen(NamedTuple):
    """The answer, as long as the caches are open."""

    answer: Answer
    survey: Survey
    keys: Mapping[str, str]

    @property
    def reader(self) -> Reader:
        """Where what explains all keys is."""
        return self.survey.reader

    def emit(self) -> None:
        """Write the document."""
        story, labels = self.answer.story, self.answer.labels
        here = [label for label in labels if label in story.reports]
        told = here or not labels
        document = documents.WhyRemoteDocument(
            label=labels[0] if len(labels) == 1 else self.answer.word or None,
            run=None,
            against="remote",
            root_causes=documents.root_causes(story, here) if told else (),
            chain=documents.steps(cause.report for cause in story.chain(*(here or story.reports))) if told else (),
            cutoff=(),
            remote=_side(self.survey, self.keys),
        )
        emit_document("strata.why-remote", documents.VERSION, documents.fields(document))


@contextlib.contextmanager
def afar(path: Path, kept: Kept, word: str | None, given: Given) -> Iterator[Seen]:
    """Compare what a build now would come to with what its remote caches have. Raises StrataError."""
    wishes = wishes_of(given, lock=Wish.IF_NEEDED, build=Wish.YES)
    with open_session(path, session_options(given), wishes=wishes, reading=True) as session:
        if not session.opened.remotes.caches:
            hint = "name one with `--remote-cache URL`, `STRATA_REMOTE_CACHE`, or `cache` in `[tool.strata.remote]`"
            raise SpecError.of("no-remote-cache", "no remote cache is configured to compare with", hint=hint)
        seen, wanted = session.look_afar(_labels(session, kept, word))
        with contextlib.closing(seen):
            labels = matching(word, seen.labels()) if word is not None else []
            # Of all of a build, whether each blob of each result is there would be too much to ask.
            survey = seen.survey(labels or (wanted if word is not None else seen.labels()), wholly=word is not None)
            keys = {label: str(key.digest) for label, key in seen.cache.keys.items()}
            yield Seen(_answer(survey, word, labels), survey, keys)


def _labels(session: Session, kept: Kept, word: str | None) -> list[str]:
    if word is None or any(word == layer.env_name for layer in session.stack.layers):
        return [] if word is None else [word]
    labels = matching(word, session.labels())
    if not labels:
        raise unknown_label(kept, word)
    return labels


def _answer(survey: Survey, word: str | None, labels: list[str]) -> Answer:
    record = RunRecord(run="", started="", seconds=0.0, command=(), exit_code=0, counts={}, actions=survey.reports)
    where = f"{', '.join(survey.caches)}, zone `{'`, `'.join(survey.zones)}`"
    there = {label: said for label, standing in survey.standings.items() if (said := _said(standing))}
    if word is None:
        there = {label: said for label, said in there.items() if isinstance(survey.standings[label], There)}
    else:
        there |= dict.fromkeys(survey.kept, "is never in a remote cache")
        there |= dict.fromkeys(survey.unknown, "has no key before something else is executed")
    now = time.time()
    return Answer(
        Story([record]),
        tuple(labels),
        word or "",
        Kind.AFAR,
        against=where,
        there=there,
        total=len(survey.standings) + len(survey.unknown),
        unknown=len(survey.unknown),
        nearest={label: _words(candidate, now) for label, candidate in survey.nearest.items()},
    )


def _said(standing: Standing) -> str:
    match standing:
        case There(zone=zone, signed_by=signer):
            by = f", signed by {signer}" if signer else ""
            place = f" in zone `{zone}`" if zone else ""
            return f"is there{place}{by}: a build would take it"
        case NotTaken(zone=zone):
            return f"is there{f' in zone `{zone}`' if zone else ''}, and would not be taken"
        case None:
            return ""


def _words(candidate: Candidate, now: float) -> str:
    """Say what a result was compared with."""
    recent = candidate.recent
    parts = [f"sent {ago(time.strftime(_CLOCK, time.gmtime(recent.at)), now)} in zone `{candidate.zone}`"]
    parts += [f"of commit {recent.revision[:12]}"] if recent.revision else []
    parts += [f"on {recent.platform}"] if recent.platform else []
    return ", ".join(parts)


def _side(survey: Survey, keys: Mapping[str, str]) -> documents.RemoteSide:
    results = [_result(label, keys.get(label), standing) for label, standing in survey.standings.items()]
    results += [documents.RemoteResult(label, None, "unknown", None, None, None, None) for label in survey.unknown]
    return documents.RemoteSide(
        survey.caches,
        survey.zones,
        tuple(sorted(results, key=lambda result: result.label)),
        tuple(_nearest(label, candidate) for label, candidate in sorted(survey.nearest.items())),
    )


def _result(label: str, key: str | None, standing: Standing) -> documents.RemoteResult:
    match standing:
        case There(origin=origin, zone=zone, signed_by=signer):
            return documents.RemoteResult(label, key, "there", origin, zone or None, signer or None, None)
        case NotTaken(origin=origin, zone=zone, why=why):
            return documents.RemoteResult(label, key, "not-taken", origin, zone or None, None, why)
        case None:
            return documents.RemoteResult(label, key, "missing", None, None, None, None)


def _nearest(label: str, candidate: Candidate) -> documents.NearestResult:
    recent = candidate.recent
    return documents.NearestResult(
        label=label,
        key=str(recent.key),
        sent=time.strftime(_CLOCK, time.gmtime(recent.at)),
        revision=recent.revision or None,
        platform=recent.platform or None,
        cache=candidate.origin,
        zone=candidate.zone,
    )
