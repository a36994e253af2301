"""The workspaces that build from a store: a file each in `workspaces/`, so that collection can ask what they need.

Only a hint: a workspace that moved or is gone is forgotten, one that is unknown costs it time at its next build.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from strata_engine import run_record
from strata_engine.digest import Digest
from strata_engine.history import History
from strata_engine.seal import seal
from strata_engine.tree import Artifact
from strata_engine.workspace import Workspace, write_atomically

FOLDER = "workspaces"


class Explained(NamedTuple):
    """A key of which only what explains it is needed, not what it gave."""

    key: Digest


Pin: TypeAlias = Digest | Artifact | Explained
"""What stays: an action key with what explains it and what it gave, an artifact with everything in it, a key alone."""


def remember(store: Path, workspace: Workspace) -> None:
    """Note that `workspace` builds from the store at `store`; a store that cannot be written is none of its concern."""
    root = str(workspace.root.absolute()).encode("utf-8", "surrogateescape")
    note = store / FOLDER / seal(root).hex()
    with contextlib.suppress(OSError):
        if not note.exists():
            note.parent.mkdir(exist_ok=True)
            write_atomically(note, root)


def workspaces(store: Path) -> Iterator[Workspace]:
    """List the workspaces that are still there, forgetting the others."""
    try:
        notes = sorted((store / FOLDER).iterdir())
    except OSError:
        return
    for note in notes:
        with contextlib.suppress(OSError):
            workspace = Workspace(Path(note.read_bytes().decode("utf-8", "surrogateescape")))
            if workspace.root.is_absolute() and workspace.state.is_dir():
                yield workspace
            else:
                note.unlink()


def needs(store: Path) -> Iterator[Pin]:
    """List the keys and outputs of the last good builds of all known workspaces, and the keys of all recorded ones."""
    for workspace in workspaces(store):
        for past in History(workspace.state / "history").labels().values():
            if past.artifact is not None:
                yield past.key
                yield past.artifact
        for key in _recorded(workspace):
            with contextlib.suppress(ValueError):
                yield Explained(Digest.parse(key))


def _recorded(workspace: Workspace) -> set[str]:
    try:
        records = run_record.read(workspace.state / run_record.FILE)
    except OSError:
        return set()
    keys = {key for record in records for report in record.actions for key in (report.key, report.previous)}
    return keys - {""}
