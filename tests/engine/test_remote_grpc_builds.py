"""What a build reads from a server of the Remote Execution API, and sends to one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc_fake import Fake
from sinks import Seen, calm

from strata_engine.action_cache import result_of
from strata_engine.cas import Cas
from strata_engine.codec import Action, encode_action, encode_action_result
from strata_engine.digest import EMPTY, Digest
from strata_engine.errors import Diagnostic
from strata_engine.index import Index
from strata_engine.remote.backend import Backend
from strata_engine.remote.endpoint import Endpoint
from strata_engine.remote.found import Found
from strata_engine.remote.reads import Reads
from strata_engine.remote.sends import send
from strata_engine.remote.settings import Access
from strata_engine.remote.tally import Tally
from strata_engine.tree import File, Tree, assemble, blobs

ACTION = encode_action(Action(EMPTY, EMPTY, b""))
KEY = Digest.of(ACTION)


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as server:
        yield server


@pytest.fixture
def theirs(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "theirs", Index(tmp_path / "theirs"))


@pytest.fixture
def ours(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "ours", Index(tmp_path / "ours"))


class Asked:
    """One cache as a build has it, in the only zone of an instance."""

    def __init__(self, access: Access, store: Cas) -> None:
        self.warned: list[Diagnostic] = []
        self.tally = Tally()
        self.endpoint = Endpoint(access, store.folder, self.tally, self.warned.append, timeout=2.0)
        self.address = self.endpoint.address_of(ACTION, "main")
        self._reads = Reads([self.endpoint], ("main",), store, self.tally)

    def find(self) -> object:
        return self._reads.find(KEY, ACTION, None, lambda _: True, calm)


@pytest.fixture
def asked(fake: Fake, ours: Cas) -> Iterator[Asked]:
    made = Asked(Access(url=f"{fake.url}/main"), ours)
    yield made
    made.endpoint.close()


def a_tree(store: Cas) -> Tree:
    return assemble(store, {f"d{i}/e{j}/x": File(store.put(b"%d %d" % (i, j))) for i in range(4) for j in range(3)})


def hold(fake: Fake, store: Cas, tree: Tree, address: Digest) -> None:
    """Have a server hold a result of another make: it names its root alone."""
    for digest in blobs(store, tree):
        fake.put(store.get(digest))
    fake.results[address.hash] = encode_action_result(result_of(tree, worker="them"))


def test_a_folder_is_sent_with_each_of_its_folders_and_known_by_its_tree(
    fake: Fake, asked: Asked, theirs: Cas, ours: Cas
) -> None:
    tree = a_tree(theirs)

    def use(backend: Backend) -> None:
        send(backend, theirs, result_of(tree), asked.address, calm, there=set(), remembered=Seen())

    asked.endpoint.write("main", use, None)
    assert asked.warned == []
    assert set(blobs(theirs, tree)) < set(fake.blobs)
    before = len(fake.methods())
    found = asked.find()
    assert isinstance(found, Found)
    assert found.artifact == tree
    assert fake.methods()[before:] == ["GetActionResult", "BatchReadBlobs"]
    assert not ours.missing([tree.root])


@pytest.mark.parametrize("told", ["all", "nothing"])
def test_a_folder_of_which_a_result_names_the_root_alone_is_gathered(
    fake: Fake, asked: Asked, theirs: Cas, ours: Cas, told: str
) -> None:
    tree = a_tree(theirs)
    hold(fake, theirs, tree, asked.address)
    if told == "nothing":
        fake.manner = lambda number, method: "status UNIMPLEMENTED" if method == "GetTree" else "well"
    found = asked.find()
    assert isinstance(found, Found)
    assert found.artifact == tree
    assert asked.warned == []
    assert set(fake.methods()) == {"GetActionResult", "GetTree"} | ({"BatchReadBlobs"} if told == "nothing" else set())
    assert asked.tally.told().read > 0
    # Its folders are in the store, and its files come when they are wanted.
    assert set(blobs(ours, tree)) == set(blobs(theirs, tree))


def test_a_folder_that_is_not_whole_is_no_result(fake: Fake, asked: Asked, theirs: Cas) -> None:
    tree = a_tree(theirs)
    hold(fake, theirs, tree, asked.address)
    inner = theirs.load(tree.root).directories[2].digest
    del fake.blobs[inner]
    assert asked.find() is None
    assert asked.warned == []


def test_the_login_of_an_address_is_sent_over_grpc(fake: Fake, theirs: Cas, ours: Cas) -> None:
    fake.login = "Basic Y2k6czNjcmV0"
    tree = a_tree(theirs)
    for login, header in ((("ci", "s3cret"), ()), (None, (("Authorization", fake.login),))):
        access = Access(url=f"{fake.url}/main", login=login, headers=header)
        made = Asked(access, ours)
        hold(fake, theirs, tree, made.address)
        assert isinstance(made.find(), Found)
        assert made.warned == []
        made.endpoint.close()
        assert "s3cret" not in repr(access) + made.endpoint.shown
