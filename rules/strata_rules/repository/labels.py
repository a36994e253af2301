"""Labels across stack files: `//dir:LABEL`, `//dir/file.toml:LABEL`, and the patterns `//...`, `//dir/...`, `//dir:*`.

It reads texts, no stack file and no git; what there is of all that can be said is for `which` to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from strata_engine.errors import SpecError
from strata_engine.workspace import Workspace
from strata_rules.null import SPEC_NAMES

MARK = "//"
"""What labels of a repository begin with."""

BELOW = "..."
"""What stands for everything: below a folder, or of a stack."""


WHEEL = "wheel/"
"""What the labels of unpacked wheels begin with."""

STATE_PART = "repository"
"""The folder in the root's state folder that is about the whole repository: the root may have a stack of its own."""

_NAMED = re.compile(rf"(?:^|[\s(,&|\"']){MARK}")

_SEPARATORS = re.compile(r"[-_.]+")

_OPERATORS = ("(", "|", "&", " - ")


def names_repository(arguments: Iterable[str]) -> bool:
    """Tell whether any argument, or any word in it, is a label of a repository."""
    return any(_NAMED.search(argument) for argument in arguments)


def is_query(argument: str) -> bool:
    """Tell an expression of the query language from a label or a pattern: what no label has is in it."""
    return any(mark in argument for mark in _OPERATORS)


def is_wheel(word: str, label: str) -> bool:
    """Tell whether a word means the unpacked wheel of this label: its file, the beginning of that, or its name."""
    file = label.removeprefix(WHEEL)
    if file == label:
        return False
    return file == word or file.startswith(f"{word}-") or _plain(file.partition("-")[0]) == _plain(word)


def _plain(name: str) -> str:
    return _SEPARATORS.sub("-", name).lower()


class StackFile(NamedTuple):
    """A stack file of a repository."""

    root: Path
    """The repository's."""
    folder: str
    """From the root, posix; empty for the root itself."""
    name: str
    is_named: bool = False
    """Whether its labels name it: it is not the only stack file of its folder, or is called as none is by itself."""

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.root / self.folder / self.name

    @property
    def shown(self) -> str:
        """What it is called from the root."""
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def package(self) -> str:
        """What its labels have before the `:`."""
        return f"{MARK}{self.shown if self.is_named else self.folder}"

    @property
    def prefix(self) -> str:
        """What its labels begin with."""
        return f"{self.package}:"


class Pattern(NamedTuple):
    """What a person writes: which stack files, and what of them."""

    text: str
    folder: str
    file: str = ""
    """Where a stack file is named."""
    below: bool = False
    """Whether all stack files below the folder are meant."""
    local: str = BELOW
    """The labels in these, as in `build`; `...` for everything."""


def repository_root(cwd: Path) -> Path:
    """Find the nearest folder with `.git`, at or above an absolute one. Raises SpecError."""
    for folder in (cwd, *cwd.parents):
        if (folder / ".git").exists():
            return folder
    raise SpecError.of(
        "no-repository",
        f"`{cwd}` is in no git repository, and labels that begin with `//` start from the root of one",
        hint="leave out what is before the `:`, or `git init` where all stacks are",
    )


def state_of(root: Path) -> Workspace:
    """Give the workspace that keeps what is known of a whole repository."""
    return Workspace(root, STATE_PART)


def parse(text: str) -> Pattern:
    """Read a label or a pattern. Raises SpecError."""
    package, colon, local = text.removeprefix(MARK).partition(":")
    if not text.startswith(MARK) or (colon and not local):
        raise _bad(text, "nothing stands after the `:`" if colon else f"it does not begin with `{MARK}`")
    local = local or BELOW
    pieces = package.split("/") if package else []
    below = bool(pieces) and pieces[-1] == BELOW
    pieces = pieces[:-1] if below else pieces
    if any(piece in ("", ".", "..", BELOW) for piece in pieces):
        raise _bad(text, f"`{MARK}{package}` is no folder of a repository")
    file = pieces.pop() if pieces and pieces[-1].endswith(".toml") and not below else ""
    return Pattern(text, "/".join(pieces), file, below, local)


def _bad(text: str, why: str) -> SpecError:
    hint = "write `//DIR:LABEL`, `//DIR/FILE.toml:LABEL`, or `//...` for everything"
    error = SpecError.of("bad-label", f"`{text}` is no label: {why}", hint=hint)
    assert isinstance(error, SpecError)
    return error


def two_files(folder: str) -> SpecError:
    """Make the error of a folder whose stack file is not clear."""
    shown = PurePosixPath(folder)
    error = SpecError.of(
        "two-stack-files",
        f"`{shown}` has both `{SPEC_NAMES[0]}` and `{SPEC_NAMES[1]}`",
        hint=f"name one, as in `{StackFile(Path(), folder, SPEC_NAMES[0], is_named=True).prefix}LABEL`",
    )
    assert isinstance(error, SpecError)
    return error
