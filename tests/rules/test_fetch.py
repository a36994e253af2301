"""Fetch: locked wheels by SHA-256, from an index, a folder or a file URL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from strata_engine.action import Scope
from strata_engine.digest import Digest, digest_file
from strata_engine.errors import HostError, SpecError
from strata_rules.download.client import Network
from strata_rules.pylock import LockedWheel
from strata_rules.wheel.fetch import Access, fetch_action, names


def locked(file: Path, *, url: str | None = None, path: str | None = None, sha256: str | None = None) -> LockedWheel:
    name, version = file.name.split("-")[:2]
    return LockedWheel(name, version, file.name, sha256 or digest_file(file).hash, None, url, path)


@pytest.fixture
def access(tmp_path: Path) -> Access:
    return Access(Network(attempts=1, pause=0.0), tmp_path / "parts", tmp_path)


@pytest.fixture
def server(make_wheel) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(make_wheel.folder))) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_the_key_is_the_hash_and_nothing_else(make_wheel, access, tmp_path):
    wheel = make_wheel("pkg", {})
    action = fetch_action(locked(wheel, url="https://x/y"), "fetch/x", lock_folder=tmp_path, access=access)
    assert (action.scope, action.fixed, action.pool) == (Scope.FIXED_OUTPUT, digest_file(wheel).hash, "network")
    assert not action.params
    assert not action.inputs
    assert not action.environment


def test_wheels_come_from_an_index_a_file_url_and_a_path(bench, make_wheel, access, server, tmp_path):
    wheel = make_wheel("pkg", {"pkg.py": b"1"})
    for where in (
        locked(wheel, url=f"{server}/{wheel.name}"),
        locked(wheel, url=wheel.as_uri()),
        locked(wheel, path=f"../wheels/{wheel.name}"),
    ):
        action = fetch_action(where, "fetch/pkg", lock_folder=tmp_path / "requirements", access=access)
        fetched = bench.run(action)
        assert fetched.digest == Digest.of(wheel.read_bytes())
        assert bench.store.get(fetched.digest) == wheel.read_bytes()


def test_a_moved_wheel_is_taken_from_its_url(bench, make_wheel, access, server, tmp_path):
    wheel = make_wheel("pkg", {})
    both = locked(wheel, url=f"{server}/{wheel.name}", path=f"gone/{wheel.name}")
    bench.run(fetch_action(both, "fetch/pkg", lock_folder=tmp_path, access=access))


def test_other_bytes_are_refused(bench, make_wheel, access, server, tmp_path):
    wheel = make_wheel("pkg", {})
    expected = "0" * 64
    for where in (
        locked(wheel, url=f"{server}/{wheel.name}", sha256=expected),
        locked(wheel, path=f"wheels/{wheel.name}", sha256=expected),
    ):
        with pytest.raises(HostError) as caught:
            bench.run(fetch_action(where, "fetch/pkg", lock_folder=tmp_path, access=access))
        assert [diagnostic.id for diagnostic in caught.value.diagnostics] == ["wrong-sha256"]


def test_a_lock_cannot_reach_outside_the_declared_folders(make_wheel, access, tmp_path):
    outside = locked(make_wheel("pkg", {}), path="../../pkg-1.0-py3-none-any.whl")
    with pytest.raises(SpecError) as caught:
        fetch_action(outside, "fetch/pkg", lock_folder=tmp_path, access=access)
    assert [diagnostic.id for diagnostic in caught.value.diagnostics] == ["wheel-outside"]
    declared = access._replace(wheel_folders=(tmp_path.parents[1],))
    fetch_action(outside, "fetch/pkg", lock_folder=tmp_path, access=declared)


def test_names_are_files_and_only_a_differing_one_says_its_hash():
    first, second = (LockedWheel("a", "1", "a-1-py3-none-any.whl", digit * 64, url="https://x/") for digit in "12")
    moved = LockedWheel("a", "1", "a-1-py3-none-any.whl", "1" * 64, path="wheels/a-1-py3-none-any.whl")
    assert names([first, second, moved], taken=lambda name: None) == {
        first: "a-1-py3-none-any.whl",
        second: "a-1-py3-none-any.whl~22222222",
        moved: "a-1-py3-none-any.whl",
    }
