"""`strata graph trace`: where the trace of a build is, for chrome://tracing, Perfetto and the like."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from strata_engine.errors import HostError, SpecError, host_error
from strata_engine.records import Records
from strata_engine.trace import KEPT, traces
from strata_engine.words import duration, printable
from strata_engine.workspace import write_atomically
from strata_rules.cli.graph.asked import find_build, opened
from strata_rules.cli.options import StrataCommand, json_option
from strata_rules.cli.output import emit, emit_document
from strata_rules.spec.near import did_you_mean


@click.command("trace", cls=StrataCommand)
@click.argument("arguments", nargs=-1, metavar="[SPEC] [RUN]")
@click.option("-o", "--output", metavar="FILE", help="Write the trace there; `-` is standard output.")
@click.option("--list", "as_list", is_flag=True, help="List the builds whose traces are kept, the newest first.")
@json_option
def command(arguments: tuple[str, ...], output: str | None, *, as_list: bool, as_json: bool) -> None:
    """Print where the trace of a build is: the newest, or that of RUN.

    RUN is `last`, `last~1` and so on, or the beginning of a build's id. A trace says when each action ran, and on which
    worker slot; it is in Chrome's trace event format, which Perfetto opens. Every build that does anything leaves one.
    """
    _, kept, named = opened(arguments)
    found = {path.stem: path for path in traces(kept.workspace.state)}
    if not found:
        raise SpecError.of(
            "no-traces", "no build here has left a trace", hint="`strata build` leaves one whenever it does anything"
        )
    if as_list:
        _list(kept.records, found, as_json=as_json)
        return
    path = _chosen(kept.records, found, named[0]) if named else next(iter(found.values()))
    if output is not None:
        copy(path, output)
    elif as_json:
        emit_document("strata.trace", 1, {"run": path.stem, "path": str(path)})
    else:
        emit(str(path))


def _chosen(records: Records, found: dict[str, Path], name: str) -> Path:
    # A trace may outlive its record, and is then found by its own name.
    matching = [run for run in found if run.startswith(name) or run.rpartition("-")[2].startswith(name)]
    if len(matching) == 1:
        return found[matching[0]]
    run = records.run(run_of(records, name))
    if run not in found:
        raise SpecError.of(
            "no-trace",
            f"there is no trace of the build `{run}`",
            notes=(f"builds that had nothing to do leave none, and the last {KEPT} are kept",),
            hint="`strata graph trace --list` lists them",
        )
    return found[run]


def run_of(records: Records, name: str) -> int:
    """Find the build that a name means, and suggest one where it means none. Raises SpecError."""
    try:
        return find_build(records, name)
    except SpecError as error:
        near = did_you_mean(name, ["last", *(records.run(at) for at in range(len(records) - 1, -1, -1))])
        if near is None:
            raise
        raise SpecError(*(each._replace(hint=near) for each in error.diagnostics)) from error


def _list(records: Records, found: dict[str, Path], *, as_json: bool) -> None:
    known = {records.run(at): at for at in range(len(records))}
    rows = []
    for run, path in found.items():
        record = records[known[run]] if run in known else None
        rows.append(
            {
                "run": run,
                "path": str(path),
                "started": record.started if record else None,
                "seconds": record.seconds if record else None,
                "command": list(record.command) if record else None,
            }
        )
    if as_json:
        emit_document("strata.traces", 1, {"traces": rows})
        return
    lines = []
    for row, run in zip(rows, found, strict=True):
        record = records[known[run]] if run in known else None
        about = f"{duration(record.seconds):>10}  strata {' '.join(record.command)}" if record else ""
        lines.append(printable(f"{row['run']}  {about}"))
    emit("\n".join(lines))


def copy(path: Path, output: str) -> None:
    """Write a file's content to another, or to standard output. Raises HostError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise host_error(error, str(path)) from error
    write(data, output)


def write(data: bytes, output: str) -> None:
    """Write to a file as a whole, or to standard output. Raises HostError."""
    if output == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        write_atomically(Path(output), data)
    except FileNotFoundError as error:
        folder = Path(output).parent
        raise HostError.of(
            "no-folder", f"there is no folder `{folder}`", hint=f"`mkdir -p {folder}` makes it"
        ) from error
    except OSError as error:
        raise host_error(error, output) from error
