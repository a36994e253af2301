"""Runs one action: stages nothing by itself, hands the action an `Execution`, ends its children. Unaware of the graph.

Functions run on worker threads, which cannot be stopped from outside; so a build that ends sets `cancelled`, ends the
process groups of all children, and `check_cancelled` raises in the threads.
"""

from __future__ import annotations

import codecs
import contextlib
import inspect
import io
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TypeVar, TypeVarTuple, Unpack, cast

import anyio
import anyio.to_thread

from strata_engine.action import Action, Execution, Json
from strata_engine.capture import capture
from strata_engine.errors import Diagnostic, HostError, InternalError
from strata_engine.events import ActionOutput, ActionProgress, Listener
from strata_engine.place import place
from strata_engine.tree import Artifact, File, Node, Store, Symlink

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

GRACE_SECONDS = 5.0
"""How long a child may take to end after SIGTERM before it is killed."""

LINGER_SECONDS = 0.5
"""How long the pipes of a child that has ended are read on while someone else holds them open."""

POLL_SECONDS = 0.2
"""How often a silent child is asked whether it has ended."""

PROGRESS_INTERVAL = 0.1
"""Seconds between two progress events of one action."""


class Cancelled(Exception):  # noqa: N818 - not an error: the build was told to stop
    """Raised in an action's worker thread when the build is being stopped."""


class Children:
    """The subprocesses of a build, each in a process group of its own, so that all can be ended."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()

    def add(self, process: subprocess.Popen[bytes]) -> None:
        """Take responsibility for a process; it is ended at once when the build has been cancelled."""
        with self._lock:
            self._processes.add(process)
        if self.cancelled.is_set():
            self._end([process])

    def remove(self, process: subprocess.Popen[bytes]) -> None:
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
        self._end(processes)

    def kill(self) -> None:
        """End every group at once."""
        self.cancelled.set()
        with self._lock:
            processes = list(self._processes)
        for process in processes:
            _signal_group(process, signal.SIGKILL)

    def _end(self, processes: list[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            _signal_group(process, signal.SIGTERM)
        if processes:
            threading.Thread(target=self._kill_later, args=(processes,), daemon=True).start()

    def _kill_later(self, processes: list[subprocess.Popen[bytes]]) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and not self._processes.isdisjoint(processes):
            time.sleep(0.05)
        with self._lock:
            for process in self._processes.intersection(processes):
                _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
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
        return _Execution(action, inputs, self._store, self._scratch, self._emit, self.children)


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
        try:
            process = subprocess.Popen(
                argv,
                cwd=cwd or scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise HostError.of("cannot-start", f"cannot start `{argv[0]}`: {error.strerror}") from error
        self._children.add(process)
        try:
            output = self._collect(process, show)
        finally:
            # Whatever it has left running ends with it; its group keeps its number until it is waited for.
            _signal_group(process, signal.SIGKILL)
            process.wait()
            self._children.remove(process)
        self.check_cancelled()
        return subprocess.CompletedProcess(argv, process.returncode, *output)

    def _tell(self, line: str) -> None:
        if line:
            self._emit(ActionOutput(self.label, line))

    def _collect(self, process: subprocess.Popen[bytes], show: Callable[[str], str]) -> tuple[str, str]:
        """Read both pipes until the process has ended, telling each line as it comes; give what each has said."""
        assert process.stdout is not None
        assert process.stderr is not None
        pipes = (_Pipe(process.stdout), _Pipe(process.stderr))
        with selectors.DefaultSelector() as selector:
            for pipe in pipes:
                selector.register(pipe.stream, selectors.EVENT_READ, pipe)
            ended = 0.0
            while selector.get_map():
                for key, _ in selector.select(POLL_SECONDS):
                    for line in key.data.read():
                        self._tell(show(line))
                    if key.data.at_end:
                        selector.unregister(key.fileobj)
                # A grandchild that keeps a pipe open must not keep the build.
                ended = ended or (time.monotonic() if _has_ended(process) else 0.0)
                if ended and time.monotonic() - ended > LINGER_SECONDS:
                    break
        for pipe in pipes:
            for line in pipe.rest():
                self._tell(show(line))
            pipe.stream.close()
        _has_ended(process, wait=True)
        return pipes[0].text, pipes[1].text


class _Pipe:
    """What a child says on one pipe, cut into lines."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.at_end = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._newlines = io.IncrementalNewlineDecoder(self._decoder, translate=True)
        self._parts: list[str] = []
        self._line = ""

    @property
    def text(self) -> str:
        """All that was read."""
        return "".join(self._parts)

    def read(self) -> list[str]:
        """Read what is there and give the lines that are whole."""
        data = os.read(self.stream.fileno(), 1 << 16)
        self.at_end = not data
        return self._take(data)

    def rest(self) -> list[str]:
        """Give the last line if it has no end."""
        lines = self._take(b"", final=True)
        return [*lines, self._line] if self._line else lines

    def _take(self, data: bytes, *, final: bool = False) -> list[str]:
        text = self._newlines.decode(data, final=final)
        self._parts.append(text)
        *lines, self._line = (self._line + text).split("\n")
        return lines


def _has_ended(process: subprocess.Popen[bytes], *, wait: bool = False) -> bool:
    """Tell whether a process has ended, without letting go of its number."""
    if sys.platform == "darwin":  # which had no waitid in Python until 3.13
        return (process.wait() if wait else process.poll()) is not None
    try:
        found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG))
    except ChildProcessError:
        return True
    return found is not None


def _force(function: Callable[[str], object], path: str, _error: object) -> None:
    """Remove what a read-only folder keeps from being removed."""
    with contextlib.suppress(OSError):
        Path(path).parent.chmod(0o700)
        Path(path).chmod(0o700)
        function(path)
