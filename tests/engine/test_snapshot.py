from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from strata_engine.digest import ABSENT, Stamp, stamp
from strata_engine.snapshot import KEPT, answer, pack, prune

REQUEST, ANSWER = b"build\0env", b"31 actions: up to date"


@pytest.fixture
def seen(tmp_path: Path) -> dict[str, Stamp]:
    """What a build has seen: a file, a folder, and paths where nothing was."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("one")
    paths = [tmp_path / "src", tmp_path / "src" / "app.py", tmp_path / "uv.toml", tmp_path / "no" / "where"]
    return {str(path): stamp(path) for path in paths}


def test_it_answers_only_what_was_asked(seen: dict[str, Stamp]) -> None:
    data = pack(REQUEST, ANSWER, seen)
    assert answer(data, REQUEST) == ANSWER
    assert answer(data, REQUEST + b"x") is None
    assert answer(data, b"") is None
    assert answer(pack(b"", b"", {}), b"") == b""


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "src" / "app.py").write_text("two"),
        lambda root: (root / "src" / "app.py").unlink(),
        lambda root: os.utime(root / "src" / "app.py"),
        lambda root: (root / "src" / "app.py").chmod(0o755),
        lambda root: (root / "src" / "new.py").touch(),
        lambda root: (root / "uv.toml").touch(),
        lambda root: (root / "no").mkdir() or (root / "no" / "where").touch(),
        lambda root: (root / "uv.toml").mkdir(),
        lambda root: (root / "src").rename(root / "away"),
        # Neither there nor absent: in doubt there is no answer.
        lambda root: (root / "uv.toml").symlink_to(root / "uv.toml"),
    ],
)
def test_any_change_of_what_was_seen_is_no_answer(tmp_path: Path, seen: dict[str, Stamp], change: object) -> None:
    data = pack(REQUEST, ANSWER, seen)
    change(tmp_path)  # type: ignore[operator] # each is a function of a folder
    assert answer(data, REQUEST) is None


def test_what_was_not_seen_may_change(tmp_path: Path, seen: dict[str, Stamp]) -> None:
    data = pack(REQUEST, ANSWER, seen)
    (tmp_path / "other").touch()
    (tmp_path / "link").symlink_to("nowhere")
    assert answer(data, REQUEST) == ANSWER


def test_the_same_bytes_written_again_with_the_old_time_are_a_change(tmp_path: Path, seen: dict[str, Stamp]) -> None:
    data = pack(REQUEST, ANSWER, seen)
    path = tmp_path / "src" / "app.py"
    moment = path.stat().st_mtime_ns
    path.write_text("two")
    os.utime(path, ns=(moment, moment))
    assert path.stat().st_mtime_ns == moment
    assert answer(data, REQUEST) is None


def test_paths_that_are_not_text(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    Path(path).write_text("x")
    data = pack(REQUEST, ANSWER, {path: stamp(path), path + "2": ABSENT})
    assert answer(data, REQUEST) == ANSWER
    Path(path).unlink()
    assert answer(data, REQUEST) is None


def test_damage_of_any_kind_is_no_answer(seen: dict[str, Stamp]) -> None:
    data = pack(REQUEST, ANSWER, seen)
    for length in range(len(data)):
        assert answer(data[:length], REQUEST) is None, length
    assert answer(data + b"\0", REQUEST) is None
    rng = random.Random(0)
    for _ in range(300):
        at, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
        damaged = bytearray(data)
        damaged[at] ^= bit
        assert answer(bytes(damaged), REQUEST) is None, (at, bit)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for number in range(KEPT + 5):
        path = tmp_path / str(number)
        path.touch()
        os.utime(path, (number, number))
    prune(tmp_path)
    assert {int(path.name) for path in tmp_path.iterdir()} == set(range(5, KEPT + 5))
