"""One remote in the hands of a build: asked as long as that is of use, and what goes wrong said once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from caches import Hostile

from strata_engine.codec import Action, decode_action, encode_action
from strata_engine.digest import EMPTY, Digest
from strata_engine.errors import Diagnostic, HostError, StrataError
from strata_engine.remote.backend import Backend, Fault, Trouble
from strata_engine.remote.breaker import LIMIT, REST, Circuit, Open
from strata_engine.remote.endpoint import CIRCUITS, Endpoint
from strata_engine.remote.settings import Access
from strata_engine.remote.tally import Tally
from strata_engine.remote.tls import Tls

ADDRESS = Digest.of(b"somewhere")


@pytest.fixture
def server() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server


class Opened:
    """An endpoint, and what it has said."""

    def __init__(self, store: Path, url: str, **more: Any) -> None:
        self.tally = Tally()
        self.said: list[Diagnostic] = []
        access = Access(url=url, **more.pop("access", {}))
        self.endpoint = Endpoint(access, store, self.tally, self.said.append, **({"timeout": 0.5} | more))

    def ask(self, zone: str = "main") -> bytes | None:
        return self.endpoint.read(zone, lambda backend: backend.get_result(ADDRESS, nothing), None)

    def put(self, zone: str = "main") -> bool:
        def use(backend: Backend) -> bool:
            backend.put_result(ADDRESS, b"result", nothing)
            return True

        return self.endpoint.write(zone, use, otherwise=False)


def nothing() -> None:
    """Ask for nothing to be stopped."""


def rested(store: Path, shown: str) -> None:
    """Leave a breaker behind that has been open for long enough."""
    circuit = Circuit(store / CIRCUITS, shown, clock=lambda: time.time() - REST - 1)
    for _ in range(LIMIT):
        circuit.failed(Fault(Trouble.UNREACHABLE, shown, "x"))
    assert isinstance(circuit.state, Open)


def test_what_it_answers_is_given(server: Hostile, tmp_path: Path) -> None:
    one = Opened(tmp_path, server.url)
    assert one.ask() is None
    assert one.put()
    assert one.ask() == b"result"
    one.endpoint.close()
    assert (one.said, one.tally.told().faults) == ([], {})


def test_what_goes_wrong_is_said_once_and_counted(server: Hostile, tmp_path: Path) -> None:
    server.manner = lambda number, method, path: "garbage"
    one = Opened(tmp_path, server.url)
    assert [one.ask() for _ in range(LIMIT)] == [None] * LIMIT
    asked = len(server.seen)
    assert one.ask() is None
    assert len(server.seen) == asked
    [said] = one.said
    assert (said.id, said.severity) == ("remote-broken", "warning")
    told = one.tally.told()
    assert (told.faults, told.degraded) == ({"broken": LIMIT}, "broken")


def test_the_next_build_leaves_it_alone_without_a_word(server: Hostile, tmp_path: Path) -> None:
    server.manner = lambda number, method, path: "garbage"
    one = Opened(tmp_path, server.url)
    for _ in range(LIMIT):
        one.ask()
    asked = len(server.seen)
    two = Opened(tmp_path, server.url)
    assert two.ask() is None
    assert len(server.seen) == asked
    assert two.said == []
    assert str(two.tally.told()) == "remote DEGRADED: broken, local only"
    assert server.url.encode() not in b"".join(path.read_bytes() for path in (tmp_path / CIRCUITS).iterdir())


def test_a_success_between_faults_keeps_it_asked(server: Hostile, tmp_path: Path) -> None:
    one = Opened(tmp_path, server.url)

    def broken(backend: Backend) -> None:
        raise Fault(Trouble.BROKEN, "there", "something")

    for _ in range(2 * LIMIT):
        one.endpoint.read("main", broken, None)
        one.ask()
    told = one.tally.told()
    assert (told.faults, told.degraded) == ({"broken": 2 * LIMIT}, "")


def test_a_cache_that_refuses_to_be_written_is_read(server: Hostile, tmp_path: Path) -> None:
    server.manner = lambda number, method, path: "403" if method == "PUT" else "well"
    server.blobs[f"/ac/{ADDRESS.hash}"] = b"theirs"
    one = Opened(tmp_path, server.url)
    assert not one.put()
    assert not one.put()
    assert server.methods() == ["PUT"]
    assert one.ask() == b"theirs"
    told = one.tally.told()
    assert (told.faults, told.degraded) == ({"refused": 1}, "")


def test_after_a_rest_one_call_tries_it_and_the_others_wait(server: Hostile, tmp_path: Path) -> None:
    rested(tmp_path, server.url)
    one = Opened(tmp_path, server.url)
    inside, go = threading.Event(), threading.Event()

    def slow(backend: Backend) -> str:
        inside.set()
        go.wait(30)
        return "answer"

    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(one.endpoint.read("main", slow, "none")))
    thread.start()
    assert inside.wait(30)
    assert one.endpoint.read("main", lambda backend: "asked", "left alone") == "left alone"
    go.set()
    thread.join()
    assert answers == ["answer"]
    assert one.endpoint.read("main", lambda backend: "asked", "left alone") == "asked"
    assert not list((tmp_path / CIRCUITS).iterdir())


def test_a_try_that_was_given_up_leaves_the_next_one_to_try(server: Hostile, tmp_path: Path) -> None:
    def stopped(backend: Backend) -> None:
        raise KeyboardInterrupt

    rested(tmp_path, server.url)
    one = Opened(tmp_path, server.url)
    with pytest.raises(KeyboardInterrupt):
        one.endpoint.read("main", stopped, None)
    assert one.endpoint.read("main", lambda backend: "asked", "left alone") == "asked"


@pytest.mark.parametrize("manner", ["403", "garbage", "hang up"])
def test_one_that_must_answer_and_does_not_is_an_error(server: Hostile, tmp_path: Path, manner: str) -> None:
    server.manner = lambda number, method, path: manner
    one = Opened(tmp_path, server.url, required=True)
    with pytest.raises(HostError) as error:
        one.ask()
    [said] = error.value.diagnostics
    assert (said.severity, error.value.exit_code, one.said) == ("error", 3, [])


def test_one_that_must_answer_and_is_left_alone_is_an_error(server: Hostile, tmp_path: Path) -> None:
    server.manner = lambda number, method, path: "garbage"
    one = Opened(tmp_path, server.url)
    for _ in range(LIMIT):
        one.ask()
    with pytest.raises(HostError) as error:
        Opened(tmp_path, server.url, required=True).ask()
    [said] = error.value.diagnostics
    assert said.severity == "error"
    assert said.message.endswith(": it was left alone after what went wrong before")


def test_zones_have_their_places_where_the_url_has_room(server: Hostile, tmp_path: Path) -> None:
    action = encode_action(Action(EMPTY, EMPTY, b"epoch"))
    shared = Opened(tmp_path, server.url).endpoint
    assert shared.places(("pr/1", "main")) == ("",)
    assert shared.address_of(action, "") == Digest.of(action)
    salted = encode_action(decode_action(action)._replace(salt=b"epoch\0main"))
    assert shared.address_of(action, "main") == Digest.of(salted)
    apart = Opened(tmp_path, server.url + "/{zone}")
    assert apart.endpoint.places(("pr/1", "main")) == ("pr/1", "main")
    assert apart.endpoint.address_of(action, "main") == Digest.of(action)
    apart.put("pr/1")
    apart.ask("main")
    assert [path for _, path, _ in server.seen] == [f"/pr/1/ac/{ADDRESS.hash}", f"/main/ac/{ADDRESS.hash}"]


def test_what_lets_us_in_is_sent_and_not_shown(server: Hostile, tmp_path: Path) -> None:
    server.login = "me:s3cret"
    one = Opened(tmp_path, server.url, access={"login": ("me", "s3cret")})
    assert one.put()
    assert one.ask() == b"result"
    server.login = "me:other"
    assert one.ask() is None
    assert "s3cret" not in repr((one.said, vars(one.endpoint)))


def test_a_netrc_that_cannot_be_read_is_said_and_costs_the_remote(
    server: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine a login b s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    one = Opened(tmp_path / "store", server.url)
    assert one.ask() is None
    [said] = one.said
    assert (said.id, said.severity) == ("bad-netrc", "warning")
    assert server.seen == []


def test_a_certificate_that_is_none_is_the_users_to_mend(tmp_path: Path) -> None:
    one = Opened(tmp_path, "https://127.0.0.1:9", access={"tls": Tls(str(tmp_path / "none.pem"))})
    with pytest.raises(StrataError, match=r"none\.pem"):
        one.ask()
