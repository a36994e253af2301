"""What `local-export` of a layer with numpy and pandas costs, bytecode included: the first time and the second."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from measuring import AGAINST_PASS, AtMost, Commands, Compared, medians, seconds_of

PACKAGES = ("numpy", "pandas")
STACK = f"""\
[[runtimes]]
name = "python"
python_implementation = "cpython@{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
requirements = []
platforms = ["linux_x86_64", "linux_aarch64", "macosx_arm64", "win_amd64"]

[[applications]]
name = "tables"
launch_module = "tables.py"
runtime = "python"
requirements = ["numpy", "pandas"]

[tool.strata.runtimes."python"]
provider = ["local", "pbs"]
accept = ">=3.11"
"""


def export(folder: Path, repeat: int) -> Iterator[Compared]:
    """Export what has been built, then again with nothing to do, then again after the export was removed."""
    here = Commands(folder / "exports", folder / "exports-store")
    here.root.mkdir()
    (here.root / "venvstacks.toml").write_text(STACK)
    (here.root / "tables.py").write_text("import numpy, pandas\n")
    # Locks, wheels and the runtime are there, so that no network is in the figures; bytecode is not.
    here.strata("build")
    against = "uv pip install --compile-bytecode, warm cache"
    install = _installation(here, folder)
    yield Compared("export: first", seconds_of(lambda: here.strata("local-export")), seconds_of(install), against)
    again = medians(lambda: here.strata("local-export"), here.idle, repeat)
    yield Compared("export: second", *again, AGAINST_PASS, AtMost(5))

    def removed() -> None:
        shutil.rmtree(here.root / "_export")
        here.strata("local-export")

    copy = folder / "exports-copy"

    def copied() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        here.run("cp", "-a", str(here.root / "_export"), str(copy))

    yield Compared("export: restored", *medians(removed, copied, min(repeat, 3)), "cp -a of the export", AtMost(1.5))


def _installation(here: Commands, folder: Path) -> Callable[[], None]:
    """Install once, so that uv's cache is warm, and give what installs again with bytecode."""
    uv = str(Path(sysconfig.get_path("scripts")) / "uv")
    environment = folder / "exports-environment"
    options = ("--quiet", "--cache-dir", str(folder / "exports-uv-cache"))
    python = str(environment / "bin" / "python")

    def install(*more: str) -> None:
        shutil.rmtree(environment, ignore_errors=True)
        here.run(uv, "venv", *options, "--python", sys.executable, str(environment))
        here.run(uv, "pip", "install", *options, "--python", python, *more, *PACKAGES)

    install()
    return lambda: install("--compile-bytecode")
