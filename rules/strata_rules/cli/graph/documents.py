"""The documents that the commands of `graph` write with `--json`: their form is frozen by a test.

Each is a value; its schema is in `schemas/` beside this module.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from strata_engine.events import Outcome
from strata_engine.run_record import ActionReport
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.why import Story


class RootCause(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A root cause, and what it cost."""

    reason: ReasonCode
    subject: str
    old: str | None
    new: str | None
    actions: int
    """How many actions ran because of it."""
    seconds: float


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action on the way from what was asked about to its causes."""

    label: str
    outcome: Outcome
    reasons: tuple[Reason, ...]


class WhyDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`strata graph why`."""

    label: str | None
    """What was asked about; null for all of a build."""
    run: str | None
    """The build that is explained; null with `--dry`, for there was none."""
    against: str | None
    """The build that it is compared with."""
    root_causes: tuple[RootCause, ...]
    """The most expensive first."""
    chain: tuple[Step, ...]
    """The nearest first."""
    cutoff: tuple[str, ...]
    """What was done again and came out as before."""


class RemoteResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it is with a result in remote caches."""

    label: str
    key: str | None
    """Null where something else would have to be executed first."""
    standing: str
    """`there`, `missing`, `not-taken`, or `unknown` where there is no key."""
    cache: str | None
    """Which cache has it."""
    zone: str | None
    """In which zone; null where it proves itself."""
    signed_by: str | None
    why: str | None
    """Why a build would not take it, where it is there."""


class NearestResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one that is not there was compared with."""

    label: str
    key: str
    sent: str
    """When, in UTC, ISO 8601, by the sender's clock."""
    revision: str | None
    """The commit that it was made of."""
    platform: str | None
    """The sender's."""
    cache: str
    zone: str


class RemoteSide(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was asked of remote caches, and what they had."""

    caches: tuple[str, ...]
    zones: tuple[str, ...]
    """Those that a build would read, in order."""
    results: tuple[RemoteResult, ...]
    """Of what was asked about, but for what is never shared."""
    nearest: tuple[NearestResult, ...]


class WhyRemoteDocument(WhyDocument, frozen=True, forbid_unknown_fields=True):
    """`strata graph why --against remote`."""

    remote: RemoteSide


class WhyNotDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`strata graph why-not`."""

    label: str
    input: str
    declared: bool
    """Whether the label depends on it at all."""
    reads: tuple[str, ...]
    """The actions that read it, of those that the label depends on."""
    way: tuple[str, ...]
    """From one of them to the label."""
    cutoff: str | None
    """The action on that way that came out as before, when the input had last changed."""
    run: str | None
    """The build in which it had last changed."""
    changed: bool | None
    """Whether it is another one than in the last build; null where that cannot be told."""
    nearest: tuple[str, ...]
    """What the label does depend on, the most similar first, where it is not declared."""


class Passed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action that had a file in its output."""

    label: str
    path: str


class OutputDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`strata graph why --output`."""

    output: str
    """The file or folder that was asked about."""
    way: tuple[Passed, ...]
    """The actions that had it, the last one first."""
    source: str | None
    """The workspace's file that it is a copy of."""
    made_of: tuple[str, ...]
    """What the last of `way` made it of, where it did."""
    intact: bool
    """Whether it still is what was put there."""


class RunLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A build."""

    run: str
    started: str
    command: tuple[str, ...]
    revision: str | None
    exit_code: int
    counts: dict[str, int]
    seconds: float
    root_causes: tuple[RootCause, ...]


class RunsDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`strata graph runs`."""

    runs: tuple[RunLine, ...]
    """The newest first."""


class MadeLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of several outputs of a key."""

    output: str
    label: str
    run: str | None


class DivergedLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key with several outputs."""

    key: str
    mnemonic: str
    expected: bool
    """Whether the action asks the world, which may answer otherwise."""
    made: tuple[MadeLine, ...]
    files: tuple[str, ...]
    """In which files the first and the last output differ, where both are still known."""


class UnheededLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input that changed and never changed the output."""

    label: str
    subject: str
    times: int


class CheckDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`strata graph runs --check`."""

    diverged: tuple[DivergedLine, ...]
    unheeded: tuple[UnheededLine, ...]


class DiffLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action that differs."""

    label: str
    old_key: str | None
    new_key: str
    old_output: str | None
    new_output: str | None
    reasons: tuple[Reason, ...]


class DiffDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`strata graph diff`."""

    old: str
    new: str
    root_causes: tuple[RootCause, ...]
    changed: tuple[DiffLine, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    diverged: tuple[str, ...]
    """What has equal keys and different outputs."""
    same: int


class QueryLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action that a query means."""

    label: str
    mnemonic: str
    stack: str | None
    """Its stack file; null where several have it."""
    layer: str | None
    """Null where several may share it."""
    platform: str | None
    """Null for locks, and for what serves several."""


class QueryDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`strata graph query`."""

    query: str
    labels: tuple[QueryLine, ...]


class DrawnNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action in a drawn graph."""

    label: str
    mnemonic: str
    group: str
    """Its layer, or what several layers share."""
    outcome: Outcome | None
    """What it would have now; null where that is not known yet."""


class DrawnEdge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """That one action needs another."""

    from_: str
    """What is needed."""
    to: str


class GraphDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`strata graph show`."""

    nodes: tuple[DrawnNode, ...]
    edges: tuple[DrawnEdge, ...]


class ReportDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`strata graph report`."""

    run: str
    path: str
    bytes: int


class TraceDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`strata graph trace`."""

    run: str
    path: str


class TraceLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A trace, and what is still recorded of its build."""

    run: str
    path: str
    started: str | None
    seconds: float | None
    command: tuple[str, ...] | None


class TracesDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`strata graph trace --list`."""

    traces: tuple[TraceLine, ...]
    """The newest first."""


DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    "strata.why": WhyDocument,
    "strata.why-remote": WhyRemoteDocument,
    "strata.why-not": WhyNotDocument,
    "strata.output": OutputDocument,
    "strata.runs": RunsDocument,
    "strata.doubts": CheckDocument,
    "strata.diff": DiffDocument,
    "strata.query": QueryDocument,
    "strata.graph": GraphDocument,
    "strata.report": ReportDocument,
    "strata.trace": TraceDocument,
    "strata.traces": TracesDocument,
}
"""By the name in their field `schema`; each is version 1."""

VERSION = 1


def schema_of(name: str) -> dict[str, object]:
    """Give the JSON schema of a document by the name in its field `schema`."""
    (made,), components = msgspec.json.schema_components([DOCUMENTS[name]], ref_template="#/$defs/{name}")
    own = components.pop(DOCUMENTS[name].__name__)
    assert "$ref" in made
    head = {"schema": {"const": name}, "version": {"const": VERSION}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **own,
        "properties": {**head, **own["properties"]},
        "required": [*head, *own["required"]],
        "$defs": components,
    }


def root_causes(story: Story, labels: Iterable[str]) -> tuple[RootCause, ...]:
    """Give the root causes of labels, or of all of a build."""
    if not story.reports:
        return ()
    return tuple(
        RootCause(root.reason.reason, root.reason.subject, root.reason.old, root.reason.new, root.actions, root.seconds)
        for root in story.roots(*labels)
    )


def steps(reports: Iterable[ActionReport]) -> tuple[Step, ...]:
    """Give actions as steps."""
    return tuple(Step(report.label, report.outcome, report.reasons) for report in reports)


def fields(document: msgspec.Struct) -> dict[str, object]:
    """Give a document as a value for JSON."""
    value = msgspec.to_builtins(document)
    assert isinstance(value, dict)
    return value
