"""What Strata costs, as ratios: each entry measures both sides in one run, on one machine (design §9).

    python benchmarks/run.py [NAME...] [--repeat N]

Run it with the Python of an environment that has Strata; `cold` asks the package index. Both sides run with bytecode
compiled, alternately, and the median counts. A line is `name  ours  reference  ratio  budget`.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

QUICKSTART = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
STRATA = Path(sysconfig.get_path("scripts")) / "strata"
PASS = (sys.executable, "-I", "-c", "pass")


class Compared(NamedTuple):
    """What was measured, in seconds."""

    name: str
    ours: float
    reference: float
    against: str
    budget: float | None
    """The highest ratio that is allowed."""

    def line(self) -> str:
        ratio = self.ours / self.reference
        budget = "-" if self.budget is None else f"{self.budget:g}{'' if ratio <= self.budget else '  MISSED'}"
        name = f"{self.name:8} {spelt(self.ours):>9} {spelt(self.reference):>9} {ratio:8.2f} {budget:>6}"
        return f"{name}   against {self.against}"


class Bench:
    """A copy of the quickstart with a store of its own."""

    def __init__(self, folder: Path, repeat: int) -> None:
        self.folder = folder
        self.root = folder / "quickstart"
        self.repeat = repeat
        ignore = shutil.ignore_patterns(".strata", "_build", "_artifacts", "requirements", "__pycache__")
        shutil.copytree(QUICKSTART, self.root, ignore=ignore)
        self.store = folder / "store"

    def strata(self, *arguments: str) -> None:
        """Run the command."""
        self.run(str(STRATA), *arguments)

    def run(self, *command: str) -> None:
        """Run any command as a user would, with bytecode."""
        dropped = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONPROFILEIMPORTTIME")
        environ = {name: value for name, value in os.environ.items() if name not in dropped}
        environ["STRATA_CACHE_DIR"] = str(self.store)
        done = subprocess.run(command, cwd=self.root, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr}")

    def built(self) -> None:
        """See to it that the quickstart is built."""
        self.strata("build")

    def fresh(self) -> None:
        """Forget everything: store, state, locks and outputs."""
        shutil.rmtree(self.store, ignore_errors=True)
        for name in (".strata", "_build", "_artifacts", "requirements"):
            shutil.rmtree(self.root / name, ignore_errors=True)

    def layers(self) -> list[Path]:
        """List the built layers."""
        return sorted(path for path in (self.root / "_build").iterdir() if path.is_dir())

    def measure(
        self, ours: Callable[[], None], reference: Callable[[], None], *, times: int | None = None
    ) -> tuple[float, float]:
        """Time both alternately, so that what else the machine does falls on both, and give the medians."""
        found: tuple[list[float], list[float]] = ([], [])
        for _ in range(times or self.repeat):
            for seconds, work in zip(found, (ours, reference), strict=True):
                begun = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - begun)
        return statistics.median(found[0]), statistics.median(found[1])


def null(bench: Bench) -> Compared:
    """Build where there is nothing to do."""
    bench.built()
    ours, reference = bench.measure(lambda: bench.strata("build"), lambda: bench.run(*PASS))
    return Compared("null", ours, reference, "python -I -c pass", 5.0)


def edit(bench: Bench) -> Compared:
    """Edit one launch module, build and publish."""
    bench.strata("build", "--publish")
    module = bench.root / "mandelbrot.py"
    text = module.read_text()
    edits = iter(range(1_000_000))

    def ours() -> None:
        module.write_text(f"{text}# edit {next(edits)}\n")
        bench.strata("build", "--publish")

    seconds = bench.measure(ours, lambda: bench.run(*PASS), times=min(bench.repeat, 15))
    module.write_text(text)
    return Compared("edit", *seconds, "python -I -c pass", None)


def cold(bench: Bench) -> Compared:
    """Lock and build with nothing in the store."""
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    packages = ("numpy>=2", "contourpy>=1.3", "rich>=14")

    def ours() -> None:
        bench.fresh()
        bench.strata("build")

    def reference() -> None:
        environment, cache = bench.folder / "environment", bench.folder / "uv-cache"
        for folder in (environment, cache):
            shutil.rmtree(folder, ignore_errors=True)
        options = ("--quiet", "--cache-dir", str(cache))
        bench.run(str(uv), "venv", *options, "--python", sys.executable, str(environment))
        python = str(environment / "bin" / "python")
        bench.run(str(uv), "pip", "install", *options, "--python", python, *packages)

    return Compared("cold", *bench.measure(ours, reference, times=3), "uv venv + uv pip install, cold cache", None)


def publish(bench: Bench) -> Compared:
    """Archive all layers, as tar.xz."""
    bench.built()
    target = bench.folder / "tars"

    def reference() -> None:
        target.mkdir(exist_ok=True)
        program = "import shutil, sys; shutil.make_archive(sys.argv[1], 'xztar', sys.argv[2])"
        for layer in bench.layers():
            bench.run(sys.executable, "-c", program, str(target / layer.name), str(layer))

    def ours() -> None:
        bench.strata("publish", "--force")

    seconds = bench.measure(ours, reference, times=1)
    return Compared("publish", *seconds, "shutil.make_archive, xztar", round(1 / 1.8, 2))


ENTRIES: dict[str, Callable[[Bench], Compared]] = {"null": null, "edit": edit, "cold": cold, "publish": publish}


def spelt(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def compile_bytecode() -> None:
    """Compile what is imported, as an installer does: some environments are made without bytecode."""
    folders = {path for path in sys.path if path.endswith(("-packages", "engine", "rules"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for folder in folders:
            if os.access(folder, os.W_OK):
                compileall.compile_dir(folder, quiet=2)


@contextlib.contextmanager
def bench(repeat: int) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="strata-benchmark-") as folder:
        yield Bench(Path(folder), repeat)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what Strata costs, as ratios.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(ENTRIES)}; all by default")
    parser.add_argument("--repeat", type=int, default=41, metavar="N", help="how often the short ones run")
    given = parser.parse_args()
    unknown = set(given.names) - set(ENTRIES)
    if unknown:
        parser.error(f"no entry is called {', '.join(sorted(unknown))}; there are {', '.join(ENTRIES)}")
    compile_bytecode()
    print("name          ours reference    ratio budget", flush=True)
    missed = False
    with bench(given.repeat) as made:
        for name in given.names or ENTRIES:
            compared = ENTRIES[name](made)
            missed |= compared.budget is not None and compared.ours > compared.budget * compared.reference
            print(compared.line(), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
