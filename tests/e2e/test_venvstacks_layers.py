"""One stack built by venvstacks and by Strata from the same locks: what is published, and what applications see."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from archives import listing, unpack_all
from loopback import Loopback
from runtimes import interpreters
from space import Space
from venvstacks import Venvstacks
from venvstacks_members import differences_of
from venvstacks_stack import LAYERS, ORDER, TARGETS, seen, write_sources, write_wheels

from strata_engine.digest import digest_file
from strata_rules.layout import CONFIG_PATH, DYNLIB_DIR

APPLICATIONS = ("app-empty", "app-report", "app-plain@1", "app-bare")


class Both(NamedTuple):
    """The workspaces of both tools, and everything that both published, unpacked side by side."""

    tool: Venvstacks
    theirs: Path
    ours: Space
    theirs_unpacked: Path
    ours_unpacked: Path
    sources: Path
    """The stack without any lock."""

    def folder(self, target: str) -> tuple[Path, Path]:
        """Give a layer of each."""
        return self.theirs_unpacked / target, self.ours_unpacked / target


@pytest.fixture(scope="module")
def both(venvstacks: Venvstacks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Build and publish with venvstacks, then with Strata what venvstacks locked."""
    folder = tmp_path_factory.mktemp("both")
    write_wheels(folder / "first", folder / "second")
    with Loopback(folder / "first") as first, Loopback(folder / "second") as second:
        write_sources(folder / "sources", venvstacks.runtime, first.host, second.host)
        theirs = shutil.copytree(folder / "sources", folder / "theirs", symlinks=True)
        venvstacks.ok(theirs, "lock", "venvstacks.toml")
        root = shutil.copytree(theirs, folder / "ours", symlinks=True, ignore=lambda *_: ["_build"])
        ours = Space(root, folder / "store")
        venvstacks.ok(theirs, "build", "--publish", "venvstacks.toml")
        ours.publish("--locked")
        made = Both(
            venvstacks,
            theirs,
            ours,
            unpack_all(theirs / "_artifacts", folder / "theirs-unpacked"),
            unpack_all(ours.root / "_artifacts", folder / "ours-unpacked"),
            folder / "sources",
        )
        for target in TARGETS:
            if target not in ("python", "python-other"):
                python = made.theirs_unpacked / target / "bin/python_"
                subprocess.run([python, "-I", made.theirs_unpacked / target / "postinstall.py"], check=True)
        yield made


# -- what is published -----------------------------------------------------------------------------------------------


def documents(artifacts: Path) -> dict[str, Any]:
    """Read all metadata, by path."""
    folder = artifacts / "__venvstacks__"
    return {path.relative_to(folder).as_posix(): json.loads(path.read_bytes()) for path in folder.rglob("*.json")}


def test_frameworks_are_searched_in_the_same_order(both: Both) -> None:
    theirs, ours = documents(both.theirs / "_artifacts"), documents(both.ours.root / "_artifacts")
    for name, order in ORDER.items():
        path = f"env_metadata/{name}.json"
        assert theirs[path]["required_layers"] == ours[path]["required_layers"] == order


def test_metadata_is_the_same_in_every_field(both: Both) -> None:
    theirs, ours = documents(both.theirs / "_artifacts"), documents(both.ours.root / "_artifacts")
    assert theirs.keys() == ours.keys() == {"venvstacks.json", *(f"env_metadata/{name}.json" for name in LAYERS)}
    described = list(zip(_described(theirs), _described(ours), strict=True))
    assert len(described) == 2 * len(LAYERS)
    for their, our in described:
        # Archives hold what `test_archives_have_the_same_members` lists, so their size and hash differ: each is right.
        path = both.ours.root / "_artifacts" / our["archive_name"]
        assert our.pop("archive_hashes") == {"sha256": digest_file(path).hash} != their.pop("archive_hashes")
        assert our.pop("archive_size") == path.stat().st_size
        del their["archive_size"]
    assert theirs == ours


def _described(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give each layer's fields: those of its own file and those in the manifest."""
    for path in sorted(found):
        if path != "venvstacks.json":
            yield found[path]
    for category in ("runtimes", "frameworks", "applications"):
        yield from found["venvstacks.json"]["layers"][category]


def test_metadata_is_written_alike(both: Both) -> None:
    """Keys in the same order, the same indentation, a final newline: a diff shows what differs and nothing else."""
    for path in ("venvstacks.json", "env_metadata/app-report.json"):
        text = (both.ours.root / "_artifacts/__venvstacks__" / path).read_text()
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
        assert (both.theirs / "_artifacts/__venvstacks__" / path).read_text().count("\n") == text.count("\n")


@pytest.mark.parametrize("target", TARGETS)
def test_archives_have_the_same_members(both: Both, target: str) -> None:
    """Names, kinds, modes, owners and content: what may differ is listed in `venvstacks_members`."""
    theirs, ours = (listing(root / "_artifacts" / f"{target}.tar.xz") for root in (both.theirs, both.ours.root))
    assert theirs.keys() >= {target, f"{target}/{CONFIG_PATH}", f"{target}/postinstall.py"}
    assert differences_of(theirs, ours, target, both.tool.runtime.python) == []


def test_libraries_are_offered_by_the_same_links(both: Both) -> None:
    """But for the numbered one, which only Strata offers; the excluded one neither does."""
    theirs, ours = (folder / DYNLIB_DIR for folder in both.folder("framework-A"))
    assert {path.name for path in theirs.iterdir()} == {"libplain.so"}
    assert {path.name for path in ours.iterdir()} == {"libplain.so", "libnumbered.so.2"}
    assert (theirs / "libplain.so").readlink() == (ours / "libplain.so").readlink()


def test_a_layer_says_the_same_of_itself(both: Both) -> None:
    for target in TARGETS:
        theirs, ours = both.folder(target)
        assert (theirs / CONFIG_PATH).read_bytes() == (ours / CONFIG_PATH).read_bytes()


def test_git_decides_which_files_of_a_module_are_shipped(both: Both) -> None:
    for folder in both.folder("app-report"):
        [site] = folder.glob("lib/python*/site-packages")
        shipped = {p.relative_to(site).as_posix() for top in ("report", "stories") for p in (site / top).rglob("*")}
        assert {path for path in shipped if "__pycache__" not in path} == {
            *("report/__init__.py", "report/__main__.py", "report/.hidden", "report/keep.log", "report/output"),
            *("report/generated_kept.py", "report/deep", "report/deep/__init__.py"),
            *("report/inside.txt", "report/outside.txt"),
            *("report/deep/kept", "report/deep/kept/code.py", "report/assets", "report/assets/icons"),
            *("report/assets/icons/small.svg", "stories/__init__.py", "stories/one.txt"),
        }


# -- what applications see -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", APPLICATIONS)
def test_applications_see_the_same(both: Both, target: str) -> None:
    theirs, ours = seen(both.theirs_unpacked, target), seen(both.ours_unpacked, target)
    config = json.loads((both.ours_unpacked / target / CONFIG_PATH).read_text())
    site = config["site_dir"]
    layers = [f"{target}/{site}", *(path.removeprefix("../") for path in config["pylib_dirs"])]
    assert [path for path in ours["path"] if path.endswith("site-packages")] == layers
    assert ours["prefixes"][:2] == [target, target]
    assert theirs == ours


def test_what_was_found_where(both: Both) -> None:
    """The order of layers, markers, indexes and modules, worked out by hand."""
    site = f"lib/python{both.tool.runtime.python}/site-packages"
    modules = {target: seen(both.ours_unpacked, target)["modules"] for target in APPLICATIONS}
    assert modules["app-empty"]["who"] == f"framework-D/{site}/who.py"
    assert modules["app-empty"]["rtlib"] == f"python/{site}/rtlib.py"
    assert modules["app-bare"]["who"] is None
    report = modules["app-report"]
    assert report["who"] == f"app-report/{site}/who.py"
    assert (report["winonly"], report["linuxonly"]) == (None, f"app-report/{site}/linuxonly.py")
    assert seen(both.ours_unpacked, "app-report")["native"] == 42
    assert report["stories"] == f"app-report/{site}/stories/__init__.py"
    plain = seen(both.ours_unpacked, "app-plain@1")
    assert plain["packages"]["twice"] == "2.0"
    assert "rtlib" not in plain["packages"]


@pytest.mark.parametrize("newcomer", ["ours", "theirs"])
def test_layers_of_both_work_together(both: Both, newcomer: str, tmp_path: Path) -> None:
    """An installation is updated layer by layer: an application of one tool on frameworks of the other."""
    below, above = both.theirs_unpacked, both.ours_unpacked
    if newcomer == "theirs":
        below, above = above, below
    mixed = tmp_path / "mixed"
    config = json.loads((above / "app-empty" / CONFIG_PATH).read_text())
    layers = ["app-empty", *(path.split("/")[1] for path in config["pylib_dirs"])]
    for layer in layers:
        shutil.copytree((above if layer == "app-empty" else below) / layer, mixed / layer, symlinks=True)
    for layer in layers:
        subprocess.run([mixed / "python/bin/python", mixed / layer / "postinstall.py"], check=True)
    assert seen(mixed, "app-empty") == seen(both.ours_unpacked, "app-empty")


# -- postinstall.py --------------------------------------------------------------------------------------------------


def state(folder: Path) -> dict[str, Any]:
    """Give all that there is in a folder, with its times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[path.relative_to(folder).as_posix()] = (info.st_mode, info.st_mtime_ns if content else 0, content)
    return found


@pytest.fixture
def deployed(both: Both, tmp_path: Path) -> Path:
    """Give what Strata published, unpacked where it may be changed: what one application needs."""
    for target in ("python", "framework-A", "framework-B", "app-report"):
        shutil.copytree(both.ours_unpacked / target, tmp_path / "deployed" / target, symlinks=True)
    return tmp_path / "deployed"


@pytest.mark.parametrize("by", ["the base Python", "another Python"])
def test_postinstall_changes_nothing_for_applications(both: Both, deployed: Path, by: str, tmp_path: Path) -> None:
    own = deployed / "python/bin/python"
    others = [Path(found.executable) for found in interpreters() if found.python != both.tool.runtime.python]
    python = own if by == "the base Python" else next(iter(others), Path(interpreters()[-1].executable))
    before = seen(deployed, "app-report")
    for target in ("python", "framework-A", "framework-B", "app-report"):
        subprocess.run([python, deployed / target / "postinstall.py"], check=True, cwd=tmp_path)
    assert seen(deployed, "app-report") == before == seen(both.theirs_unpacked, "app-report")
    compiled = {path.suffixes[-2] for path in deployed.rglob("__pycache__/*.pyc") if "toolkit" not in path.parts}
    assert compiled == {f".cpython-{both.tool.runtime.python.replace('.', '')}"}
    after = state(deployed)
    for target in ("python", "framework-A", "framework-B", "app-report"):
        subprocess.run([python, "-I", os.path.relpath(deployed / target / "postinstall.py")], check=True)
    assert state(deployed) == after


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("python", "../../python"),
        ("base_python", "../python/../../x/bin/python"),
        ("base_python", "/usr/bin/env"),
        ("site_dir", "../../elsewhere"),
        ("pylib_dirs", ["../framework-B/lib", "../../elsewhere"]),
        ("dynlib_dirs", ["/elsewhere"]),
    ],
)
def test_postinstall_of_both_refuses_what_leads_out(both: Both, deployed: Path, key: str, value: object) -> None:
    layer = deployed / "app-report"
    config = json.loads((layer / CONFIG_PATH).read_text()) | {key: value}
    (layer / CONFIG_PATH).write_text(json.dumps(config))
    script = (layer / "postinstall.py").read_bytes()
    for content in (script, (both.theirs_unpacked / "app-report/postinstall.py").read_bytes()):
        (layer / "postinstall.py").write_bytes(content)
        before = state(deployed)
        command = [deployed / "python/bin/python", "-B", layer / "postinstall.py"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert str(deployed) in done.stderr
        assert state(deployed) == before
        assert content != script or "Traceback" not in done.stderr


# -- locks of each, read by the other --------------------------------------------------------------------------------


def lock_files(root: Path) -> dict[str, bytes]:
    """Read all committed locks and what lies beside them, but for Strata's own pins of runtimes."""
    folder = root / "requirements"
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("runtime."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_locks_of_venvstacks_are_valid_as_they_are(both: Both, tmp_path: Path) -> None:
    fresh = Space(shutil.copytree(both.theirs, tmp_path / "fresh", ignore=_outputs), both.ours.store)
    assert fresh.strata("lock", "--check").code == 0
    assert invalid(fresh.ok("show", "--json").json) == []
    built = fresh.build()
    assert not {label for label in built.executed if label.endswith("/lock")}
    assert lock_files(fresh.root) == lock_files(both.theirs)


def test_locks_of_strata_are_valid_for_venvstacks(both: Both, tmp_path: Path) -> None:
    root = shutil.copytree(both.sources, tmp_path / "workspace")
    Space(root, both.ours.store).ok("lock")
    before = lock_files(root)
    assert invalid(both.tool.ok(root, "show", "--json", "venvstacks.toml").json) == []
    both.tool.ok(root, "lock", "--if-needed", "venvstacks.toml")
    assert {path: data for path, data in lock_files(root).items() if "pylock." in path} == {
        path: data for path, data in before.items() if "pylock." in path
    }
    both.tool.ok(root, "build", "--include", "app-report", "venvstacks.toml")
    assert seen(root / "_build", "app-report")["packages"] == seen(both.ours_unpacked, "app-report")["packages"]


def test_locks_go_to_and_fro(both: Both, tmp_path: Path) -> None:
    """Each tool locks a change on top of what the other one has locked."""
    space = Space(shutil.copytree(both.theirs, tmp_path / "workspace", ignore=_outputs), both.ours.store)
    space.replace("venvstacks.toml", '["inb"]', '["inb", "lonely"]')
    ran = space.ok("lock", "--json")
    assert "framework-B/lock" in ran.executed
    assert invalid(both.tool.ok(space.root, "show", "--json", "venvstacks.toml").json) == []
    space.replace("venvstacks.toml", '["inc"]', '["inc", "inb"]')
    # `app-empty`, which stands on these, requires nothing: its lock cannot change.
    assert invalid(space.ok("show", "--json").json) == ["framework-C", "framework-D"]
    both.tool.ok(space.root, "lock", "--if-needed", "venvstacks.toml")
    # venvstacks has locked C anew and left D, whose constraints are now other ones, as Strata had locked it before.
    assert invalid(space.ok("show", "--json").json) == ["framework-D"]
    assert space.ok("lock", "--json").executed == {"framework-D/lock"}
    assert invalid(both.tool.ok(space.root, "show", "--json", "venvstacks.toml").json) == []
    assert space.strata("lock", "--check").code == 0


def invalid(shown: Mapping[str, Any]) -> list[str]:
    """Name the layers without a valid lock."""
    layers = [layer for category in ("runtimes", "frameworks", "applications") for layer in shown[category]]
    assert len(layers) > len(LAYERS)
    return [layer["name"] for layer in layers if not layer["has_valid_lock"]]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (("show",), ()),
        (("show", "--include", "app-report", "--include", "*.windows"), ()),
        (("lock", "--show-only", "--include", "framework-B", "--lock-dependencies"), ()),
        (("build", "--show-only"), ("--locked",)),  # ours locks what has no valid lock unless it is told not to
        (("build", "--show-only", "--lock-if-needed"), ()),
        (("build", "--show-only", "--include", "framework-D", "--build-dependencies", "--no-publish"), ("--locked",)),
        (("publish", "--show-only", "--include", "framework-E", "--publish-dependencies", "--publish-derived"), ()),
    ],
)
def test_show_draws_and_tells_the_same(both: Both, theirs: tuple[str, ...], ours: tuple[str, ...]) -> None:
    drawn = [
        both.tool.ok(both.theirs, *theirs, "venvstacks.toml").stdout,
        both.ours.ok(*theirs, *ours, "venvstacks.toml").stdout,
    ]
    assert drawn[0].replace(str(both.theirs), "") == drawn[1].replace(str(both.ours.root), "")
    their = both.tool.ok(both.theirs, *theirs, "--json", "venvstacks.toml").json
    our = both.ours.ok(*theirs, *ours, "--json", "venvstacks.toml").json
    assert (our.pop("schema"), our.pop("version")) == ("strata.show", 2)
    assert Path(our.pop("spec_name")).name == Path(their.pop("spec_name")).name
    assert our == their


def _outputs(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("_build", "_artifacts", ".strata")]
