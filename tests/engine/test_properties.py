"""Design §10, laws 1 and 2, on random graphs: a pure model says what every output must be and what may run.

Graphs grow dynamically as well: every third action stands behind an expansion. After each round of edits, reverts,
lost outputs, damaged blobs, lost cache rows and injected failures a build must give what a clean build gives, must
execute exactly the keys that the store does not know, and the build after it must execute nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from builds import NO_SHRINK, let_go
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from strata_engine.action import Action, Execution, Expansion, Literal, Placement, Ref, Source
from strata_engine.build import BuildResult, open_build
from strata_engine.decision import Settings
from strata_engine.digest import Digest
from strata_engine.errors import ActionError
from strata_engine.events import Outcome
from strata_engine.graph import ActionGraph
from strata_engine.store import open_store
from strata_engine.tree import Artifact, File
from strata_engine.workspace import Workspace

SOURCES = 3


@dataclass(frozen=True)
class Spec:
    """An action of the model: which earlier actions and sources it reads, and its parameter."""

    actions: tuple[int, ...]
    sources: tuple[int, ...]
    coarse: bool
    """Its output forgets most of its input, so that early cutoff happens."""


@dataclass
class Model:
    """What a clean build would give, and which keys have ever been executed with success."""

    specs: tuple[Spec, ...]
    contents: list[int]
    params: list[int]
    known: set[str] = field(default_factory=set)
    failing: set[int] = field(default_factory=set)

    def outputs(self) -> list[str]:
        result: list[str] = []
        for index, spec in enumerate(self.specs):
            text = self.text(index, result)
            result.append(str(len(text) % 2) if spec.coarse else text)
        return result

    def text(self, index: int, outputs: list[str]) -> str:
        spec = self.specs[index]
        parts = [outputs[i] for i in spec.actions] + [str(self.contents[i]) for i in spec.sources]
        return combine(self.params[index], parts)

    def keys(self) -> list[str]:
        """Name each action's key: its parameters, and its inputs by name and content."""
        outputs = self.outputs()
        return [
            repr(
                (
                    spec.coarse,
                    self.params[index],
                    [(i, outputs[i]) for i in spec.actions],
                    [(i, self.contents[i]) for i in spec.sources],
                )
            )
            for index, spec in enumerate(self.specs)
        ]

    def failing_keys(self) -> set[str]:
        """Failures are injected by key, because equal keys are executed once whatever label they go by."""
        keys = self.keys()
        return {keys[index] for index in self.failing}

    def expected(self) -> tuple[set[int], set[int]]:
        """Give the actions that must be executed with success, and those that fail or are skipped."""
        failing = self.failing_keys()
        executed: set[int] = set()
        broken: set[int] = set()
        for index, (spec, key) in enumerate(zip(self.specs, self.keys(), strict=True)):
            if any(i in broken for i in spec.actions):
                broken.add(index)
            elif key not in self.known:
                (broken if key in failing else executed).add(index)
        return executed, broken


def combine(param: int, parts: list[str]) -> str:
    return Digest.of("|".join([str(param), *parts]).encode()).hash[: 4 + param]


def make_action(model: Model, index: int) -> Action:
    spec = model.specs[index]

    def run(execution: Execution) -> Artifact:
        if model.keys()[index] in model.failing_keys():
            raise ActionError.of("injected", "injected failure")
        parts = [execution.read(f"a{i:02}").decode() for i in spec.actions]
        parts += [execution.read(f"s{i:02}").decode() for i in spec.sources]
        param = execution.params["param"]
        assert isinstance(param, int)
        text = combine(param, parts)
        return File(execution.store.put((str(len(text) % 2) if spec.coarse else text).encode()))

    inputs = {f"a{i:02}": Ref(f"n{i}/out") for i in spec.actions} | {f"s{i:02}": Source(f"s{i}") for i in spec.sources}
    # Input names are in the key; so that equal texts are equal keys in the model, the shape goes in as well.
    params = {"param": model.params[index], "coarse": spec.coarse}
    return Action(label=f"n{index}/out", mnemonic="Combine", version=1, params=params, inputs=inputs, run=run)


def make_graph(model: Model) -> ActionGraph:
    graph = ActionGraph()
    for index, spec in enumerate(model.specs):
        action = make_action(model, index)
        if index % 3 == 2 and spec.actions:
            after = tuple(Ref(f"n{i}/out") for i in spec.actions)
            graph.add(
                Expansion(
                    label=f"n{index}/expansion",
                    after=after,
                    promises=(action.label,),
                    expand=lambda read, action=action, after=after: [action] if [read(ref) for ref in after] else [],
                )
            )
        else:
            graph.add(action)
    return graph


@st.composite
def specs(draw: st.DrawFn) -> tuple[Spec, ...]:
    result = []
    for index in range(draw(st.integers(2, 8))):
        actions = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
        sources = draw(st.sets(st.integers(0, SOURCES - 1), min_size=0 if actions else 1, max_size=2))
        result.append(Spec(tuple(sorted(actions)), tuple(sorted(sources)), draw(st.booleans())))
    return tuple(result)


CHANGES = st.one_of(
    st.tuples(st.just("edit"), st.integers(0, SOURCES - 1), st.integers(0, 2)),
    st.tuples(st.just("touch"), st.integers(0, SOURCES - 1), st.just(0)),
    st.tuples(st.just("param"), st.integers(0, 7), st.integers(0, 2)),
    st.tuples(st.just("delete-output"), st.integers(0, 7), st.just(0)),
    st.tuples(st.just("tamper-output"), st.integers(0, 7), st.just(0)),
    st.tuples(st.just("fail"), st.integers(0, 7), st.just(0)),
    st.tuples(st.just("lose-state"), st.just(0), st.just(0)),
)


class World:
    """A workspace with a store, and the model beside it."""

    def __init__(self, root: Path, model: Model) -> None:
        self.root = root
        self.model = model
        for index in range(SOURCES):
            self.write(index)

    def write(self, index: int) -> None:
        (self.root / f"s{index}").write_text(str(self.model.contents[index]))

    def output(self, index: int) -> Path:
        return self.root / "out" / f"n{index}"

    def apply(self, change: tuple[str, int, int]) -> None:
        kind, index, value = change
        action = index % len(self.model.specs)
        match kind:
            case "edit":
                self.model.contents[index] = value
                self.write(index)
            case "touch":
                self.write(index)
            case "param":
                self.model.params[action] = value
            case "delete-output":
                self.output(action).unlink(missing_ok=True)
            case "tamper-output":
                if self.output(action).exists():
                    self.output(action).unlink()
                    self.output(action).write_text("tampered")
            case "fail":
                self.model.failing.add(action)
            case "lose-state":
                shutil.rmtree(self.root / ".strata", ignore_errors=True)

    def build(self, **options: object) -> BuildResult:
        store = open_store(self.root / "store", lambda diagnostic: note(diagnostic.message))
        try:
            with open_build(Workspace(self.root), store=store) as build:
                labels = [f"n{i}/out" for i in range(len(self.model.specs))]
                placements = [Placement(Ref(label), self.output(i)) for i, label in enumerate(labels)]
                return build.run(make_graph(self.model), labels, placements, Settings(**options))  # type: ignore[arg-type]
        finally:
            store.close()

    def check(self, result: BuildResult) -> None:
        by_outcome: dict[str, set[int]] = {}
        for report in result.actions:
            by_outcome.setdefault(report.outcome, set()).add(int(report.label[1:].split("/")[0]))
        executed, broken = self.model.expected()
        keys = self.model.keys()
        ran = by_outcome.get(Outcome.EXECUTED, set())
        assert ran <= executed
        assert {keys[i] for i in ran} == {keys[i] for i in executed}
        assert by_outcome.get(Outcome.FAILED, set()) | by_outcome.get(Outcome.SKIPPED, set()) == broken
        self.model.known |= {keys[i] for i in executed}
        outputs = self.model.outputs()
        for index in set(range(len(keys))) - broken:
            assert self.output(index).read_text() == outputs[index]


@given(specs(), st.lists(st.lists(CHANGES, max_size=4), min_size=1, max_size=4))
@settings(
    max_examples=60,
    deadline=None,
    phases=NO_SHRINK,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_history_builds_what_a_clean_build_builds(
    shape: tuple[Spec, ...], rounds: list[list[tuple[str, int, int]]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Model(shape, contents=[0] * SOURCES, params=[0] * len(shape))
        world = World(Path(folder), model)
        for changes in [[], *rounds]:
            for change in changes:
                world.apply(change)
            world.check(world.build(keep_going=True))
            if model.failing:
                model.failing.clear()
                world.check(world.build(keep_going=True))
            again = world.build()
            assert again.counts[Outcome.EXECUTED] == 0
            assert again.counts[Outcome.UP_TO_DATE] == len(shape)


@given(specs(), st.data())
@settings(
    max_examples=25,
    deadline=None,
    phases=NO_SHRINK,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_damage_to_the_store_costs_time_and_nothing_else(shape: tuple[Spec, ...], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Model(shape, contents=[0] * SOURCES, params=[0] * len(shape))
        world = World(Path(folder), model)
        world.check(world.build())
        let_go()
        files = sorted(path for path in (world.root / "store").rglob("*") if path.is_file())
        for path in data.draw(st.sets(st.sampled_from(files), min_size=1, max_size=3), label="damaged"):
            path.chmod(0o644)
            path.write_bytes(
                data.draw(st.sampled_from([b"", b"damage", path.read_bytes()[: path.stat().st_size // 2]]))
            )
        model.contents[0] += 1
        world.write(0)
        result = world.build()
        assert result.exit_code == 0, result.diagnostics
        outputs = model.outputs()
        assert [world.output(i).read_text() for i in range(len(shape))] == outputs
        assert world.build().counts[Outcome.EXECUTED] == 0


def test_one_literal_is_one_action_under_any_label(tmp_path: Path) -> None:
    def run(execution: Execution) -> Artifact:
        runs.append(execution.label)
        return File(execution.store.put(execution.read("in")))

    runs: list[str] = []
    graph = ActionGraph()
    for name in ("a", "b"):
        graph.add(Action(label=name, mnemonic="Copy", version=1, inputs={"in": Literal(b"x")}, run=run))
    store = open_store(tmp_path / "store", lambda diagnostic: pytest.fail(diagnostic.message))
    with open_build(Workspace(tmp_path), store=store) as build:
        result = build.run(graph, ["a", "b"])
    store.close()
    assert len(runs) == 1
    assert (result.counts[Outcome.EXECUTED], result.counts[Outcome.CACHED]) == (1, 1)
