"""What end-to-end tests of bad input share: what a workspace has that nothing may be lost of."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from space import Ran, Space

from strata_rules import entry

KEPT = ("requirements", "_build", "_artifacts")
"""Locks and pins, layers, archives."""


def stamps(root: Path) -> dict[str, tuple[int, ...]]:
    """Stamp all that a workspace keeps, symlinks themselves: whatever was written to, even with equal bytes, shows."""
    found = {}
    for name in KEPT:
        for folder, folders, files in os.walk(root / name):
            for path in [folder, *(f"{folder}/{each}" for each in folders + files)]:
                seen = os.lstat(path)
                found[path] = (seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    return found


def leftovers(root: Path) -> list[str]:
    """List what a failed build must not leave: temporary names beside outputs and locks."""
    return [
        str(path) for name in KEPT for path in (root / name).rglob("*") if ".tmp" in path.name or "-tmp-" in path.name
    ]


def refused(space: Space, *arguments: str, code: int, **more: Any) -> str:
    """Run a command that must fail with `code` and touch nothing; give what it said."""
    before = stamps(space.root)
    ran: Ran = space.strata(*arguments, **more)
    assert ran.code == code, ran.stderr
    assert ran.stdout == "", ran.stdout
    assert "Traceback" not in ran.stderr, ran.stderr
    after = stamps(space.root)
    changed = sorted(path for path in before | after if before.get(path) != after.get(path))
    assert not changed, changed
    assert not leftovers(space.root), leftovers(space.root)
    return ran.stderr


def here(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """Run a command line, from its arguments to its exit code, in this process: many cases cost one interpreter."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        code = entry.guarded(list(arguments))
    finally:
        signal.signal(signal.SIGTERM, handler)
    said = capsys.readouterr()
    return Ran(code, said.out, said.err)
