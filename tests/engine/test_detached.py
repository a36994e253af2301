"""The process that sends what a build has left: what it is told, what can be seen of it, and how it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from builds import Site, make, remote
from caches import Hostile

from strata_engine import detached
from strata_engine.detached import Charge, detach
from strata_engine.remote.settings import Access, Upload
from strata_engine.remote.spool import FOLDER

SECRET = "s3cret-of-nobody"


@pytest.fixture
def server() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server


def until(true: Callable[[], object]) -> None:
    """Wait for another process."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def spooled(site: Site) -> list[Path]:
    return list((site.store / FOLDER).rglob("*-*"))


def filled(root: Path, url: str) -> Site:
    """Give a site whose spool has what its build could not send."""
    site = Site(root)
    site.remotes = remote(url, upload=Upload.WAIT)
    site.build([make("a"), make("b", "a")])
    assert len(spooled(site)) == 2
    shutil.rmtree(site.store / "remote", ignore_errors=True)
    return site


def charge_of(site: Site, url: str, **more: object) -> Charge:
    access = Access(url=url, login=("me", SECRET), headers=(("X-Secret", SECRET),))
    settings = msgspec.structs.replace(remote(url), caches=(access,), **more)  # type: ignore[arg-type]
    return Charge(store=os.fsencode(site.store), settings=settings)


def ours(parent: int) -> list[int]:
    """List the processes that send for somebody, started by `parent`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if b"strata_engine.detached" in words and int(stat[1]) == parent:
                found.append(int(folder.name))
    return found


def test_it_sends_what_is_left_and_shows_nothing_of_what_lets_us_in(
    server: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.manner = lambda number, method, path: "503"
    site = filled(tmp_path / "site", server.url)
    # It waits for its first answer, so that it can be looked at.
    server.manner = lambda number, method, path: "stall"
    for name in ("STRATA_REMOTE_HEADER", "STRATA_SIGNING_KEY", "STRATA_REMOTE_CACHE", "PYTHONPATH"):
        monkeypatch.setenv(name, SECRET)
    before = len(server.seen)
    detach(charge_of(site, server.url, timeout=30.0))
    until(lambda: len(server.seen) > before)
    [pid] = ours(os.getpid())
    proc = Path(f"/proc/{pid}")
    assert SECRET.encode() not in (proc / "cmdline").read_bytes()
    assert SECRET.encode() not in (proc / "environ").read_bytes()
    assert (proc / "cwd").readlink() == Path("/")
    assert os.getsid(pid) == pid
    assert "X-Secret" not in repr(server.url)
    assert server.seen[before][2]["x-secret"] == SECRET
    server.manner = lambda number, method, path: "well"
    server.released.set()
    until(lambda: not spooled(site) or not ours(os.getpid()))
    assert not [path for path in site.store.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)


def run(charge: Charge) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-I", "-m", "strata_engine.detached"]
    return subprocess.run(command, input=msgspec.json.encode(charge), capture_output=True, cwd="/", check=False)


def test_what_it_does_is_not_heard(server: Hostile, tmp_path: Path) -> None:
    server.manner = lambda number, method, path: "503"
    site = filled(tmp_path / "site", server.url)
    done = run(charge_of(site, server.url))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert len(spooled(site)) == 2
    shutil.rmtree(site.store / "remote", ignore_errors=True)
    server.manner = lambda number, method, path: "well"
    done = run(charge_of(site, server.url))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert spooled(site) == []
    there = Site(tmp_path / "there")
    there.remotes = remote(server.url)
    assert there.build([make("a"), make("b", "a")]).counts["remote"] == 2


def test_one_works_for_a_store_at_a_time(server: Hostile, tmp_path: Path) -> None:
    server.manner = lambda number, method, path: "503"
    site = filled(tmp_path / "site", server.url)
    server.manner = lambda number, method, path: "well"
    asked = len(server.seen)
    with (site.store / FOLDER / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(charge_of(site, server.url)).returncode == 0
        assert len(server.seen) == asked
    assert len(spooled(site)) == 2
    run(charge_of(site, server.url))
    assert spooled(site) == []


def test_a_store_whose_name_is_no_text_has_one_too(server: Hostile, tmp_path: Path) -> None:
    server.manner = lambda number, method, path: "503"
    root = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        root.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    site = filled(root / "site", server.url)
    server.manner = lambda number, method, path: "well"
    run(charge_of(site, server.url))
    assert spooled(site) == []


def test_a_build_that_is_to_detach_leaves_one_behind(server: Hostile, tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.remotes = remote(server.url, upload=Upload.DETACH, timeout=30.0)
    store = site.store
    server.manner = lambda number, method, path: "well" if method == "GET" or server.released.is_set() else "silent"
    result = site.build([make("a"), make("b", "a")])
    assert result.exit_code == 0
    assert result.remote is not None
    assert result.remote.waiting == 2
    server.released.set()
    until(lambda: not list((store / FOLDER).rglob("*-*")))
    [pid] = ours(os.getpid())
    until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)


def test_a_machine_that_starts_none_leaves_it_waiting(
    server: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path / "site")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    detach(charge_of(site, server.url))
    assert ours(os.getpid()) == []


def test_it_ends_when_its_time_is_over(server: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.manner = lambda number, method, path: "503"
    site = filled(tmp_path / "site", server.url)
    server.manner = lambda number, method, path: "silent"
    monkeypatch.setattr(detached, "LONGEST", 0.0)
    detached._work(charge_of(site, server.url, timeout=60.0))
    assert len(spooled(site)) == 2


def test_a_signal_ends_it_and_loses_nothing(server: Hostile, tmp_path: Path) -> None:
    server.manner = lambda number, method, path: "503"
    site = filled(tmp_path / "site", server.url)
    server.manner = lambda number, method, path: "silent"
    before = len(server.seen)
    detach(charge_of(site, server.url, timeout=60.0))
    until(lambda: len(server.seen) > before)
    [pid] = ours(os.getpid())
    os.kill(pid, signal.SIGTERM)
    until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)
    assert len(spooled(site)) == 2
