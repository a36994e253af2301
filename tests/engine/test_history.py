from __future__ import annotations

import threading
from pathlib import Path

import pytest

from strata_engine.digest import Digest
from strata_engine.history import History, Past
from strata_engine.tree import Artifact, File, Tree

KEY, OUT = Digest.of(b"key"), Digest.of(b"out")


def saved(path: Path) -> History:
    history = History(path)
    history.record("a/link", Past.of(KEY, Tree(OUT), 1.5, 100))
    history.record("a/failed", Past.of(KEY, None, 2.0))
    history.save()
    return history


@pytest.mark.parametrize("artifact", [File(OUT), File(OUT, executable=True), Tree(OUT), None])
def test_what_a_label_came_to_survives(tmp_path: Path, artifact: Artifact | None) -> None:
    history = History(tmp_path / "history")
    assert history.past("x") is None
    history.record("x", Past.of(KEY, artifact, 1.5, 7))
    history.save()
    again = History(tmp_path / "history")
    past = again.past("x")
    assert past is not None
    assert past.artifact == artifact
    assert (past.key, past.seconds) == (KEY, 1.5)
    assert again.labels() == {"x": past}
    assert again.warning is None


def test_durations_are_those_that_are_known(tmp_path: Path) -> None:
    history = saved(tmp_path / "history")
    history.record("never", Past.of(KEY, File(OUT), 0.0))
    assert history.seconds() == {"a/link": 1.5, "a/failed": 2.0}


def test_durations_may_be_asked_for_while_threads_record(tmp_path: Path) -> None:
    history = History(tmp_path / "history")

    def record() -> None:
        for number in range(20_000):
            history.record(f"x{number}", Past.of(KEY, File(OUT), 1.0))

    thread = threading.Thread(target=record)
    thread.start()
    while thread.is_alive():
        history.seconds()
    assert len(history.seconds()) == 20_000


def test_what_stands_at_a_place_is_told_by_content_and_stamp(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    path = tmp_path / "caf\udce9"
    path.mkdir()
    assert not history.intact(path, Tree(OUT))
    assert history.placed(path) is None
    history.record_placed(path, Tree(OUT))
    history.save()
    again = History(tmp_path / "history")
    assert again.intact(path, Tree(OUT))
    assert not again.intact(path, Tree(KEY))
    (path / "edit").touch()
    assert not again.intact(path, Tree(OUT))
    placed = again.placed(path)
    assert placed is not None
    assert placed.output == OUT
    (path / "edit").unlink()
    path.rmdir()
    assert not again.intact(path, Tree(OUT))


def test_damage_is_said_and_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "history"
    saved(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[20] ^= 1
    for damage in (b"", whole[:10], whole[:-1], whole + b"x", bytes(flipped), b"\x80\x04 pickle"):
        path.write_bytes(damage)
        history = History(path)
        assert history.labels() == {}
        assert history.warning is not None
        assert history.warning.id == "state-damaged"
        assert history.warning.severity == "warning"
    path.unlink()
    assert History(path).warning is None
    assert History(path / "below" / "a" / "file").warning is None
    path.mkdir()
    unreadable = History(path)
    assert unreadable.warning is not None


def test_saving_leaves_nothing_else(tmp_path: Path) -> None:
    saved(tmp_path / "history")
    saved(tmp_path / "history")
    assert [each.name for each in tmp_path.iterdir()] == ["history"]
