from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from strata_engine.revision import revision

COMMIT, OTHER = "a" * 40, "0123456789" * 4


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=n", "-c", "user.email=e@example.invalid", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_what_git_says_in_every_kind_of_checkout(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    inner = repository / "stacks" / "one"
    inner.mkdir(parents=True)
    git(repository, "init", "-q")
    assert revision(inner) == ""
    git(repository, "commit", "-q", "--allow-empty", "-m", "first")
    first = git(repository, "rev-parse", "HEAD")
    assert revision(inner) == revision(repository) == first
    git(repository, "pack-refs", "--all")
    assert revision(inner) == first
    git(repository, "worktree", "add", "-q", "-b", "topic/deep", str(tmp_path / "tree"))
    git(tmp_path / "tree", "commit", "-q", "--allow-empty", "-m", "second")
    assert revision(tmp_path / "tree") == git(tmp_path / "tree", "rev-parse", "HEAD") != first
    git(repository, "checkout", "-q", "--detach")
    assert revision(inner) == first


@pytest.mark.parametrize(
    "head", ["", "ref: ", "ref: ../../secret", "ref: /etc/passwd", "ref: refs/heads/none", "ref: HEAD", "x" * 40, "\0"]
)
def test_what_cannot_be_made_out_is_no_revision(tmp_path: Path, head: str) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "secret").write_text(COMMIT)
    (tmp_path / ".git" / "HEAD").write_text(head)
    assert revision(tmp_path) == ""


def test_a_git_file_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: elsewhere\n")
    assert revision(tmp_path) == ""
    (tmp_path / ".git").write_text("nonsense")
    assert revision(tmp_path) == ""
