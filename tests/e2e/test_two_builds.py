"""Two builds of one workspace, and of two workspaces with one store, at once: the second waits, and both are right."""

from __future__ import annotations

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


def test_the_second_waits_and_says_for_whom(space: Space) -> None:
    space.wheel("alpha", {"alpha.py": b"NAME = 'again'\n"})
    first = started(space, "build", "-j1")
    lock = space.root / ".strata" / "lock"
    while first.poll() is None and not (lock.exists() and lock.read_text()):
        time.sleep(0.002)
    # Held still while it has the lock, so that the second one cannot come too late.
    first.send_signal(signal.SIGSTOP)
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
