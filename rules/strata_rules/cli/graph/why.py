"""`strata graph why`: why an action ran, or what made the last build run anything, from the records of past builds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import msgspec

from strata_engine import why
from strata_engine.console.transcript import reason_line
from strata_engine.errors import SpecError
from strata_engine.run_record import FILE, RunRecord, read
from strata_engine.staleness import ReasonCode
from strata_engine.words import duration
from strata_engine.workspace import Workspace
from strata_rules.cli.completion import complete_labels
from strata_rules.cli.options import StrataCommand, json_option
from strata_rules.cli.output import emit, emit_document
from strata_rules.cli.stack_file import find_stack_file, split_arguments
from strata_rules.spec.source import did_you_mean

SHOWN_ROOTS = 12
"""How many root causes fit on a screen."""


@click.command("why", cls=StrataCommand)
@click.argument("arguments", nargs=-1, metavar="[SPEC] [LABEL]", shell_complete=complete_labels)
@json_option
def command(arguments: tuple[str, ...], *, as_json: bool) -> None:
    """Say why LABEL ran when it last ran; without LABEL, the root causes of the last build that ran anything.

    Nothing is executed: this reads the records that every build leaves in the workspace.
    """
    spec, labels = split_arguments(arguments, Path.cwd())
    if len(labels) > 1:
        raise click.UsageError("`graph why` explains one LABEL at a time")
    records = read(Workspace(find_stack_file(spec, Path.cwd()).absolute().parent).state / FILE)
    label = labels[0] if labels else None
    if label is not None:
        label = _known(records, label)
    record = why.last_run_of(records, label)
    if record is None:
        what = f"`{label}` has not run in any recorded build" if label else "no recorded build has run anything"
        raise SpecError.of("no-history", what, hint="`strata build` leaves a record of every build")
    story = why.Story(records, records.index(record))
    causes = story.chain(label) if label is not None else []
    roots = story.roots(*([label] if label is not None else []))
    if as_json:
        _document(record, label, causes, roots)
    else:
        emit("\n".join(_said(record, causes) if causes else _summed_up(record, roots)))


def _known(records: Sequence[RunRecord], label: str) -> str:
    """Complete a layer's name to its Link; refuse a label that no build has had."""
    labels = {report.label for record in records for report in record.actions}
    if f"{label}/link" in labels:
        return f"{label}/link"
    if label not in labels and records:
        layers = {known.partition("/")[0] for known in labels}
        hint = did_you_mean(label, sorted(labels | layers)) or "`strata graph show` lists the labels"
        raise SpecError.of("unknown-label", f"no recorded build has had `{label}`", hint=hint)
    return label


def _said(record: RunRecord, causes: Iterable[why.Cause]) -> list[str]:
    lines = []
    for cause in causes:
        indent = "  " * cause.depth
        report = cause.report
        arrow = "<- " if cause.depth else ""
        when = f"  (build {record.run}, {record.started})" if not cause.depth else ""
        lines.append(f"{indent}{arrow}{report.label}  {report.outcome} in {duration(report.seconds)}{when}")
        mark = "  [root cause]" if cause.own else ""
        lines += [f"{indent}     {reason_line(reason)}{mark}" for reason in cause.own or report.reasons[:3]]
    return lines


def _summed_up(record: RunRecord, roots: Sequence[why.Root]) -> list[str]:
    ran = len(why.ran(record))
    lines = [f"build {record.run}, {record.started}: {ran} action{'' if ran == 1 else 's'} ran"]
    first = [root for root in roots if root.reason.reason is ReasonCode.FIRST_BUILD]
    if first:
        lines.append(f"  {len(first)} had never been built here, and what needs them")
    roots = [root for root in roots if root not in first]
    for root in roots[:SHOWN_ROOTS]:
        lines.append(f"  {', '.join(root.labels)}: {reason_line(root.reason)}")
        lines.append(f"    made {root.actions} of them run, {duration(root.seconds)} together")
    if len(roots) > SHOWN_ROOTS:
        lines.append(f"  and {len(roots) - SHOWN_ROOTS} more: `--json` has all")
    return lines


def _document(record: RunRecord, label: str | None, causes: Iterable[why.Cause], roots: Iterable[why.Root]) -> None:
    emit_document(
        "strata.why",
        1,
        {
            "label": label,
            "run": record.run,
            "root_causes": [
                {
                    **msgspec.to_builtins(root.reason),
                    "labels": list(root.labels),
                    "actions": root.actions,
                    "seconds": root.seconds,
                }
                for root in roots
            ],
            "chain": [
                {
                    "label": cause.report.label,
                    "outcome": cause.report.outcome.value,
                    "reasons": msgspec.to_builtins(cause.report.reasons),
                }
                for cause in causes
            ],
        },
    )
