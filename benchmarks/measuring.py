"""How things are measured and told: both sides in one run, on one machine, alternately, with bytecode compiled.

It knows commands and seconds, and nothing of what is measured.
"""

from __future__ import annotations

import compileall
import os
import statistics
import subprocess
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
STRATA = Path(sysconfig.get_path("scripts")) / "strata"
PASS = (sys.executable, "-I", "-c", "pass")
AGAINST_PASS = "python -I -c pass"

_DROPPED = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONPROFILEIMPORTTIME")


class AtMost(NamedTuple):
    """A budget: so many times what the reference costs."""

    times: float


class Faster(NamedTuple):
    """A budget: the reference takes at least so many times as long."""

    times: float


Budget: TypeAlias = AtMost | Faster | None


class Compared(NamedTuple):
    """What was measured of both sides, in seconds, or in bytes."""

    name: str
    ours: float
    reference: float
    against: str
    budget: Budget = None
    unit: str = "s"

    @property
    def is_over(self) -> bool:
        """Tell whether the budget does not hold."""
        match self.budget:
            case AtMost(times):
                return self.ours > times * self.reference
            case Faster(times):
                return self.ours * times > self.reference
            case None:
                return False

    def line(self) -> str:
        """Give a row of the table."""
        match self.budget:
            case AtMost(times):
                ratio, budget = f"{self.ours / self.reference:.2f}x", f"<= {times:g}x"
            case Faster(times):
                ratio, budget = f"1/{self.reference / self.ours:.1f}", f"<= 1/{times:g}"
            case _:
                ratio, budget = f"{self.ours / self.reference:.2f}x", "-"
        verdict = "" if self.budget is None else "OVER" if self.is_over else "ok"
        ours, reference = (spelt(value, self.unit) for value in (self.ours, self.reference))
        return f"{self.name:18} {ours:>9} {reference:>9} {ratio:>9} {budget:>8} {verdict:4}  {self.against}"


HEADING = f"{'':18} {'ours':>9} {'reference':>9} {'ratio':>9} {'budget':>8} {'':4}  against"


def spelt(value: float, unit: str) -> str:
    """Write seconds or bytes so that a person can compare them."""
    if unit == "B":
        return f"{value / 1e6:.2f} MB"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


class Commands(NamedTuple):
    """A folder in which commands are run, with a store of its own."""

    root: Path
    store: Path

    def strata(self, *arguments: str) -> None:
        """Run the command."""
        self.run(str(STRATA), *arguments)

    def run(self, *command: str) -> None:
        """Run any command as a user would, with bytecode; what fails ends the benchmark."""
        environ = {name: value for name, value in os.environ.items() if name not in _DROPPED}
        environ["STRATA_CACHE_DIR"] = str(self.store)
        done = subprocess.run(command, cwd=self.root, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr}")

    def idle(self) -> None:
        """Start Python for nothing."""
        self.run(*PASS)


def seconds_of(work: Callable[[], object]) -> float:
    """Time something once."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def medians(ours: Callable[[], object], reference: Callable[[], object], times: int) -> tuple[float, float]:
    """Time both alternately, so that what else the machine does falls on both, and give the medians."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(times):
        for seconds, work in zip(found, (ours, reference), strict=True):
            seconds.append(seconds_of(work))
    return statistics.median(found[0]), statistics.median(found[1])


def compile_bytecode() -> None:
    """Compile what is imported, as an installer does: some environments are made without bytecode."""
    folders = {path for path in sys.path if path.endswith(("-packages", "engine", "rules"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for folder in folders:
            if os.access(folder, os.W_OK):
                compileall.compile_dir(folder, quiet=2)
