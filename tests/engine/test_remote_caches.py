"""All remotes of a build as one: made of settings, closed at its end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builds import Site, counts, make, remote
from caches import Hostile, Nginx, nginx

from strata_engine.codec import decode_action_result
from strata_engine.collect import collect, stats
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, StrataError
from strata_engine.remote.caches import RemoteCaches
from strata_engine.remote.found import Found
from strata_engine.remote.settings import Upload
from strata_engine.remote.spool import FOLDER
from strata_engine.store import LocalStore, open_store
from strata_engine.tree import Artifact, File
from strata_engine.verify import verify


@pytest.fixture
def server() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = open_store(tmp_path / "store", lambda _: None)
    yield store
    store.close()


def nothing() -> None:
    """Ask for nothing to be stopped."""


def opened(store: LocalStore, *urls: str, **more: Any) -> RemoteCaches:
    said: list[Diagnostic] = []
    return RemoteCaches(remote(*urls, **more), store.folder, store.cas, store.cache, said.append)


def test_it_asks_nobody_by_itself(server: Hostile, store: LocalStore) -> None:
    caches = opened(store, server.url, upload=Upload.WAIT)
    assert (caches.left, caches.wait(0), caches.error(), caches.sends) == (0, True, None, True)
    assert str(caches.told(0)) == "remote: 0 B read, 0 hits"
    caches.close()
    caches.close()
    assert server.seen == []
    assert not (store.folder / FOLDER).exists()


def test_where_nothing_is_written_nothing_is_offered_or_resumed(server: Hostile, tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    server.manner = lambda number, method, path: "403" if method == "PUT" else "well"
    site.remotes = remote(server.url, upload=Upload.WAIT)
    site.build([make("a")])
    assert list((site.store / FOLDER).rglob("*-*"))
    server.manner = lambda number, method, path: "well"
    site.remotes = remote(server.url)
    site.build([make("b")])
    assert [method for method in server.methods() if method == "PUT"] == ["PUT"]
    site.remotes = remote(server.url, upload=Upload.WAIT)
    site.build([make("b")])
    site.build([make("c")])
    assert not list((site.store / FOLDER).rglob("*-*"))


def test_a_key_that_is_none_is_the_users_to_mend(store: LocalStore) -> None:
    with pytest.raises(StrataError, match="public key"):
        opened(store, "http://host", public_keys=("ed25519:x",))
    with pytest.raises(StrataError) as error:
        opened(store, "http://host", signing_key="-----BEGIN s3cret")
    assert "s3cret" not in str(error.value.diagnostics)


def test_what_a_hit_has_saved_is_told_until_it_turns_out_to_be_gone(store: LocalStore) -> None:
    caches = opened(store, "http://127.0.0.1:9")
    key = Digest.of(b"key")
    caches.took(key, 40.0)
    assert str(caches.told(2)) == "remote: 0 B read, 2 hits, saved ~40 s"
    caches.disbelieve(key)
    assert str(caches.told(1)) == "remote: 0 B read, 1 hit"
    caches.close()


def test_what_one_has_made_another_finds(tmp_path: Path, store: LocalStore) -> None:
    with nginx(tmp_path / "server") as server:
        here = Site(tmp_path / "here")
        here.remotes = remote(server.url, upload=Upload.WAIT)
        result = here.build([make("a", say="x" * 9000)])
        key = Digest.parse(result.actions[0].key)
        with here.opened_store() as theirs:
            action = theirs.cas.get(key)
        caches = opened(store, server.url)
        answer = caches.find(key, action, None, lambda _: True, nothing)
        assert isinstance(answer, Found)
        assert answer.artifact == File(Digest.of(b"x" * 9000))
        assert caches.latency > 0
        caches.close()


# -- a store whose results have their blobs elsewhere ----------------------------------------------------------------


def big(execution: Any) -> Artifact:
    return File(execution.store.put(b"big" * 9000))


def taken(tmp_path: Path, server: Nginx | Hostile) -> Site:
    """Give a site that knows a result by name."""
    here = Site(tmp_path / "here")
    here.remotes = remote(server.url, upload=Upload.WAIT)
    here.build([make("a", run=big)])
    there = Site(tmp_path / "there")
    there.remotes = remote(server.url)
    assert counts(there.build([make("a", run=big)])) == {"remote": 1}
    return there


def test_collection_leaves_a_result_whose_blobs_were_never_here(tmp_path: Path, server: Hostile) -> None:
    there = taken(tmp_path, server)
    with there.opened_store() as store:
        assert stats(store).results == 1
        gone = collect(store, max_bytes=1 << 40)
        assert gone.results == 0
        assert stats(store).results == 1
    asked = len(server.seen)
    result = there.build([make("a", run=big)], places={"out": "a"})
    assert result.counts["executed"] == 0
    assert (there.root / "out").read_bytes() == b"big" * 9000
    assert [path for _, path, _ in server.seen[asked:] if "/ac/" in path] == []


def test_reading_all_of_a_store_finds_no_damage_in_it(tmp_path: Path, server: Hostile) -> None:
    there = taken(tmp_path, server)
    with there.opened_store() as store:
        verified = verify(store)
    assert verified.clean
    assert (verified.results, verified.incomplete_results, verified.damaged_results) == (1, 1, 0)
    assert counts(there.build([make("a", run=big)])) == {"up_to_date": 1}


def test_what_waits_survives_the_loss_of_what_it_needs(tmp_path: Path, server: Hostile) -> None:
    site = Site(tmp_path / "site")
    server.manner = lambda number, method, path: "503" if method != "GET" else "well"
    site.remotes = remote(server.url, upload=Upload.WAIT)
    site.build([make("a", run=big), make("b")])
    assert len(list((site.store / FOLDER).rglob("*-*"))) == 2
    with site.opened_store() as store:
        collect(store, max_age=0)
    server.manner = lambda number, method, path: "well"
    shutil.rmtree(site.store / "remote", ignore_errors=True)
    result = site.build([make("c")])
    assert result.exit_code == 0
    assert not list((site.store / FOLDER).rglob("*-*"))
    kept = [decode_action_result(data) for path, data in server.blobs.items() if "/ac/" in path]
    assert len([result for result in kept if result.output_files]) == 1
