from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from pbs_installer._versions import PYTHON_VERSIONS

from strata_engine.errors import SpecError
from strata_rules.cli.init import PYTHON, scaffold
from strata_rules.spec.load import load_stack


def test_the_scaffold_is_a_valid_stack_whose_runtime_can_be_had(tmp_path: Path) -> None:
    scaffold(tmp_path / "new" / "stack")
    path = tmp_path / "new" / "stack" / "venvstacks.toml"
    stack = load_stack(path, Path.read_bytes)
    assert [layer.env_name for layer in stack.layers] == ["python", "framework-console", "app-hello"]
    assert stack.warnings == ()
    assert path.read_text().startswith("#:schema ")
    assert tomllib.loads(path.read_text())["tool"]["strata"]["runtimes"]["python"]["provider"] == ["local", "pbs"]
    ast.parse((path.parent / "hello.py").read_text())
    known = {
        f"{version.major}.{version.minor}.{version.micro}"
        for version in PYTHON_VERSIONS
        if version.implementation == "cpython"
    }
    assert PYTHON in known


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("mine")
    with pytest.raises(SpecError) as caught:
        scaffold(tmp_path)
    assert caught.value.diagnostics[0].id == "would-overwrite"
    assert [path.name for path in tmp_path.iterdir()] == ["hello.py"]
    (tmp_path / "hello.py").unlink()
    (tmp_path / "strata.toml").touch()
    with pytest.raises(SpecError):
        scaffold(tmp_path)


def test_an_ignore_file_is_added_to(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.pyc\n_build/")
    scaffold(tmp_path)
    assert (tmp_path / ".gitignore").read_text().splitlines() == [
        "*.pyc",
        "_build/",
        "_artifacts/",
        "_export/",
        ".strata/",
    ]
