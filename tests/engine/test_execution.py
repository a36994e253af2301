from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from builds import Site, counts, graph_of, key_of, make, outcomes, reasons, report, text_of

from strata_engine import groups
from strata_engine.action import Action, Execution, Expansion, Literal, Ref, Source, SourceTree
from strata_engine.blobs import SMALL
from strata_engine.build import BuildResult
from strata_engine.digest import Digest
from strata_engine.events import Placed, Waiting
from strata_engine.locks import KeyLocks
from strata_engine.tree import Artifact, File, assemble

LARGE = "x" * (SMALL + 1)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "w")


def blob_file(site: Site, text: str) -> Path:
    digest = Digest.of(text.encode())
    return site.store / "cas" / digest.hash[:2] / digest.hash


def lose(path: Path) -> None:
    path.unlink()


def corrupt(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"y" * path.stat().st_size)


DAMAGE = pytest.mark.parametrize("damage", [lose, corrupt])


def say(text: str) -> Callable[[Execution], Artifact]:
    return lambda execution: File(execution.store.put(text.encode()))


# -- lost blobs ------------------------------------------------------------------------------------------------------


@DAMAGE
def test_a_blob_that_is_gone_when_it_is_read_is_made_again_in_the_same_build(
    site: Site, damage: Callable[[Path], None]
) -> None:
    def items(what: str) -> list[Action]:
        return [make("low", run=say(LARGE)), make("mid", "low", say=""), make("end", "mid", say=what)]

    site.build(items("1"), places={"out": "end"})
    damage(blob_file(site, LARGE))
    damage(blob_file(site, f"+{LARGE}"))
    result = site.build(items("2"), places={"out": "end"})
    assert result.exit_code == 0
    assert (site.root / "out").read_text() == f"2++{LARGE}"
    assert counts(result) == {"executed": 3}
    assert reasons(result, "low") == [f"cache-blob-lost low: {Digest.of(LARGE.encode())} → (none)"]
    assert reasons(result, "mid")[-1].startswith("cache-blob-lost mid: ")
    assert counts(site.build(items("2"), places={"out": "end"})) == {"up_to_date": 3}


@DAMAGE
def test_a_blob_that_is_gone_when_it_is_placed_is_made_again(site: Site, damage: Callable[[Path], None]) -> None:
    def tree(execution: Execution) -> Artifact:
        return assemble(execution.store, {"d/large": File(execution.store.put(LARGE.encode()))})

    site.build([make("tree", run=tree)])
    damage(blob_file(site, LARGE))
    result = site.build([make("tree", run=tree)], places={"out": "tree", "part": "tree:d"})
    assert result.exit_code == 0, result.diagnostics
    assert (site.root / "out" / "d" / "large").read_text() == (site.root / "part" / "large").read_text() == LARGE
    assert outcomes(result) == {"tree": "executed"}
    assert reasons(result, "tree")[-1].startswith("cache-blob-lost tree")


@DAMAGE
def test_a_blob_that_an_expansion_reads_is_made_again(site: Site, damage: Callable[[Path], None]) -> None:
    def expand(text: str) -> list[Action]:
        return [make(f"more/{text[-1]}")]

    def items(last: str) -> list[Action | Expansion]:
        return [
            make("lock", run=say(LARGE + last)),
            Expansion(
                label="grow", after=(Ref("lock"),), promises=(f"more/{last}",),
                expand=lambda read: expand(read(Ref("lock")).decode()),
            ),
        ]  # fmt: skip

    site.build(items("a"), ["more/a"])
    damage(blob_file(site, LARGE + "a"))
    result = site.build(items("a"), ["more/a"])
    assert outcomes(result) == {"lock": "executed", "more/a": "up_to_date"}
    assert reasons(result, "lock")[-1].startswith("cache-blob-lost lock")


def test_a_directory_that_is_gone_when_an_entry_is_looked_up(site: Site) -> None:
    def tree(execution: Execution) -> Artifact:
        return assemble(execution.store, {"d/x": File(execution.store.put(b"x"))})

    def items(what: str) -> list[Action]:
        return [make("tree", run=tree), make("end", say=what, inputs={"in": Ref("tree", "d/x")})]

    site.build(items("1"))
    with site.opened_store() as store:
        result = store.cache.get(key_of(site.build(items("1")), "tree"))
        assert result is not None
        root = result.output_directories[0].root_directory_digest
        store.index.delete([b"b" + bytes.fromhex(root.hash)])
    # In a dry run nothing is made again: what needs it would run.
    dry = site.build(items("1"), dry_run=True)
    assert outcomes(dry)["end"] == "executed"
    again = site.build(items("1"))
    assert outcomes(again) == {"tree": "executed", "end": "up_to_date"}
    # And where the lost folder is needed to know whether an output is in its place.
    with site.opened_store() as store:
        store.index.delete([b"b" + bytes.fromhex(root.hash)])
    result = site.build(items("1"), places={"out": "tree:d"})
    assert (site.root / "out" / "x").read_text() == "x"
    assert result.exit_code == 0
    assert outcomes(result)["tree"] == "executed"


def test_sources_and_literals_are_put_back(site: Site) -> None:
    site.write("src", LARGE)
    site.write("lib/m", LARGE + "m")

    def items(what: str) -> list[Action]:
        inputs = {"a": Source("src"), "b": Literal((LARGE + "l").encode())}

        def run(execution: Execution) -> Artifact:
            lib = execution.scratch / "lib"
            execution.stage("lib", lib)
            text = execution.read("a") + execution.read("b") + (lib / "m").read_bytes()
            return File(execution.store.put(what.encode() + text))

        return [make("a", say=what, run=run, inputs=inputs | {"lib": SourceTree("lib")})]

    site.build(items("1"))
    shutil.rmtree(site.store / "cas")
    result = site.build(items("2"))
    assert result.exit_code == 0, result.diagnostics
    assert text_of(site, result, "a") == "2" + LARGE + LARGE + "l" + LARGE + "m"


def test_a_store_that_keeps_losing_is_given_up(site: Site) -> None:
    def forgetful(execution: Execution) -> Artifact:
        blob_file(site, LARGE).unlink()
        return File(execution.store.put(execution.read("from/low")))

    result = site.build([make("low", run=say(LARGE)), make("end", "low", run=forgetful)])
    assert outcomes(result) == {"low": "executed", "end": "failed"}
    [diagnostic] = result.diagnostics
    assert diagnostic.id == "blob-lost"
    assert "`end` could not read" in diagnostic.message
    assert result.exit_code == 3


def test_what_cannot_be_made_again_fails_what_needs_it(site: Site) -> None:
    broken: list[bool] = []

    def low(execution: Execution) -> Artifact:
        if broken:
            raise LookupError("no more")
        return File(execution.store.put(LARGE.encode()))

    site.build([make("low", run=low), make("end", "low")])
    lose(blob_file(site, LARGE))
    broken.append(True)
    result = site.build([make("low", run=low), make("end", "low", say="2")])
    assert outcomes(result)["end"] == "failed"
    assert [diagnostic.id for diagnostic in result.diagnostics] == ["rule-crashed"]
    assert "`low`" in result.diagnostics[0].message


def test_a_source_that_changes_while_the_build_runs_is_told(site: Site) -> None:
    source = site.write("lib/1", LARGE)
    site.write("lib/2", "")
    hashed = threading.Event()

    def accept(path: str, is_folder: bool) -> bool:
        if path == "2":
            hashed.set()
        return True

    def slow(execution: Execution) -> Artifact:
        assert hashed.wait(30)
        source.write_text("changed " + LARGE)
        return File(execution.store.put(b"slow"))

    def read(execution: Execution) -> Artifact:
        execution.stage("lib", execution.scratch / "lib")
        return File(execution.store.put((execution.scratch / "lib" / "1").read_bytes()))

    # One slot: `z` is decided about while `a` runs, and executed after it.
    last = make("z", run=read, inputs={"lib": SourceTree("lib", accept)})
    result = site.build([make("a", run=slow), last], jobs=1)
    assert outcomes(result) == {"a": "executed", "z": "failed"}
    assert [diagnostic.id for diagnostic in result.diagnostics] == ["racy-input"]
    assert result.exit_code == 3
    # The next build is right.
    assert text_of(site, site.build([last]), "z") == f"changed {LARGE}"


# -- one result for all builds ---------------------------------------------------------------------------------------


def test_two_workspaces_make_one_thing_once(tmp_path: Path) -> None:
    sites = [Site(tmp_path / name, tmp_path / "store") for name in ("one", "two")]
    runs: list[str] = []
    both = threading.Barrier(2, timeout=30)

    def slow(execution: Execution) -> Artifact:
        runs.append(execution.label)
        time.sleep(0.3)
        return File(execution.store.put(b"made"))

    def build(site: Site) -> BuildResult:
        both.wait()
        return site.build([make("slow", run=slow), make("after", "slow")], places={"out": "after"})

    results = in_parallel([lambda site=site: build(site) for site in sites])
    assert runs == ["slow"]
    assert sorted(outcomes(result)["slow"] for result in results) == ["cached", "executed"]
    assert [(site.root / "out").read_text() for site in sites] == ["after+made"] * 2
    # On a busy machine they may meet at `after`, too.
    waited = [event for site in sites for event in site.heard(Waiting)]
    assert {event.holder for event in waited} == {"another build that makes the same thing"}


def in_parallel(works: list[Callable[[], BuildResult]]) -> list[BuildResult]:
    results: list[BuildResult] = []
    threads = [threading.Thread(target=lambda work=work: results.append(work())) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == len(works)
    return results


def test_two_cold_builds_of_one_graph_share_the_work(tmp_path: Path) -> None:
    sites = [Site(tmp_path / name, tmp_path / "store") for name in ("one", "two")]
    runs: list[str] = []
    both = threading.Barrier(2, timeout=30)

    def quick(execution: Execution) -> Artifact:
        runs.append(execution.label)
        time.sleep(0.002)
        return File(execution.store.put(execution.label.encode()))

    items = [make(f"{n}", *([str(n - 10)] if n >= 10 else []), run=quick) for n in range(60)]

    def build(site: Site) -> BuildResult:
        both.wait()
        return site.build(items, jobs=2)

    results = in_parallel([lambda site=site: build(site) for site in sites])
    # All was decided to be missing before most of it was made by the other one.
    assert sorted(runs) == sorted(item.label for item in items)
    assert sum(result.counts["executed"] for result in results) == 60
    assert sum(result.counts["cached"] + result.counts["up_to_date"] for result in results) == 60


def test_a_lock_is_released_whatever_happens(site: Site) -> None:
    def fail(execution: Execution) -> Artifact:
        raise LookupError

    async def fail_later(execution: Execution) -> Artifact:
        raise LookupError

    items = [make("good"), make("bad", run=fail), make("worse", run=fail_later), make("late", run=say("late"))]
    result = site.build(items, keep_going=True)
    locks = KeyLocks(site.store / "locks" / "actions")
    assert all(locks.take(key_of(result, item.label)) for item in items)


def test_results_are_written_in_groups_and_none_is_left_behind(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "GROUP_SECONDS", 3600)
    monkeypatch.setattr(groups, "QUICK_SECONDS", 3600)
    written: list[int] = []
    with site.opened() as build:
        flush = build.store.cache.flush
        monkeypatch.setattr(build.store.cache, "flush", lambda: written.append(1) or flush())
        items = [make(str(n)) for n in range(100)]
        result = build.run(graph_of(items), [item.label for item in items])
    assert counts(result) == {"executed": 100}
    assert len(written) < 10
    shutil.rmtree(site.root / ".strata")
    assert counts(site.build(items)) == {"cached": 100}


def test_a_slow_result_is_written_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "GROUP_SECONDS", 3600)
    monkeypatch.setattr(groups, "QUICK_SECONDS", 0.0)

    def look(execution: Execution) -> Artifact:
        with Site(site.root, site.store).opened_store() as store:
            found = [key for key, _ in store.cache.everything()]
        return File(execution.store.put(str(len(found)).encode()))

    result = site.build([make("first"), make("look", "first", run=look)])
    assert text_of(site, result, "look") == "1"


# -- places ----------------------------------------------------------------------------------------------------------


def test_a_failed_build_leaves_old_outputs_whole(site: Site) -> None:
    def fail(execution: Execution) -> Artifact:
        raise LookupError

    places = {"a": "a", "b": "b"}
    site.build([make("a", say="old"), make("b", say="old")], places=places)
    bad = [make("a", say="new"), make("b", run=fail)]
    assert site.build(bad, places=places).exit_code == 1
    assert (site.root / "a").read_text() == (site.root / "b").read_text() == "old"
    # Who goes on in spite of failures gets what could be made.
    assert site.build(bad, places=places, keep_going=True).exit_code == 1
    assert ((site.root / "a").read_text(), (site.root / "b").read_text()) == ("new", "old")


def test_a_place_that_cannot_be_written_is_told_and_the_rest_is_whole(site: Site) -> None:
    site.build([make("a", say="old")], places={"a": "a"})
    site.write("blocked", "a file where a folder should be")
    result = site.build([make("a", say="new"), make("b")], places={"blocked/out": "b", "a": "a"})
    assert result.exit_code == 3
    assert counts(result) == {"executed": 2}
    [diagnostic] = result.diagnostics
    assert diagnostic.id == "host-error"
    assert "blocked" in diagnostic.message
    assert (site.root / "blocked").read_text() == "a file where a folder should be"
    assert (site.root / "a").read_text() == "old"
    (site.root / "blocked").unlink()
    result = site.build([make("a", say="new"), make("b")], places={"blocked/out": "b", "a": "a"})
    assert result.exit_code == 0
    assert result.counts["executed"] == 0
    assert ((site.root / "a").read_text(), (site.root / "blocked" / "out").read_text()) == ("new", "b")


def test_a_full_disk_is_told_and_nothing_half_written_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def tree(execution: Execution) -> Artifact:
        return assemble(execution.store, {f"f{n}": File(execution.store.put(str(n).encode())) for n in range(9)})

    site.build([make("t", say="old")], places={"out/t": "t"})

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("strata_engine.place._set_time", full)
        result = site.build([make("t", run=tree)], places={"out/t": "t"})
    assert result.exit_code == 3
    assert [diagnostic.id for diagnostic in result.diagnostics] == ["disk-full"]
    assert (site.root / "out" / "t").read_text() == "old"
    assert [path.name for path in (site.root / "out").iterdir()] == ["t"]


def test_an_output_that_has_no_such_part(site: Site) -> None:
    result = site.build([make("a")], places={"out": "a:no/such"})
    assert result.exit_code == 2
    assert [diagnostic.id for diagnostic in result.diagnostics] == ["missing-output"]


def test_places_are_told_and_only_what_changed_is_placed(site: Site) -> None:
    places = {"out/a": "a", "out/b": "b"}
    site.build([make("a"), make("b")], places=places)
    assert sorted(event.path for event in site.heard(Placed)) == ["out/a", "out/b"]
    stamp = (site.root / "out" / "a").stat()
    site.build([make("a"), make("b", say="new")], places=places)
    assert [event.path for event in site.heard(Placed)] == ["out/b"]
    assert (site.root / "out" / "a").stat() == stamp


def test_sizes_are_those_of_all_files_together(site: Site) -> None:
    def tree(execution: Execution) -> Artifact:
        file = File(execution.store.put(b"12345"))
        return assemble(execution.store, {"a": file, "d/b": file})

    for expected in ("executed", "up_to_date"):
        result = site.build([make("t", run=tree)])
        assert (report(result, "t").outcome, report(result, "t").bytes) == (expected, 10)
    shutil.rmtree(site.root / ".strata")
    assert report(site.build([make("t", run=tree)]), "t").bytes == 10
