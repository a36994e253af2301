"""Where a change stopped: at actions that came out as before, or of which nothing that others take has changed.

The first is in a build's record. The second is not: a lock is another file when a requirement is written otherwise, and
selects the same. That what needs it was looked at and had nothing to do is known from when it was looked at last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from strata_engine.why import Story
from strata_rules.cli.graph.asked import Kept


class Cutoff(NamedTuple):
    """Where the wave stopped in a build."""

    labels: tuple[str, ...]
    spared: tuple[str, ...]
    """What depends on them and had nothing to do."""


def cutoff(kept: Kept, story: Story, labels: Sequence[str]) -> Cutoff:
    """Find where the causes of labels stopped, or those of all of a build for none."""
    reports = story.reports
    passed = set().union(*[report.upstream for report in reports.values()])
    passed.update(*[report.deciders for report in reports.values()])
    same, unread = [], []
    for label, report in reports.items():
        output, former = report.output, report.former
        if output == former:
            if output and report.key != report.previous:
                same.append(label)
        elif output and former and label not in passed:
            unread.append(label)
    if labels and (same or unread):
        reached = story.reached(*labels)
        same, unread = ([label for label in each if label in reached] for each in (same, unread))
    users = _users(kept, {*same, *unread})
    if not users:
        return Cutoff(tuple(sorted(same)), ())
    at = {kept.records.run(number): number for number in range(len(kept.records))}
    build = at.get(story.record.run, len(at))

    def looked_at(label: str) -> bool:
        """Tell whether a label was looked at then or later and has not been done since."""
        past = kept.past.get(label)
        return past is not None and at.get(past.run, -1) >= build and label not in story.reports

    stopped = sorted([*same, *(label for label in unread if any(map(looked_at, users.get(label, ()))))])
    spared = [label for label in _above(kept, stopped) if looked_at(label)]
    return Cutoff(tuple(stopped), tuple(sorted(spared)))


def _users(kept: Kept, labels: Collection[str]) -> Mapping[str, Sequence[str]]:
    """List what needs labels."""
    users: dict[str, list[str]] = {}
    wanted = frozenset(labels)
    for label, known in kept.needs.items() if wanted else ():
        # Most need none of them.
        if not (wanted.isdisjoint(known.needs) and wanted.isdisjoint(known.deciders)):
            for name in wanted.intersection((*known.needs, *known.deciders)):
                users.setdefault(name, []).append(label)
    return users


def _above(kept: Kept, labels: Collection[str]) -> set[str]:
    """List all that depends on labels."""
    found: set[str] = set()
    users = _users(kept, kept.needs) if labels else {}
    waiting = list(labels)
    while waiting:
        fresh = [user for user in users.get(waiting.pop(), ()) if user not in found]
        found.update(fresh)
        waiting += fresh
    return found - set(labels)
