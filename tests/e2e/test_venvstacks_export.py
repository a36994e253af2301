"""`local-export` of both tools on one stack: what is described, what applications see, and who replaces whose."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import WheelMaker
from space import Space
from venvstacks import Venvstacks

STACK = """\
[[runtimes]]
name = "python"
python_implementation = "cpython@{version}"
requirements = []

[[frameworks]]
name = "lib"
runtime = "python"
requirements = ["inv"]

[[applications]]
name = "show"
frameworks = ["lib"]
versioned = true
launch_module = "show.py"
support_modules = ["aid.py"]
requirements = []

[tool.uv]
no-index = true
find-links = ["{wheels}"]

[tool.strata]
runtimes = {{ python = {{ provider = "archive", url = "{url}", sha256 = "{sha256}" }} }}
"""

SHOW = """\
import sys, aid, inv
site = [path.split("/")[-4] for path in sys.path if path.endswith("site-packages")]
print(aid.NAME, inv.NAME, inv.__file__.split("/")[-1], site)
"""


class Both(NamedTuple):
    """The workspaces of both tools, each exported."""

    theirs: Path
    ours: Space


@pytest.fixture(scope="module")
def both(venvstacks: Venvstacks, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("exports")
    WheelMaker(folder / "wheels")("inv", {"inv.py": b"NAME = 'inv'\n"})
    theirs = folder / "theirs"
    theirs.mkdir()
    given = {"version": venvstacks.runtime.version, "url": venvstacks.runtime.url, "sha256": venvstacks.runtime.sha256}
    (theirs / "venvstacks.toml").write_text(STACK.format(**given, wheels=folder / "wheels"))
    (theirs / "show.py").write_text(SHOW)
    (theirs / "aid.py").write_text("NAME = 'aid'\n")
    venvstacks.ok(theirs, "lock", "venvstacks.toml")
    ours = Space(shutil.copytree(theirs, folder / "ours", ignore=lambda *_: ["_build"]), folder / "store")
    venvstacks.ok(theirs, "build", "venvstacks.toml")
    venvstacks.ok(theirs, "local-export", "venvstacks.toml")
    ours.ok("local-export", "--locked")
    return Both(theirs, ours)


def documents(root: Path) -> dict[str, Any]:
    folder = root / "_export" / "__venvstacks__"
    return {path.relative_to(folder).as_posix(): json.loads(path.read_bytes()) for path in folder.rglob("*.json")}


def test_exports_are_described_alike(both: Both) -> None:
    theirs, ours = documents(both.theirs), documents(both.ours.root)
    assert ours == theirs
    assert theirs.keys() == {
        "venvstacks.json",
        *(f"env_metadata/{n}.json" for n in ("python", "framework-lib", "app-show")),
    }
    for path in theirs:
        their, our = (root / "_export" / "__venvstacks__" / path for root in (both.theirs, both.ours.root))
        assert our.read_bytes() == their.read_bytes()


def test_exported_applications_see_the_same(both: Both) -> None:
    said = []
    for root in (both.theirs, both.ours.root):
        [python] = (root / "_export").glob("app-show@*/bin/python")
        done = subprocess.run([python, "-m", "show"], cwd="/", env={}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1]
    assert said[0].startswith("aid inv inv.py ['app-show@")


def test_an_export_of_venvstacks_is_one_to_replace(both: Both) -> None:
    root = both.theirs.with_name("replaced")
    shutil.copytree(both.theirs, root, symlinks=True, ignore=lambda *_: ["_build"])
    space = Space(root, both.ours.store)
    space.ok("local-export", "--locked")
    [described] = (root / "_export").glob("app-show@*/share/venv/metadata/venvstacks_layer.json")
    [boot] = described.parents[3].glob("lib/*/site-packages/_strata_boot.py")
    assert boot.exists()
