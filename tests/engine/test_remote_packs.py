"""Small files in packs: which go together, that nothing wrong is in what comes out, and what versions share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata_engine.codec import ActionResult, OutputFile, decode_action_result, encode_action_result
from strata_engine.digest import EMPTY, Digest
from strata_engine.remote.packs import (
    FEWEST,
    LARGEST_MEMBER,
    LARGEST_PACK,
    Pack,
    address_of,
    apart,
    decode_index,
    encode_index,
    joined,
    planned,
)

TREE = Digest.of(b"tree")


def named(index: int, size: int) -> Digest:
    """Name a file that is not there: a plan is about names alone."""
    return Digest(Digest.of(b"%d" % index).hash, size)


def files(count: int) -> list[Digest]:
    return [named(index, 1 + index * index * 7919 % 20_000) for index in range(count)]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 2 * LARGEST_MEMBER)), max_size=300))
def test_a_plan_has_every_small_file_once_or_leaves_it_alone(given: list[tuple[int, int]]) -> None:
    listed = [named(index, size) for index, size in given]
    plan = planned(listed)
    members = [member for pack in plan for member in pack.members]
    assert len(members) == len(set(members))
    assert set(members) <= set(listed)
    assert members == [file for file in dict.fromkeys(listed) if file in set(members)]
    assert all(member.size <= LARGEST_MEMBER for member in members)
    assert all(len(pack.members) >= FEWEST and pack.size <= LARGEST_PACK for pack in plan)
    assert EMPTY not in members
    assert plan == planned(listed)


def test_few_files_make_no_pack_and_many_make_a_few() -> None:
    assert planned(files(FEWEST - 1)) == ()
    assert planned([named(index, LARGEST_MEMBER + 1) for index in range(1000)]) == ()
    plan = planned(files(2000))
    assert 20 <= len(plan) <= 60
    assert sum(len(pack.members) for pack in plan) >= 1900


def test_a_plan_never_changes() -> None:
    """Indexes of it are in remotes: another plan needs another address."""
    plan = planned(files(5000))
    text = ",".join(f"{len(pack.members)}:{pack.members[0].hash[:4]}" for pack in plan)
    assert Digest.of(text.encode()).hash[:16] == "864e6629f9074cbb"
    assert address_of(TREE).hash[:16] == "2d18ec1ddde5da24"


def test_a_tree_with_other_files_shares_the_packs_that_have_none_of_them() -> None:
    before = files(3000)
    changed = [
        named(10_000 + index, file.size) if index in range(1000, 1020) else file for index, file in enumerate(before)
    ]
    added = [*before[:500], *(named(20_000 + index, 9000) for index in range(10)), *before[500:]]
    removed = before[:2000] + before[2050:]
    packs = set(planned(before))
    for after in (changed, added, removed):
        others = set(planned(after)) - packs
        assert len(others) <= 3


@given(st.lists(st.binary(max_size=50), unique=True, min_size=1, max_size=30))
def test_what_was_joined_comes_apart(contents: list[bytes]) -> None:
    blobs = {Digest.of(data): data for data in contents}
    pack = Pack(tuple(blobs))
    assert apart(pack, joined(pack, blobs.__getitem__)) == blobs


@given(st.lists(st.binary(min_size=1, max_size=9), unique=True, min_size=1), st.data())
def test_nothing_wrong_comes_out_of_a_pack(contents: list[bytes], data: st.DataObject) -> None:
    blobs = {Digest.of(content): content for content in contents}
    pack = Pack(tuple(blobs))
    whole = joined(pack, blobs.__getitem__)
    at = data.draw(st.integers(0, len(whole)))
    spoiled = data.draw(
        st.sampled_from([whole[:at], whole + b"x", whole[:at] + b"\0" + whole[at + 1 :], b"", whole[at:]])
    )
    found = apart(pack, spoiled)
    assert all(blobs[member] == content for member, content in found.items())


def test_a_file_of_another_length_makes_no_pack() -> None:
    with pytest.raises(ValueError, match="as long as"):
        joined(Pack((Digest.of(b"abc"),)), lambda digest: b"ab")


def test_an_index_is_a_result_whose_outputs_are_the_packs() -> None:
    plan = planned(files(2000))
    digests = [Digest(Digest.of(b"pack %d" % index).hash, pack.size) for index, pack in enumerate(plan)]
    data = encode_index(digests)
    assert decode_index(data, plan) == dict(zip(digests, plan, strict=True))
    result = decode_action_result(data)
    assert [file.digest for file in result.output_files] == digests
    assert result.output_files[0].path == "packs/00000"
    assert result.exit_code == 0


def test_an_index_of_anything_else_is_refused() -> None:
    plan = planned(files(2000))
    digests = [Digest(Digest.of(b"pack %d" % index).hash, pack.size) for index, pack in enumerate(plan)]
    huge = [digests[0]._replace(size=10**15), *digests[1:]]
    other = encode_action_result(ActionResult((OutputFile("out", digests[0]),)))
    for data in (
        encode_index(digests[:-1]),
        encode_index([*digests, digests[0]]),
        encode_index(huge),
        other,
        b"",
        b"\xff",
    ):
        with pytest.raises(ValueError):
            decode_index(data, plan)
