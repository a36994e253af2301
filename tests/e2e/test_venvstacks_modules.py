"""Folders of modules of every kind: the real venvstacks and Strata ship the same of them, and hash it alike.

A versioned application gets another version where the hash differs, so a lock of either tool depends on it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from venvstacks import Venvstacks
from venvstacks_stack import make_repository

from strata_engine.build import open_build
from strata_engine.tree import File, Tree, entries
from strata_engine.workspace import Workspace
from strata_rules.metadata import module_hash
from strata_rules.spec.load import load_stack
from strata_rules.spec.modules import application_modules

REAL = """\
import json, os, shutil, sys
from pathlib import Path
from venvstacks._hash_content import hash_module
from venvstacks._source_tree import get_default_source_filter

found = {}
for name in json.load(sys.stdin):
    path = Path(name).absolute()
    filter = get_default_source_filter(Path.cwd())
    copy = Path("../copies") / name
    shutil.copytree(path, copy, copy_function=shutil.copyfile, ignore=filter.ignore)
    below = sorted(each.relative_to(copy).as_posix() + "/" * each.is_dir() for each in copy.rglob("*"))
    found[name] = [hash_module(path, filter.walk), below]
json.dump(found, sys.stdout)
"""

FILES = {
    "plain/__init__.py": "",
    "plain/__main__.py": "print(1)\n",
    "deep/a/b/c/d.txt": "d",
    "deep/a.b/x": "x",
    "deep/a/Z": "z",
    "deep/a/_": "_",
    "names/ünïcode/é.py": "",
    "names/with space/a'b": "",
    "names/日本.txt": "",
    "names/-dash": "",
    "gitkeep/__init__.py": "",
    "gitkeep/output/.gitkeep": "",
    "gitkeep/more/deep/.gitignore": "*\n!.gitignore\n",
    "gitkeep/more/deep/left.log": "",
    "hidden/.env": "",
    "hidden/.config/x": "",
    "bytecode/__init__.py": "",
    "bytecode/__pycache__/__init__.cpython-311.pyc": "x",
    "bytecode/old.pyc": "x",
    "lines/crlf.py": "a = 1\r\n",
}


@pytest.fixture(params=["in a repository", "without one"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "work"
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, newline="")
    (root / "plain/run.sh").write_text("#!/bin/sh\n")
    (root / "plain/run.sh").chmod(0o755)
    (root / "plain/again.sh").symlink_to("run.sh")
    (root / "plain/outside").symlink_to("../names/-dash")
    if request.param == "in a repository":
        make_repository(root)
        (root / ".gitignore").write_text("__pycache__/\n")
    else:
        # git keeps no empty folder, so in a repository they are here and nowhere else: see the last test.
        for path in ("empty/one/two", "empty/three", "names/empty", "bytecode/left/__pycache__"):
            (root / path).mkdir(parents=True)
    return root


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def theirs(venvstacks: Venvstacks, root: Path) -> Any:
    command = [str(venvstacks.python), "-I", "-X", "utf8", "-c", REAL]
    done = subprocess.run(
        command, input=json.dumps(folders(root)), cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ours(root: Path) -> dict[str, list[Any]]:
    table = '[[runtimes]]\nname = "py"\npython_implementation = "cpython@3.12.9"\nrequirements = []\n'
    for name in folders(root):
        table += f'[[applications]]\nname = "{name}"\nruntime = "py"\nrequirements = []\nlaunch_module = "{name}"\n'
    (root / "venvstacks.toml").write_text(table)
    found = {}
    with open_build(Workspace(root), []) as build:
        sources, cas = build.sources, build.store.cas
        stack = load_stack(root / "venvstacks.toml", sources.read, probe=sources.probe)
        for modules in application_modules(stack, sources.read, sources.probe).values():
            tree = build.source(modules.launch.input)
            assert isinstance(tree, Tree)
            below = sorted(path + "/" * isinstance(node, Tree) for path, node in entries(cas, tree))
            found[modules.launch.file_name] = [module_hash(cas, modules.launch.file_name, tree), below]
    return found


@pytest.mark.usefixtures("plain_environment")
def test_folders_are_shipped_and_hashed_alike(venvstacks: Venvstacks, root: Path) -> None:
    real, own = theirs(venvstacks, root), ours(root)
    assert own == real
    assert "output/" in own["gitkeep"][1]


@pytest.mark.usefixtures("plain_environment")
def test_where_strata_differs(venvstacks: Venvstacks, tmp_path: Path) -> None:
    """What is here by chance is not shipped, and what is shipped is hashed."""
    root = tmp_path / "work"
    root.mkdir()
    make_repository(root)
    (root / ".gitignore").write_text("__pycache__/\n")
    for path in ("left/gone/__pycache__", "left/void", "linked", "shared/inner"):
        (root / path).mkdir(parents=True)
    for path in ("left/gone/__pycache__/x.pyc", "left/__init__.py", "linked/__init__.py", "shared/inner/data.txt"):
        (root / path).write_text("")
    (root / "linked/shared").symlink_to("../shared")
    real, own = theirs(venvstacks, root), ours(root)
    assert (real["left"][1], own["left"][1]) == (["__init__.py", "gone/", "void/"], ["__init__.py"])
    # Both ship what a link to a folder leads to; venvstacks does not hash it, so a change there is no new version.
    assert real["linked"][1] == own["linked"][1] == ["__init__.py", "shared/", "shared/inner/", "shared/inner/data.txt"]
    (root / "shared/inner/data.txt").write_text("changed")
    assert theirs_hash(venvstacks, root) == real["linked"][0]
    assert ours(root)["linked"][0] != own["linked"][0]


def theirs_hash(venvstacks: Venvstacks, root: Path) -> str:
    subprocess.run(["rm", "-r", str(root.parent / "copies")], check=True)
    found: str = theirs(venvstacks, root)["linked"][0]
    return found


@pytest.mark.usefixtures("plain_environment")
def test_executable_bits_of_modules_are_kept(root: Path) -> None:
    """venvstacks copies contents alone: a script in a package is no longer one."""
    ours(root)
    with open_build(Workspace(root), []) as build:
        sources = build.sources
        stack = load_stack(root / "venvstacks.toml", sources.read, probe=sources.probe)
        modules = application_modules(stack, sources.read, sources.probe)["app-plain"]
        tree = build.source(modules.launch.input)
        assert isinstance(tree, Tree)
        bits = dict(_bits(entries(build.store.cas, tree)))
    assert bits == {"__init__.py": False, "__main__.py": False, "again.sh": True, "outside": False, "run.sh": True}


def _bits(found: Any) -> Iterator[tuple[str, bool]]:
    for path, node in found:
        if isinstance(node, File):
            yield path, node.executable
