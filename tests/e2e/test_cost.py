"""What each change costs: the actions that are executed are those that the change reaches, and no others."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from conftest import untar
from space import LAYERS, Space

LOCKS = {"framework-low/lock", "framework-up/lock", "app-world/lock"}
"""The locks of layers that require anything: the others are empty whatever happens."""


@pytest.fixture
def published(built: Space) -> Space:
    """Give a copy of the template that has been built and published."""
    built.ok("publish")
    return built


def contents(folder: Path, *, times: bool = True) -> dict[str, object]:
    """Give all that is in a folder: modes, links, bytes, and times but for those of folders."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = path.readlink()
        elif path.is_dir():
            found[name] = about.st_mode
        else:
            found[name] = about.st_mode, times and about.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def both_ways(space: Space, *command: str) -> None:
    """Check that a build has nothing to do, by its snapshot and without it."""
    by_snapshot = space.ok(*command)
    assert by_snapshot.executed == set()
    space.forget_snapshots()
    looked = space.ok(*command)
    assert looked.executed == set()
    assert looked.counts["up_to_date"] == len(looked.json["actions"]) > len(LAYERS)


def said(space: Space, application: str) -> str:
    """Run an application and give what it prints."""
    return space.ok("run", application).stdout


def test_nothing(published: Space) -> None:
    both_ways(published, "build", "--json")
    both_ways(published, "publish", "--json")


def test_touch_of_every_source(published: Space) -> None:
    for path in published.root.rglob("*"):
        if path.is_file() and not {".strata", "_build", "_artifacts"}.intersection(path.parts):
            path.touch()
    again = published.build("--publish")
    assert again.executed == set()
    assert again.counts["up_to_date"] == len(again.json["actions"])


def test_the_workspace_moved_to_another_folder(published: Space, tmp_path: Path) -> None:
    before = said(published, "hello"), said(published, "world")
    (tmp_path / "elsewhere").mkdir()
    published.root = published.root.rename(tmp_path / "elsewhere" / "moved")
    assert published.build("--publish").executed == set()
    assert (said(published, "hello"), said(published, "world")) == before
    both_ways(published, "build", "--publish", "--json")


def test_outputs_deleted(published: Space) -> None:
    archives = published.root / "_artifacts"
    before = contents(published.root / "_build"), contents(archives, times=False)
    assert len(before[0]) > 100
    shutil.rmtree(published.root / "_build")
    shutil.rmtree(published.root / "_artifacts")
    again = published.build("--publish", "--offline")
    assert again.executed == set()
    assert again.counts["cached"] > 0
    assert (contents(published.root / "_build"), contents(archives, times=False)) == before
    assert said(published, "world") == "world wide beta\n"


def test_one_output_deleted(published: Space) -> None:
    shutil.rmtree(published.layer("framework-up"))
    again = published.build()
    assert again.executed == set()
    assert again.labels("cached") == {"framework-up/link"}
    assert said(published, "hello") == "hello alpha gamma\n"


def test_one_byte_in_a_launch_module(published: Space) -> None:
    published.replace("hello.py", "'hello'", "'hullo'")
    assert published.build().executed == {"app-hello/link"}
    assert said(published, "hello") == "hullo alpha gamma\n"
    published.replace("hello.py", "'hullo'", "'hallo'")
    assert published.publish().executed == {"app-hello/link", "app-hello/archive[tar.gz]"}
    published.replace("world/names.py", "wide", "wise")
    assert published.build("--publish").executed == {"app-world/link", "app-world/archive[tar.gz]"}


def test_a_new_package_in_the_upper_framework(published: Space) -> None:
    published.replace("venvstacks.toml", '["gamma"]', '["gamma", "delta"]')
    again = published.build()
    assert again.executed == {
        "framework-up/lock",
        "app-world/lock",
        *(f"{kind}/{name}-1.0-py3-none-any.whl" for kind in ("fetch", "wheel") for name in ("delta", "epsilon")),
        "framework-up/install",
        "framework-up/link",
    }
    assert (published.site("framework-up") / "epsilon.py").is_file()
    assert published.publish().executed == {"framework-up/archive[tar.gz]"}


def test_a_package_that_a_layer_above_had_moves_down(published: Space) -> None:
    published.replace("venvstacks.toml", '["gamma"]', '["gamma", "zeta"]')
    again = published.build()
    # Nothing is fetched or unpacked again, because the wheel is the same in whichever layer it is; and another
    # application without packages was installed before.
    assert again.executed == {
        *("framework-up/lock", "framework-up/install", "framework-up/link"),
        *("app-world/lock", "app-world/link"),
    }
    assert again.labels("cached") == {"app-world/install"}
    assert (published.site("framework-up") / "zeta.py").is_file()
    assert not (published.site("app-world") / "zeta.py").exists()


def test_a_new_module_in_a_launch_package(published: Space) -> None:
    published.write("world/more.py", "")
    assert published.build().executed == {"app-world/link"}
    assert (published.site("app-world") / "world" / "more.py").is_file()
    (published.root / "world" / "more.py").unlink()
    assert published.build().executed == set()
    assert not (published.site("app-world") / "world" / "more.py").exists()


def test_a_new_uv_configuration(built: Space) -> None:
    text = built.read("venvstacks.toml")
    head, tail = text.split("[tool.uv]")
    built.write("venvstacks.toml", head + tail[tail.index("[tool.strata") :])
    options = ("--no-index", "--local-wheels", "wheels")
    built.build(*options)
    both_ways(built, "build", "--json", *options)
    built.write("venvstacks.uv.toml", 'constraint-dependencies = ["alpha<1"]\n')
    again = built.build(*options)
    assert again.executed == {
        *LOCKS,
        "fetch/alpha-0.9-py3-none-any.whl",
        "wheel/alpha-0.9-py3-none-any.whl",
        "framework-low/install",
        "framework-low/link",
    }
    assert list(built.site("framework-low").glob("alpha-*")) == [built.site("framework-low") / "alpha-0.9.dist-info"]


def test_a_new_wheel_in_a_local_folder(published: Space) -> None:
    published.wheel("alpha", version="1.1")
    # It may be chosen, so the locks are asked; they keep their pins, and the wave stops there.
    assert published.build("--publish").executed == LOCKS
    both_ways(published, "build", "--publish", "--json")
    assert published.ok("lock", "--upgrade", "--json").executed >= LOCKS
    again = published.build("--publish")
    assert again.executed == {
        "fetch/alpha-1.1-py3-none-any.whl",
        "wheel/alpha-1.1-py3-none-any.whl",
        "framework-low/install",
        "framework-low/link",
        "framework-low/archive[tar.gz]",
    }


def test_another_file_in_a_local_folder(published: Space) -> None:
    published.write("wheels/README.txt", "not a wheel")
    assert published.build("--publish").executed == set()


def test_a_wheel_of_the_same_name_with_other_content(published: Space) -> None:
    published.wheel("alpha", {"alpha.py": b"NAME = 'another'\n"})
    executed = published.build().executed
    assert executed >= {*LOCKS, "framework-low/install", "framework-low/link"}
    assert not executed & {"framework-up/install", "framework-up/link", "app-hello/link", "app-world/link"}
    assert said(published, "hello") == "hello another gamma\n"


def test_a_new_gitignore(space: Space) -> None:
    space.write(".git/HEAD", "ref: refs/heads/main\n")
    space.build("--publish")
    both_ways(space, "build", "--publish", "--json")
    ignore = space.write(".gitignore", "names.py\n")
    again = space.build("--publish")
    assert again.executed == {"app-world/link", "app-world/archive[tar.gz]"}
    assert not (space.site("app-world") / "world" / "names.py").exists()
    space.write("world/.gitignore", "!names.py\n")
    assert space.build("--publish").executed == set(), "the first build's results are known"
    ignore.unlink()
    assert space.build("--publish").executed == set()
    assert (space.site("app-world") / "world" / "names.py").is_file()


def test_a_work_tree_where_there_was_none(space: Space) -> None:
    space.write(".gitignore", "names.py\n")
    space.build()
    assert (space.site("app-world") / "world" / "names.py").is_file()
    space.write(".git/HEAD", "ref: refs/heads/main\n")
    assert space.build().executed == {"app-world/link"}


def test_a_requirement_removed(published: Space) -> None:
    def metadata(space: Space) -> str:
        return "".join(path.read_text() for path in (space.root / "_artifacts").rglob("*.json"))

    def archived(space: Space) -> list[str]:
        [path] = (space.root / "_artifacts").glob("framework-low*.tar.gz")
        with tarfile.open(path) as archive:
            return [name for name in archive.getnames() if "beta" in name]

    assert archived(published)
    before = metadata(published)
    published.replace("venvstacks.toml", '["alpha", "beta"]', '["alpha"]')
    again = published.build("--publish")
    assert again.executed == {
        *LOCKS,
        "framework-low/install",
        "framework-low/link",
        "framework-low/archive[tar.gz]",
    }
    assert not list(published.site("framework-low").glob("beta*"))
    assert archived(published) == []
    assert "beta" not in "".join(path.read_text() for path in (published.root / "requirements").rglob("*low*.*"))
    after = metadata(published)
    assert "beta" not in after
    assert after != before


def test_an_upgrade_to_the_same_content(published: Space) -> None:
    before = contents(published.root / "requirements")
    upgraded = published.ok("lock", "--upgrade", "--json")
    assert upgraded.executed >= LOCKS
    assert {name.split("/")[-1] for name in upgraded.executed} == {"lock"}
    assert contents(published.root / "requirements") == before
    both_ways(published, "build", "--publish", "--json")


def digests(space: Space) -> dict[str, Any]:
    """Give the SHA-256 of each archive, and the published metadata but for when and as what it was archived."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in ("archive_build", "locked_at")}
        return [plain(each) for each in value] if isinstance(value, list) else value

    found: dict[str, Any] = {}
    for path in sorted((space.root / "_artifacts").rglob("*")):
        if path.suffix == ".json":
            found[path.name] = plain(json.loads(path.read_text()))
        elif path.is_file():
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_a_fresh_store_elsewhere(published: Space, tmp_path: Path) -> None:
    here = published.build("--publish")
    (tmp_path / "a folder").mkdir()
    other = published.copy(tmp_path / "a folder" / "with ünicode")
    other.store = tmp_path / "another store"
    other.environ = {"TZ": "Pacific/Chatham", "PYTHONHASHSEED": "4711", "LC_ALL": "C", "PYTHONUTF8": "1"}
    other.environ |= {"TMPDIR": str(tmp_path / "a folder")}
    there = other.build("--publish", umask=0o077)
    assert there.labels("cached") == set()
    assert there.labels("executed") | there.labels("up_to_date") == set(here.keys)
    assert there.labels("up_to_date") <= {f"{layer}/lock" for layer in LAYERS}
    assert there.keys == here.keys
    assert digests(other) == digests(published)
    assert len(digests(other)) > len(LAYERS)
    assert contents(other.root / "_build") == contents(published.root / "_build")


def test_locks_are_the_same_elsewhere(published: Space, tmp_path: Path) -> None:
    other = published.copy(tmp_path / "elsewhere")
    shutil.rmtree(other.root / "requirements")
    other.store = tmp_path / "another store"
    other.environ = {"TZ": "Pacific/Chatham", "PYTHONHASHSEED": "4711", "LC_ALL": "C"}
    other.ok("lock", umask=0o077)
    for path in sorted((published.root / "requirements").rglob("pylock.*.toml")):
        assert (other.root / path.relative_to(published.root)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("hello.py", "'hello'", "'hullo'"),
        ("venvstacks.toml", '["gamma"]', '["gamma", "delta"]'),
        ("venvstacks.toml", "level = 1", "level = 2"),
    ],
)
def test_edit_build_revert_build(published: Space, path: str, old: str, new: str) -> None:
    published.build("--publish")
    before = contents(published.root / "_build"), digests(published)
    published.replace(path, old, new)
    assert published.build("--publish").executed != set()
    published.replace(path, new, old)
    assert published.build("--publish").executed == set()
    assert (contents(published.root / "_build"), digests(published)) == before


def test_a_renamed_application_keeps_what_does_not_name_it(published: Space) -> None:
    published.replace("venvstacks.toml", 'name = "hello"', 'name = "salute"')
    executed = published.build().executed
    assert {name.partition("/")[0] for name in executed} == {"app-salute"}


def test_archives_are_sound(published: Space, tmp_path: Path) -> None:
    for path in (published.root / "_artifacts").glob("*.tar.gz"):
        with tarfile.open(path) as archive:
            untar(archive, tmp_path / "unpacked")
    python = tmp_path / "unpacked" / "app-hello" / "bin" / "python"
    done = subprocess.run([python, "-m", "hello"], capture_output=True, text=True, check=True, env={})
    assert done.stdout == "hello alpha gamma\n"
