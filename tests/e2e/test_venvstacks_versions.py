"""Two versions of layers that say so, published by both tools one after the other and run side by side."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from archives import folder_listing, listing, unpack_all
from loopback import Loopback
from space import Space
from venvstacks import Runtime, Venvstacks
from venvstacks_members import differences_of
from venvstacks_stack import write_wheels

from strata_rules.layout import CONFIG_PATH
from strata_rules.platforms import host_platform

STACK = """\
[[runtimes]]
name = "python"
python_implementation = "cpython@{version}"
requirements = []

[[frameworks]]
name = "lib"
runtime = "python"
versioned = true
requirements = ["inv==1.0"]

[[applications]]
name = "show"
frameworks = ["lib"]
versioned = true
launch_module = "show.py"
requirements = ["inv"]

[[applications]]
name = "steady"
runtime = "python"
versioned = true
launch_module = "show.py"
requirements = []

[tool.uv]
index = [{{ name = "only", url = "http://{host}/simple", default = true }}]

[tool.strata]
archive = {{ level = 0 }}
runtimes = {{ python = {{ provider = "archive", url = "{url}", sha256 = "{sha256}" }} }}
"""

SHOW = """\
import importlib.metadata, sys
found = [d.version for d in importlib.metadata.distributions(name="inv")]
print(found, [p.split("/")[-4] for p in sys.path if p.endswith("site-packages")])
"""

SELECTED = ("--tag-outputs", "--include", "framework-*", "--include", "app-*")


class Twice(NamedTuple):
    """What both tools published, first and then again after the framework asked for another version."""

    theirs: list[Path]
    ours: list[Path]
    python: Path
    """The runtime layer."""
    theirs_exported: Path
    ours_exported: Path
    runtime: Runtime


@pytest.fixture(scope="module")
def twice(venvstacks: Venvstacks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twice]:
    folder = tmp_path_factory.mktemp("twice")
    write_wheels(folder / "wheels", folder / "others")
    theirs, ours = folder / "theirs", Space(folder / "ours", folder / "store")
    theirs.mkdir()
    with Loopback(folder / "wheels") as index:
        given = {"version": venvstacks.runtime.version, "url": venvstacks.runtime.url}
        text = STACK.format(**given, sha256=venvstacks.runtime.sha256, host=index.host)
        (theirs / "venvstacks.toml").write_text(text)
        (theirs / "show.py").write_text(SHOW)
        made = Twice([], [], theirs / "_build/python", theirs / "_export", ours.root / "_export", venvstacks.runtime)
        for number in ("1", "2"):
            text = text.replace("inv==1.0", f"inv=={number}.0")
            (theirs / "venvstacks.toml").write_text(text)
            venvstacks.ok(theirs, "lock", "venvstacks.toml")
            venvstacks.ok(theirs, "build", "venvstacks.toml")
            venvstacks.ok(theirs, "publish", *SELECTED, "venvstacks.toml")
            shutil.copytree(theirs, ours.root, dirs_exist_ok=True, ignore=lambda *_: ["_build", "_artifacts"])
            ours.publish("--locked", *SELECTED)
            for artifacts, kept in ((theirs, made.theirs), (ours.root, made.ours)):
                name = f"{artifacts.name}-{number}"
                kept.append(shutil.copytree(artifacts / "_artifacts", folder / name))
        venvstacks.ok(theirs, "local-export", "venvstacks.toml")
        ours.ok("local-export", "--locked")
        yield made


def manifest(artifacts: Path) -> dict[str, Any]:
    """Read the manifest, without what is another for each tool."""
    path = artifacts / "__venvstacks__" / f"venvstacks-{host_platform()}.json"
    found: dict[str, Any] = json.loads(path.read_bytes())
    for layers in found["layers"].values():
        for layer in layers:
            del layer["archive_hashes"], layer["archive_size"]
    return found


def test_names_and_metadata_of_both_versions_are_the_same(twice: Twice) -> None:
    platform = host_platform()
    expected = [
        {f"framework-lib@1-{platform}-1", f"app-show@1-{platform}-1", f"app-steady@1-{platform}-1"},
        {f"framework-lib@2-{platform}-1", f"app-show@2-{platform}-1", f"app-steady@1-{platform}-1"},
    ]
    for theirs, ours, names in zip(twice.theirs, twice.ours, expected, strict=True):
        assert manifest(theirs) == manifest(ours)
        named = [layer["archive_name"] for layers in manifest(ours)["layers"].values() for layer in layers]
        assert set(named) == {f"{name}.tar.xz" for name in names}
        files = [
            sorted(path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*"))
            for artifacts in (theirs, ours)
        ]
        assert files[0] == files[1]


def test_a_version_that_is_published_stays_as_it_is(twice: Twice) -> None:
    first, second = twice.ours
    for path in first.glob("*.tar.xz"):
        assert (second / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_two_versions_run_side_by_side(twice: Twice, whose: str, tmp_path: Path) -> None:
    deployed = unpack_all(getattr(twice, whose)[1], tmp_path / "deployed")
    shutil.copytree(twice.python, deployed / "python", symlinks=True)
    layers = ["framework-lib@1", "framework-lib@2", "app-show@1", "app-show@2", "app-steady@1"]
    assert sorted(path.name for path in deployed.iterdir()) == sorted([*layers, "python"])
    # venvstacks needs it.
    for layer in layers if whose == "theirs" else ():
        subprocess.run([deployed / "python/bin/python", deployed / layer / "postinstall.py"], check=True)
    for layer, expected in {
        "app-show@1": "['1.0'] ['app-show@1', 'framework-lib@1', 'python']\n",
        "app-show@2": "['2.0'] ['app-show@2', 'framework-lib@2', 'python']\n",
        "app-steady@1": "[] ['app-steady@1', 'python']\n",
    }.items():
        config = json.loads((deployed / layer / CONFIG_PATH).read_bytes())
        command = [deployed / layer / config["python"], "-m", "show"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == (expected, "")


def test_layers_name_the_versions_below_them(twice: Twice) -> None:
    platform = host_platform()
    for number, theirs, ours in zip((1, 2), twice.theirs, twice.ours, strict=True):
        name = f"app-show@{number}"
        archives = [listing(folder / f"{name}-{platform}-1.tar.xz") for folder in (theirs, ours)]
        configs = [archive[f"{name}/{CONFIG_PATH}"].content for archive in archives]
        assert configs[0] == configs[1]
        assert json.loads(configs[1])["pylib_dirs"][0].startswith(f"../framework-lib@{number}/")


EXPORTED = ("python", "framework-lib@2", "app-show@2", "app-steady@1")


def test_exports_are_described_alike(twice: Twice) -> None:
    """An export has no size and no hash of an archive, so nothing differs."""
    found = []
    for folder in (twice.theirs_exported, twice.ours_exported):
        assert sorted(path.name for path in folder.iterdir()) == sorted([*EXPORTED, "__venvstacks__"])
        metadata = folder / "__venvstacks__"
        texts = {path.relative_to(metadata): path.read_text() for path in metadata.rglob("*.json")}
        assert len(texts) == len(EXPORTED) + 1
        found.append(texts)
    assert found[0] == found[1]


@pytest.mark.parametrize("target", EXPORTED)
def test_exports_hold_the_same(twice: Twice, target: str) -> None:
    theirs, ours = (folder_listing(folder / target) for folder in (twice.theirs_exported, twice.ours_exported))
    assert differences_of(theirs, ours, target, twice.runtime.python) == []


@pytest.mark.parametrize("target", EXPORTED)
def test_exports_have_the_same_bytecode(twice: Twice, target: str) -> None:
    theirs, ours = (
        {path.relative_to(folder).as_posix() for path in (folder / target).rglob("*.pyc")}
        for folder in (twice.theirs_exported, twice.ours_exported)
    )
    # Compiled by Strata alone: its boot module. Compiled by venvstacks alone: its own `sitecustomize.py`.
    assert {path for path in theirs if "/sitecustomize." not in path} == {p for p in ours if "/_strata_boot." not in p}


def test_exported_applications_print_the_same(twice: Twice) -> None:
    for layer in ("app-show@2", "app-steady@1"):
        printed = []
        for folder in (twice.theirs_exported, twice.ours_exported):
            command = [folder / layer / "bin/python", "-B", "-m", "show"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            printed.append(done.stdout)
        assert printed[0] == printed[1]
