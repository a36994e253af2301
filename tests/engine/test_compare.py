"""Two states of a workspace compared, here and through a document from elsewhere; files followed to who made them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builds import Site, make

from strata_engine.action import Action, Execution, Ref, Source, SourceTree
from strata_engine.compare import Differences, Either, closure, compare, output_changes
from strata_engine.digest import Digest
from strata_engine.errors import SpecError
from strata_engine.exported import Believed, export, read_exported
from strata_engine.held import Held, held_at
from strata_engine.history import History, Past
from strata_engine.made_by import made_by
from strata_engine.recorded_graph import RecordedAction, read_graph
from strata_engine.records import Records
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.store import LocalStore, open_store
from strata_engine.tree import Artifact, File, Tree, assemble
from strata_engine.workspace import Workspace


def unpack(execution: Execution) -> Artifact:
    """Give a file below a folder of its own, and what comes from no input."""
    name = execution.label.rpartition("/")[2]
    data = execution.store.put(execution.read("file") + b" of " + name.encode())
    return assemble(
        execution.store, {f"purelib/{name}.py": File(data), "purelib/__init__.py": File(execution.store.put(b""))}
    )


def merge(execution: Execution) -> Artifact:
    nodes: dict[str, Any] = {"tree/bin/python": File(execution.store.put(b"generated"))}
    for name in execution.names("wheels/"):
        wheel = execution.node(name)
        assert isinstance(wheel, Tree)
        site = {
            entry.name: File(entry.digest)
            for folder in execution.store.load(wheel.root).directories
            for entry in execution.store.load(folder.digest).files
        }
        nodes |= {f"tree/lib/site/{file}": node for file, node in site.items()}
    if "app" in execution.names():
        nodes["tree/lib/site/app.py"] = execution.node("app")
    return assemble(execution.store, nodes)


def items(limit: str = "1") -> list[Action]:
    return [
        make("wheel/a", run=unpack, inputs={"file": Source("a.txt")}),
        make("wheel/b", run=unpack, inputs={"file": Source("b.txt")}),
        make(
            "app/link",
            run=merge,
            params={"limit": limit},
            inputs={
                "wheels/0000": Ref("wheel/a"), "wheels/0001": Ref("wheel/b"), "app": Source("src/app.py"),
                "docs": SourceTree("docs"),
            },
            origins={"limit": "stack.toml#app.limit"},
        ),
    ]  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "workspace", tmp_path / "store")
    for path in ("a.txt", "b.txt", "src/app.py", "docs/one.md"):
        made.write(path, path)
    assert made.build(items(), ["app/link"], {"_build/app": "app/link"}).exit_code == 0
    return made


def records_of(site: Site) -> Records:
    return Records.read(site.root / ".strata" / "runs.jsonl")


def graph_of(site: Site) -> dict[str, RecordedAction]:
    return read_graph(Workspace(site.root))


def past_of(site: Site) -> dict[str, Past]:
    return History(site.root / ".strata" / "history").labels()


def held(site: Site, build: int = -1) -> dict[str, Held]:
    return held_at(records_of(site), build, past_of(site), graph_of(site))


@pytest.fixture
def store(site: Site) -> LocalStore:
    return open_store(site.store, lambda _: None)


def reasons(found: Differences) -> dict[str, list[str]]:
    return {
        report.label: [f"{reason.reason} {reason.subject}" for reason in report.reasons] for report in found.changed
    }


def test_states_are_put_together_from_records_before_and_after(site: Site) -> None:
    first = held(site)
    assert sorted(first) == ["app/link", "wheel/a", "wheel/b"]
    site.write("a.txt", "new")
    site.build(items(), ["app/link"])
    second = held(site)
    assert {label for label in first if first[label] != second[label]} == {"app/link", "wheel/a"}
    assert held(site, 0) == first, "an older state is as it was"
    lines = (site.root / ".strata" / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (site.root / ".strata" / "runs.jsonl").write_bytes(lines[1])
    assert held(site) == second, "what no record names any more is what the workspace has"


def test_states_differ_by_what_changed_between_them_however_many_builds_lie_there(
    site: Site, store: LocalStore
) -> None:
    first = held(site)
    site.write("a.txt", "new")
    site.build(items(), ["app/link"])
    site.write("docs/two.md", "more")
    (site.root / "docs" / "one.md").unlink()
    site.build(items(limit="2"), ["app/link"])
    found = compare(store.cas, graph_of(site), first, held(site))
    assert reasons(found) == {
        "app/link": [
            "parameter-changed stack.toml#app.limit", "input-removed docs/one.md", "input-added docs/two.md",
            "upstream-changed wheel/a",
        ],
        "wheel/a": ["input-changed a.txt"],
    }  # fmt: skip
    assert (found.gone, found.diverged, found.same) == ((), (), 1)
    assert found.changed[0].upstream == ("wheel/a",)
    only = compare(store.cas, graph_of(site), first, held(site), closure(graph_of(site), ["wheel/a"]))
    assert list(reasons(only)) == ["wheel/a"]
    store.close()


def test_what_cannot_be_explained_any_more_is_said_to_be_evicted(site: Site, store: LocalStore) -> None:
    now = held(site)
    gone = {"wheel/a": Held(str(Digest.of(b"gone")), ""), "only/there": Held("", "")}
    found = compare(store.cas, graph_of(site), gone, now, {"wheel/a", "wheel/b", "only/there"})
    [one, new] = found.changed
    assert one.reasons[0].reason is ReasonCode.EVICTED
    assert new.reasons == (Reason(ReasonCode.FIRST_BUILD, "wheel/b"),)
    assert found.gone == ("only/there",)
    same = {"wheel/a": now["wheel/a"]._replace(output=now["wheel/b"].output)}
    diverged = compare(store.cas, graph_of(site), same, now, {"wheel/a"})
    assert diverged.diverged == ("wheel/a",)
    changes = output_changes(store.cas, now["wheel/a"].output, now["wheel/b"].output)
    assert [change.path for change in changes] == ["purelib/a.py", "purelib/b.py"]
    store.close()


def test_a_document_explains_a_build_to_a_machine_that_has_none_of_it(
    site: Site, store: LocalStore, tmp_path: Path
) -> None:
    records = records_of(site)
    document = export(store.cas, records[-1], held(site), graph_of(site))
    path = tmp_path / "ci.json"
    path.write_bytes(msgspec.json.encode(document))
    other = Site(tmp_path / "other", tmp_path / "other-store")
    for name in ("a.txt", "b.txt", "src/app.py", "docs/one.md"):
        other.write(name, name)
    other.write("docs/one.md", "changed")
    other.build(items(), ["app/link"])
    read, believed = read_exported(path)
    assert read == document
    assert read.record == records[-1]
    theirs = {label: Held(each.key, each.output) for label, each in read.held.items()}
    there = open_store(other.store, lambda _: None)
    found = compare(Either(there.cas, believed), graph_of(other), theirs, held(other))
    assert reasons(found) == {"app/link": ["input-changed docs/one.md"]}
    assert found.same == 2
    there.close()
    store.close()


def damage(document: dict[str, Any], what: str) -> object:
    name = next(iter(document["folders"]))
    key = next(iter(document["actions"]))
    match what:
        case "folder":
            document["folders"][name]["files"] = [["x", key, True]]
        case "name":
            document["folders"][name]["files"] = [["../x", key, True]]
        case "action":
            document["actions"][key]["salt"] = "other"
        case "digest":
            document["held"]["wheel/a"]["key"] = "../../etc/passwd"
        case "version":
            document["version"] = 2
        case "more":
            document["extra"] = 1
        case "type":
            document["record"]["actions"] = {"a": 1}
        case _:
            return []
    return document


@pytest.mark.parametrize("what", ["folder", "name", "action", "digest", "version", "more", "type", "list"])
def test_a_document_that_was_tampered_with_is_refused(site: Site, store: LocalStore, tmp_path: Path, what: str) -> None:
    document = export(store.cas, records_of(site)[-1], held(site), graph_of(site))
    store.close()
    path = tmp_path / "ci.json"
    path.write_text(json.dumps(damage(json.loads(msgspec.json.encode(document)), what)))
    with pytest.raises(SpecError) as caught:
        read_exported(path)
    assert caught.value.diagnostics[0].id == "not-a-run"


def test_nesting_without_end_is_no_defect(site: Site, store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "ci.json"
    path.write_text('{"schema":' + "[" * 100_000)
    with pytest.raises(SpecError):
        read_exported(path)
    document = export(store.cas, records_of(site)[-1], held(site), graph_of(site))
    sides = []
    for last in (b"1", b"2"):
        tree: Any = File(store.cas.put(last))
        for _ in range(5000):
            tree = assemble(store.cas, {"d": tree})
        sides.append(str(tree.root))
    believed = Believed(export(store.cas, document.record, {"x": Held(document.held["app/link"].key, sides[0])}, {}))
    with pytest.raises(ValueError, match="nested"):
        output_changes(Either(store.cas, believed), *sides)
    store.close()


Follow = Callable[[str], tuple[list[tuple[str, str]], str, tuple[str, ...]]]


@pytest.fixture
def follow(site: Site, store: LocalStore) -> Follow:
    def follow(path: str) -> tuple[list[tuple[str, str]], str, tuple[str, ...]]:
        found = made_by(store.cas, graph_of(site), past_of(site), "app/link", path)
        assert found is not None
        return [(each.label, each.path) for each in found.way], found.source, found.parts

    return follow


def test_a_file_is_followed_to_who_made_it(site: Site, store: LocalStore, follow: Follow) -> None:
    link = ("app/link", "tree/lib/site/b.py")
    assert follow(link[1]) == ([link, ("wheel/b", "purelib/b.py")], "", ("b.txt",))
    assert follow("tree/lib/site/app.py") == ([("app/link", "tree/lib/site/app.py")], "src/app.py", ())
    made = follow("tree/bin/python")
    assert made == ([("app/link", "tree/bin/python")], "", ("wheel/a", "wheel/b", "src/app.py", "docs/"))
    assert follow("")[0] == [("app/link", "")]
    assert made_by(store.cas, graph_of(site), past_of(site), "app/link", "tree/nothing") is None
    assert made_by(store.cas, graph_of(site), past_of(site), "nobody", "") is None
    store.close()
