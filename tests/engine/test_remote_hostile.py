"""Design §10, law 5, on random graphs: whatever a remote cache answers, outputs are those of a clean build.

The server draws its manner anew for each request, its blobs are lost and taken for one another between builds, and so
are stores and workspaces. A model, which knows no cache, says what every output must be.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builds import NO_SHRINK, Site, counts, let_go, remote
from caches import Hostile
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from strata_engine.action import Action, Execution, Expansion, Ref, Scope, Source
from strata_engine.build import BuildResult
from strata_engine.digest import Digest
from strata_engine.events import Outcome
from strata_engine.remote.settings import Upload
from strata_engine.remote.signing import new_key
from strata_engine.tree import Artifact, File, Symlink, assemble

EXAMPLES = int(os.environ.get("STRATA_HOSTILE_EXAMPLES", "25"))
SOURCES = 2
SIZES = (1, 300, 70_000, 1_100_000)
"""Inlined in a result; a row of the store; a file of it; one that comes by itself."""
MANNERS = (
    *("404", "500", "wrong", "longer", "shorter", "cut", "garbage", "hang up", "half", "other range", "unended"),
    *("503", "401", "elsewhere", "stall", "silent"),
)
SLOW = {"stall", "silent"}
LYING = {"wrong", "longer", "shorter", "half"}
"""Of a result that is not signed, which cannot prove itself."""


@dataclass(frozen=True)
class Shape:
    """An action of the model: which earlier actions and sources it reads, and what it makes of them."""

    actions: tuple[int, ...]
    sources: tuple[int, ...]
    kind: str
    """`file`, `program`, `tree` or `fixed`."""
    size: int
    coarse: bool
    """Its output forgets most of its input, so that early cutoff happens."""
    grown: bool
    """It is added by an expansion."""


@dataclass
class Model:
    """What a clean build would give."""

    shapes: tuple[Shape, ...]
    contents: list[int] = field(default_factory=lambda: [0] * SOURCES)

    def said(self) -> list[bytes]:
        result: list[bytes] = []
        for index, shape in enumerate(self.shapes):
            inputs = b"|".join([result[i] for i in shape.actions] + [b"%d" % self.contents[i] for i in shape.sources])
            result.append(said(index, shape, inputs))
        return result


def said(index: int, shape: Shape, inputs: bytes) -> bytes:
    """Give the text that an action makes of its inputs; that of a fixed-output action is always the same."""
    if shape.kind == "fixed":
        seed = f"fixed {index}"
    else:
        seed = f"{shape.kind} {shape.size} {Digest.of(inputs).hash[:1] < '8' if shape.coarse else Digest.of(inputs)}"
    return (Digest.of(seed.encode()).hash.encode() * (shape.size // 64 + 1))[: max(shape.size, 16)]


def make_action(model: Model, index: int) -> Action:
    shape = model.shapes[index]

    def run(execution: Execution) -> Artifact:
        parts = [execution.read(f"a{i:02}") for i in shape.actions] + [execution.read(f"s{i}") for i in shape.sources]
        store = execution.store
        blob = store.put(said(index, shape, b"|".join(parts)))
        if shape.kind != "tree":
            return File(blob, executable=shape.kind == "program")
        other = File(store.put(b"beside " + store.get(blob)), executable=True)
        return assemble(store, {"in/a/text": File(blob), "in/other": other, "in/link": Symlink("a/text")})

    fixed = Digest.of(said(index, shape, b"")).hash if shape.kind == "fixed" else None
    return Action(
        label=f"n{index}",
        mnemonic="Combine",
        version=1,
        params={} if fixed else {"shape": repr(shape)},
        inputs={}
        if fixed
        else {f"a{i:02}": text_of(model, i) for i in shape.actions} | {f"s{i}": Source(f"s{i}") for i in shape.sources},
        run=run,
        scope=Scope.FIXED_OUTPUT if fixed else Scope.CACHED,
        fixed=fixed,
    )


def text_of(model: Model, index: int) -> Ref:
    return Ref(f"n{index}", "in/a/text" if model.shapes[index].kind == "tree" else "")


def grown(action: Action, after: Sequence[Ref]) -> Callable[[Callable[[Ref], bytes]], Sequence[Action]]:
    return lambda read: [action] if [read(ref) for ref in after] else []


def items_of(model: Model) -> list[Action | Expansion]:
    items: list[Action | Expansion] = []
    for index, shape in enumerate(model.shapes):
        action = make_action(model, index)
        after = tuple(text_of(model, i) for i in shape.actions)
        if shape.grown and after:
            items.append(
                Expansion(label=f"n{index}/grown", after=after, promises=(action.label,), expand=grown(action, after))
            )
        else:
            items.append(action)
    return items


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Shape, ...]:
    result = []
    for index in range(draw(st.integers(2, 6))):
        actions = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
        sources = draw(st.sets(st.integers(0, SOURCES - 1), max_size=2))
        kind = draw(st.sampled_from(["file", "program", "tree", "tree", "fixed"]))
        shape = Shape(
            tuple(sorted(actions)) if kind != "fixed" else (),
            tuple(sorted(sources)) if kind != "fixed" else (),
            kind,
            draw(st.sampled_from(SIZES)),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        result.append(shape)
    return tuple(result)


STEPS = st.sampled_from(
    [
        *("edit", "edit", "new machine", "new machine", "lose store", "lose state", "lose output"),
        *(
            "drop blobs",
            "swap blobs",
            "drop results",
            "swap results",
            "spoil blobs",
            "spoil results",
            "lose breaker",
            "lose breaker",
        ),
    ]
)

ROUND = st.tuples(
    st.lists(STEPS, max_size=4),
    st.sampled_from([Upload.OFF, Upload.WAIT, Upload.WAIT]),
    st.sampled_from([0.0, 0.0, 0.1, 0.3, 1.0]),
    st.sampled_from(["all", "all", "last"]),
)
KEY = new_key()
"""What happens before a build; whether it sends; how many of its requests are answered badly; what is placed."""


class World:
    """Machines with a cache between them, and the model beside them."""

    def __init__(self, root: Path, model: Model, server: Hostile, seed: int, signed: bool) -> None:
        self.root = root
        self.model = model
        self.server = server
        self.random = random.Random(seed)
        self.seed = seed
        self.signed = signed
        self.machines = 0
        self.site = self.new_machine()

    def new_machine(self) -> Site:
        self.machines += 1
        site = Site(self.root / f"machine{self.machines}")
        for index in range(SOURCES):
            site.write(f"s{index}", str(self.model.contents[index]))
        return site

    def apply(self, step: str) -> None:
        site, state = self.site, self.site.root / ".strata"
        lost = {"store": site.store, "state": state, "output": site.root / "out", "breaker": site.store / "remote"}
        what, _, which = step.partition(" ")
        if step == "edit":
            index = self.random.randrange(SOURCES)
            self.model.contents[index] = self.random.randrange(3)
            site.write(f"s{index}", str(self.model.contents[index]))
        elif step == "new machine":
            self.site = self.new_machine()
        elif what == "lose":
            shutil.rmtree(lost[which], ignore_errors=True)
        elif which == "results" and not self.signed:
            # Who may write results that are not signed is believed.
            self.damage("drop", "/ac/")
        else:
            self.damage(what, "/ac/" if which == "results" else "/cas/")

    def damage(self, what: str, where: str) -> None:
        blobs = self.server.blobs
        chosen = [path for path in sorted(blobs) if where in path and self.random.random() < 0.4]
        others = [blobs[path] for path in chosen]
        self.random.shuffle(others)
        for path, other in zip(chosen, others, strict=True):
            data = blobs.pop(path)
            if what == "swap":
                blobs[path] = other
            elif what == "spoil" and data:
                at = self.random.randrange(len(data))
                blobs[path] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    def misbehave(self, share: float) -> None:
        def manner(number: int, method: str, path: str) -> str:
            drawn = random.Random(f"{self.seed} {number}")
            if drawn.random() >= share:
                return "well"
            chosen = drawn.choice(MANNERS)
            if "/ac/" in path and not self.signed and chosen in LYING:
                return "500"
            # A few are enough: each costs the time of a stall.
            return chosen if chosen not in SLOW or drawn.random() < 0.1 else "500"

        self.server.manner = manner

    def build(self, upload: Upload, placed: Sequence[int]) -> BuildResult:
        key: dict[str, Any] = (
            {"signing_key": KEY.private_pem().decode(), "public_keys": (KEY.public.text,)} if self.signed else {}
        )
        self.site.remotes = remote(self.server.url, upload=upload, timeout=0.3, **key)
        return self.site.build(items_of(self.model), self.labels, {f"out/n{i}": f"n{i}" for i in placed})

    @property
    def labels(self) -> list[str]:
        return [f"n{i}" for i in range(len(self.model.shapes))]

    def check(self, result: BuildResult, placed: Sequence[int]) -> None:
        assert (result.exit_code, result.diagnostics) == (0, ())
        assert sum(result.counts.values()) == len(self.model.shapes)
        assert result.counts[Outcome.FAILED] == result.counts[Outcome.SKIPPED] == 0
        assert result.remote is not None
        assert result.remote.hits == result.counts[Outcome.REMOTE]
        expected = self.model.said()
        for index in placed:
            output = self.site.root / "out" / f"n{index}"
            match self.model.shapes[index].kind:
                case "tree":
                    there = {str(path.relative_to(output)): path for path in output.rglob("*") if not path.is_dir()}
                    assert set(there) == {"in/a/text", "in/other", "in/link"}
                    assert there["in/a/text"].read_bytes() == expected[index]
                    assert there["in/other"].read_bytes() == b"beside " + expected[index]
                    assert os.access(there["in/other"], os.X_OK)
                    assert there["in/link"].readlink() == Path("a/text")
                case kind:
                    assert output.read_bytes() == expected[index]
                    assert bool(output.stat().st_mode & 0o100) == (kind == "program")


@given(shapes(), st.lists(ROUND, min_size=1, max_size=5), st.integers(0, 2**32), st.booleans())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=NO_SHRINK,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_whatever_a_server_answers_outputs_are_those_of_a_clean_build(
    shape: tuple[Shape, ...], rounds: list[tuple[list[str], Upload, float, str]], seed: int, signed: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder, Hostile() as server:
        model = Model(shape)
        world = World(Path(folder), model, server, seed, signed)
        for steps, upload, share, which in [([], Upload.WAIT, 0.0, "all"), *rounds]:
            let_go()
            for step in steps:
                world.apply(step)
            placed = range(len(shape)) if which == "all" else [len(shape) - 1]
            world.misbehave(share)
            result = world.build(upload, placed)
            note(f"{steps} {upload} {share} {which}: {counts(result)} {result.remote}")
            world.check(result, placed)
            again = world.build(upload, placed)
            assert counts(again) == {"up_to_date": len(shape)}
