"""`strata graph runs`: the builds of this workspace, one of them for another machine, what they cast doubt on."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from strata_engine import why
from strata_engine.cas import BlobLost
from strata_engine.compare import output_changes
from strata_engine.doubts import Diverged, diverged, unheeded
from strata_engine.errors import HostError, SpecError
from strata_engine.run_record import RunRecord
from strata_engine.tree import Reader
from strata_engine.words import duration, printable
from strata_rules.cli.completion import complete_labels
from strata_rules.cli.graph import documents
from strata_rules.cli.graph.asked import Kept, matching, opened, short_run, unknown_label
from strata_rules.cli.graph.told import ago, command_of, counted, page
from strata_rules.cli.options import StrataCommand, json_option
from strata_rules.cli.output import emit, emit_document

SHOWN = 20
"""Builds on a screen."""

FILES = 8
"""Files that are named of those in which two outputs differ."""

FOUND = 4
"""The exit code of a check that found something (design §8)."""

ASKS = frozenset({"Lock"})
"""The mnemonics of actions that ask the world: it may answer otherwise the next time."""


@click.command("runs", cls=StrataCommand)
@click.argument("arguments", nargs=-1, metavar="[SPEC] [LABEL]", shell_complete=complete_labels)
@click.option("--export", "export_", metavar="RUN", help="Write all that explains this build, for another machine.")
@click.option("--check", is_flag=True, help="Find keys with several outputs, and inputs that never mattered.")
@click.option("--full", is_flag=True, help="Cut nothing and leave nothing out.")
@json_option
def command(arguments: tuple[str, ...], *, export_: str | None, check: bool, full: bool, as_json: bool) -> int:
    """List the builds of this workspace, the newest first; with LABEL, those that did something of it.

    Wherever a command takes a RUN, it is the beginning of its id or of its commit, `last`, or `last~1` for the last
    but one. With --check the exit code is 4 where a key had several outputs.
    """
    _, kept, words = opened(arguments)
    if not len(kept.records):
        raise SpecError.of("no-history", "no build has been recorded here", hint="`strata build` leaves a record")
    if export_ is not None:
        _export(kept, export_)
        return 0
    word = words[0] if words else None
    if word is not None and not matching(word, kept.labels()):
        raise unknown_label(kept, word)
    if check:
        return _check(kept, word, full=full, as_json=as_json)
    builds = [at for at in range(len(kept.records) - 1, -1, -1) if word is None or _did(kept, at, word)]
    if as_json:
        lines = tuple(_line(kept, at) for at in builds)
        emit_document("strata.runs", documents.VERSION, documents.fields(documents.RunsDocument(lines)))
    else:
        emit("\n".join(_listed(kept, builds, full=full)))
    return 0


def _did(kept: Kept, build: int, word: str) -> bool:
    return bool(matching(word, kept.records.labels(build)))


def _line(kept: Kept, build: int) -> documents.RunLine:
    record = kept.records[build]
    story = why.Story(kept.records, build, kept.deciders)
    return documents.RunLine(
        run=record.run,
        started=record.started,
        command=record.command,
        revision=record.revision or None,
        exit_code=record.exit_code,
        counts=record.counts,
        seconds=record.seconds,
        root_causes=documents.root_causes(story, ()),
    )


def _listed(kept: Kept, builds: Sequence[int], *, full: bool) -> list[str]:
    """Give a line per build; those in a row that had nothing to do are one."""
    lines: list[str] = []
    idle: list[int] = []
    now = time.time()
    for at in builds:
        if len(lines) >= SHOWN and not full:
            break
        if kept.records.idle(at) and not full and at != builds[0]:
            idle.append(at)
            continue
        lines += _idle(idle)
        idle = []
        record = kept.records[at]
        if record.run:
            lines.append(_row(record, now, _causes(kept, at)))
    lines += _idle(idle)
    return page(lines, full=full, more="--full")


def _idle(builds: Sequence[int]) -> list[str]:
    return [f"        {counted(len(builds), 'build')} with nothing to do"] if builds else []


def _row(record: RunRecord, now: float, causes: str) -> str:
    done = sum(count for name, count in record.counts.items() if name not in ("up_to_date", "skipped"))
    what = f"{done} of {sum(record.counts.values())}" if done else "nothing"
    failed = " FAILED" if record.exit_code else ""
    commit = f" {record.revision[:7]}" if record.revision else ""
    when = ago(record.started, now)
    return printable(
        f"{short_run(record)}  {when:<10}  {command_of(record):<7}{commit}  {what:<9} {duration(record.seconds):>7}"
        f"{failed}  {causes}"
    ).rstrip()


def _causes(kept: Kept, build: int) -> str:
    """Give the root causes of a build in a few words."""
    story = why.Story(kept.records, build, kept.deciders)
    groups = story.groups(most=1) if story.reports else []
    said = []
    for group in sorted(groups, key=lambda group: (-group.actions, str(group.reasons[0]))):
        reason = group.reasons[0]
        said.append(
            f"{reason.reason} {reason.subject}" if len(group.reasons) == 1 else f"{len(group.reasons)} {reason.reason}"
        )
    return ", ".join(said)


# -- another machine --------------------------------------------------------------------------------------------------


def _export(kept: Kept, name: str) -> None:
    """Write the document that explains a build elsewhere. Raises SpecError, HostError."""
    import json  # noqa: PLC0415 - few questions need it

    import msgspec  # noqa: PLC0415 - as above

    from strata_engine.exported import export  # noqa: PLC0415 - as above
    from strata_rules.cli.graph.states import state_of  # noqa: PLC0415 - as above

    state = state_of(kept, name)
    with kept.content() as reader:
        if reader is None:
            raise HostError.of("no-store", "there is no store to look into", hint="`strata build` makes one")
        document = export(reader, state.record, state.held, state.graph)
    emit(json.dumps(msgspec.to_builtins(document), ensure_ascii=True, separators=(",", ":")))


# -- doubts -----------------------------------------------------------------------------------------------------------


def _check(kept: Kept, word: str | None, *, full: bool, as_json: bool) -> int:
    """Tell what the records cast doubt on."""
    wanted = set(matching(word, kept.labels())) if word is not None else None
    twice = [each for each in diverged(kept.records) if wanted is None or any(m.label in wanted for m in each.made)]
    idle = [each for each in unheeded(kept.records) if wanted is None or each.label in wanted]
    with kept.content() as reader:
        found = tuple(_diverged(each, reader) for each in twice)
    unexpected = any(not each.expected for each in found)
    if as_json:
        lines = tuple(documents.UnheededLine(*each) for each in idle)
        document = documents.CheckDocument(found, lines)
        emit_document("strata.doubts", documents.VERSION, documents.fields(document))
        return FOUND if unexpected else 0
    text: list[str] = []
    for each in found:
        text += [*_told(each, full=full), ""]
    if idle:
        text.append("these inputs changed and never changed an output:")
        text += [f"  {each.subject} of {each.label}: {each.times} times" for each in idle]
    emit("\n".join(page(text or ["every key has one output, and every input has mattered"], full=full)))
    return FOUND if unexpected else 0


def _diverged(each: Diverged, reader: Reader | None) -> documents.DivergedLine:
    files: tuple[str, ...] = ()
    if reader is not None:
        try:
            changes = output_changes(reader, each.made[0].output, each.made[-1].output)
            files = tuple(change.path or "(all of it)" for change in changes)
        except (BlobLost, ValueError):
            # One of them is no longer kept: that they differ is known all the same.
            files = ()
    made = tuple(documents.MadeLine(one.output, one.label, one.run or None) for one in each.made)
    return documents.DivergedLine(each.key, each.mnemonic, each.mnemonic in ASKS, made, files)


def _told(line: documents.DivergedLine, *, full: bool) -> list[str]:
    label = line.made[-1].label
    why_ = " (it asks an index, which may answer otherwise)" if line.expected else ""
    lines = [f"{label}  one key, {len(line.made)} outputs{why_}"]
    for made in line.made:
        run = f"run {made.run.rpartition('-')[2]}" if made.run else "an earlier build"
        other = f", as {made.label}" if made.label != label else ""
        lines.append(f"  {made.output[:12]}  {run}{other}")
    shown = line.files if full else line.files[:FILES]
    lines += [f"    differs: {path}" for path in shown]
    return [*lines, f"    and {len(line.files) - len(shown)} more"] if len(line.files) > len(shown) else lines
