"""What was sent last of a label, written down and read again: the nearest of it, whoever else writes there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from caches import Hostile

from strata_engine.action import Action, Execution
from strata_engine.cas import Cas
from strata_engine.codec import Action as Encoded
from strata_engine.codec import Command, encode_action, encode_command
from strata_engine.digest import EMPTY, Digest
from strata_engine.errors import Diagnostic, HostError
from strata_engine.index import Index
from strata_engine.key import Key, compute
from strata_engine.remote.endpoint import Endpoint
from strata_engine.remote.explaining import Explanations, blobs_of
from strata_engine.remote.nearest import Candidate, candidates, nearest
from strata_engine.remote.notes import Noted, Notes
from strata_engine.remote.recent import KEPT, Recent, recent_action
from strata_engine.remote.settings import Access
from strata_engine.remote.spool import About, Entry, Spool
from strata_engine.remote.tally import Tally
from strata_engine.staleness import Reason, ReasonCode, explain
from strata_engine.tree import Artifact

NOTED = Noted("Lock", "low/lock", "main")


def calm() -> None:
    """Check that nothing is cancelled."""


def never(_: Execution) -> Artifact:
    raise AssertionError


@pytest.fixture
def store(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "store", Index(tmp_path / "store"))


@pytest.fixture
def warned() -> list[Diagnostic]:
    return []


@pytest.fixture
def endpoint(tmp_path: Path, warned: list[Diagnostic]) -> Endpoint:
    (tmp_path / "shared").mkdir()
    access = Access(url=(tmp_path / "shared").as_uri())
    return Endpoint(access, tmp_path / "store", Tally(), warned.append)


def place(endpoint: Endpoint, tmp_path: Path, zone: str = "main") -> Path:
    address = endpoint.address_of(recent_action("Lock", "low/lock"), zone).hash
    return tmp_path / "shared" / "ac" / address[:2] / address


def action(uv: str = "1.0", environment: Mapping[str, str] | None = None, **params: str) -> Action:
    return Action(
        label="low/lock",
        mnemonic="Lock",
        version=1,
        params=params,
        environment=environment or {},
        platform={"tool:uv": uv},
        run=never,
    )


def keyed(store: Cas, made: Action) -> Key:
    key = compute(made, {}, store)
    store.put_named(key.digest, key.action)
    store.put(key.command)
    return key


def recent(store: Cas, made: Action, at: int) -> Recent:
    key = keyed(store, made).digest
    return Recent(key, None, at, blobs=tuple(blobs_of(store, key, ()).values()))


def found(endpoint: Endpoint, *zones: str) -> list[Candidate]:
    return candidates([endpoint], zones or ("main",), "Lock", "low/lock", calm)


def test_a_variable_a_tool_or_the_least_that_differs_is_found(store: Cas, endpoint: Endpoint, tmp_path: Path) -> None:
    notes = Notes(endpoint)
    for at, sent in enumerate(
        (
            action(want="a"),
            action(want="a", environment={"UV_RESOLUTION": "lowest"}),
            action(want="b", uv="0.9"),
            action(want="b", uv="0.9", environment={"UV_RESOLUTION": "lowest"}),
        )
    ):
        notes.add(NOTED, recent(store, sent, at))
        notes.write(calm)
    known = found(endpoint)
    assert [each.recent.at for each in known] == [3, 2, 1, 0]
    elsewhere = Cas(tmp_path / "other", Index(tmp_path / "other"))

    def reasons(made: Action) -> tuple[Reason, ...]:
        reader = Explanations(elsewhere)
        key = keyed(elsewhere, made).digest
        near = nearest(known, reader, lambda old: explain(reader, old, key, made, str))
        assert near is not None
        return near.reasons

    assert reasons(action(want="a", uv="1.1")) == (Reason(ReasonCode.TOOL_CHANGED, "uv", "1.0", "1.1"),)
    assert reasons(action(want="a", environment={"UV_RESOLUTION": "highest"})) == (
        Reason(ReasonCode.ENV_CHANGED, "UV_RESOLUTION", "lowest", "highest"),
    )
    assert reasons(action(want="c", uv="0.9")) == (Reason(ReasonCode.PARAMETER_CHANGED, "want", "b", "c"),)
    assert reasons(action(want="a")) == ()


def test_a_question_that_is_asked_again_is_noted_once_and_the_newest_are_kept(store: Cas, endpoint: Endpoint) -> None:
    notes = Notes(endpoint)
    for at in range(KEPT + 5):
        for _ in range(2):
            notes.add(NOTED, recent(store, action(want=str(at)), at))
            notes.write(calm)
    assert [each.recent.at for each in found(endpoint)] == list(range(KEPT + 4, 4, -1))


def test_each_zone_has_its_own(store: Cas, endpoint: Endpoint) -> None:
    notes = Notes(endpoint)
    for at, zone in enumerate(("main", "pr/1")):
        notes.add(NOTED._replace(zone=zone), recent(store, action(want=zone), at))
    notes.write(calm)
    assert [each.zone for each in found(endpoint)] == ["main"]
    assert [each.zone for each in found(endpoint, "pr/1", "main")] == ["pr/1", "main"]


def test_what_else_lies_there_is_replaced_and_what_fails_is_nobodys_error(
    store: Cas, endpoint: Endpoint, tmp_path: Path, warned: list[Diagnostic]
) -> None:
    there = place(endpoint, tmp_path)
    there.parent.mkdir(parents=True)
    there.write_bytes(b"\xff" * 40)
    assert found(endpoint) == []
    notes = Notes(endpoint)
    notes.add(NOTED, recent(store, action(), 1))
    notes.write(calm)
    assert len(found(endpoint)) == 1
    assert warned == []
    nowhere = Endpoint(Access(url="file:///nowhere/at/all"), tmp_path / "store", Tally(), warned.append, required=True)
    notes = Notes(nowhere)
    notes.add(NOTED, recent(store, action(), 1))
    notes.write(calm)
    assert warned == []


def test_a_server_that_lets_nobody_change_what_is_there_is_not_left_alone(
    store: Cas, tmp_path: Path, warned: list[Diagnostic]
) -> None:
    with Hostile() as server:
        server.manner = lambda number, method, path: "403" if method == "PUT" else "well"
        endpoint = Endpoint(Access(url=server.url), tmp_path / "store", Tally(), warned.append)
        notes = Notes(endpoint)
        for at in range(5):
            notes.add(NOTED, recent(store, action(want=str(at)), at))
            notes.write(calm)
        assert server.methods().count("PUT") == 5
        assert warned == []


def test_what_waits_for_the_next_build_waits_with_what_is_to_be_noted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "x")
    about = About("Link", "app-é/link", ("modules", "modules/é/"), "a" * 40, is_question=True)
    entries = [Entry(Digest.of(b"a"), "main", 3, True, about), Entry(Digest.of(b"b"), "pr/1", 4, False)]
    for entry in entries:
        spool.add(entry)
    assert sorted(spool.entries()) == sorted(entries)


def test_a_remote_that_does_not_answer_is_an_error_where_one_must(tmp_path: Path) -> None:
    endpoint = Endpoint(Access(url="http://127.0.0.1:9"), tmp_path / "store", Tally(), lambda _: None, required=True)
    with pytest.raises(HostError):
        found(endpoint)


@pytest.mark.parametrize(
    "arguments",
    [
        ("strata", "Lock", "v1", "[1, 2]"),
        ("strata", "Lock", "v1", "[" * 100_000),
        ("strata", "Lock", "v1", "not JSON"),
        ("strata", "Lock", "v1", "null"),
    ],
)
def test_actions_that_nobody_would_have_explain_nothing(store: Cas, arguments: tuple[str, ...]) -> None:
    command = encode_command(Command(arguments))
    made = encode_action(Encoded(Digest.of(command), EMPTY))
    wrong = [
        Recent(Digest.of(made), blobs=(made, command)),
        Recent(Digest.of(made), blobs=(made,)),
        Recent(Digest.of(command), blobs=(command,)),
        Recent(Digest.of(b"nothing")),
    ]
    reader = Explanations(store)
    key = keyed(store, action()).digest
    known = [Candidate(each, "x", "main") for each in wrong]

    def compare(old: Digest) -> tuple[Reason, ...]:
        return explain(reader, old, key, action(), str)

    assert nearest(known, reader, compare) is None
    good = Candidate(recent(store, action(want="a"), 0), "x", "main")
    assert nearest([*known, good], reader, compare) is not None


def test_another_program_is_another_definition(store: Cas) -> None:
    command = encode_command(Command(("gcc", "-o", json.dumps({"a": 1}))))
    made = encode_action(Encoded(Digest.of(command), EMPTY))
    reader = Explanations(store)
    key = keyed(store, action()).digest
    near = nearest(
        [Candidate(Recent(Digest.of(made), blobs=(made, command)), "x", "main")],
        reader,
        lambda old: explain(reader, old, key, action(), str),
    )
    assert near is not None
    assert near.reasons[0].reason is ReasonCode.DEFINITION_CHANGED
