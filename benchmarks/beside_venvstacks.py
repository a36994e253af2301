"""What the quickstart costs with the real venvstacks, on the same runtime archive and the same locked packages.

The tool is the one that the tests compare with; `tests/venvstacks.py` installs it once. Bytecode is compiled on both
sides, and both have been run before anything is timed.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from measuring import ROOT, AtMost, Commands, Compared, Faster, medians, seconds_of
from quickstart import EDITED, copied

sys.path.insert(0, str(ROOT / "tests"))

from venvstacks import Runtime, Venvstacks, environment, runtime

STACK = "venvstacks.toml"
OWN_TABLE = "\n# A Python on this machine serves"
"""Where the quickstart says of its runtime what only Strata reads."""

ARCHIVE_TABLE = """
[tool.strata.runtimes."python"]
provider = "archive"
url = "{url}"
sha256 = "{sha256}"
"""


class Both(NamedTuple):
    """The quickstart in the hands of both tools."""

    ours: Commands
    tool: Venvstacks
    theirs: Path

    def run_theirs(self, *arguments: str) -> None:
        """Run venvstacks."""
        self.tool.ok(self.theirs, *arguments, STACK)


def venvstacks(folder: Path, repeat: int) -> Iterator[Compared]:
    """Build with nothing to do; edit a module, build and publish; publish for the first time."""
    both = _both(folder)
    yield from _first_publish(both)
    few = min(repeat, 5)
    both.ours.strata("build")
    both.run_theirs("build")
    seconds = medians(lambda: both.ours.strata("build"), lambda: both.run_theirs("build"), few)
    yield Compared("venvstacks: null", *seconds, "venvstacks build", Faster(40))
    yield from _edit(both, few)


def _both(folder: Path) -> Both:
    """Lock and build with both, by one lock."""
    cache = ROOT / ".pytest_cache" / "d" / "venvstacks"
    tool = Venvstacks(environment(cache), runtime(cache), folder / "venvstacks-uv-cache")
    both = Both(Commands(folder / "ours", folder / "store"), tool, copied(folder / "theirs"))
    _give_runtime(both.theirs / STACK, tool.runtime)
    both.run_theirs("lock")
    shutil.copytree(both.theirs, both.ours.root, ignore=shutil.ignore_patterns("_build"))
    both.run_theirs("build")
    both.ours.strata("build", "--locked")
    return both


def _give_runtime(stack: Path, given: Runtime) -> None:
    text = stack.read_text().partition(OWN_TABLE)[0]
    old = next(line for line in text.splitlines() if line.startswith("python_implementation"))
    text = text.replace(old, f'python_implementation = "cpython@{given.version}"')
    stack.write_text(text + ARCHIVE_TABLE.format(url=given.url, sha256=given.sha256))


def _first_publish(both: Both) -> Iterator[Compared]:
    theirs = seconds_of(lambda: both.run_theirs("publish", "--force"))
    ours = seconds_of(lambda: both.ours.strata("publish", "--force"))
    yield Compared("venvstacks: xz", ours, theirs, "venvstacks publish, tar.xz", Faster(1.8))
    our_size, their_size = (
        sum(path.stat().st_size for path in _archives(root)) for root in (both.ours.root, both.theirs)
    )
    yield Compared("venvstacks: size", our_size, their_size, "venvstacks' archives, tar.xz", AtMost(1.03), "B")
    zst = seconds_of(lambda: both.ours.strata("publish", "--format", "tar.zst", "--output-dir", "_zst"))
    yield Compared("venvstacks: zst", zst, theirs, "venvstacks publish, tar.xz", Faster(15))


def _archives(root: Path, pattern: str = "*") -> Sequence[Path]:
    return sorted((root / "_artifacts").glob(f"{pattern}.tar.xz"))


def _edit(both: Both, times: int) -> Iterator[Compared]:
    edits = iter(range(1_000_000))
    text = (both.theirs / EDITED).read_text()
    both.ours.strata("build", "--publish")
    both.run_theirs("build", "--publish")
    stale = {"ours": 0, "theirs": 0}

    def edited(root: Path) -> str:
        line = f"# edit {next(edits)}\n"
        (root / EDITED).write_text(text + line)
        return line

    def ours() -> None:
        line = edited(both.ours.root)
        both.ours.strata("build", "--publish")
        stale["ours"] += not _has(both.ours.root, line)

    def theirs() -> None:
        line = edited(both.theirs)
        both.run_theirs("build", "--publish")
        stale["theirs"] += not _has(both.theirs, line)

    seconds = medians(ours, theirs, times)
    if stale["ours"]:
        sys.exit(f"{stale['ours']} of {times} archives of ours did not have the edit")
    left = f", which left {stale['theirs']} of {times} edits out of its archives" if stale["theirs"] else ""
    yield Compared("venvstacks: edit", *seconds, f"venvstacks build --publish{left}", Faster(10))


def _has(root: Path, line: str) -> bool:
    """Tell whether the archive of the application ends its module with this line."""
    [archive] = _archives(root, "app-mandelbrot*")
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith(f"/{EDITED}") and (stream := tar.extractfile(member)) is not None:
                return stream.read().decode().endswith(line)
    return False
