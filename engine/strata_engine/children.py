"""Subprocesses of a build: run to their ends, heard line by line, and ended together when the build is.

It knows processes, not actions. Each has a process group of its own, so that what it starts ends with it.

Hard part: a process that has ended and is not yet waited for keeps its number, and so does its group. Groups are only
ever signalled while that holds; afterwards the number may be another's.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from strata_engine.errors import HostError

GRACE_SECONDS = 5.0
"""How long a child may take to end after SIGTERM before it is killed."""

LINGER_SECONDS = 0.5
"""How long the pipes of a child that has ended are read on while someone else holds them open."""

POLL_SECONDS = 0.2
"""How often a silent child is asked whether it has ended."""


class Children:
    """The subprocesses of a build, each in a process group of its own, so that all can be ended."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()

    def run(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], tell: Callable[[str], None]
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, telling each line that it prints. Raises HostError when it cannot start."""
        try:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            hint = "check that it is there and may be executed"
            raise HostError.of("cannot-start", f"cannot start `{argv[0]}`: {error.strerror}", hint=hint) from error
        self._add(process)
        try:
            output = _collect(process, tell)
        finally:
            # Whatever it has left running ends with it.
            _signal_group(process, signal.SIGKILL)
            process.wait()
            self._remove(process)
        return subprocess.CompletedProcess(argv, process.returncode, *output)

    def _add(self, process: subprocess.Popen[bytes]) -> None:
        """Take responsibility for a process; it is ended at once when the build has been cancelled."""
        with self._lock:
            self._processes.add(process)
        if self.cancelled.is_set():
            self._end([process])

    def _remove(self, process: subprocess.Popen[bytes]) -> None:
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


def _collect(process: subprocess.Popen[bytes], tell: Callable[[str], None]) -> tuple[str, str]:
    """Read both pipes until the process has ended; give what each has said."""
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
                    tell(line)
                if key.data.at_end:
                    selector.unregister(key.fileobj)
            # A grandchild that keeps a pipe open must not keep the build.
            ended = ended or (time.monotonic() if _has_ended(process) else 0.0)
            if ended and time.monotonic() - ended > LINGER_SECONDS:
                break
    for pipe in pipes:
        for line in pipe.rest():
            tell(line)
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
