"""`strata graph diff`: what differs between two builds, action by action."""

from __future__ import annotations

from collections.abc import Sequence

import click

from strata_engine import why
from strata_engine.cas import BlobLost
from strata_engine.compare import output_changes
from strata_engine.run_record import RunRecord
from strata_engine.tree import Reader
from strata_rules.cli.graph import documents
from strata_rules.cli.graph.asked import opened
from strata_rules.cli.graph.cutoff import Cutoff
from strata_rules.cli.graph.states import Compared, compared, state_of
from strata_rules.cli.graph.told import Answer, Kind, View, counted, listed, page, told
from strata_rules.cli.options import StrataCommand, json_option
from strata_rules.cli.output import emit, emit_document
from strata_rules.semantics import details

FILES = 3
"""Files that are named of those in which two outputs differ."""


@click.command("diff", cls=StrataCommand)
@click.argument("arguments", nargs=-1, required=True, metavar="[SPEC] RUN [RUN]")
@click.option("--full", is_flag=True, help="Cut nothing and leave nothing out.")
@json_option
def command(arguments: tuple[str, ...], *, full: bool, as_json: bool) -> None:
    """Say what differs between two builds of this workspace, or between one and the last: keys, outputs, and why.

    A RUN is as `strata graph runs` lists it, or a file that `strata graph runs --export` wrote.
    """
    _, kept, words = opened(arguments, most=2)
    if not words:
        raise click.UsageError("missing argument 'RUN'")
    old, new = state_of(kept, words[0]), state_of(kept, words[1] if len(words) > 1 else "last")
    with compared(kept, old, new) as both:
        record = RunRecord(
            run=new.record.run,
            started=new.record.started,
            seconds=0.0,
            command=(),
            exit_code=0,
            counts={},
            actions=both.differences.changed,
        )
        story = why.Story([record])
        if as_json:
            emit_document("strata.diff", documents.VERSION, documents.fields(_document(both, story)))
            return
        view = View(
            lambda report, reason: details(both.reader, kept.workspace.root, report, reason),
            lambda *_: Cutoff((), ()),
            full=full,
        )
        answer = Answer(story, (), kind=Kind.DIFFERS, against=old.name, here=new.name)
        emit("\n".join(page([*told(answer, view), *_rest(both, full=full)], full=full)))


def _document(both: Compared, story: why.Story) -> documents.DiffDocument:
    differences = both.differences
    changed = tuple(
        documents.DiffLine(
            report.label,
            report.previous or None,
            report.key,
            report.former or None,
            report.output or None,
            report.reasons,
        )
        for report in differences.changed
    )
    return documents.DiffDocument(
        old=both.old.record.run,
        new=both.new.record.run,
        root_causes=documents.root_causes(story, ()),
        changed=changed,
        only_old=differences.gone,
        only_new=tuple(report.label for report in differences.changed if not report.previous),
        diverged=differences.diverged,
        same=differences.same,
    )


def _rest(both: Compared, *, full: bool) -> Sequence[str]:
    """Give what a list of causes leaves out."""
    differences = both.differences
    changed = [report.label for report in differences.changed if report.previous]
    new = [report.label for report in differences.changed if not report.previous]
    lines = [""] if differences.changed or differences.gone or differences.diverged else []
    for word, labels in (("changed", changed), ("new", new), ("gone", list(differences.gone))):
        if labels:
            lines.append(f"{word:<9}{listed(labels, full=full)}")
    lines.append(f"{'same':<9}{counted(differences.same, 'action')} with equal keys")
    twice = (f"diverged {label}: equal keys, different outputs" for label in differences.diverged)
    files = (_files(both, both.reader, label) for label in differences.diverged)
    return [*lines, *map(str.__add__, twice, files)]


def _files(both: Compared, reader: Reader, label: str) -> str:
    try:
        changes = output_changes(reader, both.old.held[label].output, both.new.held[label].output)
    except (BlobLost, ValueError):
        return ""
    names = [change.path for change in changes if change.path]
    return f" in {listed(names[:FILES])}{' …' if len(names) > FILES else ''}" if names else ""
