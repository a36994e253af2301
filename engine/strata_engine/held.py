"""What each action of a workspace had come to when a recorded build ended: its key and its output.

A record lists only what was not up to date, so the rest is put together: what the builds before it had brought about,
what those after it name as what they found, and for what no record names any more, what the workspace has now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from strata_engine.history import Past
from strata_engine.recorded_graph import RecordedAction
from strata_engine.run_record import ActionReport, RunRecord


class Held(NamedTuple):
    """An action's key and output, each `HASH/SIZE`; the output is empty where it failed."""

    key: str
    output: str
    mnemonic: str = ""


def held_at(
    records: Sequence[RunRecord], build: int, now: Mapping[str, Past], graph: Mapping[str, RecordedAction]
) -> dict[str, Held]:
    """Give what each label held after the build at this position; of what no record names, only what `graph` has."""
    build = range(len(records))[build]
    held: dict[str, Held] = {}
    for at in range(build, -1, -1):
        for report in records[at].actions:
            if report.key:
                held.setdefault(report.label, Held(report.key, report.output, report.mnemonic))
    later: dict[str, ActionReport] = {}
    for at in range(build + 1, len(records)):
        for report in records[at].actions:
            later.setdefault(report.label, report)
    for label, report in later.items():
        if label not in held and report.previous:
            held[label] = Held(report.previous, report.former, report.mnemonic)
    for label, known in graph.items():
        past = now.get(label)
        if past is not None and label not in held and label not in later:
            held[label] = Held(str(past.key), str(past.output or ""), known.mnemonic)
    looked_at = {record.run: at for at, record in enumerate(records)}
    return {label: each for label, each in held.items() if _was_there(label, build, now, graph, looked_at)}


def _was_there(
    label: str, build: int, now: Mapping[str, Past], graph: Mapping[str, RecordedAction], looked_at: Mapping[str, int]
) -> bool:
    """Tell whether a label was part of the graph then: what is not any more was as long as it was looked at."""
    past = now.get(label)
    return label in graph or past is None or looked_at.get(past.run, build) >= build
