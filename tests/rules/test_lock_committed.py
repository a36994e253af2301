"""committed: when a lock in git is valid, and what is written beside it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strata_engine.digest import Digest
from strata_engine.errors import HostError, Place
from strata_engine.tree import File, Store, Tree, assemble
from strata_rules.lock import postprocess
from strata_rules.lock.committed import CommittedLock
from strata_rules.lock.pins import Pin
from strata_rules.lock.request import Request
from strata_rules.spec.uvconfig import LayerUvConfig

KEY, OTHER = Digest.of(b"request"), Digest.of(b"other request")
DAY = dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC)


def committed(root: Path, **changes: Any) -> CommittedLock:
    request = Request(
        layer="cpython-3.11",
        requirements=("nice",),
        python="3.11",
        platforms=("linux_x86_64",),
        linux_target="glibc@2.28",
        macosx_target="13.0",
        uv=LayerUvConfig(root=root, settings={}, indexes=(), sources={}),
    )
    made = CommittedLock(request=request, now=lambda: DAY)
    return msgspec.structs.replace(made, **changes)


def artifact(store: Store, lock: CommittedLock, version: str = "1.0") -> Tree:
    data = postprocess.empty(lock.request).replace(
        b"packages = []\n",
        f'\n[[packages]]\nname = "nice"\nversion = "{version}"\nwheels = [{{ url = "https://h.invalid/nice-{version}'
        f'-py3-none-any.whl", hashes = {{ sha256 = "{"ab" * 32}" }} }}]\n'.encode(),
    )
    files = postprocess.outputs(data, lock.request)
    return assemble(store, {name: File(store.put(content)) for name, content in files.items()})


def meta(lock: CommittedLock) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lock.metadata_path.read_text())
    return found


def test_what_was_written_is_read_for_the_same_request_only(bench: Any, tmp_path: Path) -> None:
    lock = committed(tmp_path)
    assert lock.read(KEY, bench.store) is None
    made = artifact(bench.store, lock)
    lock.write(KEY, made, bench.store)
    assert lock.read(KEY, bench.store) == made
    assert lock.why_invalid(KEY) == ()
    assert lock.read(OTHER, bench.store) is None
    assert lock.why_invalid(OTHER)[0].startswith("what `cpython-3.11` was locked for has changed: ")
    assert {path.name for path in lock.folder.iterdir()} == {
        "pylock.cpython-3_11.toml",
        "pylock.cpython-3_11.meta.json",
        "requirements-cpython-3_11.in",
        "packages-cpython-3.11.txt",
    }
    assert meta(lock)["locked_at"] == "2026-01-02T03:04:05+00:00"
    assert lock.preferred() == (Pin("nice", "1.0"),)


def test_what_has_changed_is_said(bench: Any, tmp_path: Path) -> None:
    lock = committed(tmp_path)
    lock.write(KEY, artifact(bench.store, lock), bench.store)

    def why(**changes: Any) -> tuple[str, ...]:
        request = msgspec.structs.replace(lock.request, **changes)
        return msgspec.structs.replace(lock, request=request).why_invalid(OTHER)

    assert why(requirements=("nice>=2", "more")) == (
        "the requirements of `cpython-3.11` have changed since it was locked: "
        "`more` is required now, `nice>=2` is required now, `nice` is no longer required",
    )
    assert why(linux_target="glibc@2.35")[0].startswith("the Python, the C library targets or the layers below")
    assert lock.tampered() is None
    lock.pylock_path.write_bytes(lock.pylock_path.read_bytes() + b"# mine\n")
    edited = lock.tampered()
    assert edited is not None
    assert edited.place == Place("requirements/cpython-3.11/pylock.cpython-3_11.toml", 0)


def test_unchanged_files_are_not_touched_and_time_is_kept(bench: Any, tmp_path: Path) -> None:
    lock = committed(tmp_path)
    lock.write(KEY, artifact(bench.store, lock), bench.store)
    inodes = {path.name: path.stat().st_ino for path in lock.folder.iterdir()}
    later = committed(tmp_path, now=lambda: DAY + dt.timedelta(days=1))
    later.write(OTHER, artifact(bench.store, later), bench.store)
    changed = {path.name for path in lock.folder.iterdir() if path.stat().st_ino != inodes[path.name]}
    assert changed == {"pylock.cpython-3_11.meta.json"}
    assert meta(later)["locked_at"] == "2026-01-02T03:04:05+00:00"
    later.write(OTHER, artifact(bench.store, later, "2.0"), bench.store)
    assert meta(later)["locked_at"] == "2026-01-03T03:04:05+00:00"


def test_exclude_newer_is_the_time_of_the_lock(bench: Any, tmp_path: Path) -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    lock = committed(tmp_path, lock_time=dt.datetime(2024, 1, 1, tzinfo=zone))
    lock.write(KEY, artifact(bench.store, lock), bench.store)
    assert meta(lock)["locked_at"] == "2023-12-31T22:00:00+00:00"


def test_versions_count_changes_of_versioned_layers(bench: Any, tmp_path: Path) -> None:
    lock = committed(tmp_path, versioned=True, modules=("sha256:1",))
    lock.write(KEY, artifact(bench.store, lock), bench.store)
    assert meta(lock)["lock_version"] == 1
    lock.write(OTHER, artifact(bench.store, lock), bench.store)
    assert meta(lock)["lock_version"] == 1
    lock.write(OTHER, artifact(bench.store, lock, "2.0"), bench.store)
    assert meta(lock)["lock_version"] == 2
    edited = msgspec.structs.replace(lock, modules=("sha256:2",))
    assert "modules have changed" in edited.why_invalid(OTHER)[0]
    edited.write(OTHER, artifact(bench.store, lock, "2.0"), bench.store)
    assert meta(edited)["lock_version"] == 3
    plain = msgspec.structs.replace(lock, versioned=False)
    plain.write(OTHER, artifact(bench.store, lock, "2.0"), bench.store)
    assert meta(plain)["lock_version"] == 1


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"strata": 3}', b"\xff", b"[" * 100_000])
def test_unreadable_metadata_means_not_valid(bench: Any, tmp_path: Path, data: bytes) -> None:
    lock = committed(tmp_path)
    lock.write(KEY, artifact(bench.store, lock), bench.store)
    lock.metadata_path.write_bytes(data)
    assert lock.read(KEY, bench.store) is None
    assert lock.why_invalid(KEY)
    lock.write(KEY, artifact(bench.store, lock), bench.store)
    assert lock.read(KEY, bench.store) is not None


def test_a_lock_that_is_broken_but_sealed_is_not_valid(bench: Any, tmp_path: Path) -> None:
    lock = committed(tmp_path)
    lock.write(KEY, artifact(bench.store, lock), bench.store)
    lock.pylock_path.write_bytes(b"lock-version = 3\n")
    record = meta(lock)
    record["strata"]["content"] = f"sha256:{Digest.of(lock.pylock_path.read_bytes()).hash}"
    lock.metadata_path.write_text(json.dumps(record))
    assert lock.read(KEY, bench.store) is None
    assert lock.preferred() == ()


def test_a_folder_that_cannot_be_written_is_the_hosts(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "requirements").write_text("in the way")
    lock = committed(tmp_path)
    with pytest.raises(HostError, match="cannot write the lock of"):
        lock.write(KEY, artifact(bench.store, lock), bench.store)


def test_another_uv_is_said(bench: Any, tmp_path: Path) -> None:
    lock = committed(tmp_path)
    lock.write(KEY, artifact(bench.store, lock), bench.store)
    record = meta(lock)
    record["strata"]["uv"] = "0.1"
    lock.metadata_path.write_text(json.dumps(record))
    assert lock.why_invalid(KEY) == ()
    assert lock.why_invalid(OTHER)[-1].startswith("it was locked with uv 0.1, this is uv ")
