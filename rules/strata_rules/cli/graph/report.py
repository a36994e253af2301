"""`strata graph report`: one HTML page of one build, made of what builds leave in the workspace."""

from __future__ import annotations

import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click

from strata_engine import trace
from strata_engine.errors import SpecError, host_error
from strata_engine.recorded_graph import RecordedAction
from strata_engine.records import Records
from strata_engine.report.gather import Material
from strata_engine.report.gather import report as gather
from strata_engine.report.page import page
from strata_rules.cli.graph.asked import Kept, opened
from strata_rules.cli.graph.trace import run_of, write
from strata_rules.cli.options import StrataCommand, json_option
from strata_rules.cli.output import emit, emit_document, say
from strata_rules.weighing import outputs, weigh

FOLDER = "reports"
KEPT = 20
"""Reports kept in a workspace."""

SHARED = "wheels of several layers"


@click.command("report", cls=StrataCommand)
@click.argument("arguments", nargs=-1, metavar="[SPEC] [RUN]")
@click.option("-o", "--output", metavar="FILE", help="Write the page there; `-` is standard output.")
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@json_option
def command(arguments: tuple[str, ...], output: str | None, *, show: bool, as_json: bool) -> None:
    """Write a page about a build and print where it is: about the last that did anything, or about RUN.

    RUN is `last`, `last~1` and so on, or the beginning of a build's id. The page is one file that needs no network: the
    outcome, the graph with each action's why, a timeline, root causes, what was slow, what if, sizes and messages.
    """
    _, kept, named = opened(arguments)
    records = kept.records
    if not len(records):
        raise SpecError.of("no-history", "no build has been recorded here", hint="`strata build` leaves a record")
    build = run_of(records, named[0]) if named else _newest(records)
    data = page(gather(material(kept, build))).encode()
    run = records.run(build)
    place = output or str(_keep(kept.workspace.state / FOLDER, run))
    write(data, place)
    if show and place != "-" and not webbrowser.open(Path(place).absolute().as_uri()):
        say(f"no browser was found to open `{place}`")
    if place == "-":
        return
    if as_json:
        emit_document("strata.report", 1, {"run": run, "path": place, "bytes": len(data)})
    else:
        emit(place)


def _newest(records: Records) -> int:
    """Choose the last build that did anything, or else the last."""
    return next((at for at in range(len(records) - 1, -1, -1) if not records.idle(at)), len(records) - 1)


def _keep(folder: Path, run: str) -> Path:
    """Make room for the report of a build in the workspace. Raises HostError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The name begins with the time of the build.
        for old in sorted(folder.glob("*.html"))[: -KEPT + 1]:
            if old.stem != run:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise host_error(error, str(folder)) from error
    return folder / f"{run}.html"


def material(kept: Kept, build: int) -> Material:
    """Collect what is known of a build."""
    records, graph = kept.records, kept.graph
    traced = None
    # A trace that cannot be read is as good as none.
    with suppress(OSError, ValueError):
        traced = trace.read((kept.workspace.state / trace.FOLDER / f"{records.run(build)}.json").read_bytes())
    made = outputs(graph, records, build, kept.past)
    with kept.content() as content:
        weights = weigh(graph, made, content)
    known = {label: output.bytes for label, output in made.items() if output.bytes}
    # A build's name begins with its time.
    when = records.run(build).partition("-")[0]
    looked_at = frozenset(label for label, past in kept.past.items() if past.run.partition("-")[0] >= when)
    return Material(records, build, graph, traced, owners(graph), weights, known, looked_at)


def owners(graph: Mapping[str, RecordedAction]) -> dict[str, str]:
    """Put each wheel that one layer alone installs into that layer, and those of several into a group of their own."""
    layers: dict[str, set[str]] = {}
    for label, action in graph.items():
        if not _is_shared(label):
            for name in filter(_is_shared, action.needs):
                layers.setdefault(name, set()).add(label.rpartition("/")[0])
    for label, action in graph.items():
        if label.startswith("wheel/"):
            for name in filter(_is_shared, action.needs):
                layers.setdefault(name, set()).update(layers.get(label, ()))
    return {label: next(iter(found)) if len(found) == 1 else SHARED for label, found in layers.items()}


def _is_shared(label: str) -> bool:
    return label.startswith(("wheel/", "fetch/"))
