"""One small stack, built once per session, that each test gets a copy of."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import uv
from conftest import uv_environ
from runtimes import OWN, interpreters
from space import Space, copy_tree, write_stack
from venvstacks import Venvstacks, environment, runtime

ROOT = Path(__file__).resolve().parents[2]
MINOR = OWN.rpartition(".")[0]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Space:
    """Give the template after its first build. Not to be changed: see `space`."""
    folder = tmp_path_factory.mktemp("template")
    made = Space(folder / "workspace", folder / "store")
    made.root.mkdir()
    write_stack(made)
    made.ok("publish")
    made.ok("build")
    return made


@pytest.fixture
def space(template: Space, tmp_path: Path) -> Space:
    """Give a copy of the template: sources, locks and a store that knows all of it, but nothing built here yet."""
    return template.copy(tmp_path / "workspace", tmp_path / "store")


@pytest.fixture
def built(space: Space) -> Space:
    """Give a copy of the template in which a build has been made."""
    space.ok("build")
    return space


@pytest.fixture
def empty(tmp_path: Path, template: Space) -> Space:
    """Give a workspace without any file, and a store in which the template's runtime and wheels are known."""
    (tmp_path / "workspace").mkdir()
    copy_tree(template.store, tmp_path / "store")
    return Space(tmp_path / "workspace", tmp_path / "store")


@pytest.fixture(scope="session")
def venvstacks(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Venvstacks:
    """Give the real venvstacks, installed once and kept with pytest's cache."""
    cache = pytestconfig.cache
    assert cache is not None, "the tests need pytest's cache"
    kept = cache.mkdir("venvstacks")
    return Venvstacks(environment(kept), runtime(kept), tmp_path_factory.mktemp("venvstacks") / "uv")


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave out of this process's environment what asks for other behaviour."""
    for name in [name for name in os.environ if name.startswith(("STRATA_", "UV_"))]:
        monkeypatch.delenv(name)
    for name in ("CI", "GITHUB_ACTIONS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STRATA_CACHE_DIR", str(tmp_path / "store"))


@pytest.fixture(scope="session")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with the project in it, for a Python of another minor version; it is kept for the session."""
    others = [found for found in interpreters() if found.python != MINOR]
    if not others:
        pytest.skip(f"this machine has no CPython from 3.11 on besides {MINOR}")
    folder = tmp_path_factory.mktemp("other-python") / "venv"
    tool = uv.find_uv_bin()
    python = folder / "bin" / "python"
    for command in (
        [tool, "venv", "--no-project", "--python", others[0].executable, str(folder)],
        [tool, "pip", "install", "--no-config", "--python", str(python), "--editable", str(ROOT)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=uv_environ())
        assert done.returncode == 0, done.stderr
    return python
