"""What builds of `examples/quickstart` cost."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from measuring import AGAINST_PASS, ROOT, AtMost, Commands, Compared, Faster, medians

QUICKSTART = ROOT / "examples" / "quickstart"
MADE = (".strata", "_build", "_artifacts", "_export", "requirements")
PACKAGES = ("numpy>=2", "contourpy>=1.3", "rich>=14")
EDITED = "mandelbrot.py"


def copied(root: Path) -> Path:
    """Copy the quickstart's sources."""
    shutil.copytree(QUICKSTART, root, ignore=shutil.ignore_patterns(*MADE, "__pycache__"))
    return root


def _copy(folder: Path) -> Commands:
    """Give the copy that the entries of one run share."""
    root = folder / "quickstart"
    return Commands(root if root.exists() else copied(root), folder / "store")


def null(folder: Path, repeat: int) -> Iterator[Compared]:
    """Build where there is nothing to do."""
    here = _copy(folder)
    here.strata("build")
    yield Compared("null", *medians(lambda: here.strata("build"), here.idle, repeat), AGAINST_PASS, AtMost(5))


def edit(folder: Path, repeat: int) -> Iterator[Compared]:
    """Edit one launch module, build and publish."""
    here = _copy(folder)
    here.strata("build", "--publish")
    module = here.root / EDITED
    text = module.read_text()
    edits = iter(range(1_000_000))

    def ours() -> None:
        module.write_text(f"{text}# edit {next(edits)}\n")
        here.strata("build", "--publish")

    yield Compared("edit", *medians(ours, here.idle, min(repeat, 15)), AGAINST_PASS)
    module.write_text(text)


def cold(folder: Path, repeat: int) -> Iterator[Compared]:
    """Lock and build with nothing in the store."""
    here = _copy(folder)
    uv = Path(sysconfig.get_path("scripts")) / "uv"

    def ours() -> None:
        for made in (here.store, *(here.root / name for name in MADE)):
            shutil.rmtree(made, ignore_errors=True)
        here.strata("build")

    def reference() -> None:
        environment, cache = folder / "environment", folder / "uv-cache"
        for made in (environment, cache):
            shutil.rmtree(made, ignore_errors=True)
        options = ("--quiet", "--cache-dir", str(cache))
        here.run(str(uv), "venv", *options, "--python", sys.executable, str(environment))
        python = str(environment / "bin" / "python")
        here.run(str(uv), "pip", "install", *options, "--python", python, *PACKAGES)

    yield Compared("cold", *medians(ours, reference, min(repeat, 3)), "uv venv + uv pip install, cold cache")


def publish(folder: Path, _: int) -> Iterator[Compared]:
    """Archive all layers, as tar.xz."""
    here = _copy(folder)
    here.strata("build")
    target = folder / "tars"

    def reference() -> None:
        target.mkdir(exist_ok=True)
        program = "import shutil, sys; shutil.make_archive(sys.argv[1], 'xztar', sys.argv[2])"
        for layer in sorted(path for path in (here.root / "_build").iterdir() if path.is_dir()):
            here.run(sys.executable, "-c", program, str(target / layer.name), str(layer))

    def ours() -> None:
        here.strata("publish", "--force")

    yield Compared("publish", *medians(ours, reference, 1), "shutil.make_archive, xztar", Faster(1.8))
