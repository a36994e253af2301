"""One small stack, built once per session, that each test gets a copy of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from space import Space, copy_tree, write_stack


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


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave out of this process's environment what asks for other behaviour."""
    for name in [name for name in os.environ if name.startswith(("STRATA_", "UV_"))]:
        monkeypatch.delenv(name)
    for name in ("CI", "GITHUB_ACTIONS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STRATA_CACHE_DIR", str(tmp_path / "store"))
