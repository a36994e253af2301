"""postinstall.py: what it writes on Windows, told here by a flag, and what it refuses anywhere."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runtimes import interpreters

from strata_rules.link import postinstall

SITE = "Lib/site-packages"
CONFIG: dict[str, Any] = {
    "python": "Scripts\\python.exe",
    "py_version": "3.12.9",
    "base_python": "..\\cpython\\python.exe",
    "site_dir": "Lib\\site-packages",
    "pylib_dirs": ["..\\framework-ä\\Lib\\site-packages", "..\\cpython\\Lib\\site-packages"],
    "dynlib_dirs": ["..\\framework-ä\\Library\\bin", "..\\cpython\\Library\\bin"],
}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="stands in for Windows on other systems")


def put(folder: Path, runs: str = sys.executable, **changes: object) -> Path:
    """Unpack a stack as an archive for Windows has it; its runtime is a Python of this machine."""
    app = folder / "app-x"
    for path, data in {
        "cpython/Lib/site-packages/below.py": "who = 'runtime'\n",
        f"framework-ä/{SITE}/below.py": "who = 'framework'\n",
        f"framework-ä/{SITE}/extra.pth": "more\n",
        f"framework-ä/{SITE}/more/deep.py": "",
        "framework-ä/Library/bin/x.dll": "MZ",
        f"app-x/{SITE}/app.py": "x = 1\n",
        f"app-x/{SITE}/template.py": "def (\n",
        "app-x/Scripts/python.exe": "MZ",
        "app-x/share/venv/metadata/venvstacks_layer.json": json.dumps(CONFIG | changes),
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(data, encoding="utf-8")
    (folder / "cpython/python.exe").symlink_to(os.path.realpath(runs))
    shutil.copy(postinstall.__file__, app / "postinstall.py")
    return app


def stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def home_as_the_launcher_reads_it(data: bytes) -> str:
    """Read `home` as venvlauncher.exe does: the first `home` in the file that is followed by `=`, as UTF-8."""
    at = data.find(b"home")
    while at >= 0:
        name, sign, value = data[at:].partition(b"\n")[0].partition(b"=")
        if name.strip() == b"home" and sign:
            return value.strip().decode("utf-8")
        at = data.find(b"\nhome", at) + 1 or -1
    raise AssertionError("no home")


def test_a_windows_layer_names_its_place_and_is_compiled_once(tmp_path: Path) -> None:
    stack = tmp_path / "C drive, größer 层"
    app = put(stack)
    assert postinstall.finish(app, windows=True) == 0
    data = (app / "pyvenv.cfg").read_bytes()
    assert home_as_the_launcher_reads_it(data) == str(stack / "cpython")
    assert data.decode("utf-8").splitlines() == [
        f"home = {stack / 'cpython'}",
        "include-system-site-packages = false",
        "version = 3.12.9",
        f"executable = {stack / 'cpython/python.exe'}",
    ]
    tag = sys.implementation.cache_tag
    names = [path.name for path in app.rglob("*.pyc")]
    assert sorted(names) == [f"app.{tag}.pyc", f"sitecustomize.{tag}.pyc"], "and not the template"
    assert not [path for path in stack.rglob("*.pyc") if app not in path.parents], "one layer only"
    before = stamps(app)
    assert postinstall.finish(app, windows=True) == 0
    assert stamps(app) == before

    # Moved, it is told anew; the bytecode stays.
    moved = tmp_path / "elsewhere"
    stack.rename(moved)
    assert postinstall.finish(moved / "app-x", windows=True) == 0
    text = (moved / "app-x/pyvenv.cfg").read_text(encoding="utf-8")
    text += (moved / f"app-x/{SITE}/sitecustomize.py").read_text(encoding="utf-8")
    assert str(stack) not in text
    assert str(moved) in text


def test_sitecustomize_puts_the_layers_below_on_the_path_in_order(tmp_path: Path) -> None:
    stack = tmp_path / 'größer it\'s "here"'
    app = put(stack)
    postinstall.finish(app, windows=True)
    # What only Windows has is stood in for; the rest is the text as it is.
    code = (
        "import os, sys; added = []; os.add_dll_directory = added.append\n"
        f"sys.path.insert(0, {str(app / SITE)!r}); import sitecustomize, below, deep\n"
        "print(ascii([below.who, added, sys.path[-3:]]))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    who, added, path = ast.literal_eval(done.stdout)
    assert who == "framework"
    assert added == [str(stack / "framework-ä/Library/bin")], "a folder that is not there is left out"
    assert path == [
        str(stack / f"framework-ä/{SITE}"),
        str(stack / f"framework-ä/{SITE}/more"),
        str(stack / f"cpython/{SITE}"),
    ]


def test_another_python_writes_the_same_and_compiles_nothing_of_its_own(tmp_path: Path) -> None:
    others = [each for each in interpreters() if each.python != f"{sys.version_info.major}.{sys.version_info.minor}"]
    if not others:
        pytest.skip("one version of Python is here")
    app = put(tmp_path / "stack", others[0].executable, py_version=others[0].version)
    assert postinstall.finish(app, windows=True) == 0
    text = (app / "pyvenv.cfg").read_text(encoding="utf-8")
    assert f"home = {tmp_path / 'stack/cpython'}\n" in text
    assert f"version = {others[0].version}\n" in text
    tags = {path.name.split(".")[1] for path in app.rglob("*.pyc")}
    assert tags == {f"cpython-{others[0].python.replace('.', '')}"}


def test_a_runtime_for_windows_has_nothing_to_link(tmp_path: Path) -> None:
    app = put(tmp_path)
    runtime = tmp_path / "cpython"
    (runtime / "share/venv/metadata").mkdir(parents=True)
    own = {"python": "python.exe", "base_python": "python.exe", "pylib_dirs": [], "dynlib_dirs": []}
    (runtime / postinstall.CONFIG).write_text(json.dumps(CONFIG | own))
    shutil.copy(app / "postinstall.py", runtime)
    assert postinstall.finish(runtime, windows=True) == 0
    assert not (runtime / "pyvenv.cfg").exists()
    assert not (runtime / SITE / "sitecustomize.py").exists()
    assert list((runtime / "Lib").rglob("below.*.pyc"))


def test_a_layer_for_another_system_is_left_as_it_is(tmp_path: Path) -> None:
    app = put(tmp_path)
    before = stamps(tmp_path)
    done = subprocess.run([sys.executable, app / "postinstall.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: the layer in {app} is for Windows, and has to be finished there\n"
    posix = put(tmp_path / "two", python="bin/python", site_dir="lib/python3.12/site-packages")
    with pytest.raises(postinstall.LayerError, match="is for Linux or macOS"):
        postinstall.finish(posix, windows=True)
    assert {path: stamp for path, stamp in stamps(tmp_path).items() if "/two/" not in path} == before


@pytest.mark.parametrize(
    "changes",
    [
        {"python": "../cpython/python.exe"},
        {"python": 3},
        {"base_python": "../../python.exe"},
        {"base_python": "..\\..\\python.exe"},
        {"base_python": "/usr/bin/python.exe"},
        {"base_python": "../missing/python.exe"},
        {"site_dir": "../framework-ä/Lib/site-packages"},
        {"site_dir": "."},
        {"pylib_dirs": ["../.."]},
        {"pylib_dirs": "../x"},
        {"dynlib_dirs": ["../framework-ä/../../x"]},
        {"dynlib_dirs": None},
    ],
)
def test_what_leads_elsewhere_is_refused_before_anything_is_written(tmp_path: Path, changes: dict[str, object]) -> None:
    app = put(tmp_path / "a/b", **changes)
    before = stamps(tmp_path)
    with pytest.raises(postinstall.LayerError):
        postinstall.finish(app, windows=True)
    assert stamps(tmp_path) == before
