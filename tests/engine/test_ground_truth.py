"""Design §10, law 3, on random graphs: the root causes of a build are the changes that were made, no more and no less.

A model knows what each action had seen when it was last looked at, and so which changes reach it now, in whichever
builds between they were made: of parts of the graph, or such that failed. Beside plain actions there is a layer: what
its lock says selects picks, which an expansion adds, and `app/all` is made of them.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builds import NO_SHRINK, Site, graph_of, let_go
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from strata_engine import action_cache, blobs
from strata_engine.action import Action, Execution, Expansion, Input, Literal, Placement, Ref, Source
from strata_engine.build import BuildResult
from strata_engine.decision import EVICTED, Settings
from strata_engine.digest import Digest
from strata_engine.errors import ActionError
from strata_engine.recorded_graph import read_graph
from strata_engine.records import Records
from strata_engine.run_record import FILE
from strata_engine.staleness import Reason
from strata_engine.staleness import ReasonCode as C
from strata_engine.tree import Artifact, File
from strata_engine.why import Story

SOURCES = 4
LOCK, ALL = "app/lock", "app/all"
LOCAL = (
    *(C.FORCED, C.OUTPUT_MISSING, C.OUTPUT_TAMPERED),
    *(C.CACHE_ENTRY_MISSING, C.CACHE_ENTRY_CORRUPT, C.CACHE_BLOB_LOST),
)
"""What makes an action run, and its output no other one."""
Causes = frozenset[Reason]
NONE: Causes = frozenset()


def short(text: str) -> str:
    return Digest.of(text.encode()).hash[:12]


@dataclass
class Node:
    """An action of the model, as it is now."""

    label: str
    needs: tuple[str, ...]
    sources: set[int]
    coarse: bool = False
    """Its output forgets most of its input, so that early cutoff happens."""
    param: int = 0
    env: bool = False
    tool: bool = False
    host: bool = False
    """Whether its bytes depend on the platform that it is made on."""

    @property
    def mnemonic(self) -> str:
        return "Even" if sum(self.label.encode()) % 2 == 0 else "Odd"


@dataclass
class Facts:
    """What is the same for all actions, as it is now."""

    contents: list[str]
    versions: dict[str, int] = field(default_factory=lambda: {"Even": 1, "Odd": 1})
    env: str = ""
    tool: int = 1
    host: int = 1
    salt: str = ""


@dataclass(frozen=True)
class Own:
    """What an action's key has beside what it gets from other actions."""

    sources: dict[str, str]
    param: int
    version: int
    env: str | None
    tool: int | None
    host: int | None
    salt: str

    def differences(self, then: Own, node: Node) -> Causes:
        """Say which changes were made since `then`."""
        found = []
        if self.version != then.version:
            found.append(Reason(C.RULE_CHANGED, node.mnemonic, f"v{then.version}", f"v{self.version}"))
        if self.param != then.param:
            found.append(Reason(C.PARAMETER_CHANGED, origin(node.label), str(then.param), str(self.param)))
        if self.env != then.env:
            found.append(Reason(C.ENV_CHANGED, "E", then.env, self.env))
        if self.tool != then.tool:
            found.append(Reason(C.TOOL_CHANGED, "t", str(then.tool), str(self.tool)))
        if self.host != then.host:
            found.append(Reason(C.PLATFORM_CHANGED, "os", str(then.host), str(self.host)))
        if self.salt != then.salt:
            found.append(Reason(C.SALT_CHANGED, "salt", then.salt, self.salt))
        for name in self.sources.keys() | then.sources.keys():
            old, new = then.sources.get(name), self.sources.get(name)
            if old is None:
                found.append(Reason(C.INPUT_ADDED, name, None, short(str(new))))
            elif new is None:
                found.append(Reason(C.INPUT_REMOVED, name, short(old), None))
            elif old != new:
                found.append(Reason(C.INPUT_CHANGED, name, short(old), short(new)))
        return frozenset(found)


@dataclass
class Seen:
    """What an action had seen when it was last looked at."""

    own: Own
    key: str
    needs: tuple[str, ...]
    outputs: dict[str, str]
    """What all others had given by then."""
    failed: Causes | None = None
    """Why it had run, where it failed."""
    explained: bool = True
    """Whether the store still knows what its key was made of."""


def origin(label: str) -> str:
    return f"stack.toml#{label}.own"


def passed(causes: Causes) -> Causes:
    """Leave out what makes an action run and its output no other one, where something else does."""
    return frozenset(cause for cause in causes if cause.reason not in LOCAL) or causes


class Model:
    """The graph, what is known of it, and what each build must come to."""

    def __init__(self, nodes: list[Node]) -> None:
        self.facts = Facts(["0"] * SOURCES + ["a"])
        self.plain = {node.label: node for node in nodes}
        self.seen: dict[str, Seen] = {}
        self.output: dict[str, str] = {}
        """Of the last good build of each label."""
        self.pending: dict[tuple[str, str], Causes] = {}
        """By who reads and what is read: what made that another one since it was last read."""
        self.known: set[str] = set()
        self.corrupt: set[str] = set()
        self.gone: set[str] = set()
        """Outputs whose blobs are not in the store."""
        self.rotten: set[str] = set()
        """Outputs whose blobs are not what they should be."""
        self.broken: dict[str, C] = {}
        """By label, what is wrong with its place."""
        self.placed: dict[str, str] = {}
        self.failing: set[str] = set()
        self.causes: dict[str, Causes] = {}
        """Of the build that is modelled, by label: of all that is not up to date."""

    # -- the graph ---------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> dict[str, Node]:
        """Give all actions, each after those that it needs."""
        picks = {f"pick/{name}": Node(f"pick/{name}", (), {"abc".index(name)}) for name in self.selected}
        layer = {LOCK: Node(LOCK, (), {SOURCES}), **picks, ALL: Node(ALL, tuple(picks), set(), env=True)}
        return self.plain | layer

    @property
    def selected(self) -> list[str]:
        return sorted(set(self.facts.contents[SOURCES]))

    def own(self, node: Node) -> Own:
        facts = self.facts
        return Own(
            {f"s{number}": facts.contents[number] for number in node.sources},
            node.param,
            facts.versions[node.mnemonic],
            (facts.env or None) if node.env else None,
            facts.tool if node.tool else None,
            facts.host if node.host else None,
            facts.salt,
        )

    def action(self, node: Node) -> Action:
        version = self.facts.versions[node.mnemonic]
        inputs: dict[str, Input] = {f"s/s{number}": Source(f"s{number}") for number in node.sources}
        inputs |= {"s/-": Literal(b"")}
        inputs |= {f"n/{need.replace('/', '-')}": Ref(need) for need in node.needs}
        params: dict[str, Any] = {"label": node.label, "own": node.param}
        # What some versions of the rule want to know besides.
        params |= {"extra": "x"} if version == 2 else {}
        inputs |= {"boot": Literal(b"")} if version == 3 else {}
        platform = {"tool:t": str(self.facts.tool)} if node.tool else {}
        platform |= {"os": str(self.facts.host)} if node.host else {}
        failing = node.label in self.failing

        def run(execution: Execution) -> Artifact:
            read = {name: execution.read(name).decode() for name in execution.names()}
            if failing:
                raise ActionError.of("injected", "injected failure")
            return File(execution.store.put(made(node, read).encode()))

        return Action(
            label=node.label, mnemonic=node.mnemonic, version=version, params=params, inputs=inputs, run=run,
            environment={"E": self.facts.env} if node.env and self.facts.env else {},
            platform=platform, origins={"own": origin(node.label)},
        )  # fmt: skip

    def graph(self) -> list[Action | Expansion]:
        nodes = self.nodes

        def expand(read: Any) -> list[Action]:
            picks = [f"pick/{name}" for name in read(Ref(LOCK)).decode()]
            return [self.action(nodes[label]) for label in (*picks, ALL)]

        items: list[Action | Expansion] = [self.action(node) for node in (*self.plain.values(), nodes[LOCK])]
        return [*items, Expansion(label="app/picks", after=(Ref(LOCK),), promises=(ALL,), expand=expand)]

    def closure(self, wanted: list[str]) -> list[str]:
        nodes, found, waiting = self.nodes, set[str](), list(wanted)
        while waiting:
            label = waiting.pop()
            if label not in found:
                found.add(label)
                waiting += above(nodes[label])
        return [label for label in nodes if label in found]

    # -- what a build must come to ------------------------------------------------------------------------------------

    def build(self, wanted: list[str], forced: str) -> None:
        """Go through a build."""
        self.causes = {}
        nodes = self.nodes
        bad: set[str] = set()
        for label in self.closure(wanted):
            if bad & {*above(nodes[label])} or not self.look(nodes[label], forced=label == forced):
                bad.add(label)
        for label in self.closure(wanted):
            if label in bad or not is_placed(label):
                continue
            output = self.output[label]
            if label in self.broken or self.placed.get(label) != output:
                self.heal(nodes[label])
                self.placed[label] = output
                self.broken.pop(label, None)

    def look(self, node: Node, *, forced: bool) -> bool:
        """Decide about an action as the build does, and do it; False where it fails."""
        label, then, own = node.label, self.seen.get(node.label), self.own(node)
        key = repr((label, own, sorted((need, self.output[need]) for need in node.needs)))
        found = set(self.changes(node, own, key))
        same = then is not None and then.key == key and then.failed is None
        if forced:
            found.add(Reason(C.FORCED, label))
        elif key in self.corrupt:
            found.add(Reason(C.CACHE_ENTRY_CORRUPT, label))
        elif same and key not in self.known:
            found.add(Reason(C.CACHE_ENTRY_MISSING, label) if then is not None and then.explained else EVICTED)
        if label in self.broken:
            found.add(Reason(self.broken[label], f"out/{label}"))
        causes = frozenset(found)
        executed = forced or key not in self.known or key in self.corrupt
        assert causes or not executed
        if causes:
            self.causes[label] = causes
        fails = executed and label in self.failing
        if executed:
            for need in node.needs:
                self.heal(self.nodes[need])
        self.seen[label] = Seen(own, key, node.needs, {}, failed=passed(causes) if fails else None)
        self.pending = {pair: each for pair, each in self.pending.items() if pair[0] != label}
        if not fails:
            self.succeed(node, key, own, executed=executed)
        self.seen[label].outputs = dict(self.output)
        return not fails

    def changes(self, node: Node, own: Own, key: str) -> Causes:
        """Say why a key is another one than when the action was last looked at."""
        label, then = node.label, self.seen.get(node.label)
        if then is None:
            return self.newness(node)
        failed = then.failed or NONE
        if then.key == key:
            return failed
        if not then.explained:
            return failed | {EVICTED}
        found = failed | own.differences(then.own, node)
        selected = self.pending.get((ALL, LOCK), NONE)
        for need in {*node.needs, *then.needs}:
            made_another = self.pending.get((label, need), NONE)
            if need not in node.needs:
                found |= selected
            elif need not in then.needs:
                found |= made_another or selected
            elif then.outputs[need] != self.output[need]:
                found |= made_another
        return found

    def newness(self, node: Node) -> Causes:
        """Say why an action is there that never was."""
        selected = self.pending.get((ALL, LOCK)) or self.causes.get(LOCK, NONE)
        if LOCK in above(node):
            return passed(selected)
        new = [passed(self.causes[need]) for need in node.needs]
        return NONE.union(*new) or frozenset({Reason(C.FIRST_BUILD, node.label)})

    def succeed(self, node: Node, key: str, own: Own, *, executed: bool) -> None:
        """File an output, and tell all who read it."""
        label = node.label
        read = {f"s/{name}": content for name, content in own.sources.items()}
        output = made(node, read | {f"n/{need.replace('/', '-')}": self.output[need] for need in node.needs})
        for reader, then in self.seen.items():
            if then.outputs.get(label) == output:
                self.pending.pop((reader, label), None)
            elif self.output.get(label) != output and reader != label:
                before = self.pending.get((reader, label), NONE)
                self.pending[reader, label] = before | passed(self.causes[label])
        self.output[label] = output
        if executed:
            self.known.add(key)
            self.corrupt.discard(key)
            self.gone.discard(output)
            self.rotten.discard(output)

    def heal(self, node: Node) -> None:
        """Make an output again whose blob is needed and is not there."""
        output = self.output[node.label]
        if output in self.gone | self.rotten:
            lost = Reason(C.CACHE_BLOB_LOST, node.label, str(Digest.of(output.encode())), None)
            self.causes[node.label] = self.causes.get(node.label, NONE) | {lost}
            for need in node.needs:
                self.heal(self.nodes[need])
            self.gone.discard(output)
            self.rotten.discard(output)


def above(node: Node) -> tuple[str, ...]:
    """Name what an action needs, and what decides that it is there."""
    return (*node.needs, LOCK) if node.label == ALL or node.label.startswith("pick/") else node.needs


def is_placed(label: str) -> bool:
    return not label.startswith("pick/")


def made(node: Node, read: dict[str, str]) -> str:
    """Give an action's output, of what it read by input name."""
    if node.label == LOCK:
        return "".join(sorted(set(read[f"s/s{SOURCES}"])))
    said = [read[name] for name in sorted(read) if name not in ("boot", "s/-")]
    text = f"{node.label}({node.param}|{'|'.join(said)})"
    return f"{node.label}:{text.count('1') % 2}" if node.coarse else f"{node.label}:{short(text)}"


class World:
    """A workspace with a store, and the model of it."""

    def __init__(self, root: Path, model: Model) -> None:
        self.site = Site(root)
        self.model = model
        self.keys: dict[str, Digest] = {}
        """By label, the key of its last good build."""
        for number in range(SOURCES + 1):
            self.write(number, model.facts.contents[number])

    def write(self, number: int, content: str) -> None:
        self.model.facts.contents[number] = content
        self.site.write(f"s{number}", content)

    def apply(self, change: tuple[str, int, int]) -> None:
        """Make a change."""
        kind, which, value = change
        model = self.model
        labels = [*model.plain, LOCK, ALL]
        label = labels[which % len(labels)]
        node = model.plain[[*model.plain][which % len(model.plain)]]
        place = self.site.root / "out" / label
        match kind:
            case "edit":
                self.write(which % SOURCES, str(value))
            case "select":
                self.write(SOURCES, ("a", "ab", "bc", "ba", "c", "abc")[which % 6])
            case "param":
                node.param = value
            case "source":
                node.sources ^= {which % SOURCES}
            case "rule":
                model.facts.versions["Even" if which % 2 else "Odd"] = value + 1
            case "env":
                model.facts.env = ("", "1", "2")[value]
            case "tool" | "platform":
                setattr(model.facts, "tool" if kind == "tool" else "host", value)
            case "salt":
                model.facts.salt = ("", "x", "y")[value]
            case "delete" if label in model.placed:
                place.unlink(missing_ok=True)
                model.broken[label] = C.OUTPUT_MISSING
            case "tamper" if label in model.placed:
                place.unlink(missing_ok=True)
                place.write_text("tampered")
                model.broken[label] = C.OUTPUT_TAMPERED
            case "lose-entry" | "damage-entry" | "lose-blob" | "damage-blob":
                self.damage(kind, label)
            case "empty-store":
                let_go()
                shutil.rmtree(self.site.store, ignore_errors=True)
                model.known, model.corrupt, model.gone, model.rotten = set(), set(), set(), set()
                for then in model.seen.values():
                    then.explained = False
            case _:
                pass

    def damage(self, kind: str, label: str) -> None:
        """Take from the store what it knows of a label, or spoil it."""
        model, then = self.model, self.model.seen[label]
        if then.failed is not None or not then.explained or label not in self.keys:
            return
        output = model.output[label]
        entry, blob = action_cache.row_key(self.keys[label]), blobs.row_key(Digest.of(output.encode()))
        with self.site.opened_store() as store:
            match kind:
                case "lose-entry":
                    store.index.delete([entry])
                    model.known.discard(then.key)
                    model.corrupt.discard(then.key)
                case "damage-entry":
                    store.index.put_many({entry: b"damage"})
                    model.known.add(then.key)
                    model.corrupt.add(then.key)
                case "lose-blob" if label != LOCK:
                    store.index.delete([blob])
                    model.gone.add(output)
                    model.rotten.discard(output)
                case "damage-blob" if label != LOCK:
                    store.index.put_many({blob: b"damage"})
                    model.rotten.add(output)
                    model.gone.discard(output)
                case _:
                    pass

    def build(self, wanted: list[str], forced: str = "") -> BuildResult:
        model = self.model
        placements = [
            Placement(Ref(label), self.site.root / "out" / label) for label in model.closure(wanted) if is_placed(label)
        ]
        options = Settings(keep_going=True, salt=model.facts.salt, force=(forced,) if forced else ())
        with self.site.opened() as build:
            result = build.run(graph_of(model.graph()), wanted, placements, options)
        for report in result.actions:
            if report.output:
                self.keys[report.label] = Digest.parse(report.key)
        return result

    def check(self, wanted: list[str], forced: str = "") -> None:
        """Build, and compare what is told of it with what was done."""
        self.build(wanted, forced)
        model = self.model
        model.build(wanted, forced)
        state = self.site.root / ".strata"
        graph = read_graph(self.site.workspace)
        story = Story(
            Records.read(state / FILE), deciders=lambda: {label: each.deciders for label, each in graph.items()}
        )
        assert {label: set(causes) for label, causes in model.causes.items()} == {
            label: {root.reason for root in story.roots(label)} for label in story.reports
        }
        assert {root.reason for root in story.roots()} == NONE.union(*model.causes.values())


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    nodes = []
    for index in range(draw(st.integers(2, 6))):
        needs = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
        sources = draw(st.sets(st.integers(0, SOURCES - 1), max_size=2))
        flags = {name: draw(st.booleans()) for name in ("coarse", "env", "tool", "host")}
        nodes.append(Node(f"n{index}/out", tuple(f"n{need}/out" for need in sorted(needs)), sources, **flags))
    return nodes


KINDS = (
    *("edit", "edit", "select", "param", "source", "rule", "env", "tool", "platform", "salt", "delete", "tamper"),
    *("lose-entry", "damage-entry", "lose-blob", "damage-blob", "empty-store"),
)
CHANGES = st.tuples(st.sampled_from(KINDS), st.integers(0, 11), st.integers(0, 2))


@st.composite
def rounds(draw: st.DrawFn) -> tuple[list[tuple[str, int, int]], int, int, int]:
    """Give changes, and how it is built then: the label that is wanted, that is forced, that fails, or -1."""
    which = st.one_of(st.just(-1), st.integers(0, 7))
    return draw(st.lists(CHANGES, max_size=4)), draw(which), draw(which), draw(which)


@given(graphs(), st.lists(rounds(), min_size=1, max_size=6))
@settings(
    max_examples=100,
    deadline=None,
    phases=NO_SHRINK,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_root_causes_are_the_changes_that_were_made(
    nodes: list[Node], history: list[tuple[list[tuple[str, int, int]], int, int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Model(nodes)
        world = World(Path(folder), model)
        labels = [*model.plain, LOCK, ALL]
        world.check(labels)
        for changes, wanted, forced, failing in history:
            note(f"{changes} {wanted} {forced} {failing}")
            for change in changes:
                world.apply(change)
            # What is made again because its blob is lost must not fail: that is told of its readers.
            if failing >= 0 and not model.gone | model.rotten:
                model.failing = {labels[failing % len(labels)]}
            world.check(
                [labels[wanted % len(labels)]] if wanted >= 0 else labels,
                labels[forced % len(labels)] if forced >= 0 else "",
            )
            model.failing = set()
        world.check(labels)
        world.check(labels)
        assert model.causes == {}
