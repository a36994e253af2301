"""What git ignores in a work tree, read from its ignore files and never by running git.

It must not know what the answer is for. Every file is read, and every absence noticed, through the given functions, so
that a new `.gitignore` anywhere is a change. The machine's own settings (`core.excludesFile`) are not asked: two
machines must agree. What git tracks it does not ignore, whatever patterns say; since git writes its index time and
again, that is read only once a pattern has matched something.

The hard part is that a pattern says nothing of what is below the folder that it matches. git never looks into an
ignored folder, so a later `!` cannot bring back a file there; but where the folder itself is brought back, an earlier
pattern that matched it does not reach its files. Whoever walks a folder must therefore ask about each folder before
what is in it, and each pattern is only asked whether it matches the path itself. pathspec translates the patterns;
its own matching also matches all paths below one, which its regular expressions mark with a group.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from strata_engine.errors import StrataError

if TYPE_CHECKING:
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

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

    def __init__(
        self, top: Path, exclude: Path, index: Path, read: Callable[[Path], bytes], probe: Callable[[Path], bool]
    ) -> None:
        self.top = top
        """The folder that holds `.git`."""
        self._exclude = exclude
        self._index = index
        self._read = read
        self._probe = probe
        self._rules: dict[Path, list[_Rule]] = {}
        self._tracked: frozenset[str] | None = None
        self._opened: set[Path] = set()
        """Ignored folders that hold something tracked: all else in them is ignored."""

    def ignores(self, path: Path, *, is_folder: bool) -> bool:
        """Tell whether a path is ignored whose folders are not; nothing outside the work tree is."""
        if not path.is_relative_to(self.top) or path == self.top:
            return False
        if path.parent not in self._opened and not self._matched(path, is_folder=is_folder):
            return False
        if path.relative_to(self.top).as_posix() not in self._all_tracked():
            return True
        if is_folder:
            self._opened.add(path)
        return False

    def _all_tracked(self) -> frozenset[str]:
        """Give the files that git tracks, and the folders that they are in."""
        if self._tracked is None:
            files = tracked_files(self._read(self._index)) if self._probe(self._index) else []
            folders = {str(folder) for file in files for folder in PurePosixPath(file).parents}
            self._tracked = frozenset({*files, *folders})
        return self._tracked

    def _matched(self, path: Path, *, is_folder: bool) -> bool:
        """Tell whether patterns say so: those of the nearest ignore file that has any, the last one there."""
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

    def holds(self, folder: Path) -> bool:
        """Tell whether a folder that is not ignored has anything in it that git keeps: else a clone has no such folder.

        Nothing is known of what is outside the work tree, so it counts as kept.
        """
        if not folder.is_relative_to(self.top):
            return True
        self._probe(folder)
        for path in sorted(folder.iterdir()):
            is_folder = path.is_dir() and not path.is_symlink()
            if path.name == ".git" or self.ignores(path, is_folder=is_folder):
                continue
            if not is_folder or self.holds(path):
                return True
        return False

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
            return WorkTree(top, git / "info" / "exclude", git / "index", read, probe)
        if probe(git):
            own, common = (git, git) if git.is_dir() else _folders(git, read, probe)
            return WorkTree(top, common / "info" / "exclude", own / "index", read, probe)
    return None


def _folders(file: Path, read: Callable[[Path], bytes], probe: Callable[[Path], bool]) -> tuple[Path, Path]:
    """Follow a `.git` file to the folder of this work tree, and to the one that a repository's work trees share."""
    try:
        own = file.parent / read(file).decode("utf-8", "surrogateescape").removeprefix("gitdir:").strip()
        common = own
        if probe(own / "commondir"):
            common = own / read(own / "commondir").decode("utf-8", "surrogateescape").strip()
    except (OSError, StrataError):
        # A broken link to the repository: the ignore files of the work tree still say what they say.
        return file.parent / ".git", file.parent / ".git"
    return own, common


def tracked_files(index: bytes) -> list[str]:
    """List the paths in an index of git, of version 2, 3 or 4; none in one that cannot be read.

    A repository of SHA-256 names has longer entries and does not say so in its index.
    """
    for size in (20, 32):
        try:
            return _entries(index, size)
        except (ValueError, IndexError, struct.error):
            continue
    return []


def _entries(index: bytes, name_size: int) -> list[str]:
    signature, version, count = struct.unpack_from(">4sII", index)
    if signature != b"DIRC" or version not in (2, 3, 4):
        raise ValueError(version)
    found: list[str] = []
    at, last = 12, b""
    for _ in range(count):
        start = at
        at += 40 + name_size
        (flags,) = struct.unpack_from(">H", index, at)
        at += 4 if flags & 0x4000 else 2
        kept = 0
        if version == 4:
            # Names share what they begin with: how much of the last one is dropped comes first.
            dropped, at = _number(index, at)
            kept = len(last) - dropped
        end = index.index(b"\0", at)
        last = last[:kept] + index[at:end]
        if kept < 0 or (flags & 0xFFF) != min(len(last), 0xFFF):
            raise ValueError(last)
        at = end + 1 if version == 4 else start + (end - start) // 8 * 8 + 8
        found.append(last.decode("utf-8", "surrogateescape"))
    return found


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of git's packs, high bits first, each byte but the last with its top bit set."""
    value = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        value = ((value + 1) << 7) | (data[at] & 0x7F)
    return value, at + 1


def _parse(text: str) -> list[_Rule]:
    # Here, because most builds capture no folder and read no ignore file.
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # noqa: PLC0415 - see above

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
