"""Two builds of one workspace, and of two workspaces with one store, at once: the second waits, and both are right."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from space import Space


def started(space: Space, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*space.command(), *arguments],
        cwd=space.root,
        env=space.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def held(space: Space) -> subprocess.Popen[str]:
    """Give a build that was stopped while it had the workspace's lock; one that was done before is tried again."""
    lock = space.root / ".strata" / "lock"
    for attempt in range(50):
        space.wheel("alpha", {"alpha.py": f"NAME = 'again'\n# {attempt}\n".encode()})
        build = started(space, "build", "-j1")
        while build.poll() is None and not (lock.exists() and lock.read_text()):
            time.sleep(0.002)
        build.send_signal(signal.SIGSTOP)
        if build.returncode is None:
            os.waitid(os.P_PID, build.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            # Whoever gives the lock back empties the file.
            if lock.read_text():
                return build
        build.send_signal(signal.SIGCONT)
        build.communicate(timeout=120)
    raise AssertionError("no build could be stopped in time")


def test_the_second_waits_and_says_for_whom(space: Space) -> None:
    first = held(space)
    second = started(space, "build")
    assert second.stderr is not None
    try:
        line = second.stderr.readline()
    finally:
        first.send_signal(signal.SIGCONT)
    told, rest = first.communicate(timeout=120)[1], second.communicate(timeout=120)[1]
    assert (first.returncode, second.returncode) == (0, 0)
    assert re.fullmatch(
        rf"waiting for the workspace, held by process {first.pid} since \d\d:\d\d:\d\d: entry.py build -j1\n", line
    )
    assert "executed framework-low/lock" in told
    assert re.fullmatch(r"24 actions: 24 up to date in [\d.]+ s\n", rest)
    assert space.ok("run", "hello").stdout == "hello again gamma\n"


def test_two_workspaces_make_one_thing_once(space: Space, tmp_path: Path) -> None:
    space.wheel("alpha", {"alpha.py": b"NAME = 'again'\n"})
    space.ok("lock", "-q")
    other = space.copy(tmp_path / "other")
    builds = [started(each, "build", "--json") for each in (space, other)]
    documents = [build.communicate(timeout=120) for build in builds]
    assert [build.returncode for build in builds] == [0, 0], documents
    assert space.ok("run", "hello").stdout == other.ok("run", "hello").stdout == "hello again gamma\n"
    assert space.build().counts["executed"] == other.build().counts["executed"] == 0
