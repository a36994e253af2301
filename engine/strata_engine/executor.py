"""Runs one action: stages nothing by itself, hands the action an `Execution`, ends its children. Unaware of the graph.

Functions run on worker threads, which cannot be stopped from outside; so a build that ends sets `cancelled`, ends the
process groups of all children, and `check_cancelled` raises in the threads.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import anyio
import anyio.to_thread

from strata_engine.action import Action, Execution, Json
from strata_engine.capture import capture
from strata_engine.errors import Diagnostic, HostError, InternalError
from strata_engine.events import ActionOutput, ActionProgress, Listener
from strata_engine.place import place
from strata_engine.tree import Artifact, File, Node, Store, Symlink

GRACE_SECONDS = 5.0
"""How long a child may take to end after SIGTERM before it is killed."""

PROGRESS_INTERVAL = 0.1
"""Seconds between two progress events of one action."""


class Cancelled(Exception):  # noqa: N818 - not an error: the build was told to stop
    """Raised in an action's worker thread when the build is being stopped."""


class Children:
    """The subprocesses of a build, each in a process group of its own, so that all can be ended."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()

    def add(self, process: subprocess.Popen[str]) -> None:
        """Take responsibility for a process; it is ended at once when the build has been cancelled."""
        with self._lock:
            self._processes.add(process)
        if self.cancelled.is_set():
            _signal_group(process, signal.SIGTERM)

    def remove(self, process: subprocess.Popen[str]) -> None:
        """Forget a process that has ended."""
        with self._lock:
            self._processes.discard(process)

    def cancel(self) -> None:
        """Tell every action to stop: SIGTERM to each group now, SIGKILL after the grace period."""
        if self.cancelled.is_set():
            return
        self.cancelled.set()
        with self._lock:
            processes = list(self._processes)
        for process in processes:
            _signal_group(process, signal.SIGTERM)
        if processes:
            threading.Thread(target=self._kill_later, args=(processes,), daemon=True).start()

    def kill(self) -> None:
        """End every group at once."""
        self.cancelled.set()
        with self._lock:
            processes = list(self._processes)
        for process in processes:
            _signal_group(process, signal.SIGKILL)

    @staticmethod
    def _kill_later(processes: list[subprocess.Popen[str]]) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(0.05)
        for process in processes:
            _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    # The group outlives its leader while a grandchild runs, so the leader's end proves nothing.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


class Executor:
    """Runs actions for one build."""

    def __init__(self, store: Store, scratch: Path, emit: Listener) -> None:
        self._store = store
        self._scratch = scratch
        self._emit = emit
        self.children = Children()

    async def run(self, action: Action, inputs: Mapping[str, Node]) -> tuple[Artifact, list[Diagnostic]]:
        """Run an action to its artifact and its warnings. Raises what the action raises, or cancellation."""
        execution = _Execution(action, inputs, self._store, self._scratch, self._emit, self.children)
        try:
            if inspect.iscoroutinefunction(action.run):
                artifact = await action.run(execution)
            else:
                try:
                    artifact = await anyio.to_thread.run_sync(action.run, execution, limiter=_unlimited())
                except Cancelled:
                    await anyio.sleep_forever()  # the scope that set `cancelled` is ending: be cancelled by it
                    raise
        finally:
            await _shielded(execution.close)
        if not isinstance(artifact, Artifact):
            raise InternalError.of("bad-artifact", f"`{action.label}` gave {type(artifact).__name__} as its output")
        if action.fixed is not None and (not isinstance(artifact, File) or artifact.digest.hash != action.fixed):
            raise InternalError.of("bad-artifact", f"`{action.label}` did not give the fixed output {action.fixed}")
        return artifact, execution.warnings


async def _shielded(function: Callable[[], None]) -> None:
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(function)


def _unlimited() -> anyio.CapacityLimiter:
    # Slots are the scheduler's business; anyio's default limit of 40 threads must not be a second, hidden pool.
    return anyio.CapacityLimiter(1)


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
    ) -> None:
        self._action = action
        self._inputs = inputs
        self._store = store
        self._scratch_parent = scratch
        self._scratch: Path | None = None
        self._emit = emit
        self._children = children
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
    def scratch(self) -> Path:
        if self._scratch is None:
            self._scratch_parent.mkdir(parents=True, exist_ok=True)
            name = f"run-{os.getpid()}-"
            self._scratch = Path(tempfile.mkdtemp(prefix=name, dir=self._scratch_parent))
        return self._scratch

    def close(self) -> None:
        """Remove the scratch folder."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, onerror=_force)

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

    def capture(self, folder: Path) -> Artifact:
        return capture(self._store, folder)

    def command(
        self, arguments: Iterable[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
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
        try:
            process = subprocess.Popen(
                argv,
                cwd=cwd or scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise HostError.of("cannot-start", f"cannot start `{argv[0]}`: {error.strerror}") from error
        self._children.add(process)
        try:
            return self._collect(process, argv)
        finally:
            self._children.remove(process)

    def _collect(self, process: subprocess.Popen[str], argv: list[str]) -> subprocess.CompletedProcess[str]:
        """Read both pipes to their ends, telling each line as it comes."""
        parts: dict[str, list[str]] = {"out": [], "err": []}

        def drain(name: str) -> None:
            stream = process.stdout if name == "out" else process.stderr
            assert stream is not None
            with stream:
                for line in stream:
                    parts[name].append(line)
                    self._emit(ActionOutput(self.label, line.rstrip("\n")))

        readers = [threading.Thread(target=drain, args=(name,), daemon=True) for name in parts]
        for reader in readers:
            reader.start()
        process.wait()
        for reader in readers:
            reader.join(timeout=1.0)
        # A grandchild that keeps a pipe open must not keep the build.
        _signal_group(process, signal.SIGKILL)
        for reader in readers:
            reader.join()
        self.check_cancelled()
        return subprocess.CompletedProcess(argv, process.returncode, "".join(parts["out"]), "".join(parts["err"]))


def _force(function: Callable[[str], object], path: str, _error: object) -> None:
    """Remove what a read-only folder keeps from being removed."""
    with contextlib.suppress(OSError):
        Path(path).parent.chmod(0o700)
        Path(path).chmod(0o700)
        function(path)
