"""The action graph: what needs what, what is wanted, and in which order it matters. The only door to networkx.

Vertices are labels. An edge runs from what is made first to what needs it. Labels promised by an expansion stand in
the graph as vertices without an action until the expansion adds them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, TypeAlias

import networkx as nx

from strata_engine.action import Action, Expansion, Input, Placement, Ref, Scope, SourceTree
from strata_engine.errors import SpecError

Item: TypeAlias = Action | Expansion


def needs(item: Item) -> tuple[str, ...]:
    """List the labels whose outputs an item reads, each once, in a fixed order."""
    refs = item.after if isinstance(item, Expansion) else [i for i in item.inputs.values() if isinstance(i, Ref)]
    return tuple(dict.fromkeys(ref.label for ref in refs))


class ActionGraph:
    """Actions and expansions by label. Grows, never shrinks."""

    def __init__(self) -> None:
        self._graph: nx.DiGraph[str] = nx.DiGraph()
        self._items: dict[str, Item] = {}
        self._promised: dict[str, str] = {}
        self._given: dict[str, dict[str, None]] = {}
        """By label: the expansions that gave it, promised or not."""

    def __contains__(self, label: str) -> bool:
        return label in self._items

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    def item(self, label: str) -> Item | None:
        """Give what is added under a label; None for a promise that is still open."""
        return self._items.get(label)

    def actions(self) -> list[Action]:
        """List the actions in the order in which they were added."""
        return [item for item in self._items.values() if isinstance(item, Action)]

    def labels(self) -> list[str]:
        """List the labels of actions, promised ones included, in byte order."""
        known = {label for label, item in self._items.items() if isinstance(item, Action)}
        return sorted(known | set(self._promised))

    def add(self, item: Item) -> bool:
        """Add an item; an equal one under the same label is the same one. True when it is new.

        Raises SpecError `duplicate-action` where another action has the label.
        """
        label = item.label
        there = self._items.get(label)
        if there is not None:
            if same(there, item):
                return False
            raise SpecError.of(
                "duplicate-action",
                f"two different actions are called `{label}`",
                notes=[f"{_describe(there)}", f"{_describe(item)}"],
                hint="an output has one producer: give one of them another label",
            )
        self._items[label] = item
        self._graph.add_node(label)
        for needed in needs(item):
            self._graph.add_edge(needed, label)
        if isinstance(item, Expansion):
            for promise in item.promises:
                self._promised.setdefault(promise, label)
                self._graph.add_edge(label, promise)
        return True

    def grow(self, items: Iterable[Item], by: str = "") -> None:
        """Add items, all or none, given by an expansion. Raises SpecError where the graph with them is not valid."""
        given: list[str] = []
        added: list[Item] = []
        try:
            for item in items:
                # One by one, so that it is known which are to be taken back.
                added += [item] if self.add(item) else []
                given.append(item.label)
            self.validate()
        except SpecError:
            for item in reversed(added):
                self._take_back(item)
            raise
        for label in given if by else ():
            self._given.setdefault(label, {})[by] = None

    def _take_back(self, item: Item) -> None:
        label = item.label
        del self._items[label]
        neighbours = [label, *needs(item)]
        self._graph.remove_edges_from([(needed, label) for needed in needs(item)])
        for promise in item.promises if isinstance(item, Expansion) else ():
            self._graph.remove_edges_from([(label, promise)])
            neighbours.append(promise)
            if self._promised.get(promise) == label:
                del self._promised[promise]
        unknown = [name for name in neighbours if name not in self._items and name not in self._promised]
        self._graph.remove_nodes_from(
            [name for name in unknown if name in self._graph and not self._graph.degree(name)]
        )

    def validate(self) -> None:
        """Refuse cycles and labels that nobody makes. Raises SpecError naming the way round."""
        if not nx.is_directed_acyclic_graph(self._graph):
            edges: list[Any] = nx.find_cycle(self._graph)
            way = [edge[0] for edge in edges] + [edges[0][0]]
            raise SpecError.of(
                "action-cycle",
                "actions need each other in a circle: " + " → ".join(f"`{label}`" for label in way),
                notes=["`a → b` means that `b` reads what `a` makes"],
                hint="one of these inputs has to come from somewhere else",
            )
        for label in self._graph:
            if label in self._promised or isinstance(self._items.get(label), Action):
                continue
            users = [name for name in self._graph.successors(label) if self._reads(name, label)]
            if users:
                names = ", ".join(f"`{user}`" for user in sorted(users))
                raise SpecError.of(
                    "unknown-label",
                    f"no action makes `{label}`, which {names} reads",
                    hint=self._did_you_mean(label),
                )

    def _reads(self, label: str, needed: str) -> bool:
        item = self._items.get(label)
        return item is not None and needed in needs(item)

    def _did_you_mean(self, label: str) -> str | None:
        close = get_close_matches(label, self.labels(), n=1)
        return f"did you mean `{close[0]}`?" if close else None

    def closure(self, wanted: Iterable[str]) -> set[str]:
        """List what must be looked at for the wanted labels: they and all they need. Raises SpecError."""
        found: set[str] = set()
        waiting = list(wanted)
        for label in waiting:
            if label not in self._graph:
                raise SpecError.of(
                    "unknown-label", f"there is no action called `{label}`", hint=self._did_you_mean(label)
                )
        while waiting:
            label = waiting.pop()
            if label not in found:
                found.add(label)
                waiting.extend(self._graph.pred[label])
        return found

    def predecessors(self, label: str) -> list[str]:
        """List what a label waits for."""
        return list(self._graph.predecessors(label))

    def deciders(self, label: str) -> tuple[str, ...]:
        """List the labels whose outputs decide that an action is there, and what it is: those of its expansions."""
        expansions = (self._items[name] for name in self._given.get(label, ()))
        return tuple(dict.fromkeys(needed for item in expansions for needed in needs(item)))

    def successors(self, label: str) -> list[str]:
        """List what waits for a label."""
        return list(self._graph.successors(label))

    def priorities(self, seconds: Mapping[str, float], default: float = 0.05) -> dict[str, float]:
        """Give each label the length in seconds of the longest path that begins with it: greater goes first."""
        result: dict[str, float] = {}
        for label in reversed(list(nx.topological_sort(self._graph))):
            after = max((result[next_] for next_ in self._graph.successors(label)), default=0.0)
            own = seconds.get(label, default) if isinstance(self._items.get(label), Action) else 0.0
            result[label] = own + after
        return result

    def edges(self) -> list[tuple[str, str]]:
        """List (made first, needs it) between actions; an expansion is replaced by what it waits for."""
        pairs: set[tuple[str, str]] = set()
        for label in self.labels():
            for needed in self._graph.predecessors(label):
                item = self._items.get(needed)
                if isinstance(item, Expansion):
                    pairs |= {(before, label) for before in needs(item)}
                else:
                    pairs.add((needed, label))
        return sorted(pairs)


class Relations:
    """What needs what among labels, whole and settled: for questions that are asked of a graph."""

    def __init__(self, needs_of: Mapping[str, Iterable[str]]) -> None:
        self._graph: nx.DiGraph[str] = nx.DiGraph()
        self._graph.add_nodes_from(needs_of)
        # A need that is no label itself was never part of the graph that is asked about.
        self._graph.add_edges_from(
            (needed, label) for label, needed_ones in needs_of.items() for needed in needed_ones if needed in needs_of
        )

    def below(self, labels: Iterable[str], depth: int | None = None) -> set[str]:
        """List labels and what they need, so many steps far."""
        return self._reach(self._graph.pred, labels, depth, None)

    def above(self, labels: Iterable[str], depth: int | None = None, within: Set[str] | None = None) -> set[str]:
        """List labels and what needs them, so many steps far, on ways that do not leave `within`."""
        return self._reach(self._graph.succ, labels, depth, within)

    def between(self, above: Iterable[str], below: Iterable[str]) -> set[str]:
        """List what lies on any way from one of `above` to what it needs of `below`, both ends included."""
        return self.below(above) & self.above(below)

    def shortest(self, above: Iterable[str], below: Iterable[str]) -> list[str]:
        """Give one shortest way from one of `above` down to one of `below`; nothing where there is none."""
        ends = sorted(set(below) & set(self._graph))
        if not ends:
            return []
        ways = nx.multi_source_dijkstra_path(self._graph, ends, weight=None)
        found = [ways[label] for label in sorted(set(above)) if label in ways]
        return min(found, key=len, default=[])[::-1]

    def _reach(
        self,
        neighbours: Mapping[str, Iterable[str]],
        labels: Iterable[str],
        depth: int | None,
        within: Set[str] | None,
    ) -> set[str]:
        found = {label for label in labels if label in self._graph}
        front = set(found)
        while front and (depth is None or depth > 0):
            front = {other for label in front for other in neighbours[label]} - found
            if within is not None:
                front &= within
            found |= front
            depth = depth if depth is None else depth - 1
        return found


def check_placements(placements: Sequence[Placement]) -> None:
    """Refuse two outputs at one place, or one inside another. Raises SpecError `doubly-produced`."""
    by_path: dict[PurePath, Placement] = {}
    for placement in placements:
        other = by_path.setdefault(_normal(placement), placement)
        if other.ref != placement.ref:
            raise _doubly_produced(other, placement)
    for path, placement in by_path.items():
        for folder in path.parents:
            if folder in by_path:
                raise _doubly_produced(by_path[folder], placement)


def _normal(placement: Placement) -> PurePath:
    return PurePath(os.path.normpath(placement.path))


def _doubly_produced(first: Placement, second: Placement) -> SpecError:
    return SpecError.of(
        "doubly-produced",
        f"`{first.ref.label}` and `{second.ref.label}` both write `{second.path}`",
        notes=[f"`{first.ref.label}` is placed at `{first.path}`"],
        hint="give one of the two another place",
    )


def _comparable(source: Input) -> object:
    return ("tree", source.path) if isinstance(source, SourceTree) else source


def same(first: Item, second: Item) -> bool:
    """Tell whether two items would come to the same key, as far as analysis knows."""
    if isinstance(first, Action) and isinstance(second, Action):
        if first.scope is second.scope is Scope.FIXED_OUTPUT:
            return first.fixed == second.fixed
        fields = ("mnemonic", "version", "params", "environment", "platform", "scope", "fixed")
        if any(getattr(first, field) != getattr(second, field) for field in fields):
            return False
        sides = ({name: _comparable(i) for name, i in item.inputs.items()} for item in (first, second))
        return next(sides) == next(sides)
    if isinstance(first, Expansion) and isinstance(second, Expansion):
        return first.after == second.after and first.promises == second.promises
    return False


def _describe(item: Item) -> str:
    if isinstance(item, Expansion):
        return f"an expansion after {', '.join(ref.label for ref in item.after)}"
    where = f", from {item.place.file}:{item.place.line}" if item.place else ""
    return f"a `{item.mnemonic}` of {', '.join(sorted(item.inputs)) or 'nothing'}{where}"
