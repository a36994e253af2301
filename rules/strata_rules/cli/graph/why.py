"""`strata graph why`: why something ran, would run, or could not be taken from another build; which action made a file.

The command alone: what is asked about is found by `asked`, what is told is put into words by `told`. Modules that only
some questions need are imported when they are asked: the most frequent one must be answered at once.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from strata_engine import why
from strata_engine.errors import StrataError
from strata_engine.run_record import ActionReport
from strata_engine.staleness import Reason
from strata_rules.cli.completion import complete_labels
from strata_rules.cli.given import Given, given_options
from strata_rules.cli.graph.asked import Found, Kept, find_build, last_move, matching, moved_in, opened, unknown_label
from strata_rules.cli.graph.cutoff import cutoff
from strata_rules.cli.graph.told import Answer, Details, Kind, View, told
from strata_rules.cli.options import StrataCommand
from strata_rules.cli.output import emit, emit_document

if TYPE_CHECKING:
    from strata_engine.picture import PictureGraph
    from strata_engine.tree import Reader

FORMATS = ("text", "dot", "mermaid", "github", "json")

REMOTE = "remote"
"""What `--against` says for the remote caches that a build would ask."""

_ASKING = (
    *("include", "allow_missing", "platform", "build_dir", "index", "local_wheels"),
    *("remote_cache", "remote_zone", "remote_timeout"),
)


class Asked(NamedTuple):
    """The question."""

    path: Path
    kept: Kept
    word: str | None
    run: str | None
    dry: bool
    against: str | None


@click.command("why", cls=StrataCommand)
@click.argument("arguments", nargs=-1, metavar="[SPEC] [LABEL]", shell_complete=complete_labels)
@click.option("--run", metavar="RUN", help="Explain this build: see `strata graph runs`; `last~1` is the last but one.")
@click.option("--dry", is_flag=True, help="Explain what a build would do now, and do nothing.")
@click.option(
    "--against",
    metavar="RUN|FILE|remote",
    help="Explain why that build's results could not be used, or what a remote cache has instead.",
)
@click.option("--output", metavar="PATH", help="Say which action made this file or folder.")
@click.option("--full", is_flag=True, help="Cut nothing and leave nothing out.")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="text", show_default=True, help="How to tell.")
@given_options(*_ASKING, "as_json")
def command(
    arguments: tuple[str, ...],
    given: Given,
    *,
    run: str | None,
    dry: bool,
    against: str | None,
    output: str | None,
    full: bool,
    format_: str,
) -> None:
    """Say why LABEL ran when it last ran; without LABEL, the root causes of all that ran.

    LABEL is a layer, an action such as `app-x/link`, a wheel, or a pattern such as `*/lock`. Nothing is executed: this
    reads the records that every build leaves. Options that a build was given matter to --dry and --against remote only.
    """
    # Ten thousand actions are many objects, and none of them is garbage before this process ends.
    gc.disable()
    path, kept, words = opened(arguments)
    if path.is_dir() and (dry or against == REMOTE):
        raise click.UsageError("a build that is to be looked at is one of one stack: name it, as `//DIR:LABEL`")
    _check(words, dry=dry, run=run, against=against, output=output)
    format_ = "json" if given.as_json else format_
    if output is not None:
        from strata_rules.cli.graph.output_of import tell_output  # noqa: PLC0415 - see the module's docstring

        tell_output(kept, output, full=full, as_json=format_ == "json")
        return
    asked = Asked(path, kept, words[0] if words else None, run, dry, against)
    if dry:
        from strata_rules.cli.graph.would import would  # noqa: PLC0415 - as above

        record = would(path, kept, asked.word, given)
        records = kept.records.with_one(record)
        story = why.Story(records, len(records) - 1, kept.deciders)
        _tell(asked, Answer(story, _meant(asked.word, story), asked.word or "", Kind.WOULD), format_, full=full)
    elif against == REMOTE:
        from strata_rules.cli.graph.afar import afar  # noqa: PLC0415 - as above

        with afar(path, kept, asked.word, given) as seen:
            if format_ == "json":
                seen.emit()
            else:
                _tell(asked, seen.answer, format_, full=full, reader=seen.reader)
    elif against is not None:
        _compare(asked, against, format_, full=full)
    else:
        found = _found(asked)
        story = why.Story(kept.records, found.build, kept.deciders)
        later = len(kept.records) - 1 - found.build
        _tell(
            asked,
            Answer(story, found.labels or _named(asked), asked.word or "", later=0 if run else later),
            format_,
            full=full,
        )


def _check(words: Sequence[str], *, dry: bool, run: str | None, against: str | None, output: str | None) -> None:
    """Refuse questions that make no sense together."""
    if dry and (run or against):
        raise click.UsageError("`--dry` is about a build that has not been: leave out `--run` and `--against`")
    if run is not None and against == REMOTE:
        raise click.UsageError("`--against remote` is about a build now: leave out `--run`")
    if output is not None and (words or dry or run or against):
        raise click.UsageError("`--output` is a question of its own: leave out LABEL and the other options")


def _found(asked: Asked) -> Found:
    """Find the build that is asked about. Raises SpecError."""
    if asked.run is not None:
        return moved_in(asked.kept, find_build(asked.kept.records, asked.run), asked.word)
    return last_move(asked.kept, asked.word)


def _named(asked: Asked) -> tuple[str, ...]:
    """Give what a word means where nothing of it was done."""
    return tuple(matching(asked.word, asked.kept.labels())) if asked.word is not None else ()


def _meant(word: str | None, story: why.Story) -> tuple[str, ...]:
    """Give what a word means of a build that would be."""
    return () if word is None else tuple(matching(word, story.reports)) or (word,)


def _compare(asked: Asked, against: str, format_: str, *, full: bool) -> None:
    """Tell why the results of another build could not be used."""
    from strata_engine.compare import closure  # noqa: PLC0415 - as above
    from strata_engine.run_record import RunRecord  # noqa: PLC0415 - as above
    from strata_rules.cli.graph.states import compared, state_of  # noqa: PLC0415 - as above

    kept = asked.kept
    there, here = state_of(kept, against), state_of(kept, asked.run or "last")
    labels = matching(asked.word, {**here.held, **there.held}) if asked.word is not None else []
    if asked.word is not None and not labels:
        raise unknown_label(kept, asked.word)
    within = closure({**there.graph, **here.graph}, labels) if labels else None
    with compared(kept, there, here, within) as both:
        record = RunRecord(
            run=here.record.run,
            started=here.record.started,
            seconds=0.0,
            command=(),
            exit_code=0,
            counts={},
            actions=both.differences.changed,
        )
        story = why.Story([record])
        meant = tuple(label for label in labels if label in story.reports) or tuple(labels)
        answer = Answer(story, meant, asked.word or "", Kind.DIFFERS, there.name, there.record.run)
        _tell(asked, answer, format_, full=full, reader=both.reader)


def _tell(asked: Asked, answer: Answer, format_: str, *, full: bool, reader: Reader | None = None) -> None:
    """Write an answer in one of the formats."""
    story = answer.story
    here = [label for label in answer.labels if label in story.reports]
    if format_ == "json":
        _document(asked, answer, here)
    elif format_ == "text":
        view = View(_details(asked.kept, reader), partial(cutoff, asked.kept), full=full, now=time.time())
        emit("\n".join(told(answer, view)))
    elif format_ == "github":
        emit(_markdown(asked, answer, here))
    else:
        from strata_engine import picture  # noqa: PLC0415 - as above

        emit({"dot": picture.dot, "mermaid": picture.mermaid}[format_](_picture(answer, here)))


def _details(kept: Kept, reader: Reader | None) -> Details:
    """Look up what a reason means in its file, opening the store when the first is asked about."""

    def details(report: ActionReport, reason: Reason) -> Sequence[str]:
        if not (report.key and report.previous) or report.key == report.previous:
            return ()
        from strata_rules.semantics import details as found  # noqa: PLC0415 - as above

        try:
            if reader is not None:
                return found(reader, kept.workspace.root, report, reason)
            with kept.content() as content:
                return found(content, kept.workspace.root, report, reason) if content is not None else ()
        except StrataError:
            # An explanation without its details is better than none.
            return ()

    return details


def _document(asked: Asked, answer: Answer, here: Sequence[str]) -> None:
    from strata_rules.cli.graph import documents  # noqa: PLC0415 - as above

    story, record = answer.story, answer.story.record
    one = answer.labels[0] if len(answer.labels) == 1 else asked.word
    silent = bool(answer.labels) and not here
    if here or not answer.labels:
        reports = [cause.report for cause in story.chain(*(here or story.reports))]
    else:
        reports = [report for report in record.actions if report.label in answer.labels]
        because = [report.because for report in reports if report.because in story.reports]
        reports += [cause.report for cause in story.chain(*because)] if because else []
        here, silent = because, not because
    document = documents.WhyDocument(
        label=one,
        run=record.run or None,
        against=answer.against_run or None,
        root_causes=() if silent else documents.root_causes(story, here),
        chain=documents.steps(reports),
        cutoff=() if silent or answer.kind is not Kind.RAN else cutoff(asked.kept, story, here).labels,
    )
    emit_document("strata.why", documents.VERSION, documents.fields(document))


def _markdown(asked: Asked, answer: Answer, here: Sequence[str]) -> str:
    """Give the answer as a CI service shows it."""
    import msgspec  # noqa: PLC0415 - as above

    from strata_engine.job_summary import markdown  # noqa: PLC0415 - as above

    story, record = answer.story, answer.story.record
    wanted = {cause.report.label for cause in story.chain(*(here or story.reports))}
    actions = tuple(report for report in record.actions if report.label in wanted)
    roots = story.roots(*here) if story.reports else []
    return markdown(msgspec.structs.replace(record, actions=actions), roots, (), asked.kept.graph, ())


def _picture(answer: Answer, here: Sequence[str]) -> PictureGraph:
    """Draw the way from causes to what was asked about; a cause is a box of its own."""
    from strata_engine.picture import PictureGraph, PictureNode  # noqa: PLC0415 - as above

    story = answer.story
    wanted = {cause.report.label for cause in story.chain(*(here or story.reports))}
    nodes: dict[str, PictureNode] = {}
    edges: dict[tuple[str, str], None] = {}
    for (_, label), report, explained in story.explained():
        if label not in wanted:
            continue
        group = label.rpartition("/")[0] or label
        nodes[label] = PictureNode(label, report.mnemonic, group, report.outcome.value)
        for reason in explained.own:
            nodes.setdefault(str(reason), PictureNode(str(reason), reason.reason.value, "root causes"))
            edges[str(reason), label] = None
        edges |= {(above.label, label): None for above in explained.above}
    return PictureGraph(tuple(nodes.values()), tuple(edges))
