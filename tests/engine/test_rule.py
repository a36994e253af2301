from __future__ import annotations

from typing import NamedTuple

import pytest
from builds import make

from strata_engine.errors import InternalError, SpecError, StrataError
from strata_engine.rule import Analysis, Providers, RuleContext, Target, analyze


class Runtime(NamedTuple):
    version: str


class Layer(NamedTuple):
    name: str
    below: tuple[str, ...]


def runtime(ctx: RuleContext) -> Providers:
    ctx.add(make(f"{ctx.target.name}/unpack"))
    return (Runtime(ctx.attrs(str)), Layer(ctx.target.name, ()))


def layer(ctx: RuleContext) -> Providers:
    below = ctx.all(Layer)
    ctx.add(make(f"{ctx.target.name}/link", *(f"{b.name}/{'unpack' if not b.below else 'link'}" for b in below)))
    return (Layer(ctx.target.name, tuple(b.name for b in below)),)


def failing(analysis: list[Target], kind: type[StrataError], id: str) -> str:
    with pytest.raises(kind) as error:
        analyze(analysis)
    [diagnostic] = error.value.diagnostics
    assert diagnostic.id == id
    return diagnostic.message


def test_rules_run_after_what_they_depend_on_and_see_its_providers() -> None:
    # Declared upside down on purpose.
    analysis = analyze([
        Target(name="app", rule=layer, deps=("web", "py")),
        Target(name="web", rule=layer, deps=("py",)),
        Target(name="py", rule=runtime, attrs="3.12"),
    ])  # fmt: skip
    assert isinstance(analysis, Analysis)
    assert analysis.get("app", Layer) == Layer("app", ("web", "py"))
    assert analysis.get("py", Runtime) == Runtime("3.12")
    assert analysis.graph.labels() == ["app/link", "py/unpack", "web/link"]
    assert analysis.graph.predecessors("app/link") == ["web/link", "py/unpack"]
    with pytest.raises(InternalError, match="gives no Runtime"):
        analysis.get("app", Runtime)


def test_targets_that_cannot_be_analysed_are_refused() -> None:
    circle = [Target(name=n, rule=layer, deps=(d,)) for n, d in (("a", "b"), ("b", "c"), ("c", "a"))]
    message = failing(circle, SpecError, "target-cycle")
    way = message.partition(": ")[2].replace("`", "").split(" → ")
    assert way[0] == way[-1]
    assert set(way) == {"a", "b", "c"}
    unknown = failing([Target(name="a", rule=layer, deps=("zz",))], SpecError, "unknown-target")
    assert "`a` depends on `zz`" in unknown
    twice = [Target(name="a", rule=layer), Target(name="a", rule=layer)]
    assert "`a`" in failing(twice, SpecError, "duplicate-target")


def test_a_graph_that_makes_no_sense_is_refused_after_analysis() -> None:
    def dangling(ctx: RuleContext) -> Providers:
        ctx.add(make("x", "nobody"))
        return ()

    failing([Target(name="a", rule=dangling)], SpecError, "unknown-label")


@pytest.mark.parametrize(
    ("use", "id"),
    [
        (lambda ctx: ctx.attrs(int), "bad-attributes"),
        (lambda ctx: ctx.get("other", Layer), "undeclared-dependency"),
        (lambda ctx: ctx.get("py", dict), "missing-provider"),
        (lambda ctx: ctx.one(Layer), "missing-provider"),
        (lambda ctx: ctx.one(dict), "missing-provider"),
    ],
)
def test_a_rule_that_asks_for_what_it_was_not_given_is_a_defect(use: object, id: str) -> None:
    def asking(ctx: RuleContext) -> Providers:
        use(ctx)  # type: ignore[operator] # each is a function of a context
        return ()

    targets = [
        Target(name="py", rule=runtime, attrs="3.12"), Target(name="other", rule=runtime, attrs="3.13"),
        Target(name="two", rule=layer, deps=("py",)), Target(name="a", rule=asking, attrs="text", deps=("py", "two")),
    ]  # fmt: skip
    failing(targets, InternalError, id)


def test_the_only_provider_of_a_type() -> None:
    def asking(ctx: RuleContext) -> Providers:
        return (ctx.one(Runtime), ctx.get("py", Runtime))

    analysis = analyze([Target(name="py", rule=runtime, attrs="3.12"), Target(name="a", rule=asking, deps=("py",))])
    assert analysis.providers["a"] == (Runtime("3.12"), Runtime("3.12"))
