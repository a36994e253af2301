"""Damage to what the builds before have left: noticed, said, healed, and never in the outputs."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from space import Space

from strata_engine.digest import Digest, digest_file

BIG = b"DATA = '" + b"x" * 9_000 + b"'\n"
HEALED = "note: it was put into `quarantine` and is made or fetched again\n"


def flip(path: Path) -> None:
    """Change a file's last byte and nothing else that shows."""
    path.chmod(0o644)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    path.chmod(0o444)


def blob(space: Space, data: bytes) -> Path:
    name = Digest.of(data).hash
    return space.store / "cas" / name[:2] / name


def outputs(space: Space) -> dict[str, str]:
    """Hash all that is built."""
    top = space.root / "_build"
    return {str(path.relative_to(top)): digest_file(path).hash for path in top.rglob("*") if path.is_file()}


def rows(space: Space, kind: bytes, keys: list[str] | None = None) -> int:
    """Overwrite the values of rows of one kind in the index, some of them or all; count them."""
    with sqlite3.connect(space.store / "cache.db") as database:
        if keys is None:
            return database.execute("UPDATE Cache SET value = x'0102' WHERE substr(key, 1, 1) = ?", (kind,)).rowcount
        wanted = [(kind + bytes.fromhex(key),) for key in keys]
        return database.executemany("UPDATE Cache SET value = x'0102' WHERE key = ?", wanted).rowcount


@pytest.fixture
def big(space: Space) -> Space:
    """Build with a module that is a file of its own in the store."""
    space.wheel("alpha", {"alpha.py": BIG + b"NAME = 'alpha'\n"})
    space.build()
    return space


def test_a_damaged_blob(big: Space) -> None:
    good = outputs(big)
    damaged = blob(big, BIG + b"NAME = 'alpha'\n")
    flip(damaged)
    # Nobody reads it while nothing is to be done.
    assert big.build().counts["executed"] == 0
    shutil.rmtree(big.layer("framework-low"))
    ran = big.build()
    digest = f"{damaged.name}/{len(BIG) + 15}"
    assert ran.stderr.startswith(f"warning[corrupt-blob]: `{digest}` in the store `{big.store}` is damaged\n{HEALED}")
    assert ran.executed == {
        "wheel/alpha-1.0-py3-none-any.whl",
        "framework-low/install",
        "framework-low/link",
    }
    assert outputs(big) == good
    assert digest_file(damaged).hash == damaged.name
    assert big.ok("run", "hello").stdout == "hello alpha gamma\n"
    assert big.build().counts["executed"] == 0


def test_every_blob_and_every_row(big: Space) -> None:
    good = outputs(big)
    for path in (big.store / "cas").rglob("*"):
        if path.is_file():
            flip(path)
    assert rows(big, b"b") > 100
    shutil.rmtree(big.root / "_build")
    ran = big.build()
    assert ran.stderr.count("warning[corrupt-blob]: ") > 10
    assert ran.stderr.count(HEALED) == ran.stderr.count("warning[corrupt-blob]: ")
    assert outputs(big) == good
    assert big.build().counts["executed"] == 0


def test_damaged_results(built: Space) -> None:
    good = outputs(built)
    keys = {label: key.partition("/")[0] for label, key in built.build().keys.items()}
    for label in ("app-hello/link", "wheel/beta-1.0-py3-none-any.whl"):
        assert rows(built, b"a", [keys[label]]) == 1
    shutil.rmtree(built.root / ".strata")
    ran = built.build()
    assert ran.executed == {"app-hello/link", "wheel/beta-1.0-py3-none-any.whl"}
    for label in ran.executed:
        note = "note: it is made or fetched again\n"
        assert f"warning[corrupt-result]: the result of `{label}` in the store is damaged\n{note}" in ran.stderr
    assert ran.stderr.count("warning") == 2
    assert outputs(built) == good
    assert built.build().counts["executed"] == 0


def test_a_damaged_index(built: Space) -> None:
    database = built.store / "cache.db"
    good = outputs(built)
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])
    said = built.build("--force", "app-hello/link").stderr
    assert said.startswith(f"warning[index-corrupt]: the index `{built.store}` is damaged: ")
    assert "note: it was set aside and begun anew; what it held is made or fetched again\n" in said
    assert outputs(built) == good
    assert built.build().counts["executed"] == 0


def test_an_index_that_is_gone(space: Space) -> None:
    (space.store / "cache.db").unlink()
    assert space.build("framework-low/lock").stderr.startswith(
        f"warning[index-lost]: the store `{space.store}` has blobs and no index\n"
        "note: the index is begun anew; what it held is made or fetched again\n"
    )


def test_damaged_state(built: Space) -> None:
    built.ok("build")
    state = built.root / ".strata"
    for snapshot in (state / "snapshots").iterdir():
        flip(snapshot)
    said = built.ok("build").stderr
    assert said.startswith(
        "warning[state-damaged]: what was remembered of the last build for the next one is damaged and was begun anew\n"
        "note: file: .strata/snapshots/"
    )
    assert "hint: nothing is lost: everything was looked at instead\n24 actions: 24 up to date in " in said
    assert built.ok("build").stderr.startswith("24 actions: 24 up to date in ")
    for file, what, hint in (
        ("history", "the history of this workspace is damaged (its seal is broken)", "the reasons of this one build"),
        ("sources", "what was known of this workspace's files is damaged", None),
    ):
        flip(state / file)
        built.write("hello.py", built.read("hello.py") + "\n")
        ran = built.build()
        lost = f"nothing is lost but {hint}" if hint else "nothing is lost: each file is read once more"
        assert ran.stderr.startswith(
            f"warning[state-damaged]: {what} and was begun anew\nnote: file: .strata/{file}\nhint: {lost}\n"
        )
        assert ran.executed == {"app-hello/link"}
        assert built.build().stderr.startswith("24 actions: 24 up to date in ")
