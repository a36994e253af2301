"""Stacks of every shape: each is published, unpacked elsewhere, and its applications run from there."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import WheelMaker
from deployed import entries, layer, members, runtime, say, stack, start, table, unpack
from loopback import Loopback
from runtimes import OWN, interpreters
from space import Space

from strata_rules.platforms import host_platform

HOST = host_platform()
ELSEWHERE = "win_amd64"
SITE = f"lib/python{OWN.rpartition('.')[0]}/site-packages"
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


# -- versions, depth, runtimes ----------------------------------------------------------------------------------------


def test_two_versions_of_a_stack_side_by_side(empty: Space, tmp_path: Path) -> None:
    """Every layer is versioned: the second version is unpacked beside the first, and each has its own layers."""
    empty.wheel("base", {"base.py": b"NAME = 'base 1'\n"})
    empty.wheel("low", {"low.py": b"NAME = 'low 1'\n"}, requires=["base"])
    empty.write("show.py", "import base, low\nprint('show 1', low.NAME, base.NAME)\n")
    empty.write("plain.py", "import low\nprint('plain', low.NAME)\n")
    empty.write(
        "venvstacks.toml",
        stack(
            runtime("python", "base", versioned=True),
            layer("framework", "low", "low", runtime="python", versioned=True),
            layer("application", "show", "low", frameworks=["low"], launch_module="show.py", versioned=True),
            layer("application", "plain", frameworks=["low"], launch_module="plain.py"),
        ),
    )
    empty.publish()
    place = unpack(empty, tmp_path / "stack")
    assert {path.name for path in place.iterdir()} == {"python@1", "framework-low@1", "app-show@1", "app-plain"}
    assert say(place, "app-show@1", "-m", "show") == "show 1 low 1 base 1\n"

    # A package of the runtime that the layers above rely on: each has a new lock, and a new folder for it.
    empty.wheel("base", {"base.py": b"NAME = 'base 2'\n"}, version="2.0")
    empty.ok("lock", "--upgrade")
    empty.publish()
    second = entries(empty)
    assert {entry["install_target"] for entry in second.values()} == {
        *("python@2", "framework-low@2", "app-show@2", "app-plain")
    }
    assert second["app-show"]["runtime_layer"] == "python@2"
    assert second["app-show"]["required_layers"] == ["framework-low@2"]
    unpack(empty, place, "python@2", "framework-low@2", "app-show@2")
    assert say(place, "app-show@2", "-m", "show") == "show 1 low 1 base 2\n"
    assert say(place, "app-show@1", "-m", "show") == "show 1 low 1 base 1\n"
    # A layer without versions that stands on one with them follows it: by other links, in a new build of its archive.
    assert second["app-plain"]["archive_build"] == 2
    unpack(empty, place, "app-plain")
    shutil.rmtree(place / "framework-low@1")
    assert say(place, "app-plain", "-m", "plain") == "plain low 1\n"


def test_a_module_gives_its_own_versioned_application_a_new_version(empty: Space, tmp_path: Path) -> None:
    """Launch and support modules count in the versions of the layers that have them, and in no others."""
    empty.wheel("low", {"low.py": b"NAME = 'low'\n"})
    empty.write("aid.py", "AID = 1\n")
    empty.write("show.py", "import aid, low\nprint('show 1', aid.AID, low.NAME)\n")
    empty.write(
        "venvstacks.toml",
        stack(
            layer("framework", "low", "low", runtime="python", versioned=True),
            layer(
                "application",
                "show",
                frameworks=["low"],
                launch_module="show.py",
                support_modules=["aid.py"],
                versioned=True,
            ),
            layer("application", "other", frameworks=["low"], launch_module="show.py", support_modules=["aid.py"]),
        ),
    )
    empty.publish()
    place = unpack(empty, tmp_path / "stack")
    for number, (path, text) in enumerate({"show.py": "show 2", "aid.py": "AID = 2"}.items(), 2):
        before = entries(empty)
        empty.write(path, empty.read(path).replace(text[:-1] + "1", text))
        assert empty.strata("build", "--locked", "-q").code == 2, "a version is a part of the lock"
        empty.publish()
        after = entries(empty)
        assert {name for name in after if after[name] != before[name]} == {"app-show", "app-other"}
        assert after["app-show"]["install_target"] == f"app-show@{number}"
        unpack(empty, place, f"app-show@{number}")
    said = {name: say(place, name, "-m", "show") for name in ("app-show@1", "app-show@2", "app-show@3")}
    assert said == {"app-show@1": "show 1 1 low\n", "app-show@2": "show 2 1 low\n", "app-show@3": "show 2 2 low\n"}


def test_three_frameworks_deep(empty: Space, tmp_path: Path) -> None:
    """What is searched is one's own layer, the frameworks from the nearest down, and the runtime."""
    for name, needs in {"first": [], "second": ["first"], "third": ["second"]}.items():
        empty.wheel(name, {f"{name}.py": f"NAME = {name!r}\n".encode()}, requires=needs)
        empty.wheel(f"{name}_who", {"who.py": f"HERE = {name!r}\n".encode()})
    empty.write(
        "deep/__main__.py",
        "import sys, first, second, third, who\n"
        "places = [path.split('/')[-4] for path in sys.path if path.endswith('site-packages')]\n"
        "print(first.NAME, second.NAME, third.NAME, who.HERE, *places)\n",
    )
    empty.write(
        "venvstacks.toml",
        stack(
            layer("framework", "a", "first", "first_who", runtime="python"),
            layer("framework", "b", "second", "second_who", frameworks=["a"]),
            layer("framework", "c", "third", frameworks=["b"]),
            layer("application", "deep", frameworks=["c"], launch_module="deep"),
        ),
    )
    empty.publish()
    place = unpack(empty, tmp_path / "stack")
    layers = "app-deep framework-c framework-b framework-a python"
    assert say(place, "app-deep", "-m", "deep") == f"first second third second {layers}\n"


def test_two_runtimes_in_one_stack(empty: Space, tmp_path: Path) -> None:
    """Each application runs on its own Python; a pure wheel that both have is fetched and unpacked once."""
    others = [found.version for found in interpreters() if found.version != OWN]
    if not others:
        pytest.skip(f"this machine has no CPython from 3.11 on besides {OWN}")
    empty.wheel("shared", {"shared.py": b"NAME = 'shared'\n"})
    empty.write("show.py", "import platform, shared\nprint(platform.python_version(), shared.NAME)\n")
    empty.write(
        "venvstacks.toml",
        stack(
            runtime(),
            runtime("other", version=others[0]),
            layer("framework", "one", "shared", runtime="python"),
            layer("application", "on-own", frameworks=["one"], launch_module="show.py"),
            layer("application", "on-other", "shared", runtime="other", launch_module="show.py"),
        ),
    )
    ran = empty.publish()
    assert len([label for label in ran.keys if label.endswith("shared-1.0-py3-none-any.whl")]) == 2
    place = unpack(empty, tmp_path / "stack")
    assert say(place, "app-on-own", "-m", "show") == f"{OWN} shared\n"
    assert say(place, "app-on-other", "-m", "show") == f"{others[0]} shared\n"


# -- platforms and markers --------------------------------------------------------------------------------------------


def test_layers_for_some_platforms(empty: Space, tmp_path: Path) -> None:
    """A layer of no platform and those above it are left out; one of another platform is locked and not built here."""
    empty.wheel("alpha", {"alpha.py": b"NAME = 'alpha'\n"})
    empty.write("show.py", "import alpha\nprint(alpha.NAME)\n")
    empty.write(
        "venvstacks.toml",
        stack(
            layer("framework", "off", "no-such-package", runtime="python", platforms=[]),
            layer("framework", "low", "alpha", runtime="python", platforms=[HOST, ELSEWHERE]),
            layer("application", "here", frameworks=["low"], launch_module="show.py", platforms=[HOST]),
            layer("application", "there", frameworks=["low"], launch_module="show.py", platforms=[ELSEWHERE]),
            layer("application", "above-off", frameworks=["off"], launch_module="show.py"),
        ),
    )
    ran = empty.publish()
    layers = {label.partition("/")[0] for label in empty.build().keys if not label.startswith(("wheel/", "fetch/"))}
    assert layers == {"python", "framework-low", "app-here", "app-there"}
    assert {label for label in ran.keys if "off" in label} == set()
    assert set(entries(empty)) == {"python", "framework-low", "app-here"}
    assert (empty.root / "requirements/app-there/pylock.app-there.toml").is_file()
    assert not (empty.root / "requirements/framework-off").exists()
    assert say(unpack(empty, tmp_path / "stack"), "app-here", "-m", "show") == "alpha\n"
    # Enabled once more it is a part of the stack again.
    empty.wheel("no_such_package", {"found.py": b"NAME = 'found'\n"})
    empty.replace("venvstacks.toml", "platforms = []\n", "")
    empty.write("show.py", "import found\nprint(found.NAME)\n")
    empty.publish()
    assert say(unpack(empty, tmp_path / "stack"), "app-above-off", "-m", "show") == "found\n"


def test_conditional_requirements(empty: Space, tmp_path: Path) -> None:
    """Markers choose per platform and Python; what a lower layer has on some platforms is one's own on the others."""
    for name in ("extra", "never", "always", "elsewhere"):
        empty.wheel(name, {f"{name}.py": f"NAME = {name!r}\n".encode()})
    other = "win32" if sys.platform != "win32" else "linux"
    empty.write(
        "show.py",
        "import importlib.util as find, extra, always\n"
        "print(extra.__file__.split('/')[-5], *(n for n in ('never', 'elsewhere') if find.find_spec(n)))\n",
    )
    empty.write(
        "venvstacks.toml",
        stack(
            layer(
                "framework",
                "low",
                f"extra; sys_platform == '{sys.platform}'",
                "never; python_version < '3.0'",
                f"elsewhere; sys_platform == '{other}'",
                "always; python_version >= '3'",
                runtime="python",
                platforms=[HOST, ELSEWHERE],
            ),
            layer("application", "show", "extra", frameworks=["low"], launch_module="show.py"),
            layer("application", "there", "elsewhere", frameworks=["low"], launch_module="show.py"),
        ),
    )
    empty.publish()
    low, show, there = (empty.read(f"requirements/{name}/pylock.{name}.toml") for name in LOCKED)
    assert "never" not in low
    # Here it comes from below, there it is the application's own: two entries, of which a lock selects one.
    assert show.count('name = "extra"') == 2
    assert show.count("extra-1.0-py3-none-any.whl") == 1
    assert "from_lower_layer" in show
    assert there.count('name = "elsewhere"') == 2
    place = unpack(empty, tmp_path / "stack")
    assert say(place, "app-show", "-m", "show") == "framework-low\n"
    assert (place / "app-there" / SITE / "elsewhere.py").is_file()
    assert not (place / "app-show" / SITE / "extra.py").exists()


LOCKED = ("framework-low", "app-show", "app-there")


# -- where wheels come from -------------------------------------------------------------------------------------------


def test_another_index_for_one_layer(empty: Space, tmp_path: Path) -> None:
    """By package, by priority, or not at all: the other layers still take the first index."""
    for place in ("one", "two"):
        maker = WheelMaker(tmp_path / place)
        maker("twin", {"twin.py": f"PLACE = {place!r}\n".encode()})
        maker("plain", {"plain.py": f"PLACE = {place!r}\n".encode()})
    WheelMaker(tmp_path / "two")("second", {"second.py": b"PLACE = 'two'\n"})
    empty.write("show.py", "import plain, twin\nprint(plain.PLACE, twin.PLACE)\n")
    with Loopback(tmp_path / "one") as one, Loopback(tmp_path / "two") as two:
        indexes = table("[tool.uv.index]", name="one", url=f"http://{one.host}/simple", default=True)
        indexes += table("[tool.uv.index]", name="two", url=f"http://{two.host}/simple", explicit=True)

        def app(name: str, *requirements: str, **more: object) -> str:
            return layer("application", name, *requirements, runtime="python", launch_module="show.py", **more)

        empty.write(
            "venvstacks.toml",
            stack(
                app("first", "twin", "plain"),
                app("routed", "twin", "plain", package_indexes={"Twin": "two"}),
                app("urgent", "twin", "plain", priority_indexes=["two"]),
                uv=indexes,
            ),
        )
        empty.publish()
        place = unpack(empty, tmp_path / "stack")
        said = {name: say(place, f"app-{name}", "-m", "show") for name in ("first", "routed", "urgent")}
        assert said == {"first": "one one\n", "routed": "one two\n", "urgent": "two two\n"}
        # What only the explicit index has is not found without being asked for there.
        empty.replace("venvstacks.toml", '"first"\nrequirements = ["twin"', '"first"\nrequirements = ["second", "twin"')
        ran = empty.strata("build", "-q")
        assert ran.code == 2
        assert "error[no-solution]" in ran.stderr
        assert "second" in ran.stderr


WHEELS = {"inside": "near", "../outside": "far", "listed": "shown", "../found": "beside"}
"""The wheel that each folder has."""


def test_local_wheels(empty: Space, tmp_path: Path) -> None:
    """Locks name them by relative path and hash: the workspace may be moved, with the folder of wheels beside it."""
    root = empty.root
    for folder, name in WHEELS.items():
        WheelMaker((root / folder).resolve())(name, {f"{name}.py": f"NAME = {name!r}\n".encode()})
    empty.write("show.py", "import beside, far, near, shown\nprint(beside.NAME, far.NAME, near.NAME, shown.NAME)\n")
    empty.write(
        "venvstacks.toml",
        stack(
            layer("application", "show", *WHEELS.values(), runtime="python", launch_module="show.py"),
            uv='[tool.uv]\nno-index = true\nfind-links = ["listed", "../found"]\n',
        ),
    )
    options = ("--local-wheels", "inside", "--local-wheels", "../outside")
    empty.publish(*options)
    assert say(unpack(empty, tmp_path / "stack"), "app-show", "-m", "show") == "beside far near shown\n"
    lock = empty.read("requirements/app-show/pylock.app-show.toml")
    for path in (f"{folder}/{name}-1.0-py3-none-any.whl" for folder, name in WHEELS.items()):
        wheel = root / path
        assert f'path = "../../{path}"' in lock
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() in lock
    written = [*(root / "requirements").rglob("*"), *(root / "_artifacts").rglob("*.json")]
    for file in (path for path in written if path.is_file()):
        assert str(tmp_path).encode() not in file.read_bytes(), file

    (tmp_path / "moved").mkdir()
    for name in ("outside", "found"):
        shutil.move(tmp_path / name, tmp_path / "moved" / name)
    empty.root = root.rename(tmp_path / "moved" / "workspace")
    assert empty.publish("--locked", *options).executed == set()


# -- modules ----------------------------------------------------------------------------------------------------------


def git(*arguments: str | Path, cwd: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": str(cwd)}
    given = ["-c", "user.name=a", "-c", "user.email=a@a.invalid", "-c", "protocol.file.allow=always"]
    done = subprocess.run(["git", *given, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def put_into_repository(space: Space, kind: str, folder: Path) -> None:
    """Move the workspace into a git work tree of some kind, with its sources committed."""
    sources = ("venvstacks.toml", "hello.py", "world", "wheels", "requirements")
    repository = folder / "repository"
    inside = repository / "deep" / "stack" if kind == "subfolder" else repository
    inside.mkdir(parents=True)
    for name in sources:
        (space.root / name).rename(inside / name)
    (repository / ".gitignore").write_text("*.secret\n/ignored\n_build/\n_artifacts/\n.strata/\n")
    (inside / "world" / ".gitignore").write_text("notes/\n!kept.secret\n")
    git("init", "-q", "-b", "main", cwd=repository)
    git("add", "-A", cwd=repository)
    git("commit", "-q", "-m", "one", cwd=repository)
    space.root = inside
    if kind == "worktree":
        git("worktree", "add", "-q", folder / "tree", "-b", "side", cwd=repository)
        space.root = folder / "tree"
    elif kind == "submodule":
        (folder / "outer").mkdir()
        git("init", "-q", cwd=folder / "outer")
        git("submodule", "--quiet", "add", repository, "inner", cwd=folder / "outer")
        space.root = folder / "outer" / "inner"
    if kind in ("worktree", "submodule"):
        assert (space.root / ".git").is_file()
    exclude = folder / "outer/.git/modules/inner" if kind == "submodule" else repository / ".git"
    (exclude / "info").mkdir(exist_ok=True)
    (exclude / "info" / "exclude").write_text("mine.py\n")


@needs_git
@pytest.mark.parametrize("kind", ["top", "subfolder", "worktree", "submodule"])
def test_ignored_files_are_neither_shipped_nor_hashed(space: Space, tmp_path: Path, kind: str) -> None:
    """In whatever work tree the stack file lies; venvstacks knows a `.git` folder only."""
    put_into_repository(space, kind, tmp_path / "git")
    ignored = ("a.secret", "notes/today.py", "mine.py", "__pycache__/names.cpython-311.pyc")
    for name in ignored:
        space.write(f"world/{name}", "one")
    # Not ignored is what git has not been told of, and what a nearer pattern brings back.
    for name in ("new.py", "kept.secret"):
        space.write(f"world/{name}", "NEW = 1\n")
    space.publish()
    site = {path for path in members(space.root / "_artifacts/app-world.tar.gz") if "/world/" in path}
    assert {path.partition("/world/")[2] for path in site} == {
        *("__init__.py", "__main__.py", "names.py", "new.py", "kept.secret")
    }
    assert say(unpack(space, tmp_path / "stack"), "app-world", "-m", "world") == "world wide beta\n"
    described = entries(space)["app-world"]
    for name in (*ignored, "notes/more.py"):
        space.write(f"world/{name}", "two and more")
    space.forget_snapshots()
    ran = space.publish()
    assert ran.counts["up_to_date"] == len(ran.keys)
    assert entries(space)["app-world"] == described
    space.write("world/new.py", "NEW = 2\n")
    assert space.publish().executed == {"app-world/link", "app-world/archive[tar.gz]"}
    assert entries(space)["app-world"]["app_launch_module_hash"] != described["app_launch_module_hash"]


def test_support_modules(empty: Space, tmp_path: Path) -> None:
    """Files and packages, from the stack file's folder and from above it; each change reaches its application alone."""
    empty.write("tools/single.py", "NAME = 'single'\n")
    empty.write("tools/several/__init__.py", "from several.inner import NAME\n")
    empty.write("tools/several/inner.py", "NAME = 'several'\n")
    empty.write("../above/shared.py", "NAME = 'shared'\n")
    empty.write("show/__main__.py", "import several, shared, single\nprint(several.NAME, shared.NAME, single.NAME)\n")
    empty.write("other.py", "import shared\nprint('other', shared.NAME)\n")
    empty.write(
        "venvstacks.toml",
        stack(
            layer(
                "application",
                "show",
                runtime="python",
                launch_module="show",
                support_modules=["tools/single.py", "../above/shared.py", "tools/several"],
            ),
            layer(
                "application",
                "other",
                runtime="python",
                launch_module="other.py",
                support_modules=["../above/shared.py"],
            ),
            uv="[tool.uv]\nno-index = true\n",
        ),
    )
    empty.publish()
    place = unpack(empty, tmp_path / "stack")
    assert say(place, "app-show", "-m", "show") == "several shared single\n"
    assert say(place, "app-other", "-m", "other") == "other shared\n"
    listed = entries(empty)["app-show"]["app_support_modules"]
    assert sorted(module["name"] for module in listed) == ["several", "shared", "single"]
    empty.write("tools/several/inner.py", "NAME = 'changed'\n")
    assert empty.publish().executed == {"app-show/link", "app-show/archive[tar.gz]"}
    empty.write("../above/shared.py", "NAME = 'everywhere'\n")
    empty.publish()
    unpack(empty, place, "app-show", "app-other")
    assert say(place, "app-show", "-m", "show") == "changed everywhere single\n"
    assert say(place, "app-other", "-m", "other") == "other everywhere\n"


# -- what packages are made of ----------------------------------------------------------------------------------------


def test_files_that_another_tool_would_drop(empty: Space, tmp_path: Path) -> None:
    """`sitecustomize.py` and files whose names start with a dot belong to their package, wherever they are."""
    empty.wheel(
        "odd",
        {
            "odd/__init__.py": b"from odd import sitecustomize\nNAME = sitecustomize.NAME\n",
            "odd/sitecustomize.py": b"NAME = 'customized'\n",
            "odd/.hidden": b"hidden\n",
            "odd/.folder/deep.txt": b"deep\n",
            ".odd.ini": b"ini\n",
            "odd-1.0.data/data/.odd-settings": b"settings\n",
            "odd-1.0.data/data/share/.odd/more": b"more\n",
        },
    )
    empty.wheel("site_wide", {"sitecustomize.py": b"import builtins\nbuiltins.CUSTOMIZED = 'at start'\n"})
    empty.write(
        "show/__main__.py",
        "import pathlib, sys, odd, show\n"
        "here, package = pathlib.Path(show.__path__[0]), pathlib.Path(odd.__file__).parent\n"
        "low = package.parents[3]\n"
        "files = (here / '.env', here / '.conf/x', package / '.hidden', package / '.folder/deep.txt',\n"
        "         package.parent / '.odd.ini', low / '.odd-settings', low / 'share/.odd/more')\n"
        "print(odd.NAME, CUSTOMIZED, *(file.read_text().strip() for file in files))\n",
    )
    empty.write("show/.env", "env")
    empty.write("show/.conf/x", "x")
    empty.write(
        "venvstacks.toml",
        stack(
            layer("framework", "low", "odd", "site_wide", runtime="python"),
            layer("application", "show", frameworks=["low"], launch_module="show"),
        ),
    )
    empty.publish()
    place = unpack(empty, tmp_path / "stack")
    assert say(place, "app-show", "-m", "show") == "customized at start env x hidden deep ini settings more\n"
    # And after the step that venvstacks needs.
    done = subprocess.run([place / "python/bin/python", place / "app-show/postinstall.py"], check=False)
    assert done.returncode == 0
    assert say(place, "app-show", "-m", "show") == "customized at start env x hidden deep ini settings more\n"


def test_names_of_every_kind(empty: Space, tmp_path: Path) -> None:
    """Spaces, dots, `@`, letters of any script: in folders, labels, lock files and links between layers."""
    empty.wheel("alpha", {"alpha.py": b"NAME = 'alpha'\n"})
    empty.write("my app.d/größe.py", "import alpha\nprint('run with', alpha.NAME)\n")
    empty.write(
        "venvstacks.toml",
        stack(
            layer("framework", "num py.1@x", "alpha", runtime="python", versioned=True),
            layer("framework", "up[2]", frameworks=["num py.1@x"]),
            layer("application", "my app v2.0@3", frameworks=["up[2]"], launch_module="my app.d/größe.py"),
        ),
    )
    empty.publish()
    names = {"python", "framework-num py.1@x@1", "framework-up[2]", "app-my app v2.0@3"}
    assert {entry["install_target"] for entry in entries(empty).values()} == names
    lock = "requirements/framework-num py.1@x/pylock.framework-num py_1@x.toml"
    assert "alpha" in empty.read(lock)
    place = unpack(empty, tmp_path / "a place with spaces")
    assert {path.name for path in place.iterdir()} == names
    assert say(place, "app-my app v2.0@3", "-m", "größe") == "run with alpha\n"
    assert empty.ok("run", "my app v2.0@3").stdout == "run with alpha\n"
    assert empty.build("app-my app v2.0@3/link").executed == set()
    only = empty.build("--include", "app-my*@3")
    assert only.executed == set()
    assert start(place, "framework-num py.1@x@1", "-c", "import alpha").returncode == 0
