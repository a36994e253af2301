"""Published metadata: venvstacks' fields and hash recipes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from strata_engine.capture import capture
from strata_engine.digest import Digest
from strata_engine.tree import File
from strata_rules.metadata import (
    LockFacts,
    PublishedModule,
    PublishLayer,
    archive_fields,
    layer_fields,
    lock_facts,
    manifest,
    module_hash,
    text,
)

LOCK = LockFacts(requirements_hash="sha256:aa", lock_version=3, locked_at="2025-01-01T00:00:00+00:00")
APP = PublishLayer(
    layer="app-x",
    kind="application",
    install_target="app-x@3",
    platform="linux_x86_64",
    format="tar.xz",
    artifact=File(Digest.of(b"archive")),
    lock=LOCK,
    runtime_layer="cpython@1",
    python_implementation="cpython@3.12.9",
    required_layers=("framework-sk", "framework-np"),
    launch_module=PublishedModule("main", "sha256:bb"),
    support_modules=(PublishedModule("aid", "sha256/cc"),),
)


def test_an_archive_has_all_fields() -> None:
    assert archive_fields(APP, "app-x@3.tar.xz", 2) == {
        "app_launch_module": "main",
        "app_launch_module_hash": "sha256:bb",
        "app_support_modules": [{"hash": "sha256/cc", "name": "aid"}],
        "archive_build": 2,
        "archive_hashes": {"sha256": hashlib.sha256(b"archive").hexdigest()},
        "archive_name": "app-x@3.tar.xz",
        "archive_size": 7,
        "bound_to_implementation": False,
        "install_target": "app-x@3",
        "layer_name": "app-x",
        "lock_version": 3,
        "locked_at": "2025-01-01T00:00:00+00:00",
        "python_implementation": "cpython@3.12.9",
        "required_layers": ["framework-sk", "framework-np"],
        "requirements_hash": "sha256:aa",
        "runtime_layer": "cpython@1",
        "target_platform": "linux_x86_64",
    }


def test_runtimes_and_windows_layers_are_bound() -> None:
    def with_(**changes: Any) -> dict[str, Any]:
        fields = {name: getattr(APP, name) for name in APP.__struct_fields__}
        return layer_fields(PublishLayer(**fields | changes))

    runtime = with_(kind="runtime", launch_module=None, support_modules=(), required_layers=())
    assert runtime["bound_to_implementation"] is True
    assert not {"required_layers", "app_launch_module", "app_support_modules"} & runtime.keys()
    assert with_(platform="win_amd64")["bound_to_implementation"] is True
    assert "archive_build" not in runtime


def test_the_manifest_is_written_as_venvstacks_does() -> None:
    written = text(manifest([("application", {"b": 1, "a": 2})])).decode()
    assert written.endswith("}\n")
    assert written == json.dumps(json.loads(written), indent=2, sort_keys=True) + "\n"
    assert json.loads(written)["layers"] == {"runtimes": [], "frameworks": [], "applications": [{"a": 2, "b": 1}]}


def reference(path: Path) -> str:
    """The recipe (reference: venvstacks §3.2), on a disk and without what is under test."""
    content = {p: "sha256:" + hashlib.sha256(p.read_bytes()).hexdigest() for p in path.rglob("*") if p.is_file()}
    if path.is_file():
        return (
            "sha256:"
            + hashlib.sha256(
                (path.name + "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()).encode()
            ).hexdigest()
        )
    said = ""
    for folder, subfolders, names in os.walk(path):
        subfolders.sort()
        said += Path(folder).name
        for name in sorted(names):
            said += name + content[Path(folder, name)]
    return "sha256/" + hashlib.sha256(said.encode()).hexdigest()


def test_module_hashes_are_venvstacks_own(bench: Any, tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    (package / "b/deep").mkdir(parents=True)
    (package / "a").mkdir()
    for name in ("__init__.py", "z.py", "b/deep/x.py", "a/y.py"):
        (package / name).write_text(name)
    tree = capture(bench.store, package)
    assert module_hash(bench.store, "pkg", tree) == reference(package)
    single = package / "z.py"
    assert module_hash(bench.store, "z.py", File(bench.store.put_file(single))) == reference(single)


@pytest.mark.parametrize("recorded", [{}, {"lock_version": "7"}, {"lock_version": -1, "locked_at": None}])
def test_edited_lock_metadata_is_read_without_harm(recorded: dict[str, Any]) -> None:
    assert lock_facts(recorded).lock_version == 1
