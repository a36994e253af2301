"""What a build came to as Markdown: the job summary of a CI service, with the graph that such services draw.

Pure. Everything that comes from outside (labels, messages, output) is made harmless: it can neither become markup nor
end the block that it stands in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from strata_engine.errors import Diagnostic
from strata_engine.events import Outcome
from strata_engine.picture import PictureGraph, PictureNode, mermaid
from strata_engine.recorded_graph import RecordedAction
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.why import Root
from strata_engine.words import duration, printable, short, size, summary

MOST_ROWS = 50
"""Rows of a table, at most."""

MOST_DRAWN = 120
"""Actions in the picture, at most: services refuse to draw large ones, and nobody could read them."""


def markdown(
    record: RunRecord,
    roots: Sequence[Root],
    critical: Sequence[str],
    graph: Mapping[str, RecordedAction],
    diagnostics: Sequence[Diagnostic],
) -> str:
    """Give the summary of one build."""
    mark = "✅" if record.exit_code == 0 else "❌"
    lines = [f"### {mark} strata {_text(' '.join(record.command))}", "", summary(record.counts, record.seconds), ""]
    lines += [_text(record.remote), ""] if record.remote else []
    lines += _failures(diagnostics)
    lines += _roots(roots)
    lines += _ran(record, critical)
    lines += _picture(record, graph)
    return "\n".join(lines).rstrip() + "\n"


def _failures(diagnostics: Sequence[Diagnostic]) -> list[str]:
    lines: list[str] = []
    for each in diagnostics[:MOST_ROWS]:
        where = f"`{_code(each.place.file)}:{each.place.line}` " if each.place is not None and each.place.line else ""
        lines += [f"- **{each.severity}** {where}{_text(each.message)}"]
        lines += [f"  - {_text(note)}" for note in (*each.notes, *((f"hint: {each.hint}",) if each.hint else ()))]
    return [*lines, ""] if lines else []


def _roots(roots: Sequence[Root]) -> list[str]:
    if not roots:
        return []
    lines = ["| root cause | old | new | actions | time |", "|---|---|---|--:|--:|"]
    for root in roots[:MOST_ROWS]:
        reason = root.reason
        old, new = (_text(short(value)) if value is not None else "" for value in (reason.old, reason.new))
        what = f"{reason.reason} {_text(reason.subject)}"
        lines.append(f"| {what} | {old} | {new} | {root.actions} | {duration(root.seconds)} |")
    more = len(roots) - MOST_ROWS
    return [*lines, "", *([f"and {more} more", ""] if more > 0 else [])]


def _ran(record: RunRecord, critical: Sequence[str]) -> list[str]:
    done = (Outcome.EXECUTED, Outcome.FAILED)
    ran = sorted((r for r in record.actions if r.outcome in done), key=lambda r: (-r.seconds, r.label))
    if not ran:
        return []
    on_path = set(critical)
    lines = ["<details><summary>What ran, the slowest first</summary>", "", "| action | outcome | time | size | why |"]
    lines.append("|---|---|--:|--:|---|")
    for report in ran[:MOST_ROWS]:
        name = f"**{_text(report.label)}**" if report.label in on_path else _text(report.label)
        lines.append(
            f"| {name} | {report.outcome} | {duration(report.seconds)} | {size(report.bytes) if report.bytes else ''} "
            f"| {_why(report)} |"
        )
    more = len(ran) - MOST_ROWS
    lines += ["", f"Bold is the critical path.{f' {more} more ran.' if more > 0 else ''}", "", "</details>", ""]
    return lines


def _why(report: ActionReport) -> str:
    return _text(short(str(report.reasons[0]))) if report.reasons else ""


def _picture(record: RunRecord, graph: Mapping[str, RecordedAction]) -> list[str]:
    """Draw what was not up to date, each within its layer."""
    reports = {report.label: report for report in record.actions}
    if not reports or len(reports) > MOST_DRAWN:
        return []
    nodes = [
        PictureNode(label, report.mnemonic, label.partition("[")[0].rpartition("/")[0], report.outcome.value)
        for label, report in sorted(reports.items())
    ]
    edges = [
        (needed, label)
        for label in sorted(reports)
        for needed in (graph[label].upstream if label in graph else ())
        if needed in reports
    ]
    return ["```mermaid", mermaid(PictureGraph(tuple(nodes), tuple(edges))).rstrip(), "```", ""]


def _code(text: str) -> str:
    return printable(text).replace("`", "'").replace("|", "\\|")


def _text(text: str) -> str:
    """Make text harmless in Markdown; code between backticks stays code."""
    parts = printable(text).replace("|", "\\|").split("`")
    if len(parts) % 2 == 0:
        return _plain("'".join(parts))
    return "`".join(part if number % 2 else _plain(part) for number, part in enumerate(parts))


def _plain(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    for mark in "*_[]#~":
        text = text.replace(mark, f"\\{mark}")
    return text
