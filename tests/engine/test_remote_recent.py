"""Notes of what was sent last: what they say, and what may stand in their place."""

from __future__ import annotations

import random
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata_engine.codec import ActionResult, decode_action_result, encode_action_result
from strata_engine.digest import Digest
from strata_engine.remote.recent import (
    KEPT,
    LARGEST,
    LARGEST_UNPACKED,
    Recent,
    decode_recent,
    encode_recent,
    local_label,
    noted_in,
    recent_action,
    with_newest,
)

BLOBS = st.lists(st.binary(max_size=40), max_size=4).map(tuple)
ENTRIES = st.builds(
    Recent,
    key=st.binary(max_size=8).map(Digest.of),
    output=st.none() | st.binary(max_size=8).map(Digest.of),
    at=st.integers(0, 2**35),
    revision=st.sampled_from(["", "a" * 40, "0" * 64]),
    platform=st.sampled_from(["", "linux-x86_64", "macosx-14.0-arm64"]),
    blobs=BLOBS,
)


def read(data: bytes) -> tuple[Recent, ...]:
    text = noted_in(data)
    assert isinstance(text, bytes)
    return decode_recent(text)


@given(st.lists(ENTRIES, max_size=20))
def test_what_is_noted_is_read_again(entries: list[Recent]) -> None:
    assert read(encode_recent(entries)) == tuple(entries[:KEPT])


@given(st.lists(ENTRIES, max_size=20, unique_by=lambda each: each.key), ENTRIES)
def test_what_is_new_stands_first_and_once(entries: list[Recent], entry: Recent) -> None:
    found = with_newest(entry, entries)
    assert found[0] == entry
    assert len({each.key for each in found}) == len(found) <= KEPT
    assert found[1:] == tuple(each for each in entries if each.key != entry.key)[: KEPT - 1]


def test_a_note_is_a_result_that_servers_take() -> None:
    result = decode_action_result(encode_recent([Recent(Digest.of(b"x"))]))
    assert (result.output_files, result.output_directories, result.exit_code) == ((), (), 0)
    assert result.worker


def test_what_is_too_much_loses_the_oldest() -> None:
    chosen = random.Random(1)
    entries = [Recent(Digest.of(bytes([n])), at=n, blobs=(chosen.randbytes(20_000),)) for n in range(16)]
    found = read(encode_recent(entries))
    assert 0 < len(found) < 16
    assert found == tuple(entries[: len(found)])


def test_each_label_has_a_note_of_its_own_and_a_stack_may_lie_anywhere() -> None:
    actions = {recent_action("Link", "a/link"), recent_action("Install", "a/link"), recent_action("Link", "b/link")}
    assert len(actions) == 3
    assert recent_action("Link", "//x/y:a/link") == recent_action("Link", "a/link")
    assert local_label("//x/y.toml:a/archive[tar.gz]") == "a/archive[tar.gz]"


GOOD = ["0" * 64 + "/3", "", 5, "", "", [0]]


def packed(*rows: object, form: object = "strata.recent.v1", blobs: object = (b"x",)) -> bytes:
    return zlib.compress(msgspec.msgpack.encode([form, rows, blobs]))


def test_the_form_that_hostile_ones_are_made_of_is_read() -> None:
    assert decode_recent(packed(GOOD))[0].blobs == (b"x",)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"x" * (LARGEST + 1),
        zlib.compress(b"no"),
        packed(GOOD)[:-3],
        zlib.compress(bytes(LARGEST_UNPACKED + 1)),
        zlib.compress(b"\x91" * 100_000),
        packed(GOOD, form="strata.recent.v2"),
        packed(GOOD, form=1),
        packed(["../../x/3", *GOOD[1:]]),
        packed([GOOD[0], "x", *GOOD[2:]]),
        packed([*GOOD[:2], -1, *GOOD[3:]]),
        packed([*GOOD[:2], 2**60, *GOOD[3:]]),
        packed([*GOOD[:3], "main", *GOOD[4:]]),
        packed([*GOOD[:4], "\x1b[31m", [0]]),
        packed([*GOOD[:5], [1]]),
        packed([*GOOD[:5], [-1]]),
        packed(GOOD[:3]),
    ],
)
def test_what_nobody_of_us_would_write_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        decode_recent(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_note_or_refused(data: bytes) -> None:
    for text in (data, zlib.compress(data)):
        try:
            decode_recent(text)
        except ValueError:
            continue


def test_a_note_that_a_server_made_a_blob_of_is_named() -> None:
    digest = Digest.of(b"text")
    assert noted_in(encode_action_result(ActionResult(stdout_digest=digest))) == digest
    with pytest.raises(ValueError):
        noted_in(encode_action_result(ActionResult(stdout_digest=Digest("0" * 64, LARGEST + 1))))
    with pytest.raises(ValueError):
        noted_in(b"\xff\xff")
