"""Several graphs as one: labels, what is shared, keys; and that each workspace is left as a build there leaves it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from builds import Site, counts, graph_of, make, outcomes, reasons

from strata_engine.action import Action, Execution, Expansion, Literal, Placement, Ref, Source, SourceTree
from strata_engine.build import Build, BuildResult, Shared, open_build
from strata_engine.compose import Composition, Member
from strata_engine.decision import Settings
from strata_engine.federation import Federation, Local, RoutedSources, result_in
from strata_engine.store import open_store
from strata_engine.tree import Artifact, File
from strata_engine.workspace import Workspace

Items = Iterable[Action | Expansion]


def shares(label: str) -> bool:
    return label.startswith("wheel/")


def sources_of(action: object) -> dict[str, str]:
    assert isinstance(action, Action)
    return {name: i.path for name, i in action.inputs.items() if isinstance(i, (Source, SourceTree))}


def compose(root: Path, **items: Items) -> Composition:
    members = [Member(f"//{name}:", graph_of(each), root / name, f"{name}/") for name, each in items.items()]
    return Composition(members, shares)


def installing(*wheels: str, content: str = "") -> Items:
    """A lock that selects wheels, an expansion that adds them, what installs and links them, a source."""

    def expand(read: Callable[[Ref], bytes]) -> Items:
        chosen = read(Ref("app/lock")).decode().split(",")
        made = [make(f"wheel/{name}", inputs={"data": Literal(f"{name}{content}".encode())}) for name in chosen]
        return [*made, make("app/install", *(f"wheel/{name}" for name in chosen))]

    return [
        make("app/lock", run=lambda execution: File(execution.store.put(",".join(wheels).encode())), say=str(wheels)),
        Expansion(label="app/packages", after=(Ref("app/lock"),), promises=("app/install",), expand=expand),
        make(
            "app/link", "app/install", inputs={"source": Source("app.txt")}, origins={"say": "x.toml#say", "to": "$TO"}
        ),
    ]


class Sites:
    """Workspaces `a`, `b`, … with one store, built alone or as one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("a", "b"):
            Site(root / name, root / "store").write("app.txt", f"source of {name}")

    def alone(
        self, name: str, items: Items, *, wanted: str = "app/link", settings: Settings | None = None
    ) -> BuildResult:
        site = Site(self.root / name, self.root / "store")
        with site.opened() as build:
            return build.run(graph_of(items), ["app/link"], [self._place(name, "app/link")])

    def _place(self, name: str, label: str) -> Placement:
        return Placement(Ref(label), self.root / name / "out")

    @contextlib.contextmanager
    def opened(self, names: Iterable[str]) -> Iterator[tuple[Build, Federation]]:
        with contextlib.ExitStack() as stack:
            store = open_store(self.root / "store", lambda warning: None)
            stack.callback(store.close)
            builds = {
                name: stack.enter_context(open_build(Workspace(self.root / name), (), store)) for name in sorted(names)
            }
            pasts = Federation({f"//{name}:": Local(each.history, each.sources) for name, each in builds.items()})
            reads = RoutedSources(Workspace(self.root, "whole"), [each.sources for each in builds.values()])
            workspace = Workspace(self.root, "whole")
            yield stack.enter_context(open_build(workspace, (), store, shared=Shared(pasts, reads))), pasts

    def whole(self, settings: Settings | None = None, **items: Items) -> tuple[BuildResult, Composition]:
        composition = compose(self.root, **items)
        places = [self._place(name, f"//{name}:app/link") for name in items]
        with self.opened(items) as (build, pasts):
            pasts.compose(composition, {place.path: place.ref.label.partition("app")[0] for place in places})
            wanted = [f"//{name}:app/link" for name in items]
            return build.run(composition.graph, wanted, places, settings), composition


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    return Sites(tmp_path)


# -- the graph ---------------------------------------------------------------------------------------------------------


def test_labels_and_paths_are_those_of_the_whole(tmp_path: Path) -> None:
    found = compose(tmp_path, a=installing("x"), b=installing("x"))
    assert found.graph.labels() == [f"//{name}:app/{action}" for name in "ab" for action in ("install", "link", "lock")]
    link = found.graph.item("//b:app/link")
    assert isinstance(link, Action)
    assert sources_of(link) == {"source": str(tmp_path / "b" / "app.txt")}
    assert link.inputs["from/app/install"] == Ref("//b:app/install")
    assert link.origins == {"say": "b/x.toml#say", "to": "$TO"}
    assert found.owners("//b:app/link") == {"//b:": "app/link"}
    assert found.locals("//b:", ["//a:app/link", "//b:app/lock"]) == ["app/lock"]
    # The members' own graphs are as they were.
    assert found.members["//a:"].graph.labels() == ["app/install", "app/link", "app/lock"]


def test_what_is_equal_is_there_once_and_what_only_has_the_name_has_a_prefix(tmp_path: Path) -> None:
    found = compose(tmp_path, a=[make("wheel/x"), make("wheel/y")], b=[make("wheel/x"), make("wheel/y", say="other")])
    assert found.graph.labels() == ["//b:wheel/y", "wheel/x", "wheel/y"]
    assert found.owners("wheel/x") == {"//a:": "wheel/x", "//b:": "wheel/x"}
    assert found.owners("wheel/y") == {"//a:": "wheel/y"}
    assert found.local("//b:", "//b:wheel/y") == "wheel/y"


def test_what_stands_on_a_clash_clashes(tmp_path: Path) -> None:
    def two(said: str) -> Items:
        return [make("wheel/low", say=said), make("wheel/up", "wheel/low", say="up"), make("app", "wheel/up")]

    found = compose(tmp_path, a=two("1"), b=two("2"))
    assert found.graph.labels() == ["//a:app", "//b:app", "//b:wheel/low", "//b:wheel/up", "wheel/low", "wheel/up"]
    assert found.graph.predecessors("//b:app") == ["//b:wheel/up"]


def test_no_key_changes(sites: Sites) -> None:
    alone = {name: sites.alone(name, installing("x", name)) for name in ("a", "b")}
    (sites.root / "store").rename(sites.root / "old")
    whole, composition = sites.whole(a=installing("x", "a"), b=installing("x", "b"))
    assert counts(whole) == {"executed": 9}
    for name, result in alone.items():
        local = result_in(composition, f"//{name}:", whole)
        assert {r.label: r.key for r in local.actions} == {r.label: r.key for r in result.actions}
        assert local.artifacts == result.artifacts


# -- the past ----------------------------------------------------------------------------------------------------------


def test_equal_actions_run_once_and_nothing_runs_afterwards_alone_or_together(sites: Sites) -> None:
    first, composition = sites.whole(a=installing("x", "y"), b=installing("x"))
    assert [label for label in outcomes(first) if shares(label)] == ["wheel/x", "wheel/y"]
    assert counts(first) == {"executed": 8}
    assert composition.owners("wheel/x") == {"//a:": "wheel/x", "//b:": "wheel/x"}
    assert counts(sites.alone("a", installing("x", "y"))) == {"up_to_date": 5}
    assert counts(sites.alone("b", installing("x"))) == {"up_to_date": 4}
    assert counts(sites.whole(a=installing("x", "y"), b=installing("x"))[0]) == {"up_to_date": 8}


def test_what_was_built_alone_is_up_to_date_in_the_whole(sites: Sites) -> None:
    sites.alone("b", installing("x"))
    result, _ = sites.whole(a=installing("x", "y"), b=installing("x"))
    assert {label: o for label, o in outcomes(result).items() if o == "up_to_date"} == dict.fromkeys(
        ("//b:app/install", "//b:app/link", "//b:app/lock", "wheel/x"), "up_to_date"
    )
    assert (sites.root / "a" / "out").read_text() == "app/link+app/install+wheel/x+x+wheel/y+y+source of a"


def test_a_change_is_told_in_the_words_of_the_whole_and_of_the_part(sites: Sites) -> None:
    sites.whole(a=installing("x"), b=installing("x"))
    (sites.root / "b" / "app.txt").write_text("changed")
    (sites.root / "a" / "out").unlink()
    result, composition = sites.whole(a=installing("x"), b=installing("x"))
    assert [reason.split(":")[0] for reason in reasons(result, "//b:app/link")] == ["input-changed b/app.txt"]
    assert [reason.split(":")[0] for reason in reasons(result, "//a:app/link")] == ["output-missing a/out"]
    local = result_in(composition, "//b:", result)
    assert [reason.split(":")[0] for reason in reasons(local, "app/link")] == ["input-changed app.txt"]
    assert counts(local) == {"up_to_date": 3, "executed": 1}
    assert counts(sites.alone("b", installing("x"))) == {"up_to_date": 4}
    assert counts(sites.alone("a", installing("x"))) == {"up_to_date": 4}


def test_a_failure_is_that_of_the_part_it_is_in(sites: Sites) -> None:
    def fail(execution: Execution) -> Artifact:
        raise ValueError(execution.label)

    broken = [make("app/low", run=fail), make("app/link", "app/low")]
    result, composition = sites.whole(Settings(keep_going=True), a=broken, b=installing("x"))
    assert result.exit_code == 1
    bad, good = (result_in(composition, prefix, result) for prefix in ("//a:", "//b:"))
    assert (bad.exit_code, counts(bad)) == (1, {"failed": 1, "skipped": 1})
    assert bad.actions[0].because == "app/low"
    assert (good.exit_code, counts(good)) == (0, {"executed": 4})
    assert counts(sites.alone("b", installing("x"))) == {"up_to_date": 4}


def test_a_folder_that_is_in_another_one_is_read_through_its_own_workspace(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("1")
    with contextlib.ExitStack() as stack:
        store = open_store(tmp_path / "store", lambda warning: None)
        stack.callback(store.close)
        outer = stack.enter_context(open_build(Workspace(tmp_path), (), store))
        inner = stack.enter_context(open_build(Workspace(tmp_path / "in"), (), store))
        reads = RoutedSources(Workspace(tmp_path, "whole"), [outer.sources, inner.sources])
        file = reads.file("in/file")
        assert inner.sources.observed
        assert not outer.sources.observed
        assert reads.heal(store.cas, file.digest)
        assert store.cas.get(file.digest) == b"1"
