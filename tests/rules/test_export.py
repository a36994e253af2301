"""What is exported, what may be in its way, and what is left of earlier exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strata_engine.action import Ref
from strata_engine.errors import HostError
from strata_rules.export import check_places, exported, left_over
from strata_rules.providers import ArchiveInfo, CompiledInfo
from strata_rules.publish import Manifest


def write(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def describe(out: Path, layer: str, **fields: object) -> None:
    write(out / "__venvstacks__" / "env_metadata" / f"{layer}.json", json.dumps({"layer_name": layer, **fields}))


def nobody(path: Path) -> bool:
    return False


def refused(out: Path, *names: str) -> list[str]:
    """Give the identities and places of what is in the way."""
    try:
        check_places(out, [out / name for name in names], nobody)
    except HostError as error:
        return [f"{found.id} {Path(found.message.split('`')[1]).name}" for found in error.diagnostics]
    return []


def test_a_layer_is_exported_with_bytecode_that_goes_with_its_folder() -> None:
    compiled = CompiledInfo(
        layer="app-x", install_target="app-x@2", platform="linux_x86_64", tree=Ref("a"), checked=Ref("b")
    )
    assert exported(compiled) == ArchiveInfo(
        layer="app-x", install_target="app-x@2", platform="linux_x86_64", format="dir", archive=Ref("a")
    )


def test_nothing_is_in_the_way_where_nothing_or_an_empty_folder_is(tmp_path: Path) -> None:
    (tmp_path / "out" / "app-empty").mkdir(parents=True)
    assert refused(tmp_path / "out", "app-none", "app-empty") == []
    assert refused(tmp_path / "none", "app-x") == []


def test_all_that_no_export_has_made_is_refused_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out / "app-folder" / "file")
    write(out / "app-file")
    write(tmp_path / "target" / "file")
    (out / "app-link").symlink_to(tmp_path / "target")
    (out / "app-dangling").symlink_to(tmp_path / "none")
    names = ("app-folder", "app-file", "app-link", "app-dangling")
    assert refused(out, *names, "app-free") == [f"place-taken {name}" for name in names]
    # Metadata that names them makes a folder an export, and nothing else.
    for name in names:
        describe(out, name, install_target=name)
    assert refused(out, *names) == [f"place-taken {name}" for name in names[1:]]


@pytest.mark.parametrize(
    "text", ["", "[]", "not json", '{"install_target": 7}', "\ud800".encode("utf-8", "surrogatepass")]
)
def test_metadata_that_cannot_be_read_names_nothing(tmp_path: Path, text: str | bytes) -> None:
    write(tmp_path / "app-x" / "file")
    path = write(tmp_path / "__venvstacks__" / "env_metadata" / "app-x.json")
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    assert refused(tmp_path, "app-x") == ["place-taken app-x"]


def test_metadata_of_an_archive_names_no_folder(tmp_path: Path) -> None:
    write(tmp_path / "app-x" / "file")
    describe(tmp_path, "app-x", install_target="app-x", archive_name="app-x.tar.xz")
    assert refused(tmp_path, "app-x") == ["place-taken app-x"]


def test_what_this_workspace_has_put_there_may_be_replaced(tmp_path: Path) -> None:
    write(tmp_path / "app-x" / "file")
    check_places(tmp_path, [tmp_path / "app-x"], lambda path: path == tmp_path / "app-x")


@pytest.mark.parametrize("path", ["out", "out/__venvstacks__", "out/__venvstacks__/env_metadata"])
def test_a_file_where_the_folder_or_its_metadata_goes_is_refused(tmp_path: Path, path: str) -> None:
    write(tmp_path / path)
    with pytest.raises(HostError) as caught:
        check_places(tmp_path / "out", [tmp_path / "out" / "app-x"], nobody)
    [found] = caught.value.diagnostics
    assert str(tmp_path / path) in found.message
    assert found.hint


def test_what_is_left_of_layers_that_are_gone_is_told(tmp_path: Path) -> None:
    stale = (tmp_path / "app-gone", tmp_path / "app-kept@1", tmp_path / "app-other")
    manifest = Manifest(tmp_path / "venvstacks.json", {}, (), stale)
    told = left_over([manifest], {"app-kept@2", "app-other"})
    assert [Path(found.message.split("`")[1]).name for found in told] == ["app-gone", "app-kept@1"]
    assert {(found.id, found.severity) for found in told} == {("stale-export", "warning")}
