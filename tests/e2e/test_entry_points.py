"""Console scripts: kept where the stack file asks for them, they work wherever their layer is; else there are none."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import record_hash
from deployed import layer, runtime, stack, table, unpack
from runtimes import OWN
from space import Space

MINOR = OWN.rpartition(".")[0]
PYTHONS = {"python", "python_", "python3", f"python{MINOR}"}

MAIN = b"""\
import json, sys
def main():
    import {module}
    print(json.dumps([sys.executable, sys.prefix, sys.argv[1:], {module}.__name__]))
    return 3
class group:
    main = main
"""


def write(space: Space, *settings: str) -> None:
    """Write a stack with scripts in its runtime, its framework and its application."""
    for name, module, attr in (("base", "base", "main"), ("low", "base", "group.main"), ("app", "low", "main")):
        space.wheel(
            name,
            {
                f"{name}.py": MAIN.replace(b"{module}", module.encode()),
                f"{name}-1.0.data/scripts/ready-{name}": (
                    f"#!python\nimport {name}\nraise SystemExit({name}.main())\n".encode()
                ),
                f"{name}-1.0.data/scripts/plain-{name}": f"#!/bin/sh\necho plain {name}\n".encode(),
                f"{name}-1.0.dist-info/entry_points.txt": (
                    f"[console_scripts]\nrun-{name} = {name}:{attr}\n[other]\nx = y\n".encode()
                ),
            },
        )
    space.write("start.py", "")
    layers = (
        runtime("python", "base"),
        layer("framework", "low", "low", runtime="python", versioned=True),
        layer("application", "use", "app", frameworks=["low"], launch_module="start.py"),
    )
    space.write("venvstacks.toml", stack(*layers, *settings))


def call(*command: str | Path, code: int = 3, **more: Any) -> Any:
    done = subprocess.run(command, **{"cwd": "/", "env": {}, **more}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    return json.loads(done.stdout) if code else done.stdout


def records(folder: Path) -> dict[str, tuple[str, str]]:
    """Read all RECORDs of a layer: path in the layer → hash and size."""
    found = {}
    for record in folder.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        with record.open(newline="") as stream:
            for path, hashed, size in csv.reader(stream):
                found[os.path.normpath(os.path.relpath(record.parent.parent, folder) + "/" + path)] = (hashed, size)
    return found


@pytest.mark.parametrize("dynlib", ["preload", "launcher"])
def test_scripts_use_their_own_layer_wherever_it_is(empty: Space, tmp_path: Path, dynlib: str) -> None:
    write(empty, table("tool.strata", entry_points=True, dynlib=dynlib))
    empty.publish()
    place = unpack(empty, tmp_path / "some where")
    for folder in (place, tmp_path / 'it\'s $HOME "now" ünï'):
        if folder != place:
            place.rename(folder)
        for target, name, module in (
            ("python", "base", "base"),
            ("framework-low@1", "low", "base"),
            ("app-use", "app", "low"),
        ):
            home = folder / target
            expected = [f"{home}/bin/python", str(home), ["a b", "*"], module]
            for script in (f"run-{name}", f"ready-{name}"):
                assert call(home / "bin" / script, "a b", "*") == expected
                assert call(f"bin/{script}", "a b", "*", cwd=home) == expected
                assert call(script, "a b", "*", cwd=tmp_path, env={"PATH": f"{home}/bin:/usr/bin:/bin"}) == expected
            assert call(home / "bin" / f"plain-{name}", code=0) == f"plain {name}\n"
    links = tmp_path / "links"
    links.mkdir()
    (links / "first").symlink_to(os.path.relpath(folder / "app-use/bin/run-app", links))
    (links / "second").symlink_to("first")
    assert call(links / "second") == [f"{folder}/app-use/bin/python", str(folder / "app-use"), [], "low"]
    assert call("./second", cwd=links)[1] == str(folder / "app-use")

    for target, names in (("app-use", ("run-app", "ready-app", "plain-app")), ("framework-low@1", ("run-low",))):
        recorded = records(folder / target)
        for name in names:
            script = folder / target / "bin" / name
            assert recorded[f"bin/{name}"] == (record_hash(script.read_bytes()), str(script.stat().st_size))
            assert str(tmp_path) not in script.read_text()
            assert script.stat().st_mode & 0o111 == 0o111


def test_without_being_asked_for_there_are_none(empty: Space) -> None:
    write(empty)
    empty.build()
    for target in ("framework-low@1", "app-use"):
        [home] = [
            path
            for path in (empty.root / "_build").iterdir()
            if path.name.partition("@")[0] == target.partition("@")[0]
        ]
        assert {path.name for path in (home / "bin").iterdir()} == PYTHONS
        recorded = records(home)
        assert recorded
        assert not [path for path in recorded if path.startswith("bin/")]
        for path, (hashed, _) in recorded.items():
            assert not hashed or hashed == record_hash((home / path).read_bytes()), path
    python = empty.layer("python")
    assert not [path for path in (python / "bin").iterdir() if path.name.endswith("-base")]
    assert not [path for path in records(python) if path.startswith("bin/")]

    # Asked for, only what has scripts is installed anew; and back again without any of it.
    write(empty, table("tool.strata", entry_points=True))
    again = empty.build()
    assert {label.partition("/")[2] for label in again.executed} == {"install", "link"}
    write(empty)
    assert empty.build().counts["executed"] == 0
    assert not list(empty.layer("app-use").glob("bin/*app"))


def test_a_script_may_not_be_called_as_an_interpreter_is(empty: Space) -> None:
    write(empty, table("tool.strata", entry_points=True))
    empty.wheel(
        "app",
        {
            "app.py": b"def main(): ...\n",
            "app-1.0.dist-info/entry_points.txt": b"[console_scripts]\npython_ = app:main\npython3 = app:main\n",
        },
    )
    failed = empty.strata("build")
    assert failed.code == 2
    for name in ("python3", "python_"):
        assert f"error[reserved-script]: `app` installs a script called `{name}`, which is the layer's" in failed.stderr
