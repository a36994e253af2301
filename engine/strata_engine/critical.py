"""The critical path of a build: the chain of actions on which its end waited. Pure.

It knows how long actions took and what each needed, nothing of when they ran: what more workers could not shorten.
"""

from __future__ import annotations

from collections.abc import Iterable

from strata_engine.run_record import ActionReport


def critical_path(reports: Iterable[ActionReport]) -> list[str]:
    """List the labels of the longest way through what was not up to date, by seconds; what is needed comes first."""
    known = {report.label: report for report in reports}
    ends: dict[str, float] = {}
    via: dict[str, str | None] = {}
    for start in known:
        waiting = [start]
        while waiting:
            label = waiting[-1]
            needed = [name for name in (*known[label].upstream, *known[label].deciders) if name in known]
            # Marked when it is opened: a record that names a cycle must not keep us here.
            fresh = [name for name in needed if name not in via] if label not in via else []
            via.setdefault(label, None)
            if fresh:
                waiting += fresh
                continue
            waiting.pop()
            if label not in ends:
                before = max(needed, key=lambda name: ends.get(name, 0.0), default=None)
                via[label] = before
                ends[label] = known[label].seconds + (ends.get(before, 0.0) if before is not None else 0.0)
    label_: str | None = max(ends, key=lambda name: ends[name], default=None)
    path: list[str] = []
    while label_ is not None and label_ not in path:
        path.append(label_)
        label_ = via[label_]
    return path[::-1]
