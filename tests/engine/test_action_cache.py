from __future__ import annotations

from pathlib import Path

import pytest

from strata_engine.action_cache import ActionCache, Corrupt, Hit, Missing, artifact_of, result_of
from strata_engine.cas import Cas
from strata_engine.codec import ActionResult, OutputDirectory, OutputFile, SymlinkNode, encode_action_result
from strata_engine.digest import EMPTY, Digest
from strata_engine.index import Index
from strata_engine.seal import seal
from strata_engine.tree import Artifact, File, Tree

KEY, OTHER = Digest.of(b"key"), Digest.of(b"other")


def opened(folder: Path) -> ActionCache:
    index = Index(folder)
    return ActionCache(index, Cas(folder, index))


def row_of(key: Digest) -> bytes:
    return b"a" + bytes.fromhex(key.hash)


@pytest.mark.parametrize("artifact", [File(EMPTY), File(KEY, executable=True), Tree(KEY)])
def test_a_result_comes_back(tmp_path: Path, artifact: Artifact) -> None:
    result = result_of(artifact, exit_code=3, stdout=b"out", stderr=b"err", worker="w", started_ns=5, completed_ns=7)
    opened(tmp_path).put(KEY, result)
    assert opened(tmp_path).lookup(KEY) == Hit(result)
    assert opened(tmp_path).get(KEY) == result
    assert artifact_of(result) == artifact
    assert opened(tmp_path).lookup(OTHER) == Missing()
    assert opened(tmp_path).get(OTHER) is None


def test_a_result_is_forgotten(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.put(KEY, result_of(File(EMPTY)))
    cache.put(OTHER, result_of(File(EMPTY)))
    cache.delete(KEY)
    assert cache.lookup(KEY) == Missing()
    assert [(key.hash, type(found)) for key, found in cache.everything()] == [(OTHER.hash, Hit)]


def test_a_result_is_written_with_the_blobs_that_wait(tmp_path: Path) -> None:
    index = Index(tmp_path)
    cas = Cas(tmp_path, index)
    blob = cas.put(b"small")
    assert Cas(tmp_path, Index(tmp_path)).missing([blob]) == {blob}
    ActionCache(index, cas).put(KEY, result_of(File(blob)))
    assert Cas(tmp_path, Index(tmp_path)).get(blob) == b"small"


def sealed(key: Digest, data: bytes) -> bytes:
    return seal(row_of(key) + data) + data


GOOD = encode_action_result(result_of(File(EMPTY)))
CORRUPT = {
    "empty": b"",
    "shorter than its seal": b"short",
    "torn": sealed(KEY, GOOD)[:-1],
    "a flipped bit": sealed(KEY, GOOD)[:-1] + b"\x00",
    "not sealed": GOOD,
    "of another key": sealed(OTHER, GOOD),
    "not a result": sealed(KEY, b"\xff\xff"),
    "an empty message": sealed(KEY, b""),
    "without a worker": sealed(KEY, encode_action_result(result_of(File(EMPTY), worker=""))),
    "without an output": sealed(KEY, encode_action_result(ActionResult())),
    "another output": sealed(KEY, encode_action_result(ActionResult((OutputFile("else", EMPTY),)))),
    "a folder without its root": sealed(
        KEY, encode_action_result(ActionResult(output_directories=(OutputDirectory("out", None, EMPTY),)))
    ),
    "a symlink beside its output": sealed(
        KEY, encode_action_result(ActionResult((OutputFile("out", EMPTY),), output_symlinks=(SymlinkNode("l", "t"),)))
    ),
    "two outputs": sealed(
        KEY, encode_action_result(ActionResult((OutputFile("out", EMPTY),), (OutputDirectory("out", EMPTY),)))
    ),
}


@pytest.mark.parametrize("row", CORRUPT.values(), ids=CORRUPT.keys())
def test_a_row_that_cannot_be_believed_is_told_from_one_that_is_not_there(tmp_path: Path, row: bytes) -> None:
    cache = opened(tmp_path)
    Index(tmp_path).put_many({row_of(KEY): row})
    assert cache.lookup(KEY) == Corrupt()
    assert isinstance(cache.lookup(KEY), Corrupt)
    assert cache.get(KEY) is None
    cache.put(KEY, result_of(File(EMPTY)))
    assert cache.get(KEY) == result_of(File(EMPTY))


def test_the_rows_of_the_table_are_good_but_for_what_their_names_say(tmp_path: Path) -> None:
    Index(tmp_path).put_many({row_of(KEY): sealed(KEY, GOOD)})
    assert isinstance(opened(tmp_path).lookup(KEY), Hit)
