"""The runtime rule: its actions, their labels and keys, and one run from archive to runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from runtimes import interpreters, pbs_archive

from strata_engine.action import Action, Scope
from strata_engine.key import compute
from strata_engine.rule import Analysis, Target, analyze
from strata_engine.tree import File, Tree, lookup
from strata_rules.download.client import Network
from strata_rules.providers import RuntimeInfo
from strata_rules.runtime.choose import ArchiveChoice, Chosen, LocalChoice, PbsChoice
from strata_rules.runtime.local import Found
from strata_rules.runtime.rule import RuntimeAttrs, runtime

if TYPE_CHECKING:
    from conftest import Bench

SHA = "ab" * 32


def analysis(chosen: Chosen, folder: Path, platform: str = "linux_x86_64") -> tuple[Analysis, RuntimeInfo]:
    attrs = RuntimeAttrs(
        layer="rt",
        platform=platform,
        host="linux_x86_64",
        implementation="cpython",
        chosen=chosen,
        pin_path=folder / "runtime.rt.json",
        network=Network(offline=True),
        folder_for_parts=folder / "parts",
    )
    done = analyze([Target(name="rt", rule=runtime, attrs=attrs)])
    return done, done.get("rt", RuntimeInfo)


def actions(done: Analysis) -> dict[str, Action]:
    found = [done.graph.item(label) for label in done.graph.labels()]
    return {item.label: item for item in found if isinstance(item, Action)}


def test_an_archive_is_downloaded_and_unpacked(bench: Bench, tmp_path: Path) -> None:
    if not interpreters():
        pytest.skip("no CPython here can be a runtime")
    interpreter = interpreters()[0]
    archive, sha256 = pbs_archive(bench.store, interpreter, tmp_path)
    chosen = ArchiveChoice(version=interpreter.version, url=archive.as_uri(), sha256=sha256)
    done, info = analysis(chosen, tmp_path)
    found = actions(done)
    assert list(found) == ["rt/download", "rt/unpack"]
    assert (info.provider, info.version, info.python) == ("archive", interpreter.version, interpreter.python)
    assert bench.run(found["rt/download"]) == File(bench.store.put_file(archive))
    output = bench.run(found["rt/unpack"])
    assert isinstance(output, Tree)
    assert isinstance(lookup(bench.store, output, info.tree.path), Tree)
    assert isinstance(lookup(bench.store, output, info.facts.path), File)


def test_where_bytes_come_from_is_in_no_key(bench: Bench, tmp_path: Path) -> None:
    one = PbsChoice(version="3.12.9", url="u", urls=("https://one.example/a",), sha256=SHA)
    other = ArchiveChoice(version="3.12.9", url="https://me:pw@other.example/b", sha256=SHA)
    keys = []
    for chosen in (one, other):
        action = actions(analysis(chosen, tmp_path)[0])["rt/download"]
        assert (action.scope, action.fixed, action.pool) == (Scope.FIXED_OUTPUT, SHA, "network")
        keys.append(compute(action, {}, bench.store, b"").digest)
    assert keys[0] == keys[1]


def test_a_foreign_platform_has_labels_of_its_own(tmp_path: Path) -> None:
    chosen = PbsChoice(version="3.12.9", url="u", urls=("u",), sha256=SHA)
    done, info = analysis(chosen, tmp_path, "win_amd64")
    assert list(actions(done)) == ["rt/download[win_amd64]", "rt/unpack[win_amd64]"]
    assert info.tree.label == "rt/unpack[win_amd64]"


def test_a_local_runtime_is_keyed_by_what_it_is_and_stays_here(bench: Bench, tmp_path: Path) -> None:
    def chosen(identity: str) -> LocalChoice:
        return LocalChoice(version="3.12.9", identity=identity, tree=None, find=lambda: Found((), (), ()))

    done, info = analysis(chosen("cpython-3.12.9-aa"), tmp_path)
    action = actions(done)["rt/capture"]
    assert (info.provider, action.scope) == ("local", Scope.LOCAL)
    other = actions(analysis(chosen("cpython-3.12.9-bb"), tmp_path)[0])["rt/capture"]
    assert compute(action, {}, bench.store, b"").digest != compute(other, {}, bench.store, b"").digest
    assert str(tmp_path) not in repr(compute(action, {}, bench.store, b""))
