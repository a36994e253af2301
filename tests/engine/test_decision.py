from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from builds import Site, counts, key_of, make, outcomes, reasons, report, text_of

from strata_engine.action import Action, Execution, Literal, Ref, Scope, Source, SourceTree
from strata_engine.action_cache import row_key
from strata_engine.digest import Digest
from strata_engine.errors import ActionError, Diagnostic
from strata_engine.events import Warned
from strata_engine.tree import Artifact, File, Store, assemble


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "w")


def short(text: str) -> str:
    return Digest.of(text.encode()).hash[:12]


def test_the_first_build_and_the_one_with_nothing_to_do(site: Site) -> None:
    items = [make("a"), make("b", "a")]
    first = site.build(items)
    assert counts(first) == {"executed": 2}
    assert reasons(first, "b") == ["first-build b"]
    assert text_of(site, first, "b") == "b+a"
    second = site.build(items)
    assert counts(second) == {"up_to_date": 2}
    assert reasons(second, "b") == []
    assert [key_of(second, label) for label in "ab"] == [key_of(first, label) for label in "ab"]


def test_a_workspace_without_a_past_takes_what_the_store_has(site: Site) -> None:
    site.build([make("a")])
    shutil.rmtree(site.root / ".strata")
    again = site.build([make("a")])
    assert outcomes(again) == {"a": "cached"}
    assert reasons(again, "a") == ["first-build a"]


def test_a_revert_takes_the_old_result_and_says_what_was_reverted(site: Site) -> None:
    site.build([make("a", say="1")])
    assert reasons(site.build([make("a", say="2")]), "a") == ["parameter-changed say: 1 → 2"]
    reverted = site.build([make("a", say="1")])
    assert outcomes(reverted) == {"a": "cached"}
    assert reasons(reverted, "a") == ["parameter-changed say: 2 → 1"]


def test_an_unchanged_output_stops_the_wave(site: Site) -> None:
    site.write("src", "1")

    def length(execution: Execution) -> Artifact:
        return File(execution.store.put(str(len(execution.read("src"))).encode()))

    items = [make("len", run=length, inputs={"src": Source("src")}), make("b", "len"), make("c", "b")]
    site.build(items)
    site.write("src", "2")
    result = site.build(items)
    assert outcomes(result) == {"len": "executed", "b": "up_to_date", "c": "up_to_date"}
    assert reasons(result, "len") == [f"input-changed src: {short('1')} → {short('2')}"]
    site.write("src", "22")
    result = site.build(items)
    assert reasons(result, "b") == [f"upstream-changed len: {short('1')} → {short('2')}"]
    assert counts(result) == {"executed": 3}


def test_only_the_entry_that_is_read_counts(site: Site) -> None:
    def both(execution: Execution) -> Artifact:
        store = execution.store
        nodes = {name: File(store.put(execution.read(name))) for name in execution.names()}
        return assemble(store, {"out/" + name: node for name, node in nodes.items()})

    items = [
        make("lib", run=both, inputs={"x": Source("x"), "y": Source("y")}),
        make("reads-x", inputs={"in": Ref("lib", "out/x")}),
        make("reads-y", inputs={"in": Ref("lib", "out/y")}),
    ]
    site.write("x", "1")
    site.write("y", "1")
    site.build(items)
    site.write("y", "2")
    assert outcomes(site.build(items)) == {"lib": "executed", "reads-x": "up_to_date", "reads-y": "executed"}


def test_all_reasons_are_told_at_once(site: Site) -> None:
    site.write("src", "1")
    site.write("lib/m", "1")

    def action(number: int) -> Action:
        return make(
            "a", say=str(number), version=number, environment={"E": str(number)}, platform={"tool:t": str(number)},
            inputs={"src": Source("src"), "lib": SourceTree("lib")},
            run=lambda execution: File(execution.store.put(b"out")),
        )  # fmt: skip

    places = {"out": "a"}
    site.build([action(1)], places=places)
    site.write("src", "2")
    site.write("lib/m", "2")
    site.write("out", "tampered")
    result = site.build([action(2)], places=places, force=("a",), salt="new")
    assert [reason.partition(":")[0] for reason in reasons(result, "a")] == [
        "forced a", "rule-changed Combine", "parameter-changed say", "env-changed E", "tool-changed t",
        "salt-changed salt", "input-changed lib/m", "input-changed src", "output-tampered out",
    ]  # fmt: skip
    assert (site.root / "out").read_text() == "out"


@pytest.mark.parametrize("pattern", ["app/link", "app/*", "*", "app/link[[]win]", "app/link[win]"])
def test_forcing_by_label_or_pattern(site: Site, pattern: str) -> None:
    items = [make("app/link"), make("app/link[win]"), make("other")]
    site.build(items)
    result = site.build(items, force=(pattern,))
    forced = {
        "app/link": {"app/link"}, "app/*": {"app/link", "app/link[win]"},
        "*": {"app/link", "app/link[win]", "other"},
    }.get(pattern, {"app/link[win]"})  # fmt: skip
    assert {label for label, outcome in outcomes(result).items() if outcome == "executed"} == forced
    for label in forced:
        assert reasons(result, label) == [f"forced {label}"]


def test_what_is_volatile_runs_always_and_is_kept_nowhere(site: Site) -> None:
    said = ["1", "1", "2"]

    def run(execution: Execution) -> Artifact:
        return File(execution.store.put(said.pop(0).encode()))

    items = [make("now", run=run, scope=Scope.VOLATILE), make("b", "now")]
    assert reasons(site.build(items), "now") == ["volatile now", "first-build now"]
    second = site.build(items)
    assert outcomes(second) == {"now": "executed", "b": "up_to_date"}
    assert reasons(second, "now") == ["volatile now"]
    third = site.build(items)
    assert outcomes(third) == {"now": "executed", "b": "executed"}
    with site.opened_store() as store:
        assert store.cache.get(key_of(third, "now")) is None
        assert store.cache.get(key_of(third, "b")) is not None


def test_another_epoch_disowns_everything_and_the_old_one_is_still_there(site: Site) -> None:
    items = [make("a"), make("b", "a")]
    site.build(items)
    result = site.build(items, salt="2")
    assert counts(result) == {"executed": 2}
    assert reasons(result, "a") == ["salt-changed salt: (none) → 2"]
    assert counts(site.build(items)) == {"cached": 2}


def test_a_lost_and_a_planted_row_of_the_cache(site: Site) -> None:
    items = [make("a")]
    key = key_of(site.build(items), "a")
    with site.opened_store() as store:
        store.cache.delete(key)
    assert reasons(site.build(items), "a") == ["cache-entry-missing a"]
    other = key_of(site.build([make("b")]), "b")
    with site.opened_store() as store:
        good = store.index.get(row_key(other))
        assert good is not None
    for planted in (b"", b"garbage" * 10, b"\x80\x04cos\nsystem\n", good):
        with site.opened_store() as store:
            store.index.put_many({row_key(key): planted})
        result = site.build(items)
        assert outcomes(result) == {"a": "executed"}
        assert reasons(result, "a") == ["cache-entry-corrupt a"], planted
        assert text_of(site, result, "a") == "a"
        assert counts(site.build(items)) == {"up_to_date": 1}


def test_a_whole_store_that_is_gone(site: Site) -> None:
    items = [make("a", say="1"), make("b", "a")]
    site.build(items)
    shutil.rmtree(site.store)
    result = site.build(items)
    assert counts(result) == {"executed": 2}
    assert reasons(result, "a") == reasons(result, "b") == ["evicted store"]
    shutil.rmtree(site.store)
    # What was asked then is gone with it, and cannot be compared.
    assert reasons(site.build([make("a", say="2")]), "a") == ["evicted store"]


def test_a_file_that_is_read_no_more_is_named_as_it_was_whatever_was_built_since(site: Site) -> None:
    site.write("deep/src", "1")
    more = make("a", inputs={"s/src": Source("deep/src"), "s/-": Literal(b"")})
    less = make("a", inputs={"s/-": Literal(b"")})
    site.build([more, make("b")])
    site.build([less, make("b")], ["b"])
    assert reasons(site.build([less, make("b")]), "a") == [f"input-removed deep/src: {short('1')} → (none)"]


def test_a_failure_is_remembered_and_what_changed_since_is_told(site: Site) -> None:
    def action(say: str) -> Action:
        def run(execution: Execution) -> Artifact:
            if say == "bad":
                raise ActionError.of("no", "no")
            return File(execution.store.put(b"x"))

        return make("a", say=say, run=run)

    assert reasons(site.build([action("bad")]), "a") == ["first-build a"]
    assert reasons(site.build([action("bad")]), "a") == ["previous-failed a"]
    assert reasons(site.build([action("good")]), "a") == ["previous-failed a", "parameter-changed say: bad → good"]


def test_outputs_that_were_deleted_or_tampered_with_are_restored_and_nothing_runs(site: Site) -> None:
    def tree(execution: Execution) -> Artifact:
        return assemble(execution.store, {"bin/run": File(execution.store.put(b"#!"), True)})

    items = [make("file"), make("tree", run=tree)]
    places = {"out/file": "file", "out/tree": "tree", "part": "tree:bin"}
    site.build(items, places=places)
    out = site.root / "out"
    assert counts(site.build(items, places=places)) == {"up_to_date": 2}

    def restored() -> list[str]:
        result = site.build(items, places=places)
        assert result.counts["executed"] == 0
        assert (out / "file").read_text() == "file"
        assert (out / "tree" / "bin" / "run").read_bytes() == (site.root / "part" / "run").read_bytes() == b"#!"
        assert sorted(path.name for path in (out / "tree").iterdir()) == ["bin"]
        return [reason for report in result.actions for reason in map(str, report.reasons)]

    shutil.rmtree(out)
    assert restored() == ["output-missing out/file", "output-missing out/tree"]
    (out / "file").write_text("mine")
    (out / "tree" / "new").touch()
    assert restored() == ["output-tampered out/file", "output-tampered out/tree"]
    shutil.rmtree(site.root / "part")
    (site.root / "part").write_text("a file in its place")
    assert restored() == ["output-tampered part"]
    shutil.rmtree(site.root / ".strata")
    assert sorted(restored()) == [
        "first-build file", "first-build tree", "output-missing out/file", "output-missing out/tree",
        "output-missing part",
    ]  # fmt: skip
    assert restored() == []


def test_a_new_wish_for_an_old_output(site: Site) -> None:
    site.build([make("a")])
    result = site.build([make("a")], places={"out": "a"})
    assert outcomes(result) == {"a": "cached"}
    assert reasons(result, "a") == ["output-missing out"]
    # Another output at the same place.
    result = site.build([make("a"), make("b")], places={"out": "b"})
    assert (site.root / "out").read_text() == "b"
    result = site.build([make("a"), make("b")], places={"out": "a"})
    assert reasons(result, "a") == [f"output-missing out: {short('b')} → {short('a')}"]
    assert (site.root / "out").read_text() == "a"


def test_warnings_are_said_again_with_a_result_from_the_store(site: Site) -> None:
    warning = Diagnostic("careful", "two wheels share `x`", notes=("n",), severity="warning")

    def run(execution: Execution) -> Artifact:
        execution.warn(warning)
        return File(execution.store.put(b"x"))

    items = [make("a", run=run)]
    assert report(site.build(items), "a").outcome == "executed"
    assert site.heard(Warned) == [Warned(warning, "a")]
    site.build(items)
    assert site.heard(Warned) == []
    shutil.rmtree(site.root / ".strata")
    assert outcomes(site.build(items)) == {"a": "cached"}
    assert site.heard(Warned) == [Warned(warning, "a")]


class Kept:
    """A result that the workspace keeps: a file with the key in its first line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writes = 0

    def read(self, key: Digest, store: Store) -> Artifact | None:
        if not self.path.exists():
            return None
        found, _, text = self.path.read_text().partition("\n")
        return File(store.put(text.encode())) if found == str(key) else None

    def write(self, key: Digest, artifact: Artifact, store: Store) -> None:
        assert isinstance(artifact, File)
        self.writes += 1
        self.path.write_text(f"{key}\n{store.get(artifact.digest).decode()}")

    def why_invalid(self, key: Digest) -> tuple[str, ...]:
        return ("it is for another key",)


def locking(site: Site, say: str) -> tuple[Action, Kept]:
    kept = Kept(site.root / "lock")
    return make("app/lock", say=say, scope=Scope.LOCAL, committed=kept), kept


def test_what_the_workspace_keeps_comes_first_and_is_written_when_it_changes(site: Site) -> None:
    action, kept = locking(site, "1")
    assert outcomes(site.build([action, make("b", "app/lock")])) == {"app/lock": "executed", "b": "executed"}
    assert kept.writes == 1
    assert counts(site.build([action])) == {"up_to_date": 1}
    # A fresh checkout on a fresh machine: the lock is valid, so nothing runs.
    shutil.rmtree(site.root / ".strata")
    shutil.rmtree(site.store)
    assert outcomes(site.build([action, make("b", "app/lock")])) == {"app/lock": "up_to_date", "b": "executed"}
    assert kept.writes == 1
    other, kept = locking(site, "2")
    assert outcomes(site.build([other])) == {"app/lock": "executed"}
    # Its next change can be told although the first result was made elsewhere.
    assert reasons(site.build([locking(site, "3")[0]]), "app/lock") == ["parameter-changed say: 2 → 3"]
    # A revert is free: the result of then is written back.
    back, kept = locking(site, "2")
    assert outcomes(site.build([back])) == {"app/lock": "cached"}
    assert kept.writes == 1
    assert (site.root / "lock").read_text().endswith("\n2")


def test_a_fresh_checkout_can_tell_what_changes_next(site: Site) -> None:
    action, _ = locking(site, "1")
    site.build([action])
    shutil.rmtree(site.root / ".strata")
    shutil.rmtree(site.store)
    site.build([action])
    assert reasons(site.build([locking(site, "2")[0]]), "app/lock") == ["parameter-changed say: 1 → 2"]


def test_a_result_without_its_blobs_is_no_result_for_what_is_kept(site: Site) -> None:
    action, kept = locking(site, "x" * 5000)
    site.build([action])
    kept.path.unlink()
    shutil.rmtree(site.store / "cas")
    result = site.build([action])
    assert outcomes(result) == {"app/lock": "executed"}
    assert reasons(result, "app/lock") == ["cache-blob-lost app/lock"]


@pytest.mark.parametrize("settings", [{}, {"force": ("app/lock",)}])
def test_locked_refuses_to_replace_what_is_kept(site: Site, settings: dict[str, Any]) -> None:
    action, kept = locking(site, "1")
    site.build([action])
    assert counts(site.build([action], locked=True)) == {"up_to_date": 1}
    before = kept.path.read_text()
    wanted = action if settings else locking(site, "2")[0]
    result = site.build([wanted, make("b", "app/lock"), make("c")], locked=True, keep_going=True, **settings)
    assert outcomes(result) == {"app/lock": "failed", "b": "skipped", "c": "executed"}
    assert result.exit_code == 2
    [diagnostic] = result.diagnostics
    assert diagnostic.id == "locked"
    assert diagnostic.notes == (("it is to run in any case",) if settings else ("it is for another key",))
    assert kept.path.read_text() == before


def test_locked_also_refuses_what_the_store_could_restore(site: Site) -> None:
    first, _ = locking(site, "1")
    second, kept = locking(site, "2")
    site.build([first])
    site.build([second])
    assert outcomes(site.build([first], locked=True)) == {"app/lock": "failed"}
    assert kept.path.read_text().endswith("\n2")


def test_the_same_bytes_are_one_key_under_any_name(site: Site) -> None:
    site.write("x", "same")
    result = site.build([
        make("a", say="", inputs={"in": Source("x")}), make("b", say="", inputs={"in": Literal(b"same")}),
    ])  # fmt: skip
    assert key_of(result, "a") == key_of(result, "b")


def test_a_rule_that_cannot_even_be_decided_about_is_its_own_failure(site: Site) -> None:
    def refuse(path: str, is_folder: bool) -> bool:
        raise LookupError("a bug in a filter")

    site.write("lib/m", "1")
    items = [
        make("clash", inputs={"a": Literal(b""), "a/b": Literal(b"")}), make("empty", inputs={"": Literal(b"")}),
        make("filter", inputs={"lib": SourceTree("lib", refuse)}), make("missing", inputs={"in": Source("none")}),
        make("part", inputs={"in": Ref("good", "no/such")}), make("good"),
    ]  # fmt: skip
    result = site.build(items, keep_going=True)
    assert outcomes(result) == {
        "clash": "failed", "empty": "failed", "filter": "failed", "missing": "failed", "part": "failed",
        "good": "executed",
    }  # fmt: skip
    ids = {diagnostic.id: diagnostic.message for diagnostic in result.diagnostics}
    assert set(ids) == {"rule-crashed", "missing-file", "missing-output"}
    assert ids["missing-file"] == "there is no file `none`"
    assert ids["missing-output"] == "`good` has no output `no/such`"


def test_a_dry_run_tells_all_that_is_known_of_what_waits_for_another(site: Site) -> None:
    site.write("src.txt", "1")
    site.write("own.txt", "1")

    def items(say: str) -> list[Action]:
        return [
            make("a", inputs={"src": Source("src.txt")}),
            make("b", "a", inputs={"own": Source("own.txt")}, say=say),
        ]

    site.build(items("x"))
    site.write("src.txt", "2")
    assert reasons(site.build(items("x"), dry_run=True), "b") == ["upstream-changed a"]
    site.write("own.txt", "2")
    own = f"input-changed own.txt: {short('1')} → {short('2')}"
    dry = site.build(items("y"), dry_run=True)
    assert reasons(dry, "b") == ["parameter-changed say: x → y", own, "upstream-changed a"]
    assert report(dry, "b").key == "", "it depends on what `a` will be"
    (site.root / "own.txt").unlink()
    assert reasons(site.build(items("y"), dry_run=True), "b") == ["upstream-changed a"]
