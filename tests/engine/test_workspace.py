from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from strata_engine.errors import HostError
from strata_engine.workspace import Workspace, command_line, exclusive, write_atomically


def test_paths_are_named_relative_to_the_root(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.relative(tmp_path / "a" / "b.toml") == "a/b.toml"
    assert workspace.relative(tmp_path) == "."
    assert workspace.relative("a/b") == "a/b"
    assert workspace.relative("/elsewhere/x") == "/elsewhere/x"


def test_the_state_folder_is_ignored_by_git_and_left_alone_afterwards(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "deep" / "er")
    workspace.prepare()
    assert (workspace.state / ".gitignore").read_text() == "*\n"
    (workspace.state / ".gitignore").write_text("mine")
    workspace.prepare()
    assert (workspace.state / ".gitignore").read_text() == "mine"


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / ".strata").write_text("a file")
    with pytest.raises(HostError) as error:
        Workspace(tmp_path).prepare()
    assert error.value.diagnostics[0].id == "state-not-writable"


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    old = os.umask(0o077)
    try:
        write_atomically(path, b"one")
        write_atomically(path, b"two", mode=0o600)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        write_atomically(path, b"two")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"three")
    assert path.read_bytes() == b"two"
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "f").symlink_to("precious")
    write_atomically(tmp_path / "f", b"new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "f").is_symlink()


def test_a_lock_is_held_by_one_and_says_by_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/strata", "build", "https://me:secret@index.example/simple"])
    order: list[str] = []
    told: list[str] = []
    waiting = threading.Event()

    def tell(holder: str) -> None:
        told.append(holder)
        waiting.set()

    def second() -> None:
        with exclusive(tmp_path / "lock", tell):
            order.append("second")

    with exclusive(tmp_path / "lock", pytest.fail):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(20)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    [holder] = told
    assert holder.startswith(f"process {os.getpid()} since ")
    assert holder.endswith(": strata build https://***@index.example/simple")
    # Nobody is named once nobody has it.
    assert (tmp_path / "lock").read_text() == ""


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from strata_engine.workspace import exclusive\n"
        "with exclusive(Path(sys.argv[1]), print): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path / "lock"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
    with exclusive(tmp_path / "lock", pytest.fail):
        pass


def test_a_lock_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(HostError) as error, exclusive(tmp_path / "none" / "lock", print):
        pass
    assert error.value.diagnostics[0].id == "lock-not-writable"


def test_arguments_are_told_without_secrets_and_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["x", "--index", "https://user:p%40ss@host/a", "--x=http://token@h/", "a@b", "caf\udce9"]
    )
    assert command_line() == ["--index", "https://***@host/a", "--x=http://***@h/", "a@b", "caf\\udce9"]


def test_who_has_failed_is_not_said_to_hold_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), exclusive(tmp_path / "lock", pytest.fail):
        raise KeyError
    assert (tmp_path / "lock").read_text() == ""
