from __future__ import annotations

import pytest
from builds import graph_of, make

from strata_engine.action import Expansion, Ref
from strata_engine.errors import SpecError
from strata_engine.frontier import Frontier


def taken(frontier: Frontier) -> list[str]:
    """Take all that is ready."""
    found = []
    while (label := frontier.next()) is not None:
        found.append(label)
        frontier.decided(label)
    return found


def nothing() -> None:
    """Wake nobody."""


def test_labels_become_ready_when_all_they_need_is_settled() -> None:
    graph = graph_of([make("a"), make("b"), make("c", "a", "b"), make("d", "c"), make("unwanted", "a")])
    woken: list[int] = []
    frontier = Frontier(graph, lambda: woken.append(1))
    frontier.want(["d"], {})
    assert frontier.closure == frontier.open == {"a", "b", "c", "d"}
    assert taken(frontier) == ["a", "b"]
    frontier.settle("a")
    assert taken(frontier) == []
    frontier.settle("b")
    assert taken(frontier) == ["c"]
    frontier.settle("c")
    frontier.settle("d")
    assert taken(frontier) == ["d"]
    assert frontier.open == set()
    assert woken


def test_the_most_critical_comes_first_then_the_first_by_name() -> None:
    graph = graph_of([make("a"), make("b"), make("c"), make("end", "b")])
    frontier = Frontier(graph, nothing)
    frontier.want(["a", "b", "c", "end"], {"a": 1.0, "b": 1.0, "c": 1.0, "end": 5.0})
    assert taken(frontier) == ["b", "a", "c"]
    assert frontier.priority("b") == 6.0
    assert frontier.after("b", 4.9) == ["end"]
    assert frontier.after("b", 5.0) == []


def test_what_was_taken_is_undecided_until_it_is_decided_or_settled() -> None:
    frontier = Frontier(graph_of([make("a"), make("b")]), nothing)
    frontier.want(["a", "b"], {})
    assert frontier.is_undecided(["a"])
    assert frontier.next() == "a"
    assert frontier.is_undecided(["a"])
    frontier.put_back("a")
    assert frontier.next() == "a"
    frontier.decided("a")
    assert not frontier.is_undecided(["a"])
    frontier.settle("b")
    assert not frontier.is_undecided(["a", "b"])


def test_growth_counts_anew_what_promises_wait_for() -> None:
    def expansion(label: str, after: str) -> Expansion:
        return Expansion(label=label, after=(Ref(after),), promises=("end",), expand=lambda read: [])

    graph = graph_of([make("lock"), expansion("lock/more", "lock"), make("last", "end")])
    frontier = Frontier(graph, nothing)
    frontier.want(["last"], {})
    assert taken(frontier) == ["lock"]
    frontier.settle("lock")
    assert taken(frontier) == ["lock/more"]
    # It has not added the promise, but another expansion that is to do so, behind an action.
    graph.grow([make("second"), expansion("second/more", "second")])
    frontier.grow({}, "lock/more")
    assert taken(frontier) == ["second"]
    frontier.settle("second")
    assert taken(frontier) == ["second/more"]
    graph.grow([make("end", "wheel"), make("wheel")])
    frontier.grow({}, "second/more")
    assert frontier.open == {"end", "wheel", "last"}
    assert taken(frontier) == ["wheel"]
    frontier.settle("wheel")
    assert taken(frontier) == ["end"]


def test_what_nobody_makes_is_refused() -> None:
    with pytest.raises(SpecError, match="there is no action called `b`"):
        Frontier(graph_of([make("a")]), nothing).want(["b"], {})
