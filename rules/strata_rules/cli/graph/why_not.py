"""`strata graph why-not`: why something did not run although a file has changed."""

from __future__ import annotations

import difflib
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import click

from strata_engine import why
from strata_engine.cas import BlobLost
from strata_engine.codec import decode_action
from strata_engine.digest import digest_file
from strata_engine.errors import SpecError
from strata_engine.recorded_graph import RecordedAction
from strata_engine.run_record import ActionReport
from strata_engine.tree import File, Reader, Tree, lookup
from strata_rules.cli.completion import complete_labels
from strata_rules.cli.graph.asked import Kept, in_workspace, matching, opened, short_run, unknown_label
from strata_rules.cli.graph.cutoff import cutoff
from strata_rules.cli.graph.documents import VERSION, WhyNotDocument, fields
from strata_rules.cli.graph.told import WIDTH, ago, listed, page
from strata_rules.cli.options import StrataCommand, json_option
from strata_rules.cli.output import emit, emit_document

NEAREST = 5
"""Declared inputs that are named where the one asked about is none."""


class _Reading(NamedTuple):
    """How an action reads a path."""

    label: str
    name: str
    """The input's name in its key, and where in it."""
    inner: str = ""


@click.command("why-not", cls=StrataCommand)
@click.argument("arguments", nargs=-1, required=True, metavar="[SPEC] LABEL", shell_complete=complete_labels)
@click.option("--input", "input_", metavar="PATH", required=True, help="What has changed: a file, or `FILE#key`.")
@click.option("--full", is_flag=True, help="Cut nothing and leave nothing out.")
@json_option
def command(arguments: tuple[str, ...], *, input_: str, full: bool, as_json: bool) -> None:
    """Say why LABEL did not run although PATH has changed: it is no input, or on the way something came out as before.

    Nothing is executed: this reads what the last builds knew of the graph, and their records.
    """
    _, kept, words = opened(arguments)
    if not words:
        raise click.UsageError("missing argument 'LABEL'")
    label = _label(kept, words[0])
    file, mark, key = input_.partition("#")
    name = in_workspace(kept.workspace, file) + mark + key
    with kept.content() as reader:
        found = _answer(kept, reader, label, name)
    if as_json:
        emit_document("strata.why-not", VERSION, fields(found.document))
    else:
        emit("\n".join(page(found.lines, full=full)))


class _Answer(NamedTuple):
    document: WhyNotDocument
    lines: Sequence[str]


def _label(kept: Kept, word: str) -> str:
    """Give the label that a word means: of a layer, its Link. Raises SpecError."""
    if not kept.graph:
        raise SpecError.of("no-history", "no build has been recorded here", hint="`strata build` leaves a record")
    if f"{word}/link" in kept.graph:
        return f"{word}/link"
    found = matching(word, kept.graph)
    if not found:
        raise unknown_label(kept, word)
    if len(found) > 1:
        raise SpecError.of(
            "usage", f"`{word}` means {len(found)} labels, and one is asked about", notes=(listed(found),)
        )
    return found[0]


def _answer(kept: Kept, reader: Reader | None, label: str, name: str) -> _Answer:
    ways = _ways(kept.graph, label)
    readings = [each for below in ways for each in _readings(below, kept.graph.get(below), name)]
    if not readings:
        return _undeclared(kept, ways, label, name)
    reading = readings[0]
    way = ways[reading.label]
    last = _last_change(kept, reading.label, name)
    changed = _changed(kept, reader, reading, name)
    report, build = last if last is not None else (None, -1)
    stopped = _stopped(kept, build, way) if report is not None else None
    lines = _declared(name, label, reading, way)
    if changed:
        lines.append("it has changed since the last build: the next one will see it")
        lines.append(f"`strata graph why {label} --dry` says what that will do")
    elif report is None:
        lines.append("no recorded build found it changed" + ("" if changed is None else ": it is as it was then"))
    else:
        record = kept.records[build]
        lines.append(f"it had last changed for run {short_run(record)}, {ago(record.started, time.time())}")
        lines += _travelled(kept, build, way, stopped)
        if changed is False:
            lines.append("it is as it was in the last build")
    document = WhyNotDocument(
        label=label,
        input=name,
        declared=True,
        reads=tuple(dict.fromkeys(each.label for each in readings)),
        way=tuple(way),
        cutoff=stopped,
        run=kept.records[build].run if report is not None else None,
        changed=changed,
        nearest=(),
    )
    return _Answer(document, lines)


def _ways(graph: Mapping[str, RecordedAction], label: str) -> dict[str, list[str]]:
    """Give the shortest way to a label from everything that it depends on, itself first."""
    ways = {label: [label]}
    front = [label]
    for above in front:
        for below in graph[above].upstream if above in graph else ():
            if below not in ways:
                ways[below] = [below, *ways[above]]
                front.append(below)
    return ways


def _readings(label: str, known: RecordedAction | None, name: str) -> list[_Reading]:
    """Say how an action reads a path or a key of a file: directly, in a folder, or as a parameter."""
    if known is None:
        return []
    found = []
    for input_, what in known.inputs.items():
        if what not in known.sources:
            continue
        if name == what.removesuffix("/"):
            found.append(_Reading(label, input_))
        elif what.endswith("/") and name.startswith(what):
            found.append(_Reading(label, input_, name[len(what) :]))
    subjects = {*known.origins.values(), *known.members.values()}
    if "#" in name and any(_overlap(name, subject) for subject in subjects):
        found.append(_Reading(label, ""))
    return found


def _overlap(one: str, other: str) -> bool:
    """Tell whether a key is another one, or one of them is in the other."""
    return one == other or other.startswith((f"{one}.", f"{one}[")) or one.startswith((f"{other}.", f"{other}["))


def _last_change(kept: Kept, label: str, name: str) -> tuple[ActionReport, int] | None:
    """Find the newest build that found an input of an action changed."""
    records = kept.records
    for at in range(len(records) - 1, -1, -1):
        report = records.report(at, label)
        if report is not None and any(
            _overlap(name, reason.subject) or _inside(name, reason.subject) for reason in report.reasons
        ):
            return report, at
    return None


def _inside(folder: str, path: str) -> bool:
    return path.startswith(f"{folder}/")


def _changed(kept: Kept, reader: Reader | None, reading: _Reading, name: str) -> bool | None:
    """Tell whether a file is another one than the last build's key has."""
    past, path = kept.past.get(reading.label), kept.workspace.root / name
    if reader is None or past is None or not reading.name:
        return None
    try:
        root = Tree(decode_action(reader.get(past.key)).input_root_digest)
        node = lookup(reader, root, "/".join(filter(None, (reading.name, reading.inner))))
        if not path.exists():
            return node is not None
        if node is None and reading.inner:
            # In the folder, but not of what is taken from it, or new.
            return None
        return digest_file(path) != node.digest if isinstance(node, File) and path.is_file() else None
    except (BlobLost, ValueError, OSError):
        return None


def _stopped(kept: Kept, build: int, way: Sequence[str]) -> str | None:
    """Name the action on a way at which a build's change stopped; None where it came to its end or was not followed."""
    story = why.Story(kept.records, build, kept.deciders)
    if way[0] not in story.reports or way[-1] in story.reached(way[0]):
        return None
    stopped = cutoff(kept, story, way[:1]).labels
    for label, above in itertools.pairwise(way):
        if label in stopped or (label in story.reports and _had_nothing_to_do(kept, story, build, above)):
            return label
    return way[-1] if way[-1] in stopped else None


def _had_nothing_to_do(kept: Kept, story: why.Story, build: int, label: str) -> bool:
    """Tell whether an action was looked at in a build, or after it, and was up to date."""
    past = kept.past.get(label)
    looked_at = range(build, len(kept.records))
    return label not in story.reports and past is not None and past.run in map(kept.records.run, looked_at)


def _declared(name: str, label: str, reading: _Reading, way: Sequence[str]) -> list[str]:
    if reading.label == label:
        return [name, f"is an input of {label}"]
    lines = [name, f"is an input of {reading.label}, which {label} depends on"]
    return lines if len(way) < 3 else [*lines, f"way      {' → '.join(way)}"]


def _travelled(kept: Kept, build: int, way: Sequence[str], stopped: str | None) -> list[str]:
    if stopped is None:
        did = {report.label for report in kept.records[build].actions}
        if way[-1] in did:
            return [f"and {way[-1]} did run for it: `strata graph why {way[-1]}`"]
        missing = next(label for label in way if label not in did)
        return [f"{missing} was not part of that build, or had seen the change before"]
    after = way[way.index(stopped) + 1 :]
    if not after:
        return [f"cutoff   {stopped}: it ran, and came out as before"]
    return [
        f"cutoff   {stopped}: what is taken of it is as before",
        f"         so {listed(after, room=WIDTH - 30)} had nothing to do",
    ]


def _undeclared(kept: Kept, ways: Mapping[str, Sequence[str]], label: str, name: str) -> _Answer:
    """Say that something is no input, and what is."""
    declared = [
        subject
        for below in ways
        if (known := kept.graph.get(below)) is not None
        for subject in (*known.sources, *known.origins.values(), *known.members.values())
    ]
    alike = [subject for subject in dict.fromkeys(declared) if ("#" in subject) == ("#" in name)]
    nearest = _nearest(name, alike or list(dict.fromkeys(declared)))
    keys = [subject for subject in dict.fromkeys(declared) if subject.startswith(f"{name}#")]
    lines = [name, f"is not an input of {label}, nor of anything that it depends on"]
    if keys:
        lines = [name, f"is not an input of {label} as a whole: of it, these count"]
        lines += [f"  {subject}" for subject in keys[: NEAREST * 2]]
        lines += [f"  and {len(keys) - NEAREST * 2} more"] if len(keys) > NEAREST * 2 else []
    elif nearest:
        lines += ["nearest are", *(f"  {subject}" for subject in nearest)]
    else:
        lines.append("it has no declared inputs in the workspace")
    document = WhyNotDocument(
        label=label,
        input=name,
        declared=False,
        reads=(),
        way=(),
        cutoff=None,
        run=None,
        changed=None,
        nearest=tuple(keys or nearest),
    )
    return _Answer(document, lines)


def _nearest(name: str, declared: Sequence[str]) -> list[str]:
    """List the declared inputs that are most like a name: those of its folder first."""
    folder = name.rpartition("/")[0]

    def distance(subject: str) -> tuple[bool, float]:
        return subject.rpartition("/")[0] != folder, -difflib.SequenceMatcher(None, name, subject).ratio()

    return sorted(declared, key=distance)[:NEAREST]
