"""Both tools on local wheels and outside a repository: names that need normalising, and what a folder ships then."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from archives import listing
from conftest import WheelMaker
from space import Space
from venvstacks import Runtime, Venvstacks
from venvstacks_members import differences_of

STACK = """\
[[runtimes]]
name = "python"
python_implementation = "cpython@{version}"
requirements = ["Run_Time.Lib"]

[[frameworks]]
name = "Über.Pkg"
runtime = "python"
requirements = ["Some-Thing.More[Big-Extra]>=1,<3"]

[[applications]]
name = "tell"
frameworks = ["Über.Pkg"]
launch_module = "tell"
support_modules = ["aid.py"]
requirements = ["run-time-lib", "APP_only"]

[tool.strata]
archive = {{ level = 0 }}
runtimes = {{ python = {{ provider = "archive", url = "{url}", sha256 = "{sha256}" }} }}
"""

TELL = """\
import importlib.metadata, some_thing, run_time, app_only, aid
print(sorted((d.metadata["Name"], d.version) for d in importlib.metadata.distributions()))
print(some_thing.__file__.split("/")[-6], aid.NAME, __package__)
"""

WHEELS = ("--no-index", "--local-wheels", "wheels", "--local-wheels", "more/wheels")


LAYERS = ("python", "framework-Über.Pkg", "app-tell")


class Workspaces(NamedTuple):
    """The workspaces of both tools, each with its own locks, everything built, and all but the runtime published."""

    tool: Venvstacks
    theirs: Path
    ours: Space


@pytest.fixture(scope="module")
def workspaces(venvstacks: Venvstacks, tmp_path_factory: pytest.TempPathFactory) -> Workspaces:
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder / "theirs", venvstacks.runtime)
    ours, theirs = Space(folder / "ours", folder / "store"), folder / "theirs"
    shutil.copytree(theirs, ours.root)
    venvstacks.ok(theirs, "lock", *WHEELS, "venvstacks.toml")
    venvstacks.ok(theirs, "build", *WHEELS, "venvstacks.toml")
    venvstacks.ok(theirs, "publish", "--include", "[!p]*", "venvstacks.toml")
    ours.ok("build", "--publish", *WHEELS)
    return Workspaces(venvstacks, theirs, ours)


def write_sources(root: Path, runtime: Runtime) -> None:
    (root / "tell/data/deep").mkdir(parents=True)
    (root / "tell/__pycache__").mkdir()
    (root / "more").mkdir()
    text = STACK.format(version=runtime.version, url=runtime.url, sha256=runtime.sha256)
    (root / "venvstacks.toml").write_text(text)
    for path, content in {
        "tell/__init__.py": "",
        "tell/__main__.py": TELL,
        "tell/.gitignore": "*.txt\n",
        "tell/note.txt": "no repository, so nothing is ignored",
        "tell/data/deep/one.bin": "deep",
        "tell/__pycache__/x.cpython-311.pyc": "bytecode",
        "aid.py": "NAME = 'aid'\n",
    }.items():
        (root / path).write_text(content)
    one, two = WheelMaker(root / "wheels"), WheelMaker(root / "more/wheels")
    one("run_time_lib", {"run_time.py": b""})
    extra = b"Metadata-Version: 2.1\nName: Some.Thing_More\nVersion: 2.0\nProvides-Extra: big-extra\n"
    one(
        "some_thing_more",
        {"some_thing/__init__.py": b""},
        version="2.0",
        replace={"METADATA": extra + b"Requires-Dist: Lonely_One; extra == 'big-extra'\n"},
    )
    one("some_thing_more", {"some_thing/__init__.py": b""}, version="3.0")
    two("lonely_one", {"lonely_one.py": b""})
    two("app_only", {"app_only.py": b""})


def test_the_same_packages_are_locked(workspaces: Workspaces) -> None:
    theirs, ours = (_locked(root) for root in (workspaces.theirs, workspaces.ours.root))
    assert theirs == ours
    assert {name: set(packages) for name, packages in ours.items()} == {
        "python": {"run-time-lib"},
        "framework-Über.Pkg": {"some-thing-more", "lonely-one"},
        "app-tell": {"run-time-lib", "app-only"},
    }


def _locked(root: Path) -> dict[str, dict[str, Any]]:
    """Give of each layer's lock what is installed: versions, markers and wheels."""
    found = {}
    for layer in LAYERS:
        path = root / "requirements" / layer / f"pylock.{layer.replace('.', '_')}.toml"
        packages = tomllib.loads(path.read_text())["packages"]
        for package in packages:
            # venvstacks writes where the folder of wheels was on the machine that locked.
            assert package.pop("index", "file:///").startswith("file:///")
        found[layer] = {package["name"]: package for package in packages}
    return found


def test_the_same_is_shipped_without_a_repository(workspaces: Workspaces) -> None:
    for target in LAYERS[1:]:
        name = f"_artifacts/{target}.tar.xz"
        theirs, ours = (listing(root / name) for root in (workspaces.theirs, workspaces.ours.root))
        assert differences_of(theirs, ours, target, workspaces.tool.runtime.python) == []
    site = f"app-tell/lib/python{workspaces.tool.runtime.python}/site-packages/tell/"
    assert {path.removeprefix(site) for path in ours if path.startswith(site)} == {
        *("__init__.py", "__main__.py", ".gitignore", "note.txt", "data", "data/deep", "data/deep/one.bin")
    }


def test_modules_have_the_same_hashes(workspaces: Workspaces) -> None:
    path = "_artifacts/__venvstacks__/env_metadata/app-tell.json"
    theirs, ours = (json.loads((root / path).read_bytes()) for root in (workspaces.theirs, workspaces.ours.root))
    for key in ("app_launch_module", "app_launch_module_hash", "app_support_modules"):
        assert theirs[key] == ours[key]


def test_applications_print_the_same(workspaces: Workspaces) -> None:
    printed = []
    for root in (workspaces.theirs, workspaces.ours.root):
        command = [root / "_build/app-tell/bin/python", "-m", "tell"]
        done = subprocess.run(command, cwd=root / "more", capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        printed.append(done.stdout)
    assert printed[0] == printed[1]
    assert "framework-Über.Pkg aid tell" in printed[1]
    assert "('Some.Thing_More', '2.0')" in printed[1]


def test_each_tool_takes_the_locks_of_the_other(workspaces: Workspaces, tmp_path: Path) -> None:
    tool, theirs, ours = workspaces
    moved = Space(tmp_path / "theirs", ours.store)
    shutil.copytree(theirs, moved.root, ignore=shutil.ignore_patterns("_*"))
    assert moved.strata("lock", "--check", *WHEELS).code == 0
    swapped = shutil.copytree(ours.root, tmp_path / "ours", ignore=shutil.ignore_patterns("_*", ".strata"))
    shown = tool.ok(swapped, "show", "--json", "venvstacks.toml").json
    layers = [layer for category in ("runtimes", "frameworks", "applications") for layer in shown[category]]
    assert [(layer["name"], layer["has_valid_lock"]) for layer in layers] == [(name, True) for name in LAYERS]
