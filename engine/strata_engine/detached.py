"""Sends what a build has left in its spools, after the build: `python -m strata_engine.detached`.

What it needs to know comes as JSON over standard input, logins too, so that none is in an argument or on a disk. One
such process works for a store at a time. It prints nothing: what it does not send, the next build sends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from strata_engine.errors import Diagnostic, StrataError
from strata_engine.remote.caches import RemoteCaches
from strata_engine.remote.settings import RemoteSettings, Upload
from strata_engine.remote.spool import FOLDER
from strata_engine.store import open_store

LONGEST = 1800.0
"""Seconds after which the rest is left to the next build."""


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What a detached process is to do."""

    store: bytes
    """The folder, as the system names it."""
    settings: RemoteSettings
    private: tuple[bytes, ...] = ()
    """Paths of this machine, which nothing that is sent may name."""


def detach(charge: Charge) -> None:
    """Start a process that sends what waits, and outlives this one; a machine that starts none leaves it waiting."""
    # All that it is to know of remotes is in the charge; what lets somebody in is not to stay in an environment.
    own = ("PYTHON", "STRATA_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    with contextlib.suppress(OSError):
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "strata_engine.detached"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            start_new_session=True,
            close_fds=True,
        )
        assert process.stdin is not None
        with process.stdin as stdin:
            stdin.write(msgspec.json.encode(charge))
        # It is nobody's to wait for; without this, Python would say that it still runs.
        process.returncode = 0


def main() -> int:
    """Do what standard input says."""
    charge = msgspec.json.decode(sys.stdin.buffer.read(), type=Charge)
    folder = Path(os.fsdecode(charge.store)) / FOLDER
    with contextlib.suppress(OSError, StrataError):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _work(charge)
    return 0


def _work(charge: Charge) -> None:
    store = open_store(Path(os.fsdecode(charge.store)), _ignore)
    settings = msgspec.structs.replace(charge.settings, upload=Upload.WAIT, required=False)
    try:
        caches = RemoteCaches(settings, store.folder, store.cas, store.cache, _ignore, charge.private)
        end = time.monotonic() + LONGEST
        while not caches.wait(1.0) and time.monotonic() < end:
            pass
        caches.close()
    finally:
        store.close()


def _ignore(_: Diagnostic) -> None:
    """Nobody listens."""


if __name__ == "__main__":
    raise SystemExit(main())
