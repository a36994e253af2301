from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from builds import make

from strata_engine.action import Expansion, Placement, Ref, Scope, SourceTree
from strata_engine.errors import Diagnostic, Place, SpecError
from strata_engine.graph import ActionGraph, Item, check_placements, needs


def graph_of(*items: Item) -> ActionGraph:
    graph = ActionGraph()
    for item in items:
        graph.add(item)
    return graph


def expansion(label: str, after: str, *promises: str) -> Expansion:
    return Expansion(label=label, after=(Ref(after),), promises=promises, expand=lambda read: [])


def refused(error: pytest.ExceptionInfo[SpecError], id: str) -> Diagnostic:
    [diagnostic] = error.value.diagnostics
    assert diagnostic.id == id
    return diagnostic


def test_a_cycle_is_refused_naming_the_way_round() -> None:
    graph = graph_of(make("free"), make("a", "c", "free"), make("b", "a"), make("c", "b"), make("d", "c"))
    with pytest.raises(SpecError) as error:
        graph.validate()
    message = refused(error, "action-cycle").message
    way = message.partition(": ")[2].replace("`", "").split(" → ")
    assert way[0] == way[-1]
    assert set(way) == {"a", "b", "c"}
    # Each arrow is an input, in the direction in which things are made.
    assert set(itertools.pairwise(way)) == {("a", "b"), ("b", "c"), ("c", "a")}


def test_a_cycle_through_an_expansion_is_refused() -> None:
    with pytest.raises(SpecError) as error:
        graph_of(make("lock", "wheel"), expansion("lock/wheels", "lock", "wheel")).validate()
    assert "`lock/wheels`" in refused(error, "action-cycle").message


def test_an_action_that_needs_itself_is_a_cycle() -> None:
    with pytest.raises(SpecError) as error:
        graph_of(make("a", "a")).validate()
    assert "`a` → `a`" in refused(error, "action-cycle").message


def test_unknown_labels_are_refused_naming_who_reads_them() -> None:
    with pytest.raises(SpecError) as error:
        graph_of(make("app/link"), make("x", "app/lnik"), make("y", "app/lnik")).validate()
    diagnostic = refused(error, "unknown-label")
    assert diagnostic.message == "no action makes `app/lnik`, which `x`, `y` reads"
    assert diagnostic.hint == "did you mean `app/link`?"
    with pytest.raises(SpecError) as error:
        graph_of(make("app/link")).closure(["app/lin"])
    assert refused(error, "unknown-label").hint == "did you mean `app/link`?"


def test_an_expansion_has_no_output_to_read() -> None:
    graph = graph_of(make("lock"), expansion("lock/wheels", "lock"), make("x", "lock/wheels"))
    with pytest.raises(SpecError) as error:
        graph.validate()
    assert "`lock/wheels`, which `x` reads" in refused(error, "unknown-label").message


def test_a_promise_may_be_needed_before_it_is_kept() -> None:
    graph = graph_of(make("lock"), expansion("lock/wheels", "lock", "wheel/a"), make("install", "wheel/a"))
    graph.validate()
    assert graph.item("wheel/a") is None
    assert graph.labels() == ["install", "lock", "wheel/a"]
    assert graph.closure(["install"]) == {"install", "wheel/a", "lock/wheels", "lock"}
    assert graph.edges() == [("lock", "wheel/a"), ("wheel/a", "install")]


def test_equal_duplicates_are_one_and_others_are_refused_naming_both() -> None:
    graph = graph_of(make("a"), make("b", "a", run=lambda execution: None))
    assert not graph.add(make("b", "a", description="said otherwise", place=Place("f", 3)))
    for other in (make("b"), make("b", "a", say="x"), make("b", "a", version=2), make("b", "a", mnemonic="Other"),
                  make("b", "a", environment={"A": "1"}), make("b", "a", platform={"tool:uv": "1"}),
                  make("b", "a", scope=Scope.LOCAL), expansion("b", "a")):  # fmt: skip
        with pytest.raises(SpecError) as error:
            graph.add(other)
        diagnostic = refused(error, "duplicate-action")
        assert "`b`" in diagnostic.message
        assert len(diagnostic.notes) == 2
    assert len(graph.actions()) == 2


def test_what_is_fixed_by_its_output_is_the_same_wherever_it_comes_from() -> None:
    def fetch(url: str, sha256: str) -> Item:
        return make("fetch/x", say=url, scope=Scope.FIXED_OUTPUT, fixed=sha256)

    graph = graph_of(fetch("one", "a" * 64))
    assert not graph.add(fetch("mirror", "a" * 64))
    with pytest.raises(SpecError, match="fetch/x"):
        graph.add(fetch("one", "b" * 64))


def test_source_trees_are_compared_by_path_and_not_by_their_filter() -> None:
    def action(path: str) -> Item:
        return make("a", inputs={"src": SourceTree(path, lambda path, is_folder: True)})

    graph = graph_of(action("x"))
    assert not graph.add(action("x"))
    with pytest.raises(SpecError):
        graph.add(action("y"))


def test_needs_lists_each_label_once() -> None:
    action = make("x", inputs={"a": Ref("t", "one"), "b": Ref("t", "two"), "c": Ref("s")})
    assert needs(action) == ("t", "s")


def test_growing_is_all_or_nothing() -> None:
    graph = graph_of(make("lock"), expansion("lock/wheels", "lock", "wheel"), make("app", "wheel"))
    before = graph.edges(), graph.labels(), list(graph)
    for bad in (
        [make("new"), make("wheel", "app")],
        [make("wheel"), make("new", "nowhere")],
        [expansion("more", "lock", "wheel", "other"), make("lock", say="another")],
    ):
        with pytest.raises(SpecError):
            graph.grow(bad)
        graph.validate()
        assert (graph.edges(), graph.labels(), list(graph)) == before
    graph.grow([make("wheel", "fetch"), make("fetch")])
    assert graph.closure(["app"]) == {"app", "wheel", "fetch", "lock", "lock/wheels"}


def test_priorities_are_the_longest_way_to_the_end() -> None:
    graph = graph_of(
        make("root"), make("long", "root"), make("longer", "long"), make("short", "root"),
        make("end", "longer", "short"), expansion("grow", "short", "promised"),
    )  # fmt: skip
    seconds = {"root": 1.0, "long": 2.0, "longer": 4.0, "short": 3.0, "end": 8.0}
    assert graph.priorities(seconds, default=0.5) == {
        "end": 8.0, "longer": 12.0, "long": 14.0, "short": 11.0, "root": 15.0, "grow": 0.0, "promised": 0.0,
    }  # fmt: skip
    assert graph.priorities({}, default=0.5)["root"] == 2.0


def test_a_long_chain_is_no_matter_of_recursion() -> None:
    graph = graph_of(make("0"), *(make(str(n), str(n - 1)) for n in range(1, 5000)))
    graph.validate()
    assert len(graph.closure(str(n) for n in range(5000))) == 5000
    assert graph.priorities({}, default=1.0)["0"] == 5000


@pytest.mark.parametrize("other", ["out", "out/inner/deep", "x/../out", "."])
def test_two_outputs_at_one_place_or_nested_are_refused(tmp_path: Path, other: str) -> None:
    first, second = Placement(Ref("one"), tmp_path / "out"), Placement(Ref("two"), tmp_path / other)
    for order in ([first, second], [second, first]):
        with pytest.raises(SpecError) as error:
            check_placements(order)
        message = refused(error, "doubly-produced").message
        assert "`one`" in message
        assert "`two`" in message


def test_places_side_by_side_and_repeated_wishes_are_fine(tmp_path: Path) -> None:
    check_placements([
        Placement(Ref("one"), tmp_path / "out"), Placement(Ref("one"), tmp_path / "out"),
        Placement(Ref("two"), tmp_path / "out2"), Placement(Ref("two", "part"), tmp_path / "other"),
    ])  # fmt: skip
    with pytest.raises(SpecError):
        check_placements([Placement(Ref("one"), tmp_path / "out"), Placement(Ref("one"), tmp_path / "out" / "in")])
