"""What a build believes of what remotes give it, and what it has in its store afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from caches import Hostile
from hypothesis import given, settings
from hypothesis import strategies as st
from sinks import Seen

from strata_engine.action_cache import result_of
from strata_engine.cas import Cas
from strata_engine.codec import (
    Action,
    Directory,
    DirectoryNode,
    FileNode,
    OutputDirectory,
    decode_action,
    encode_action,
    encode_action_result,
    encode_directory,
    encode_tree,
)
from strata_engine.digest import EMPTY, Digest
from strata_engine.index import Index
from strata_engine.remote import reads as module
from strata_engine.remote.backend import BATCH, MOST_IN_BATCH, batches
from strata_engine.remote.endpoint import Endpoint
from strata_engine.remote.found import Answer, Found, NotTaken, There, Untrusted
from strata_engine.remote.http import HttpCache
from strata_engine.remote.reads import ALONE, Reads, Wanted
from strata_engine.remote.sends import send
from strata_engine.remote.settings import Access
from strata_engine.remote.tally import Tally
from strata_engine.tree import Artifact, File, Tree, assemble, blobs

ACTION = encode_action(Action(EMPTY, EMPTY, b""))
KEY = Digest.of(ACTION)


def nothing() -> None:
    """Ask for nothing to be stopped."""


def any_output(_: Artifact) -> bool:
    return True


@pytest.fixture
def server() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server


@pytest.fixture
def theirs(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "theirs", Index(tmp_path / "theirs"))


@pytest.fixture
def ours(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "ours", Index(tmp_path / "ours"))


def address(zone: str = "main") -> Digest:
    return Digest.of(encode_action(decode_action(ACTION)._replace(salt=b"\0" + zone.encode()))) if zone else KEY


def give(server: Hostile, store: Cas, artifact: Artifact, zone: str = "main", **more: Any) -> None:
    """Have a server hold a result, and its blobs."""
    cache = HttpCache(server.url)
    send(
        cache, store, result_of(artifact, worker="them", **more), address(zone), nothing, there=set(), remembered=Seen()
    )
    cache.close()


def reads(ours: Cas, *servers: Hostile, zones: tuple[str, ...] = ("main",), **more: Any) -> Reads:
    tally = Tally()
    endpoints = [
        Endpoint(Access(url=server.url), ours.folder, tally, lambda _: None, timeout=0.5) for server in servers
    ]
    return Reads(endpoints, zones, ours, tally, **more)


def find(made: Reads, fixed: str | None = None, accept: Callable[[Artifact], bool] = any_output) -> Answer:
    return made.find(KEY, ACTION, fixed, accept, nothing)


def faults(made: Reads) -> dict[str, int]:
    return made._tally.told().faults


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 70_000, ALONE, ALONE + 1])
def test_a_file_is_found_by_name_and_fetched_when_it_is_wanted(
    server: Hostile, theirs: Cas, ours: Cas, size: int
) -> None:
    blob = theirs.put(b"x" * size)
    give(server, theirs, File(blob, executable=True), started_ns=1_000_000_000, completed_ns=3_500_000_000)
    made = reads(ours, server)
    answer = find(made)
    assert isinstance(answer, Found)
    assert (answer.artifact, answer.origin, answer.seconds) == (File(blob, executable=True), server.url, 2.5)
    assert made.fetch(ours.lost(answer.artifact), nothing) == set()
    assert ours.get(blob) == b"x" * size


def test_a_folder_is_known_whole_before_its_files_are_there(server: Hostile, theirs: Cas, ours: Cas) -> None:
    nodes = {f"d{i}/{j}": File(theirs.put(b"%d %d" % (i, j) * 4000)) for i in range(5) for j in range(5)}
    tree = assemble(theirs, {**nodes, "big": File(theirs.put(b"b" * (ALONE + 3)))})
    give(server, theirs, tree)
    made = reads(ours, server)
    answer = find(made)
    assert isinstance(answer, Found)
    assert answer.artifact == tree
    lost = ours.lost(tree)
    assert len(lost) == 26
    assert made.fetch(lost, nothing, output=tree) == set()
    assert ours.complete(tree)
    assert made._tally.told().read >= ALONE
    # Small files came together.
    assert len([path for method, path, _ in server.seen if method == "GET" and "/cas/" in path]) == 3


def test_what_is_in_packs_is_there_and_what_is_in_a_lost_one_is_not(server: Hostile, theirs: Cas, ours: Cas) -> None:
    tree = assemble(theirs, {f"lib/{i}": File(theirs.put(b"%d " % i * 4000)) for i in range(20)})
    give(server, theirs, tree)
    made, wanted = reads(ours, server), Wanted(KEY, ACTION, None)
    assert isinstance(made.look(wanted, nothing, wholly=True), There)
    # The pack is what has the files; the other blob is the Tree message.
    pack = max((path for path in server.blobs if "/cas/" in path), key=lambda path: len(server.blobs[path]))
    del server.blobs[pack]
    standing = made.look(wanted, nothing, wholly=True)
    assert isinstance(standing, NotTaken)
    assert (standing.why, standing.lost) == ("blobs of it are gone", 20)


def test_a_tree_of_many_folders_comes_by_itself(
    server: Hostile, theirs: Cas, ours: Cas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ALONE", 2000)
    tree = assemble(theirs, {f"d{i}/x": File(theirs.put(b"%d" % i)) for i in range(100)})
    give(server, theirs, tree)
    made = reads(ours, server)
    answer = find(made)
    assert isinstance(answer, Found)
    assert set(blobs(ours, tree)) == set(blobs(theirs, tree))


def test_directories_come_level_by_level_where_there_is_no_tree(server: Hostile, theirs: Cas, ours: Cas) -> None:
    tree = assemble(theirs, {"a/b/c": File(theirs.put(b"c" * 5000)), "a/d": File(theirs.put(b"d"))})
    result = result_of(tree, worker="them")
    server.blobs[f"/ac/{address().hash}"] = encode_action_result(result)
    for digest in blobs(theirs, tree):
        server.blobs[f"/cas/{digest.hash}"] = theirs.get(digest)
    made = reads(ours, server)
    answer = find(made)
    assert isinstance(answer, Found)
    assert made.fetch(ours.lost(tree), nothing) == set()
    assert ours.complete(tree)


def test_what_is_nowhere_is_nothing(server: Hostile, ours: Cas) -> None:
    made = reads(ours, server)
    assert find(made) is None
    gone = {Digest.of(b"a"), Digest.of(b"b" * (ALONE + 1))}
    assert made.fetch(gone, nothing) == gone
    assert faults(made) == {}
    assert Reads([], ("main",), ours, Tally()).fetch(gone, nothing) == gone


def test_blobs_come_from_whoever_has_them(server: Hostile, theirs: Cas, ours: Cas) -> None:
    with Hostile() as other:
        tree = assemble(theirs, {"in/a": File(theirs.put(b"a" * 5000)), "in/b": File(theirs.put(b"b" * 5000))})
        give(server, theirs, tree)
        moved = f"/cas/{Digest.of(b'b' * 5000).hash}"
        other.blobs[moved] = server.blobs.pop(moved)
        made = reads(ours, server, other)
        answer = find(made)
        assert isinstance(answer, Found)
        assert made.fetch(ours.lost(tree), nothing) == set()


def test_a_result_that_is_not_wanted_is_passed_over(server: Hostile, theirs: Cas, ours: Cas) -> None:
    one, other = File(theirs.put(b"1")), File(theirs.put(b"2"))
    give(server, theirs, one, "main")
    give(server, theirs, other, "release")
    made = reads(ours, server, zones=("main", "release"))
    answer = find(made, accept=lambda artifact: artifact == other)
    assert isinstance(answer, Found)
    assert answer.artifact == other
    assert find(made, accept=lambda _: False) is None


def test_zones_are_read_in_order(server: Hostile, theirs: Cas, ours: Cas) -> None:
    give(server, theirs, File(theirs.put(b"main")), "main")
    give(server, theirs, File(theirs.put(b"mine")), "dev/me")
    give(server, theirs, File(theirs.put(b"pr")), "pr/1")
    for zones, said in ((("dev/me", "main"), b"mine"), (("main", "dev/me"), b"main"), (("release",), None)):
        answer = find(reads(ours, server, zones=zones))
        assert (answer.artifact if isinstance(answer, Found) else None) == (File(Digest.of(said)) if said else None)


def test_what_is_disbelieved_is_not_asked_for_again(server: Hostile, theirs: Cas, ours: Cas) -> None:
    give(server, theirs, File(theirs.put(b"1")))
    made = reads(ours, server)
    assert isinstance(find(made), Found)
    made.disbelieve(KEY)
    before = len(server.seen)
    assert find(made) is None
    assert len(server.seen) == before


FIXED = Digest.of(b"fixed")


def test_what_a_hash_proves_is_believed_and_nothing_else(server: Hostile, theirs: Cas, ours: Cas) -> None:
    give(server, theirs, File(theirs.put(b"fixed")), "", stderr=b"[]", stdout=b"said")
    answer = find(reads(ours, server), FIXED.hash)
    assert isinstance(answer, Found)
    assert (answer.result.stderr_raw, answer.result.stdout_raw) == (b"", b"")
    for wrong in (
        File(theirs.put(b"other")),
        File(theirs.put(b"fixed"), executable=True),
        assemble(theirs, {"x": File(theirs.put(b"fixed"))}),
    ):
        give(server, theirs, wrong, "")
        made = reads(ours, server)
        assert find(made, FIXED.hash) is None
        assert faults(made) == {"broken": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"text",
        encode_action_result(result_of(File(KEY), exit_code=1)),
        encode_action_result(result_of(File(KEY))._replace(output_files=())),
        encode_action_result(
            result_of(Tree(KEY))._replace(output_directories=(OutputDirectory("out", None, Digest.of(b"x" * 99)),))
        ),
    ],
)
def test_what_makes_no_sense_is_a_miss_and_a_fault(server: Hostile, ours: Cas, data: bytes) -> None:
    server.blobs[f"/ac/{address().hash}"] = data
    made = reads(ours, server)
    answer = find(made)
    assert answer is None
    if data.find(b"out") < 0:
        assert faults(made) == {"broken": 1}


def trees(server: Hostile, root: Directory, children: Sequence[Directory]) -> None:
    message = encode_tree(root, list(children))
    server.blobs[f"/cas/{Digest.of(message).hash}"] = message
    folder = OutputDirectory("out", Digest.of(encode_directory(root)), Digest.of(message))
    result = result_of(Tree(KEY), worker="them")._replace(output_directories=(folder,))
    server.blobs[f"/ac/{address().hash}"] = encode_action_result(result)


def test_a_tree_that_leads_out_or_lacks_a_folder_is_a_miss(server: Hostile, ours: Cas) -> None:
    hole = Directory(directories=(DirectoryNode("x", Digest.of(b"nowhere")),))
    trees(server, hole, ())
    made = reads(ours, server)
    assert find(made) is None
    assert faults(made) == {"broken": 1}
    assert ours.missing((Digest.of(encode_directory(hole)),))


def test_sizes_beyond_all_measure_do_no_harm(server: Hostile, ours: Cas) -> None:
    huge = tuple(FileNode(f"f{i}", Digest(f"{i:064x}", 2**62), is_executable=False) for i in range(9))
    trees(server, Directory(files=huge), ())
    made = reads(ours, server)
    answer = find(made)
    if isinstance(answer, Found):
        assert len(made.fetch(ours.lost(answer.artifact), nothing)) == 9


def test_an_answer_that_cannot_be_trusted_says_why_and_the_next_may_do(server: Hostile, theirs: Cas, ours: Cas) -> None:
    signing = pytest.importorskip("strata_engine.remote.signing")
    key = signing.new_key()
    with Hostile() as other:
        give(server, theirs, File(theirs.put(b"1")))
        made = reads(ours, server, other, accepted=[key.public])
        assert find(made) == Untrusted(server.url, "not signed")
        cache = HttpCache(other.url)

        def finish(result: Any) -> Any:
            return signing.sign(key, KEY, result, "main", 5)

        good = result_of(File(theirs.put(b"2")), worker="x")
        send(cache, theirs, good, address(), nothing, there=set(), remembered=Seen(), finish=finish)
        cache.close()
        answer = find(made)
        assert isinstance(answer, Found)
        assert answer.artifact == File(Digest.of(b"2"))


def test_what_is_spoiled_is_noted_to_be_healed(server: Hostile, theirs: Cas, ours: Cas) -> None:
    one, large = theirs.put(b"1" * 5000), theirs.put(b"2" * (ALONE + 1))
    server.blobs |= {f"/cas/{one.hash}": b"x" * 5000, f"/cas/{large.hash}": b"x" * (ALONE + 1)}
    made = reads(ours, server)
    assert made.fetch([one, large], nothing) == {one, large}
    assert made._endpoints[0].spoiled == {one, large}


@given(st.lists(st.integers(0, BATCH + 5), max_size=60))
@settings(deadline=None)
def test_batches_have_all_of_it_and_are_within_bounds(sizes: list[int]) -> None:
    digests = [Digest(f"{number:064x}", size) for number, size in enumerate(sizes)]
    made = list(batches(digests))
    assert [digest for batch in made for digest in batch] == digests
    for batch in made:
        assert len(batch) <= MOST_IN_BATCH
        assert len(batch) == 1 or sum(digest.size for digest in batch) <= BATCH


def test_a_batch_has_not_too_many() -> None:
    digests = [Digest(f"{number:064x}", 1) for number in range(2 * MOST_IN_BATCH + 1)]
    assert [len(batch) for batch in batches(digests)] == [MOST_IN_BATCH, MOST_IN_BATCH, 1]
