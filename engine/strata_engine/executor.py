"""Runs one action: stages nothing by itself, hands the action an `Execution`, ends its children. Unaware of the graph.

Functions run on worker threads, which cannot be stopped from outside; so a build that ends sets `cancelled`, ends the
process groups of all children, and `check_cancelled` raises in the threads.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack, cast

import anyio
import anyio.to_thread

from strata_engine.action import Action, Execution, Json
from strata_engine.capture import capture
from strata_engine.children import Children
from strata_engine.errors import Diagnostic, InternalError
from strata_engine.events import ActionOutput, ActionProgress, Listener
from strata_engine.files import remove_tree
from strata_engine.folders import Folders
from strata_engine.place import place
from strata_engine.tree import Artifact, File, Node, Store, Symlink, Tree

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PROGRESS_INTERVAL = 0.1
"""Seconds between two progress events of one action."""


class Cancelled(Exception):  # noqa: N818 - not an error: the build was told to stop
    """Raised in an action's worker thread when the build is being stopped."""


class Executor:
    """Runs actions for one build."""

    def __init__(self, store: Store, scratch: Path, emit: Listener) -> None:
        self._store = store
        self._scratch = scratch
        self._emit = emit
        self._folders = Folders(store, scratch)
        self.children = Children()

    def close(self) -> None:
        """Remove what its actions shared; none may be running."""
        self._folders.close()

    async def run(self, action: Action, inputs: Mapping[str, Node]) -> tuple[Artifact, list[Diagnostic]]:
        """Run an action to its artifact and its warnings. Raises what the action raises, or cancellation."""
        if is_plain(action):
            return await in_thread(self.run_here, action, inputs)
        execution = self._execution(action, inputs)
        try:
            artifact = await until_cancelled(cast("Awaitable[Artifact]", action.run(execution)))
        finally:
            if execution.worked:
                with anyio.CancelScope(shield=True):
                    await in_thread(execution.close)
        return _checked(action, artifact), execution.warnings

    def run_here(self, action: Action, inputs: Mapping[str, Node]) -> tuple[Artifact, list[Diagnostic]]:
        """Run an action that is a plain function, on this thread. Raises what the action raises, or `Cancelled`."""
        execution = self._execution(action, inputs)
        try:
            artifact = action.run(execution)
        finally:
            execution.close()
        return _checked(action, artifact), execution.warnings

    def _execution(self, action: Action, inputs: Mapping[str, Node]) -> _Execution:
        return _Execution(action, inputs, self._store, self._scratch, self._emit, self.children, self._folders)


def is_plain(action: Action) -> bool:
    """Tell whether an action runs on a worker thread."""
    return not inspect.iscoroutinefunction(action.run)


async def in_thread(function: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
    """Call a function on a worker thread, to its end even when cancelled meanwhile."""
    # Slots are the scheduler's business; anyio's default limit of 40 threads must not be a second, hidden pool.
    limiter = anyio.CapacityLimiter(1)
    return await until_cancelled(anyio.to_thread.run_sync(function, *arguments, limiter=limiter))


async def until_cancelled(work: Awaitable[T]) -> T:
    """Await something; where it found out first that the build is being stopped, wait to be cancelled as well."""
    try:
        return await work
    except Cancelled:
        await anyio.sleep_forever()
        raise


def _checked(action: Action, artifact: object) -> Artifact:
    if not isinstance(artifact, Artifact):
        raise InternalError.of("bad-artifact", f"`{action.label}` gave {type(artifact).__name__} as its output")
    if action.fixed is not None and (not isinstance(artifact, File) or artifact.digest.hash != action.fixed):
        raise InternalError.of("bad-artifact", f"`{action.label}` did not give the fixed output {action.fixed}")
    return artifact


class _Execution(Execution):
    """What an action sees of the build."""

    def __init__(
        self,
        action: Action,
        inputs: Mapping[str, Node],
        store: Store,
        scratch: Path,
        emit: Listener,
        children: Children,
        folders: Folders,
    ) -> None:
        self._action = action
        self._inputs = inputs
        self._store = store
        self._scratch_parent = scratch
        self._scratch: Path | None = None
        self._emit = emit
        self._children = children
        self._folders = folders
        self._last_progress = 0.0
        self.warnings: list[Diagnostic] = []

    @property
    def label(self) -> str:
        return self._action.label

    @property
    def params(self) -> Mapping[str, Json]:
        return self._action.params

    @property
    def store(self) -> Store:
        return self._store

    @property
    def worked(self) -> bool:
        """Whether there is a scratch folder to be removed."""
        return self._scratch is not None

    @property
    def scratch(self) -> Path:
        if self._scratch is None:
            self._scratch_parent.mkdir(parents=True, exist_ok=True)
            # The store's sweep reads the process from the name, and leaves alone what a living one works in.
            self._scratch = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-run-", dir=self._scratch_parent))
        return self._scratch

    def close(self) -> None:
        """Remove the scratch folder."""
        if self._scratch is not None:
            remove_tree(self._scratch)

    def node(self, name: str) -> Node:
        return self._inputs[name]

    def names(self, prefix: str = "") -> list[str]:
        return sorted((name for name in self._inputs if name.startswith(prefix)), key=str.encode)

    def read(self, name: str) -> bytes:
        node = self._inputs[name]
        if not isinstance(node, File):
            raise InternalError.of("not-a-file", f"input `{name}` of `{self.label}` is not a file")
        return self._store.get(node.digest)

    def progress(self, done: int, total: int | None = None) -> None:
        now = time.monotonic()
        if now - self._last_progress >= PROGRESS_INTERVAL or done == total:
            self._last_progress = now
            self._emit(ActionProgress(self.label, done, total))

    def warn(self, diagnostic: Diagnostic) -> None:
        self.warnings.append(diagnostic)

    def check_cancelled(self) -> None:
        if self._children.cancelled.is_set():
            raise Cancelled

    def stage(self, name: str, folder: Path) -> None:
        node = self._inputs[name]
        if isinstance(node, Symlink):
            raise InternalError.of("not-staged", f"input `{name}` of `{self.label}` is a symlink")
        folder.parent.mkdir(parents=True, exist_ok=True)
        place(self._store, node, folder)

    def folder(self, name: str) -> Path:
        node = self._inputs[name]
        if not isinstance(node, Tree):
            raise InternalError.of("not-a-folder", f"input `{name}` of `{self.label}` is not a folder")
        return self._folders.of(node)

    def capture(self, folder: Path) -> Artifact:
        return capture(self._store, folder)

    def command(
        self,
        arguments: Iterable[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        show: Callable[[str], str] = str,
    ) -> subprocess.CompletedProcess[str]:
        self.check_cancelled()
        argv = [str(argument) for argument in arguments]
        scratch = self.scratch
        environment = {
            "PATH": os.defpath,
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            **self._action.environment,
            **(env or {}),
        }

        def tell(line: str) -> None:
            said = show(line)
            if said:
                self._emit(ActionOutput(self.label, said))

        done = self._children.run(argv, cwd=cwd or scratch, env=environment, tell=tell)
        self.check_cancelled()
        return done
