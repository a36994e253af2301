"""`strata build --watch`: the same build again whenever something that it read, or put in its place, has changed.

The only door to watchfiles, which says that something happened in a folder; whether it matters is told by the stamps
that the build itself took, so a build never wakes itself and nothing else wakes it. The decisions are the build's own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn, TypeAlias

import watchfiles

from strata_engine.console.terminal import show_diagnostics
from strata_engine.digest import Stamp, stamp
from strata_engine.errors import StrataError
from strata_engine.workspace import STATE_FOLDER
from strata_rules.cli.options import Settings
from strata_rules.cli.output import say

Seen: TypeAlias = Mapping[str, Stamp]
"""Paths by the stamps that they had; a build is out of date when one has another."""

Once: TypeAlias = Callable[[Callable[[Seen], None]], object]
"""Builds, and gives what the build saw to the function that it is given."""

CLEAR = "\x1b[2J\x1b[3J\x1b[H"
"""Clears a terminal and what it has scrolled away."""

MOST_NAMED = 3
"""Changed paths that are named when a cycle begins."""

QUIET_MS = 100
"""Milliseconds without a further change after which a cycle begins: editors and git write many files at once."""

POLL_MS = 2000
"""Milliseconds after which stamps are looked at, though nothing was heard: some file systems tell nothing."""


def watch(
    root: Path, once: Callable[[Callable[[Seen], None]], object], settings: Settings, *, terminal: bool
) -> NoReturn:
    """Build, wait for a change, and so on until interrupted; raises KeyboardInterrupt then.

    What is wrong with the stack is said and waited out.
    """
    changed: list[str] = []
    while True:
        _begin(root, changed, settings, terminal=terminal)
        seen: dict[str, Stamp] = {}
        try:
            once(seen.update)
        except StrataError as error:
            show_diagnostics(error.diagnostics, sys.stderr, color=settings.color, environ=os.environ)
        changed = _wait(root, seen)


def _begin(root: Path, changed: Iterable[str], settings: Settings, *, terminal: bool) -> None:
    if terminal and sys.stderr is not None:
        sys.stderr.write(CLEAR)
    names = [os.path.relpath(path, root) for path in changed]
    said = ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")
    say(f"-- {time.strftime('%H:%M:%S')} {f'changed: {said}' if said else 'watching'}", quiet=settings.quiet)


def _wait(root: Path, seen: Seen) -> list[str]:
    """Wait until a path has another stamp than it was seen with, and list such paths."""
    if not seen:
        # The stack file could not be read as far as that: whatever changes beside it may mend it.
        seen = {str(path): stamp(path) for path in (root, *root.iterdir()) if path.name != STATE_FOLDER}
    if changed := _changed(seen):
        return changed
    folders = sorted(_folders(seen))
    while True:
        for _ in watchfiles.watch(
            *folders,
            watch_filter=None,
            debounce=10 * QUIET_MS,
            step=QUIET_MS,
            rust_timeout=POLL_MS,
            yield_on_timeout=True,
            recursive=False,
            ignore_permission_denied=True,
        ):
            if changed := _changed(seen):
                return changed


def _changed(seen: Seen) -> list[str]:
    return [path for path, value in seen.items() if stamp(path) != value]


def _folders(seen: Seen) -> set[Path]:
    """List the folders in which what matters would show: of each path the folder that it is in, or is."""
    found = set()
    for path in map(Path, seen):
        found.add(_existing(path))
        found.add(_existing(path.parent))
    return found


def _existing(path: Path) -> Path:
    return next((folder for folder in (path, *path.parents) if folder.is_dir()), Path("/"))
