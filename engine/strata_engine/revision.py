"""Which commit is checked out where a workspace lies, read from git's own files: no git has to be installed.

It knows no more of a repository than its HEAD. What it cannot make out is no revision; that costs a record one field.
"""

from __future__ import annotations

import re
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_HOPS = 5
"""References that lead to references, at most (git itself allows five)."""


def git_folder(folder: Path) -> Path | None:
    """Find the folder that git keeps a checkout's HEAD in: `.git`, or what a `.git` file of a worktree names."""
    for parent in (folder, *folder.parents):
        there = parent / ".git"
        if there.is_dir():
            return there
        if there.is_file():
            text = there.read_text("utf-8", "replace").strip()
            return parent / text.removeprefix("gitdir:").strip() if text.startswith("gitdir:") else None
    return None


def revision(folder: Path) -> str:
    """Give the commit that is checked out, in hexadecimal; empty where there is none that can be made out."""
    try:
        git = git_folder(folder)
        return _resolve(git) if git is not None else ""
    except (OSError, ValueError):
        return ""


def _resolve(git: Path) -> str:
    common = git / "commondir"
    shared = git / common.read_text("utf-8", "replace").strip() if common.is_file() else git
    text = (git / "HEAD").read_text("utf-8", "replace").strip()
    for _ in range(_HOPS):
        if _COMMIT.fullmatch(text):
            return text
        name = text.removeprefix("ref:").strip()
        if name == text or ".." in name.split("/") or name.startswith("/"):
            return ""
        loose = next((base / name for base in (git, shared) if (base / name).is_file()), None)
        text = loose.read_text("utf-8", "replace").strip() if loose is not None else _packed(shared, name)
    return ""


def _packed(shared: Path, name: str) -> str:
    for line in (shared / "packed-refs").read_text("utf-8", "replace").splitlines():
        commit, _, ref = line.partition(" ")
        if ref == name:
            return commit
    return ""
