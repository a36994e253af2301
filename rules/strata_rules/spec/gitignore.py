"""What git ignores in a work tree, read from its ignore files and never by running git.

It must not know what the answer is for. Every file is read, and every absence noticed, through the given functions, so
that a new `.gitignore` anywhere is a change. The machine's own settings (`core.excludesFile`) are not asked: two
machines must agree.

The hard part is that a pattern says nothing of what is below the folder that it matches. git never looks into an
ignored folder, so a later `!` cannot bring back a file there; but where the folder itself is brought back, an earlier
pattern that matched it does not reach its files. Whoever walks a folder must therefore ask about each folder before
what is in it, and each pattern is only asked whether it matches the path itself. pathspec translates the patterns;
its own matching also matches all paths below one, which its regular expressions mark with a group.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from strata_engine.errors import StrataError

_CLASS = re.compile(r"\[:(\w+):\]")
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \t",
    "digit": "0-9",
    "lower": "a-z",
    "space": " \t\r\v\f",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}
"""The character classes that git knows inside brackets and pathspec does not."""


class _Rule(NamedTuple):
    pattern: GitIgnoreSpecPattern
    folders_only: bool


class WorkTree:
    """The git work tree round a folder, and what git ignores in it."""

    def __init__(self, top: Path, exclude: Path, read: Callable[[Path], bytes], probe: Callable[[Path], bool]) -> None:
        self.top = top
        """The folder that holds `.git`."""
        self._exclude = exclude
        self._read = read
        self._probe = probe
        self._rules: dict[Path, list[_Rule]] = {}

    def ignores(self, path: Path, *, is_folder: bool) -> bool:
        """Tell whether a path is ignored whose folders are not; nothing outside the work tree is."""
        if not path.is_relative_to(self.top) or path == self.top:
            return False
        # The ignore file that is nearest wins, and in each the last line that matches.
        for folder in path.parents:
            found = _verdict(self._rules_of(folder / ".gitignore"), path.relative_to(folder).as_posix(), is_folder)
            if found is not None:
                return found
            if folder == self.top:
                break
        return bool(_verdict(self._rules_of(self._exclude), path.relative_to(self.top).as_posix(), is_folder))

    def ignores_folder(self, path: Path) -> bool:
        """Tell whether a folder is ignored, or any folder that it is in."""
        if not path.is_relative_to(self.top):
            return False
        above = [folder for folder in reversed(path.parents) if folder.is_relative_to(self.top)]
        return any(self.ignores(folder, is_folder=True) for folder in (*above, path))

    def _rules_of(self, file: Path) -> list[_Rule]:
        rules = self._rules.get(file)
        if rules is None:
            text = self._read(file).decode("utf-8", "surrogateescape") if self._probe(file) else ""
            rules = self._rules[file] = _parse(text)
        return rules


def find_work_tree(folder: Path, read: Callable[[Path], bytes], probe: Callable[[Path], bool]) -> WorkTree | None:
    """Find the work tree that an absolute folder is in; its `.git` may be a file (worktrees, submodules)."""
    for top in (folder, *folder.parents):
        git = top / ".git"
        # The folder `.git` itself changes with every git command; its HEAD is there as long as the folder is.
        if probe(git / "HEAD"):
            return WorkTree(top, git / "info" / "exclude", read, probe)
        if probe(git):
            common = git if git.is_dir() else _common_folder(git, read, probe)
            return WorkTree(top, common / "info" / "exclude", read, probe)
    return None


def _common_folder(file: Path, read: Callable[[Path], bytes], probe: Callable[[Path], bool]) -> Path:
    """Follow a `.git` file to the folder that a repository's work trees share."""
    try:
        folder = file.parent / read(file).decode("utf-8", "surrogateescape").removeprefix("gitdir:").strip()
        if probe(folder / "commondir"):
            folder /= read(folder / "commondir").decode("utf-8", "surrogateescape").strip()
    except (OSError, StrataError):
        # A broken link to the repository: the ignore files of the work tree still say what they say.
        return file.parent / ".git"
    return folder


def _parse(text: str) -> list[_Rule]:
    rules = []
    for line in text.removeprefix("\ufeff").split("\n"):
        stripped = line.removesuffix("\r")
        if not stripped.endswith("\\ "):
            stripped = stripped.rstrip(" ")
        folders_only = stripped.endswith("/")
        # Without its final `/` a pattern matches the folder's own path, and is anchored as before.
        body = stripped.removesuffix("/")
        body = _CLASS.sub(lambda match: _CLASSES.get(match[1], match[0]), body)
        try:
            with warnings.catch_warnings():
                # `[[` is a set with a bracket to git and to this Python; another Python may think otherwise.
                warnings.simplefilter("ignore", FutureWarning)
                pattern = GitIgnoreSpecPattern(body)
        except (ValueError, re.error):
            # git too passes over a pattern that makes no sense, such as `[z-a]`.
            continue
        if pattern.include is not None:
            rules.append(_Rule(pattern, folders_only))
    return rules


def _verdict(rules: list[_Rule], path: str, is_folder: bool) -> bool | None:  # noqa: FBT001 - private, one call site
    for rule in reversed(rules):
        if rule.folders_only and not is_folder:
            continue
        found = rule.pattern.match_file(path)
        # A group that took part is the mark of a folder on the way: the pattern matched that one.
        if found is not None and found.match.lastgroup is None:
            return rule.pattern.include
    return None
