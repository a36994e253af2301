"""Finds the stack files of a repository: what git ignores, and what Strata writes, is not looked into.

It looks at names and ignore files only; what is in a stack file is for who opens it. Repositories inside this one have
roots of their own, and so are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from strata_engine.errors import Diagnostic
from strata_rules.null import SPEC_NAMES
from strata_rules.repository.labels import StackFile, two_files
from strata_rules.spec.gitignore import WorkTree, find_work_tree

OUTPUTS = frozenset(("_build", "_artifacts", "_export"))
"""Folders that hold what is built, where they have their usual names."""


class Found(NamedTuple):
    """Stack files in byte order of their folders, and what is wrong about others."""

    files: tuple[StackFile, ...]
    problems: tuple[Diagnostic, ...] = ()


def find_all(root: Path, folder: str = "") -> Found:
    """Find the stack files at or below a folder."""
    files: list[StackFile] = []
    problems: list[Diagnostic] = []
    work_tree = find_work_tree(root, Path.read_bytes, Path.exists)
    for where, names in _folders(root, work_tree):
        if where != folder and not where.startswith(f"{folder}/" if folder else ""):
            continue
        if len(names) > 1:
            problems += two_files(where).diagnostics
        elif names:
            files.append(StackFile(root, where, names[0]))
    return Found(tuple(files), tuple(problems))


def known_packages(root: Path) -> list[str]:
    """List what labels of this repository have before their `:`."""
    return [file.package for file in find_all(root).files]


def _folders(root: Path, work_tree: WorkTree | None) -> Iterator[tuple[str, list[str]]]:
    """Walk the folders that may hold stack files, each with those of its own, in byte order."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError:
            # What may not be listed is not ours to build.
            continue
        names = [entry.name for entry in entries if entry.name in SPEC_NAMES and entry.is_file()]
        names = [n for n in names if work_tree is None or not work_tree.ignores(folder / n, is_folder=False)]
        yield (folder.relative_to(root).as_posix() if folder != root else ""), names
        inner = [Path(entry.path) for entry in entries if _is_looked_into(entry)]
        inner = [path for path in inner if work_tree is None or not work_tree.ignores(path, is_folder=True)]
        waiting += reversed(inner)


def _is_looked_into(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or entry.name in OUTPUTS or not entry.is_dir(follow_symlinks=False):
        return False
    return not os.path.lexists(f"{entry.path}/.git")
