"""What a remote cache gives a machine that has nothing: a stack of seven layers restored, and built after one change.

The server is nginx on loopback, or a folder, so that what is measured is work and not waiting. The reference of a
restore is a plain client that fetches the same bytes and checks nothing; that of a change, the same build without any.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpcore2
from measuring import ROOT, Commands, Compared, Faster, medians, seconds_of

from strata_rules.platforms import host_platform

# Tests know how servers are started.
sys.path.append(str(ROOT / "tests"))
from caches import Nginx, nginx

PYTHON = ".".join(map(str, sys.version_info[:3]))
STACK = f"""\
[[runtimes]]
name = "python"
python_implementation = "cpython@{PYTHON}"
requirements = []
platforms = ["{host_platform()}"]

[[frameworks]]
name = "numeric"
runtime = "python"
requirements = ["numpy"]

[[frameworks]]
name = "tables"
frameworks = ["numeric"]
requirements = ["pandas"]

[[frameworks]]
name = "drawing"
frameworks = ["numeric"]
requirements = ["contourpy"]

[[applications]]
name = "one"
launch_module = "one.py"
frameworks = ["tables", "drawing"]
requirements = ["rich"]

[[applications]]
name = "two"
launch_module = "two.py"
frameworks = ["tables"]
requirements = []

[[applications]]
name = "three"
launch_module = "three.py"
frameworks = ["drawing"]
requirements = []

[tool.strata.runtimes."python"]
provider = "local"
accept = "=={PYTHON}"
"""
OLDER = ('requirements = ["contourpy"]', 'requirements = ["contourpy<1.3.3"]')
WIDTH = 16


class Filled(NamedTuple):
    """A stack whose results are in a cache."""

    root: Path
    url: str


def remote_stack(folder: Path, repeat: int) -> Iterator[Compared]:
    """Restore the stack on a machine that has nothing; then build it there with one pin changed."""
    times = min(repeat, 3)
    with nginx(folder / "stack-nginx") as server:
        filled = _filled(folder, server.url)
        yield from _restored(
            "nginx", folder, filled, _plain(server, folder, filled), times, f"plain client, {WIDTH} wide"
        )
        yield from _changed(folder, filled)
    shared = folder / "stack-shared"
    shared.mkdir()
    _fill(Commands(filled.root, folder / "stack-store"), shared.as_uri())
    copy = folder / "stack-copy"

    def copied() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(shared, copy)

    yield from _restored("folder", folder, filled._replace(url=shared.as_uri()), copied, times, "a copy of the folder")


def _filled(folder: Path, url: str) -> Filled:
    root = folder / "stack"
    root.mkdir()
    (root / "venvstacks.toml").write_text(STACK)
    for name in ("one", "two", "three"):
        (root / f"{name}.py").write_text(f"print({name!r})\n")
    _fill(Commands(root, folder / "stack-store"), url)
    return Filled(root, url)


def _fill(commands: Commands, url: str) -> None:
    # Found in the store, results are sent where the cache does not have them.
    shutil.rmtree(commands.root / ".strata", ignore_errors=True)
    commands.strata("build", "--remote-cache", url, "--remote-upload", "wait", "--remote-cache-required")


def _elsewhere(folder: Path, filled: Filled, name: str) -> Commands:
    """Make a machine that has nothing but the sources."""
    root, store = folder / name, folder / f"{name}-store"
    shutil.rmtree(root, ignore_errors=True)
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(filled.root, root, ignore=shutil.ignore_patterns("_build", ".strata"))
    return Commands(root, store)


def _restored(
    name: str, folder: Path, filled: Filled, plain: Callable[[], None], times: int, against: str
) -> Iterator[Compared]:
    def restore() -> None:
        there = _elsewhere(folder, filled, "restored")
        there.strata("build", "--locked", "--remote-cache", filled.url, "--remote-cache-required")

    yield Compared(f"remote: {name}", *medians(restore, plain, times), f"{against}, nothing checked or placed")


def _plain(server: Nginx, folder: Path, filled: Filled) -> Callable[[], None]:
    """Give what fetches just what a restore has fetched."""
    log = server.folder / "access.log"
    before = len(log.read_text().splitlines())
    _elsewhere(folder, filled, "restored").strata("build", "--locked", "--remote-cache", filled.url)
    asked = [line.split('"')[1:3] for line in log.read_text().splitlines()[before:]]
    paths = [request.split()[1] for request, status in asked if request.startswith("GET") and " 200 " in f"{status} "]
    target = folder / "stack-plain"

    def fetch() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        with httpcore2.ConnectionPool(max_connections=WIDTH) as pool, ThreadPoolExecutor(WIDTH) as threads:

            def one(path: str) -> None:
                with (
                    pool.stream("GET", filled.url + path) as reply,
                    (target / path.replace("/", "-")).open("wb") as out,
                ):
                    for chunk in reply.iter_stream():
                        out.write(chunk)

            list(threads.map(one, paths))

    return fetch


def _changed(folder: Path, filled: Filled) -> Iterator[Compared]:
    """Change one requirement, lock it where the stack is developed, and build it where nothing is."""
    stack = filled.root / "venvstacks.toml"
    stack.write_text(stack.read_text().replace(*OLDER))
    Commands(filled.root, folder / "stack-store").strata("lock")
    command = ("build", "--locked", "--remote-cache")
    ours = _elsewhere(folder, filled, "changed")
    seconds = seconds_of(lambda: ours.strata(*command, filled.url, "--remote-cache-required"))
    alone = _elsewhere(folder, filled, "alone")
    yield Compared(
        "remote: one pin", seconds, seconds_of(lambda: alone.strata(*command, "none")), "no cache", Faster(1)
    )
    stack.write_text(STACK)
    shutil.rmtree(filled.root / "requirements")
    Commands(filled.root, folder / "stack-store").strata("build", "--remote-cache", "none")
