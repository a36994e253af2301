"""What recorded builds give cause to doubt: one key with two outputs, and inputs whose changes never mattered.

Pure functions of records. Neither is an error: an action that asks the world may be answered in two ways, and an input
that has not mattered so far may do so tomorrow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from strata_engine.run_record import RunRecord
from strata_engine.staleness import ReasonCode
from strata_engine.why import moved

_CHANGES = (
    ReasonCode.DEFINITION_CHANGED, ReasonCode.RULE_CHANGED, ReasonCode.TOOL_CHANGED, ReasonCode.PARAMETER_CHANGED,
    ReasonCode.ENV_CHANGED, ReasonCode.PLATFORM_CHANGED, ReasonCode.INPUT_CHANGED, ReasonCode.INPUT_ADDED,
    ReasonCode.INPUT_REMOVED,
)  # fmt: skip
"""What can turn out not to matter. An upstream's change is its own input's, not this one's to leave out."""

OFTEN = 2
"""How often an input must have changed for nothing before that is worth a word."""


class Made(NamedTuple):
    """An output of a key, and who made it."""

    output: str
    label: str
    run: str


class Diverged(NamedTuple):
    """A key that came to several outputs."""

    key: str
    mnemonic: str
    made: tuple[Made, ...]
    """The first that came to each output, in the order in which they were made."""


class Unheeded(NamedTuple):
    """An input that changed and never changed the output."""

    label: str
    subject: str
    times: int


def diverged(records: Iterable[RunRecord]) -> list[Diverged]:
    """List the keys that came to several outputs, whichever build or label made them."""
    outputs: dict[str, dict[str, Made]] = {}
    mnemonics: dict[str, str] = {}
    for record in records:
        for report in moved(record):
            if report.key and report.output:
                mnemonics[report.key] = report.mnemonic
                there = outputs.setdefault(report.key, {})
                there.setdefault(report.output, Made(report.output, report.label, record.run))
                if report.previous == report.key and report.former:
                    there.setdefault(report.former, Made(report.former, report.label, ""))
    return [Diverged(key, mnemonics[key], tuple(made.values())) for key, made in outputs.items() if len(made) > 1]


def unheeded(records: Iterable[RunRecord]) -> list[Unheeded]:
    """List the inputs that changed often and never changed the output, the most frequent first.

    Where an action had several reasons and came to another output, any of them may have been the one that mattered.
    """
    times: dict[tuple[str, str], int] = {}
    mattered: set[tuple[str, str]] = set()
    for record in records:
        for report in moved(record):
            subjects = {(report.label, reason.subject) for reason in report.reasons if reason.reason in _CHANGES}
            if not report.former or not report.output:
                continue
            if report.output != report.former:
                mattered |= subjects
            elif report.key != report.previous:
                for subject in subjects:
                    times[subject] = times.get(subject, 0) + 1
    found = [Unheeded(*each, count) for each, count in times.items() if count >= OFTEN and each not in mattered]
    return sorted(found, key=lambda each: (-each.times, each.label, each.subject))
