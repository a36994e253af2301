"""Finding CPythons: which do, in what order, and what the search depended on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from strata_rules.runtime.local import Interpreter, discover, probe

Make = Callable[..., Path]
PLAIN = Interpreter(
    implementation="cpython",
    version="3.12.1",
    final=True,
    executable="",
    prefix="",
    stdlib="",
    dynload="",
    libdir="",
    multiarch="",
    platlibdir="lib",
    framework=False,
    debug=False,
    free_threaded=False,
    missing=(),
)


class Machine:
    """A folder of pretended interpreters, each a file that says what the probe is to answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: dict[str, Interpreter] = {}
        self.asked: list[str] = []

    def add(self, path: str, **fields: object) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
        self.answers[str(file)] = msgspec.structs.replace(PLAIN, executable=str(file), **fields)
        return file

    def probe(self, path: Path) -> Interpreter | None:
        self.asked.append(str(path))
        return self.answers.get(str(path.resolve()))

    def find(self, accept: str = ">=3.11", exact: str = "3.99.0", running: Path | None = None, **env: str) -> list[str]:
        environ = {"HOME": str(self.folder), "PATH": f"{self.folder}/a:{self.folder}/b"} | env
        found = discover(accept, exact, environ=environ, probe=self.probe, running=str(running or "/nowhere"))
        self.found = found
        return [str(Path(i.executable).relative_to(self.folder)) for i in found.interpreters]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_exact_version_comes_first_then_the_running_one_then_the_newest(machine: Machine) -> None:
    machine.add("a/python3.13", version="3.13.0")
    machine.add("b/python3", version="3.12.9")
    running = machine.add("c/python", version="3.11.4")
    machine.add(".pyenv/versions/3.14.0/bin/python3", version="3.14.0")
    machine.add(".local/share/uv/python/x/bin/python3", version="3.9.1")
    newest_first = [".pyenv/versions/3.14.0/bin/python3", "a/python3.13"]
    assert machine.find(exact="3.12.9", running=running) == ["b/python3", "c/python", *newest_first]
    assert machine.find(running=running) == ["c/python", *newest_first, "b/python3"]
    assert machine.find("<3.12,>=3.11", running=running) == ["c/python"]
    assert machine.find(STRATA_PYTHON=str(machine.folder / "b/python3"))[0] == "b/python3"
    assert [r.why for r in machine.found.rejected] == ["not `>=3.11`"]


def test_what_cannot_be_a_runtime_is_rejected_with_its_reason(machine: Machine) -> None:
    machine.add("a/python3.11", implementation="pypy")
    machine.add("a/python3.12", debug=True)
    machine.add("a/python3.13", free_threaded=True)
    machine.add("a/python3.14", final=False)
    machine.add("a/python3.15", missing=("ssl", "zlib"))
    machine.add("a/python3.16", framework=True)
    assert machine.find() == []
    assert {r.why for r in machine.found.rejected} == {
        "`pypy` is not CPython",
        "a debug build",
        "a free-threaded build",
        "a pre-release",
        "it cannot import `ssl`, `zlib`",
        "a macOS framework build cannot be moved",
    }


def test_one_interpreter_is_asked_once_and_shims_never(machine: Machine) -> None:
    real = machine.add("b/python3.12")
    (machine.folder / "a").mkdir()
    for name in ("python3", "python"):
        (machine.folder / "a" / name).symlink_to(real)
    machine.add(".pyenv/shims/python3")
    assert machine.find(PATH=f"{machine.folder}/.pyenv/shims:{machine.folder}/a:{machine.folder}/b") == ["b/python3.12"]
    inside = [path for path in machine.asked if path.startswith(str(machine.folder))]
    assert inside == [str(machine.folder / "a/python3")]


def test_the_answer_names_absent_paths_and_listed_folders(machine: Machine) -> None:
    machine.find()
    observed = set(machine.found.observed)
    assert {
        machine.folder / "a/python3.12",
        machine.folder / "b/python",
        machine.folder / ".pyenv/versions",
    } <= observed


def test_a_real_interpreter_says_what_it_is(tmp_path: Path) -> None:
    own = probe(Path(sys.executable))
    assert own is not None
    assert own.version == ".".join(map(str, sys.version_info[:3]))
    assert Path(own.stdlib, "os.py").is_file()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    inside = probe(tmp_path / "env/bin/python")
    assert inside is not None
    assert os.path.realpath(inside.executable) == os.path.realpath(own.executable)
    assert inside.prefix == sys.base_prefix


def test_what_is_no_python_is_none(tmp_path: Path) -> None:
    for name, text in {"fails": "exit 3", "chats": "echo hello", "lies": "echo '{\"version\": 3}'"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
        assert probe(tmp_path / name) is None
    (tmp_path / "plain").write_text("")
    assert probe(tmp_path / "plain") is None
    assert probe(tmp_path / "absent") is None
