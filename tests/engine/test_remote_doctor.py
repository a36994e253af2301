"""What is said of caches that work, that let nobody write, and that are down, slow, full or wrong."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from caches import Hostile, nginx
from grpc_servers import casd_in, kept
from sinks import calm

from strata_engine.remote.address import parse
from strata_engine.remote.backend import Fault, Trouble
from strata_engine.remote.doctor import PROBE, Examined, Setting, State, examine, failed
from strata_engine.remote.http import HttpCache
from strata_engine.remote.opened import opened
from strata_engine.remote.patience import Limits

HTTP = Setting("over HTTP", zones=False, zone="main")
PATIENCE = Limits(2.0, 0.3)


def examined(url: str, setting: Setting = HTTP, *, write: bool = True, login: str = "") -> Examined:
    url = url.replace("//", f"//{login}@") if login else url
    remote = opened(parse(url), setting.zone, environ={}, limits=PATIENCE)
    try:
        return examine(remote, setting, calm, write=write)
    finally:
        remote.close()


def states(found: Examined) -> dict[str, str]:
    return {finding.check: finding.state.value for finding in found.findings}


def said(found: Examined, check: str) -> tuple[str, str]:
    return next((finding.text, finding.hint) for finding in found.findings if finding.check == check)


GOOD = {
    "reach": "ok",
    "auth": "ok",
    "zones": "note",
    "read": "ok",
    "latency": "ok",
    "write": "ok",
    "throughput": "ok",
    "blobs": "note",
    "results": "note",
    "digests": "ok",
    "limits": "ok",
    "compression": "ok",
    "clock": "ok",
}


def timeless(found: dict[str, str]) -> dict[str, str]:
    """Leave out what a slow machine may say otherwise."""
    return {check: state for check, state in found.items() if check not in {"latency", "throughput"}}


def test_an_open_server_can_do_all_and_warns_of_everybody(tmp_path: Path) -> None:
    with nginx(tmp_path / "n") as server:
        found = examined(server.url)
        assert timeless(states(found)) == timeless(GOOD) | {"trust": "warn"}
        assert (found.usable, found.writable, found.url) == (True, True, server.url)
        assert found.left > PROBE
        assert found.latency is not None
        assert found.read_speed is not None
        kept = sum(path.stat().st_size for path in server.data.rglob("*") if path.is_file())
        assert kept == found.left


def test_a_real_casd_says_what_it_speaks_and_believes_nothing(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with casd_in(kept(pytestconfig))(tmp_path / "s") as server:
        found = examined(server.url, Setting("over gRPC", zones=False, zone="main"))
        expected = GOOD | {"trust": "warn", "blobs": "ok", "results": "ok", "API": "ok", "clock": "skipped"}
        assert timeless(states(found)) == timeless(expected)
        assert (found.usable, found.writable, found.url) == (True, True, server.url)
        assert said(found, "reach") == ("it answers, over gRPC", "")
        assert said(found, "API") == ("2.1 to 2.12", "")
        assert said(found, "compression") == ("none", "")
        assert said(found, "limits") == ("blobs of any size; batches of 1.0 MB", "")


def test_nothing_is_written_where_that_is_not_wanted(tmp_path: Path) -> None:
    with nginx(tmp_path / "n") as server:
        found = examined(server.url, write=False)
        assert (found.usable, found.writable, found.left) == (True, None, 0)
        assert states(found)["write"] == "skipped"
        assert "throughput" not in states(found)
        assert [path for path in server.data.rglob("*") if path.is_file()] == []
        assert not [line for line in server.asked(1) if line.startswith("PUT")]


def test_a_server_that_only_some_may_write_to(tmp_path: Path) -> None:
    with nginx(tmp_path / "n", login="ci:s3cret") as server:
        found = examined(server.url)
        assert (found.usable, found.writable, found.left) == (True, False, 0)
        assert said(found, "write") == (
            "refused: HTTP 401 Unauthorized",
            "it is for reading only; to write, give a credential that may",
        )
        writer = Setting("over HTTP", zones=False, zone="main", credential="the login of its URL")
        found = examined(server.url, writer, login="ci:s3cret")
        assert (found.usable, found.writable) == (True, True)
        assert "trust" not in states(found)
        assert said(found, "auth") == ("let in with the login of its URL", "")
        assert "s3cret" not in repr(found)
        wrong = examined(server.url, writer, login="ci:wr0ng")
        assert (wrong.usable, wrong.writable) == (True, False)


def test_a_server_that_lets_nobody_read() -> None:
    with Hostile() as server:
        server.login = "ci:s3cret"
        found = examined(server.url)
        assert states(found) == {"reach": "ok", "auth": "fail"}
        assert said(found, "auth")[0] == "refused: HTTP 401 Unauthorized"
        assert (found.usable, found.writable) == (False, None)


def test_zones_with_a_place_of_their_own(tmp_path: Path) -> None:
    with nginx(tmp_path / "n") as server:
        setting = Setting("over HTTP", zones=True, zone="pr")
        found = examined(server.url + "/{zone}", setting)
        assert found.url == f"{server.url}/pr"
        assert said(found, "zones") == ("each has a place of its own; this is `pr`", "")
        assert {path.name for path in server.data.iterdir()} == {"pr"}


def test_a_login_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    with nginx(tmp_path / "n") as server:
        setting = Setting("over HTTP", zones=False, zone="main", credential="`STRATA_REMOTE_HEADER`", in_clear=True)
        assert said(examined(server.url, setting, write=False), "auth") == (
            "`STRATA_REMOTE_HEADER`, which everybody on the way can read",
            "use `https://` or `grpcs://`",
        )


def test_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    setting = Setting(
        "as a folder", zones=False, zone="main", credential="the permissions of the folder", open_to_all=False
    )
    missing = examined(folder.as_uri(), setting)
    assert states(missing) == {"reach": "fail"}
    assert said(missing, "reach")[0] == "not reachable: No such file or directory"
    folder.mkdir()
    found = examined(folder.as_uri(), setting)
    assert timeless(states(found)) == timeless(GOOD) | {"clock": "skipped"}
    assert (found.usable, found.writable) == (True, True)
    kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert kept == found.left
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("manner", "check", "text"),
    [
        ("silent", "reach", "too slow: less than 16 KiB in 0.3 s"),
        ("drip", "reach", "too slow: less than 16 KiB in 0.3 s"),
        ("500", "reach", "an error of the server: HTTP 500 Internal Server Error"),
        ("302", "reach", "not a cache for this: HTTP 302 Found: redirects are not followed"),
        ("garbage", "reach", "a wrong answer: an answer that was cut or makes no sense"),
        ("400", "reach", "not a cache for this: HTTP 400 Bad Request"),
        ("wrong", "read", "it has an answer for what nobody wrote"),
    ],
)
def test_a_server_that_cannot_be_used(manner: str, check: str, text: str) -> None:
    with Hostile() as server:
        server.script(manner)
        found = examined(server.url)
        assert not found.usable
        assert found.findings[-1].check == check
        assert found.findings[-1].state is State.FAIL
        assert found.findings[-1].text.replace("the connection", "an answer") == text
        assert found.findings[-1].hint


def test_a_server_that_is_down() -> None:
    with Hostile() as server:
        url = server.url
    found = examined(url)
    assert states(found) == {"reach": "fail"}
    assert said(found, "reach")[0] == "not reachable: Connection refused"


@pytest.mark.parametrize(
    ("manner", "usable", "state", "text"),
    [
        ("413", True, "warn", "no room: HTTP 413 Request Entity Too Large"),
        ("507", True, "warn", "no room: HTTP 507 Insufficient Storage"),
        ("403", True, "note", "refused: HTTP 403 Forbidden"),
        ("500", True, "warn", "an error of the server: HTTP 500 Internal Server Error"),
        ("405", True, "warn", "not a cache for this: HTTP 405 Method Not Allowed"),
        ("201", False, "fail", "it took a blob, and does not have it"),
    ],
)
def test_a_server_that_does_not_keep_what_is_written(manner: str, usable: bool, state: str, text: str) -> None:
    with Hostile() as server:
        # What it answers to a PUT with a number, it forgets.
        server.manner = lambda number, method, path: manner if method == "PUT" else "well"
        found = examined(server.url)
        assert (found.usable, states(found)["write"], said(found, "write")[0]) == (usable, state, text)
        assert found.writable is (None if manner == "201" else False)


def test_a_server_that_gives_another_result_than_it_was_given() -> None:
    with Hostile() as server:
        written = False

        def manner(number: int, method: str, path: str) -> str:
            nonlocal written
            written = written or (method == "PUT" and "/ac/" in path)
            return "shorter" if written and method == "GET" and "/ac/" in path else "well"

        server.manner = manner
        found = examined(server.url)
        assert not found.usable
        assert said(found, "write")[0] == "it took a result, and does not have it"


def test_a_server_that_checks_what_it_takes_is_told_from_one_that_does_not() -> None:
    with Hostile() as server:
        server.script("strict")
        found = examined(server.url)
        assert (states(found)["blobs"], states(found)["results"]) == ("ok", "ok")
        assert said(found, "blobs")[0] == "the server refuses wrong bytes"
        assert said(found, "results")[0] == "only with their blobs"
        assert found.usable


def test_what_is_cancelled_ends() -> None:
    def cancelled() -> None:
        raise KeyboardInterrupt

    with Hostile() as server:
        remote = HttpCache(server.url)
        with pytest.raises(KeyboardInterrupt):
            examine(remote, HTTP, cancelled)
        remote.close()


def test_a_clock_that_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nginx(tmp_path / "n") as server:
        real = time.time
        monkeypatch.setattr("strata_engine.remote.doctor.time.time", lambda: real() + 7200)
        text, hint = said(examined(server.url, write=False), "clock")
        assert text == "1 h 59 min away from ours"
        assert hint == "set the clocks: tokens would seem expired, or not yet valid"


def test_what_cannot_be_opened_is_a_finding_too() -> None:
    found = failed("https://h", Fault(Trouble.UNSUPPORTED, "https://h", "the proxy does not speak HTTP"))
    assert (found.usable, states(found)) == (False, {"reach": "fail"})
