"""What questions about past builds cost: `graph why` in a workspace with ten thousand actions and 200 builds.

The actions are trivial and really built, by the engine alone; a stack file stands beside them only so that the command
finds the workspace. Most of the 200 records are copies of a few, for two hundred builds would take minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
from measuring import AGAINST_PASS, AtMost, Commands, Compared, medians

from strata_engine.action import Action, Execution, Input, Ref, Source
from strata_engine.build import open_build
from strata_engine.digest import Digest
from strata_engine.graph import ActionGraph
from strata_engine.run_record import FILE, KEPT, RunRecord, read
from strata_engine.tree import File
from strata_engine.workspace import Workspace

COLUMNS, DEPTH = 200, 50
EVERY = 10
"""At each tenth row a column reads its neighbour too: an edit reaches 150 actions, as a changed pin may."""

_EDITS = 4
"""Edits that are really built, of one source each."""


def why(folder: Path, repeat: int) -> Iterator[Compared]:
    """Ask for the causes of a build of 150 actions, of one in it, of one that last ran long ago, of a first build."""
    root = folder / "questions"
    here = Commands(root, folder / "questions-store")
    os.environ["STRATA_CACHE_DIR"] = str(here.store)
    (root / "sources").mkdir(parents=True)
    (root / "venvstacks.toml").write_text('[[runtimes]]\nname = "none"\npython_implementation = "cpython@3.13.0"\n')
    whole, small = _build(root)
    _write_records(root, whole, small)
    last = small[-1].actions
    touched = {report.label for record in small for report in record.actions}
    deep = next(report.label for report in reversed(whole[-1].actions) if report.label not in touched)
    asked = {
        "why": (),
        "why LABEL": (last[-1].label,),
        "why LABEL, old": (deep,),
        "why, first build": ("--run", f"last~{KEPT - 1}"),
    }
    for name, arguments in asked.items():
        seconds = medians(partial(here.strata, "graph", "why", *arguments), here.idle, repeat)
        yield Compared(name, *seconds, AGAINST_PASS, AtMost(15))


def _build(root: Path) -> tuple[list[RunRecord], list[RunRecord]]:
    """Build everything twice, after an edit of what all read, and then some edits of one source."""
    everywhere = root / "sources" / "all.txt"
    sources = [root / "sources" / f"{column}.txt" for column in range(COLUMNS)]
    everywhere.write_text("first\n")
    for column, source in enumerate(sources):
        # Else all columns would be one: equal actions are executed once.
        source.write_text(f"{column}\n")
    _run(root)
    everywhere.write_text("second\n")
    _run(root)
    for number in range(_EDITS):
        sources[number * 7].write_text(f"edit {number}\n")
        _run(root)
    records = read(root / ".strata" / FILE)
    return records[:2], records[2:]


def _run(root: Path) -> None:
    graph = ActionGraph()
    for row in range(DEPTH):
        for column in range(COLUMNS):
            graph.add(_action(row, column))
    with open_build(Workspace(root)) as build:
        result = build.run(graph, [_label(DEPTH - 1, column) for column in range(COLUMNS)])
    assert result.exit_code == 0


def _label(row: int, column: int) -> str:
    return f"layer-{column:03}/action-{row:02}"


def _action(row: int, column: int) -> Action:
    inputs: dict[str, Input] = {}
    if row == 0:
        inputs = {"own": Source(f"sources/{column}.txt"), "all": Source("sources/all.txt")}
    else:
        inputs["above"] = Ref(_label(row - 1, column))
        if row % EVERY == 0:
            inputs["beside"] = Ref(_label(row - 1, (column + 1) % COLUMNS))
    return Action(label=_label(row, column), mnemonic="Join", version=1, params={}, inputs=inputs, run=_join)


def _join(execution: Execution) -> File:
    said = b"".join(execution.read(name) for name in execution.names())
    return File(execution.store.put(Digest.of(said).hash.encode()))


def _write_records(root: Path, whole: list[RunRecord], small: list[RunRecord]) -> None:
    """Write `KEPT` records: both builds of everything with a hundred small ones after them, and before them others."""
    copies = [small[number % len(small)] for number in range(KEPT - len(whole))]
    half = len(copies) // 2
    records = [whole[0], *copies[:half], whole[1], *copies[half:-1], small[-1]]
    lines = []
    before = ""
    for number, record in enumerate(records):
        run = f"20250101T{number:06}-{number:06x}"
        # Each build has looked at everything, so what one found changed had changed since the one before.
        actions = tuple(
            msgspec.structs.replace(report, since=before if report.since else "") for report in record.actions
        )
        lines.append(msgspec.json.encode(msgspec.structs.replace(record, run=run, actions=actions)) + b"\n")
        before = run
    (root / ".strata" / FILE).write_bytes(b"".join(lines))
