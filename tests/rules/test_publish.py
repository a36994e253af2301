"""Publishing: what is there afterwards, what is left alone, and what a failure in the middle leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from strata_engine.digest import Digest
from strata_engine.errors import HostError, SpecError
from strata_engine.tree import File, assemble
from strata_rules import publish as module
from strata_rules.metadata import Kind, LockFacts, PublishLayer
from strata_rules.publish import publish


def a_layer(store: Any, name: str, content: bytes | None, **changes: Any) -> PublishLayer:
    kind: Kind = "application" if name.startswith("app-") else "runtime"
    version = changes.pop("lock_version", 1)
    fields: dict[str, Any] = {
        "layer": name,
        "kind": kind,
        "install_target": name,
        "platform": "linux_x86_64",
        "format": "tar.gz",
        "artifact": None if content is None else File(store.put(content)),
        "lock": LockFacts(requirements_hash="sha256:aa", lock_version=version, locked_at="2025-01-01T00:00:00+00:00"),
        "runtime_layer": "cpython",
        "python_implementation": "cpython@3.12.9",
    }
    return PublishLayer(**fields | changes)


def listing(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_archives_metadata_and_manifest(bench: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    layers = [a_layer(bench.store, "cpython", b"runtime"), a_layer(bench.store, "app-x", b"x" * 9000)]
    made = publish(bench.store, out, layers)
    found = listing(out)
    assert sorted(found) == [
        "__venvstacks__/env_metadata/app-x.json",
        "__venvstacks__/env_metadata/cpython.json",
        "__venvstacks__/venvstacks.json",
        "app-x.tar.gz",
        "cpython.tar.gz",
    ]
    assert found["app-x.tar.gz"] == b"x" * 9000
    document = json.loads(found["__venvstacks__/venvstacks.json"])
    assert document == made[0].document
    (app,) = document["layers"]["applications"]
    assert app == json.loads(found["__venvstacks__/env_metadata/app-x.json"])
    assert (app["archive_build"], app["archive_name"]) == (1, "app-x.tar.gz")
    assert app["archive_hashes"]["sha256"] == Digest.of(b"x" * 9000).hash

    before = inodes(out)
    again = publish(bench.store, out, layers)
    assert inodes(out) == before, "nothing that is right is written again"
    assert not any(item.changed for item in again[0].layers)
    (out / "app-x.tar.gz").write_bytes(b"x" * 8999 + b"y")
    publish(bench.store, out, layers)
    assert listing(out) == found, "damage is mended, and is no new build"


def test_build_numbers(bench: Any, tmp_path: Path) -> None:
    def build(content: bytes, **changes: Any) -> int:
        (made,) = publish(bench.store, tmp_path, [a_layer(bench.store, "app-x", content, **changes)])
        return int(made.layers[0].fields["archive_build"])

    assert [build(b"a"), build(b"a"), build(b"b"), build(b"c"), build(b"c")] == [1, 1, 2, 3, 3]
    assert build(b"d", lock_version=2) == 1
    assert build(b"e", lock_version=2) == 2
    assert build(b"f", lock_version=2, platform="linux_aarch64") == 1
    (tmp_path / "__venvstacks__/env_metadata/app-x.json").write_text("{ broken")
    assert build(b"g", lock_version=2) == 1


def test_tagged_outputs_lie_side_by_side(bench: Any, tmp_path: Path) -> None:
    both = [
        a_layer(bench.store, "app-x", b"1"),
        a_layer(bench.store, "app-x", b"2", platform="win_amd64", format="zip"),
        a_layer(bench.store, "app-x", b"3", platform="linux_aarch64"),
    ]
    with pytest.raises(SpecError, match="the name of 2") as caught:
        publish(bench.store, tmp_path / "none", both)
    assert "--tag-outputs" in str(caught.value.diagnostics[0].hint)
    assert not (tmp_path / "none").exists()
    made = publish(bench.store, tmp_path / "out", both, tag_outputs=True)
    assert [manifest.path.name for manifest in made] == [
        "venvstacks-linux_x86_64.json",
        "venvstacks-win_amd64.json",
        "venvstacks-linux_aarch64.json",
    ]
    changed = [a_layer(bench.store, "app-x", b"4"), *both[1:]]
    made = publish(bench.store, tmp_path / "out", changed, tag_outputs=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"app-x-linux_x86_64-1.tar.gz", "app-x-linux_x86_64-2.tar.gz", "app-x-win_amd64-1.zip"} <= names
    assert [path.name for path in made[0].stale] == ["app-x-linux_x86_64-1.tar.gz"]


def test_what_no_longer_belongs_is_told_and_left(bench: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    both = [a_layer(bench.store, "cpython", b"r"), a_layer(bench.store, "app-x", b"x")]
    publish(bench.store, out, both)
    (made,) = publish(bench.store, out, both[:1])
    assert made.stale == (out / "app-x.tar.gz",)
    assert (out / "app-x.tar.gz").exists()
    assert "app-x" not in made.path.read_text()
    hostile = {"layers": {"applications": [{"archive_name": "../../etc"}, {"archive_name": 3}, 7], "x": None}}
    made.path.write_text(json.dumps(hostile))
    (made,) = publish(bench.store, out, both[:1])
    assert made.stale == ()


def test_a_dry_run_writes_nothing(bench: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (made,) = publish(bench.store, out, [a_layer(bench.store, "app-x", None)], dry_run=True)
    assert not out.exists()
    fields = made.layers[0].fields
    assert "archive_size" not in fields
    assert (fields["archive_build"], made.layers[0].changed) == (1, True)


def test_a_folder_is_placed_and_described_as_an_export(bench: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tree = assemble(bench.store, {"bin/run": File(bench.store.put(b"#!"), executable=True)})
    layer = a_layer(bench.store, "app-x", None, format="dir", artifact=tree)
    publish(bench.store, out, [layer])
    assert os.access(out / "app-x/bin/run", os.X_OK)
    described = json.loads((out / "__venvstacks__/env_metadata/app-x.json").read_text())
    assert described["layer_name"] == "app-x"
    assert not any(name.startswith("archive") for name in described)


@pytest.mark.parametrize(
    ("taken", "is_folder"),
    [
        ("out", False),
        ("out/__venvstacks__", False),
        ("out/__venvstacks__/env_metadata", False),
        ("out/app-x.tar.gz", True),
    ],
)
def test_a_place_that_is_taken_is_named_and_nothing_written(
    bench: Any, tmp_path: Path, taken: str, is_folder: bool
) -> None:
    layers = [a_layer(bench.store, "cpython", b"runtime"), a_layer(bench.store, "app-x", b"x")]
    place = tmp_path / taken
    place.parent.mkdir(parents=True, exist_ok=True)
    place.mkdir() if is_folder else place.touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(HostError, match=f"cannot use `{place}`: {'Is' if is_folder else 'Not'} a directory"):
        publish(bench.store, tmp_path / "out", layers)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3, 4])
def test_a_failure_in_the_middle_leaves_a_true_manifest(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    out = tmp_path / "out"
    old = [a_layer(bench.store, "cpython", b"r" * 50), a_layer(bench.store, "app-x", b"x" * 50)]
    publish(bench.store, out, old)
    new = [
        a_layer(bench.store, "cpython", b"R" * 70),
        a_layer(bench.store, "app-x", b"X" * 70),
        a_layer(bench.store, "app-new", b"N" * 70),
    ]
    calls = 0

    def failing(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == fails_at + 1:
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "export", failing(bench.store.export), raising=False)
        patch.setattr(module, "write_atomically", failing(module.write_atomically))
        with pytest.raises(HostError, match="space"):
            publish(bench.store, out, new)
    document = json.loads((out / "__venvstacks__/venvstacks.json").read_text())
    for category in document["layers"].values():
        for entry in category:
            content = (out / entry["archive_name"]).read_bytes()
            assert len(content) in (50, 70)
            assert len(set(content)) == 1
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    if fails_at < 3:
        assert (out / "app-x.tar.gz").read_bytes() == b"x" * 50, "no archive was replaced before all were there"
    publish(bench.store, out, new)
    assert (out / "app-new.tar.gz").read_bytes() == b"N" * 70
