"""A workspace: the folder of a stack, its state folder, and the lock that one build at a time holds.

Standard library only: the null build comes through here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from strata_engine.errors import HostError

STATE_FOLDER = ".strata"


def as_typed(path: Path) -> str:
    """Name a file as the user would type it: from the current folder, where that is shorter."""
    try:
        relative = os.path.relpath(path)
    except ValueError:
        return str(path)
    return min(str(path), relative, key=len)


class Workspace(NamedTuple):
    """The root folder that labels, sources and placements are relative to."""

    root: Path
    part: str = ""
    """A folder of its own in the state folder, for who shares the root with a workspace and nothing else."""

    @property
    def state(self) -> Path:
        """Where this workspace keeps what it knows; everything in it may be deleted at any time."""
        return self.root / STATE_FOLDER / self.part

    def relative(self, path: Path | str) -> str:
        """Name a path for people and keys: relative to the root and posix, absolute where it lies outside."""
        try:
            return Path(path).relative_to(self.root).as_posix() or "."
        except ValueError:
            return Path(path).as_posix()

    def prepare(self) -> None:
        """Make the state folder, ignored by git. Raises HostError."""
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            ignore = self.state / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
        except OSError as error:
            raise HostError.of(
                "state-not-writable",
                f"cannot write the state folder `{self.state}`: {error.strerror}",
                hint="the folder of the stack file must be writable",
            ) from error


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file as a whole: a reader sees the old bytes or the new ones. Raises OSError, leaving nothing."""
    # Without `tempfile`, which would be a quarter of what a null build imports.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            os.fchmod(handle, mode)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def command_line() -> list[str]:
    """Give this process's arguments as they may be told and kept: without credentials, and as text."""
    said = (argument.encode("utf-8", "backslashreplace").decode() for argument in sys.argv[1:])
    return [re.sub(r"(?<=://)[^/\s]+@", "***@", argument) for argument in said]


@contextlib.contextmanager
def exclusive(path: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file at `path`; `on_wait` is told once who has it when it is taken. Raises HostError.

    `flock` and not POSIX record locks: those vanish when any descriptor of the file is closed (engines.md §7.2).
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HostError.of("lock-not-writable", f"cannot open the lock file `{path}`: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 1000, 0).decode("utf-8", "replace").strip()
            on_wait(holder or "another process")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        command = " ".join([Path(sys.argv[0]).name, *command_line()])[:300]
        since = time.strftime("%H:%M:%S")
        # A full disk keeps nobody from holding the lock, only from saying so.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} since {since}: {command}\n".encode(), 0)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
