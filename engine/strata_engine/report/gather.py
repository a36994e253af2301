"""Gather a report: one value, made of a build's record, the records before it, the graph and the trace. Pure.

It knows neither HTML nor what actions are about: which layer an action belongs to and what layers weigh, its caller
says. The hard part is that no source is whole: a record has only what was not up to date, the graph is that of the
last build, and the trace is there for the last builds only. What is not known is said to be so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from strata_engine.critical import critical_path
from strata_engine.events import Outcome
from strata_engine.recorded_graph import RecordedAction
from strata_engine.report import schedule
from strata_engine.report.data import (
    OUTCOMES,
    OUTSIDE,
    UNKNOWN,
    Cause,
    Drawn,
    Earlier,
    Head,
    Report,
    Row,
    Weight,
    WhatIf,
    Why,
)
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason
from strata_engine.trace import PLACING, Traced, runs
from strata_engine.why import Story

MOST_TEXT = 600
"""Characters of one side of a reason, and of one path."""
MOST_REASONS = 60
"""Reasons of one action."""
MOST_ROOTS = 500
MOST_SAVINGS = 12
WORKERS = (1, 2, 4, 8, 16, schedule.UNBOUNDED)
"""The numbers of workers for which the build is played again."""


class Material(NamedTuple):
    """What a report is made from."""

    records: Sequence[RunRecord]
    """Oldest first."""
    build: int
    """The position of the build that is reported."""
    graph: Mapping[str, RecordedAction] = {}
    traced: Traced | None = None
    groups: Mapping[str, str] = {}
    """The group of each label that is not in the one that it begins with."""
    weights: Sequence[Weight] = ()
    bytes: Mapping[str, int] = {}
    """What is known of outputs that no record tells of."""
    looked_at: Collection[str] = ()
    """The labels that this build or a later one was the last to look at."""


def report(material: Material) -> Report:
    """Make the report of a build."""
    record = material.records[material.build]
    graph = _union(material.graph, record.actions)
    outcomes = _outcomes(graph, record, material.looked_at)
    groups = {label: material.groups.get(label) or _group(label) or graph[label].mnemonic for label in graph}
    columns = _columns(graph, groups)
    order = _order(graph, groups)
    ranks = {name: rank for rank, name in enumerate(order)}
    labels = sorted(graph, key=lambda label: (ranks[groups[label]], columns[label], label))
    at = {label: number for number, label in enumerate(labels)}
    critical = critical_path(record.actions)
    deciders = {label: action.deciders for label, action in material.graph.items()}
    story = Story(material.records, material.build, lambda: deciders)
    known = {each.label: each for each in record.actions}
    told = _told(story, material, at)
    sizes = _sizes(material, graph.keys())

    def row(label: str) -> Row:
        action, here = graph[label], known.get(label)
        whys, more, above = told.here.get(label) or (_whys(here.reasons, ()) if here else (), 0, ())
        return Row(
            label=label,
            mnemonic=action.mnemonic,
            group=ranks[groups[label]],
            outcome=OUTCOMES.index(outcomes[label]),
            column=columns[label],
            seconds=here.seconds if here else 0.0,
            bytes=sizes.get(label, 0),
            needs=tuple(at[name] for name in action.needs if name in at),
            deciders=tuple(at[name] for name in action.deciders if name in at),
            key=here.key if here else "",
            output=here.output[:12] if here else "",
            cut_off=bool(here and here.output and here.output == here.former and here.key != here.previous),
            because=at.get(here.because, -1) if here else -1,
            sources=tuple(map(_cut, action.sources)),
            places=tuple(map(_cut, action.places)),
            reasons=whys,
            more=more,
            above=above,
        )

    roots = story.roots()
    tracks, spans = _timeline(material.traced, at)
    return Report(
        head=_head(
            record,
            sum(known[label].seconds for label in critical),
            traced=material.traced is not None,
            whole=UNKNOWN not in outcomes.values(),
        ),
        groups=tuple(order),
        actions=tuple(map(row, labels)),
        earlier=told.earlier,
        critical=tuple(at[label] for label in critical),
        roots=tuple(
            Cause(_why(root.reason, own=True), root.labels[:20], root.actions, root.seconds)
            for root in roots[:MOST_ROOTS]
        ),
        more_roots=max(0, len(roots) - MOST_ROOTS),
        tracks=tracks,
        spans=spans,
        what_if=_what_if(record, graph, material.traced),
        weights=tuple(sorted(material.weights, key=lambda weight: -weight.bytes)),
        messages=tuple(
            {name: str(value) for name, value in message._asdict().items() if value}
            for message in (material.traced.messages if material.traced is not None else ())
        ),
    )


def _group(label: str) -> str:
    """Give the group that a label begins with; what stands in brackets may be anything."""
    return label.partition("[")[0].rpartition("/")[0]


# -- the graph --------------------------------------------------------------------------------------------------------


def _union(graph: Mapping[str, RecordedAction], reports: Iterable[ActionReport]) -> dict[str, RecordedAction]:
    """Add what was built and is in the graph no more, as far as the record tells of it."""
    union = dict(graph)
    for each in reports:
        if each.label not in union:
            union[each.label] = RecordedAction(each.mnemonic, each.upstream, each.deciders)
    return union


def _depths(above: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Give each name how many are before it on the longest way; what is in a cycle ends somewhere."""
    depths: dict[str, int] = {}
    opened: set[str] = set()
    for start in above:
        waiting = [start]
        while waiting:
            name = waiting[-1]
            fresh = [each for each in above[name] if each not in opened] if name not in opened else []
            opened.add(name)
            if fresh:
                waiting += fresh
                continue
            waiting.pop()
            depths.setdefault(name, 1 + max((depths.get(each, -1) for each in above[name]), default=-1))
    return depths


def _columns(graph: Mapping[str, RecordedAction], groups: Mapping[str, str]) -> dict[str, int]:
    """Put actions into columns by what they need of their own group.

    What is of one kind stands in one column in all groups, where the kinds follow one another as they mostly do.
    """
    inside = {
        label: [name for name in action.upstream if groups.get(name) == groups[label]]
        for label, action in graph.items()
    }
    kinds: dict[str, set[str]] = {action.mnemonic: set() for action in graph.values()}
    for label, names in inside.items():
        kinds[graph[label].mnemonic].update(graph[name].mnemonic for name in names)
    depths = _depths(kinds)
    if all(depths[one] < depths[kind] for kind, above in kinds.items() for one in above):
        return {label: depths[action.mnemonic] for label, action in graph.items()}
    return _depths(inside)


def _outcomes(graph: Mapping[str, RecordedAction], record: RunRecord, looked_at: Collection[str]) -> dict[str, str]:
    """Say how each action ended; what the record does not have was up to date, or no part of the build."""
    found = {each.label: each.outcome.value for each in record.actions}
    idle = record.counts.get(Outcome.UP_TO_DATE.value, 0)
    rest = [label for label in graph if label not in found]
    if idle >= len(rest):
        return found | dict.fromkeys(rest, Outcome.UP_TO_DATE.value)
    needed = _above(graph, found) - found.keys()
    sure, others = needed, OUTSIDE if idle <= len(needed) else UNKNOWN
    # As many as were counted have been looked at since then: it was these.
    seen = {label for label in rest if label in looked_at}
    if len(seen) == idle and needed <= seen:
        sure, others = seen, OUTSIDE
    return found | {label: Outcome.UP_TO_DATE.value if label in sure else others for label in rest}


def _above(graph: Mapping[str, RecordedAction], labels: Iterable[str]) -> set[str]:
    found = set(labels)
    waiting = list(found)
    while waiting:
        fresh = [name for name in graph[waiting.pop()].upstream if name in graph and name not in found]
        found.update(fresh)
        waiting += fresh
    return found


def _order(graph: Mapping[str, RecordedAction], groups: Mapping[str, str]) -> list[str]:
    """Put groups below those that they need."""
    depths = _depths({label: [name for name in action.upstream if name in graph] for label, action in graph.items()})
    last: dict[str, int] = {}
    for label, group in groups.items():
        last[group] = max(last.get(group, 0), depths[label])
    return sorted(last, key=lambda group: (last[group], group))


def _sizes(material: Material, labels: Collection[str]) -> dict[str, int]:
    """Give the bytes of outputs as the newest record up to this build has them, else as they are known otherwise."""
    sizes: dict[str, int] = {}
    for build in range(material.build, -1, -1):
        if len(sizes) == len(labels):
            break
        for each in material.records[build].actions:
            if each.bytes and each.label in labels:
                sizes.setdefault(each.label, each.bytes)
    return {**material.bytes, **sizes}


# -- causes -----------------------------------------------------------------------------------------------------------


class _Told(NamedTuple):
    here: dict[str, tuple[tuple[Why, ...], int, tuple[int, ...]]]
    earlier: tuple[Earlier, ...]


def _told(story: Story, material: Material, at: Mapping[str, int]) -> _Told:
    """Give each action its reasons and what explains them; a page follows these to the root causes."""
    steps = list(story.explained())
    before = [point for point, _, _ in steps if point.build != material.build]
    numbers = {point: len(at) + number for number, point in enumerate(before)}
    numbers |= {point: at[point.label] for point, _, _ in steps if point.build == material.build}
    here: dict[str, tuple[tuple[Why, ...], int, tuple[int, ...]]] = {}
    earlier = []
    for point, each, explained in steps:
        whys = _whys(each.reasons, explained.own)
        above = tuple(numbers[other] for other in explained.above if other in numbers)
        if point.build != material.build:
            past = material.records[point.build]
            earlier.append(Earlier(each.label, past.run, past.started, whys, above))
        else:
            here[point.label] = whys, max(0, len(each.reasons) - MOST_REASONS), above
    return _Told(here, tuple(earlier))


def _whys(reasons: Sequence[Reason], own: Sequence[Reason]) -> tuple[Why, ...]:
    """Give reasons, the root causes first."""
    whys = [_why(reason, own=reason in own) for reason in reasons]
    return tuple(sorted(whys, key=lambda why: not why.own)[:MOST_REASONS])


def _why(reason: Reason, *, own: bool) -> Why:
    old, new = (None if side is None else _cut(side) for side in (reason.old, reason.new))
    return Why(reason.reason.value, _cut(reason.subject), old, new, own)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"


# -- time -------------------------------------------------------------------------------------------------------------


def _head(record: RunRecord, critical: float, *, traced: bool, whole: bool) -> Head:
    moved = any(count for name, count in record.counts.items() if name != Outcome.UP_TO_DATE.value)
    return Head(
        run=record.run,
        started=record.started,
        seconds=record.seconds,
        command=record.command,
        exit_code=record.exit_code,
        counts=record.counts,
        revision=record.revision,
        settings=record.settings,
        version=record.version,
        platform=record.platform,
        critical=critical,
        busy=sum(each.seconds for each in record.actions),
        idle=not moved and not record.actions,
        traced=traced,
        whole=whole,
    )


def _timeline(traced: Traced | None, at: Mapping[str, int]) -> tuple[tuple[str, ...], tuple[Drawn, ...]]:
    if traced is None:
        return (), ()
    tracks = {name: number for number, name in enumerate(sorted({s.track for s in traced.spans}, key=_natural))}
    return tuple(tracks), tuple(
        Drawn(
            tracks[span.track],
            at.get(span.label, -1),
            round(span.start, 5),
            round(span.seconds, 5),
            "" if span.label in at else span.label,
        )
        for span in sorted(traced.spans, key=lambda span: span.start)
    )


def _natural(track: str) -> tuple[bool, str, int]:
    name, _, number = track.rpartition(" ")
    return track == PLACING, name, int(number) if number.isdecimal() else 0


def _what_if(record: RunRecord, graph: Mapping[str, RecordedAction], traced: Traced | None) -> WhatIf | None:
    did = [each for each in record.actions if each.outcome is not Outcome.SKIPPED]
    if not any(each.seconds for each in did):
        return None
    work = schedule.work_of(did, {label: action.pool for label, action in graph.items()})
    workers = _workers(traced)
    busy: dict[str, float] = dict.fromkeys(workers or {"cpu": 0}, 0.0)
    for seconds, pool in zip(work.seconds, work.pools, strict=True):
        busy[pool] = busy.get(pool, 0.0) + seconds
    largest = max(busy, key=lambda pool: busy[pool])
    return WhatIf(
        unbounded=schedule.longest(work),
        played=schedule.played(work, workers) if workers else None,
        workers=workers or {},
        pool=largest,
        others=tuple((count, schedule.played(work, {**(workers or {}), largest: count})) for count in WORKERS),
        savings=tuple(schedule.savings(work, {each.label: each.mnemonic for each in did}, workers, most=MOST_SAVINGS)),
    )


def _workers(traced: Traced | None) -> dict[str, int] | None:
    """Count the slots of each pool that were used."""
    workers: dict[str, int] = {}
    for span in traced.spans if traced is not None else ():
        pool, _, slot = span.track.rpartition(" ")
        if slot.isdecimal() and runs(span):
            workers[pool] = max(workers.get(pool, 0), int(slot) + 1)
    return workers or None
