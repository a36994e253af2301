"""The workspaces that build from a store: a file each in `workspaces/`, so that collection can ask what they need.

Only a hint: a workspace that moved or is gone is forgotten, one that is unknown costs it time at its next build.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from strata_engine.digest import Digest
from strata_engine.history import History
from strata_engine.seal import seal
from strata_engine.tree import Artifact
from strata_engine.workspace import Workspace, write_atomically

FOLDER = "workspaces"


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


def needs(store: Path) -> Iterator[Digest | Artifact]:
    """List the keys and outputs of the last good builds of all known workspaces."""
    for workspace in workspaces(store):
        for past in History(workspace.state / "history").labels().values():
            if past.artifact is not None:
                yield past.key
                yield past.artifact
