"""What differs between a commit and the working tree, asked of git: the only module that runs it.

It knows files and no stack. A commit is resolved once, so that nothing a person writes can be an option of git's.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from strata_engine.errors import HostError, SpecError


class Commit(NamedTuple):
    """A commit of a repository."""

    root: Path
    """The top of the working tree."""
    name: str
    """In hexadecimal."""


def commit(root: Path, written: str) -> Commit:
    """Find the commit that a person names. Raises SpecError for one that there is not, HostError without git."""
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{written}^{{commit}}")
    if found.returncode:
        raise SpecError.of(
            "unknown-commit",
            f"git knows no commit `{written}` here",
            hint="`git log` lists commits; a shallow clone has few of them: `git fetch --unshallow`",
        )
    return Commit(root, found.stdout.decode().strip())


def changed(since: Commit) -> frozenset[Path]:
    """List the files, absolute, that differ between a commit and the working tree; what git does not track, too."""
    # Without renames: the old name is a file that is gone.
    diff = ("diff", "--name-only", "--no-renames", "--no-ext-diff", "--relative", "-z", since.name, "--")
    others = ("ls-files", "--others", "--exclude-standard", "-z", "--")
    names = {name for arguments in (diff, others) for name in _answer(since.root, *arguments).split(b"\0") if name}
    return frozenset(since.root / os.fsdecode(name) for name in names)


def content(at: Commit, path: Path) -> bytes | None:
    """Read a file as it was in a commit; None where it was not there."""
    shown = path.relative_to(at.root).as_posix()
    found = _git(at.root, "cat-file", "blob", f"{at.name}:./{shown}")
    return found.stdout if found.returncode == 0 else None


def _answer(root: Path, *arguments: str) -> bytes:
    done = _git(root, *arguments)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise HostError.of("git-failed", f"`git {arguments[0]}` failed", notes=said[-3:])
    return done.stdout


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    # Only looks: it must not take git's lock to write down what it has looked at.
    environ = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            check=False,
            env=environ,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise HostError.of(
            "no-git", "`changed` asks git, which is not on the PATH", hint="install git, or name labels instead"
        ) from None
    except OSError as error:
        raise HostError.of("git-failed", f"git cannot be run: {error.strerror}") from error
