"""Rules, providers and analysis: targets become providers and actions.

A rule is a function: it is given a `RuleContext`, adds actions and returns providers, typed values that the rules of
dependent targets read. Rules never see each other, only providers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from strata_engine.action import Action, Expansion, Ref
from strata_engine.errors import InternalError, SpecError
from strata_engine.graph import ActionGraph

T = TypeVar("T")
Providers: TypeAlias = tuple[object, ...]
Annotate: TypeAlias = Callable[[Action], Action]


class Target(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Something to be analysed: a rule, its attributes, and the targets whose providers it reads."""

    name: str
    rule: Callable[[RuleContext], Providers]
    attrs: Any = None
    deps: tuple[str, ...] = ()


class RuleContext:
    """What a rule is given."""

    def __init__(self, target: Target, known: dict[str, Providers], graph: ActionGraph, annotate: Annotate) -> None:
        self.target = target
        self._known = known
        self._graph = graph
        self._annotate = annotate

    def attrs(self, kind: type[T]) -> T:
        """Give the target's attributes. Raises InternalError where they are of another type."""
        if not isinstance(self.target.attrs, kind):
            raise InternalError.of("bad-attributes", f"`{self.target.name}` was not given {kind.__name__}")
        return self.target.attrs

    def get(self, dep: str, kind: type[T]) -> T:
        """Give the provider of a type that a dependency has. Raises InternalError where it has none."""
        if dep not in self.target.deps:
            raise InternalError.of("undeclared-dependency", f"`{self.target.name}` does not depend on `{dep}`")
        for provider in self._known[dep]:
            if isinstance(provider, kind):
                return provider
        raise InternalError.of("missing-provider", f"`{dep}` gives no {kind.__name__} to `{self.target.name}`")

    def all(self, kind: type[T]) -> list[T]:
        """List the providers of a type over all dependencies, in their declared order."""
        return [p for dep in self.target.deps for p in self._known[dep] if isinstance(p, kind)]

    def one(self, kind: type[T]) -> T:
        """Give the only provider of a type. Raises InternalError where there is none or more than one."""
        found = self.all(kind)
        if len(found) != 1:
            raise InternalError.of(
                "missing-provider", f"`{self.target.name}` needs one {kind.__name__} and has {len(found)}"
            )
        return found[0]

    def add(self, item: Action | Expansion) -> None:
        """Add an action or an expansion to the graph."""
        if isinstance(item, Action):
            self._graph.add(self._annotate(item))
            return
        annotate, expand = self._annotate, item.expand

        def annotated(read: Callable[[Ref], bytes]) -> Iterable[Action | Expansion]:
            return (annotate(made) if isinstance(made, Action) else made for made in expand(read))

        self._graph.add(msgspec.structs.replace(item, expand=annotated))

    def item(self, label: str) -> Action | Expansion | None:
        """Give what the graph has under a label by now. For expansions: which rules have run is nobody's business."""
        return self._graph.item(label)


class Analysis(NamedTuple):
    """What analysis gives."""

    graph: ActionGraph
    providers: dict[str, Providers]

    def get(self, target: str, kind: type[T]) -> T:
        """Give a target's provider of a type. Raises InternalError."""
        for provider in self.providers[target]:
            if isinstance(provider, kind):
                return provider
        raise InternalError.of("missing-provider", f"`{target}` gives no {kind.__name__}")


def _as_it_is(action: Action) -> Action:
    return action


def analyze(targets: Iterable[Target], annotate: Annotate = _as_it_is) -> Analysis:
    """Run the rule of each target after those that it depends on.

    `annotate` says of each action what rules do not know: where a person has written what it is made of.
    Raises SpecError for unknown and circular dependencies, and whatever rules raise.
    """
    by_name: dict[str, Target] = {}
    for target in targets:
        if target.name in by_name:
            raise SpecError.of("duplicate-target", f"two targets are called `{target.name}`")
        by_name[target.name] = target
    for target in by_name.values():
        for dep in target.deps:
            if dep not in by_name:
                raise SpecError.of("unknown-target", f"`{target.name}` depends on `{dep}`, which is not a target")
    graph = ActionGraph()
    providers: dict[str, Providers] = {}
    for name in _order(by_name):
        target = by_name[name]
        providers[name] = target.rule(RuleContext(target, providers, graph, annotate))
    graph.validate()
    return Analysis(graph, providers)


def _order(targets: dict[str, Target]) -> Sequence[str]:
    sorter = TopologicalSorter({name: target.deps for name, target in targets.items()})
    try:
        return list(sorter.static_order())
    except CycleError as error:
        way = " → ".join(f"`{name}`" for name in error.args[1])
        raise SpecError.of("target-cycle", f"targets depend on each other in a circle: {way}") from error
