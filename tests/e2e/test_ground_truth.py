"""Design §10, law 3, on a real stack: `graph why`'s root causes are the changes that were made, no more and no less.

Each scenario makes several changes, drawn by a fixed seed, builds all of it or first a part, or what fails, and
compares what `graph why --json` tells of each build with what reached it. A change knows which parts of the stack it
reaches, and a build which parts it looks at.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
from runtimes import OWN, foreign_archive
from space import STACK, Space

from strata_engine.digest import Digest
from strata_rules.platforms import host_platform

FILE = "venvstacks.toml"
UP = '[[frameworks]]\nname = "up"\nframeworks = ["low"]\n'
HELLO = 'name = "hello"\nlaunch_module = "hello.py"\nframeworks = ["up"]\n'

LOCKS = frozenset({"low/lock", "up/lock", "hello/lock", "world/lock"})
EVERYTHING = LOCKS | {"python", "low", "up", "hello", "world"}
SCOPES = {
    ("lock",): LOCKS,
    ("build", "framework-up"): frozenset({"low/lock", "up/lock", "python", "low", "up"}),
    ("build",): EVERYTHING,
}
"""Which parts of the stack a command looks at."""

Cause = tuple[str, str, str | None, str | None]


class Change(NamedTuple):
    """Something that is done to a workspace."""

    make: Callable[[Space], Iterable[Cause]]
    """Does it, and gives the root causes that it is."""
    reaches: frozenset[str]
    group: str
    """Names, separated by blanks: of changes that share one only one is made, for they would meet."""
    alters: str = ""
    """The lock that selects something else then. What else has reached that lock counts for it as well."""


def short(text: str) -> str:
    return Digest.of(text.encode()).hash[:12]


def parameter(way: str, old: str | None, new: str | None) -> Cause:
    return ("parameter-changed", f"{FILE}#{way}", old, new)


def stack(old: str, new: str, *causes: Cause) -> Callable[[Space], Iterable[Cause]]:
    """Edit the stack file."""

    def make(space: Space) -> Iterable[Cause]:
        space.replace(FILE, old, new)
        return causes

    return make


def edit(path: str, text: str) -> Callable[[Space], Iterable[Cause]]:
    """Write a module anew, or for the first time."""

    def make(space: Space) -> Iterable[Cause]:
        old = short(space.read(path)) if (space.root / path).exists() else None
        space.write(path, text)
        return [("input-changed" if old else "input-added", path, old, short(text))]

    return make


def remove(path: str) -> Callable[[Space], Iterable[Cause]]:
    def make(space: Space) -> Iterable[Cause]:
        old = short(space.read(path))
        (space.root / path).unlink()
        return [("input-removed", path, old, None)]

    return make


def rename(space: Space) -> Iterable[Cause]:
    space.replace(FILE, 'launch_module = "hello.py"', 'launch_module = "renamed.py"')
    (space.root / "hello.py").rename(space.root / "renamed.py")
    content = short(space.read("renamed.py"))
    return [
        parameter("applications.hello.launch_module", "hello", "renamed"),
        ("input-removed", "hello.py", content, None),
        ("input-added", "renamed.py", None, content),
    ]


def variable(space: Space) -> Iterable[Cause]:
    space.environ["UV_PRERELEASE"] = "allow"
    return [("env-changed", "UV_PRERELEASE", None, "allow")]


def tool(space: Space) -> Iterable[Cause]:
    """Let another version of uv be installed, as far as anybody can tell."""
    described = space.root / "tools" / "uv-0.0.1.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: uv\nVersion: 0.0.1\n")
    space.environ["PYTHONPATH"] = str(described.parent)
    return [("tool-changed", "uv", metadata.version("uv"), "0.0.1")]


def delete(layer: str) -> Callable[[Space], Iterable[Cause]]:
    def make(space: Space) -> Iterable[Cause]:
        shutil.rmtree(space.layer(layer))
        return [("output-missing", f"_build/{layer}", None, None)]

    return make


def tamper(layer: str) -> Callable[[Space], Iterable[Cause]]:
    def make(space: Space) -> Iterable[Cause]:
        (space.layer(layer) / "mine.txt").touch()
        return [("output-tampered", f"_build/{layer}", None, None)]

    return make


def lose_result(label: str, *, damage: bool) -> Callable[[Space], Iterable[Cause]]:
    """Take a result out of the action cache, or spoil it."""

    def make(space: Space) -> Iterable[Cause]:
        # What answers while nothing is to be done does not ask the store.
        space.forget_snapshots()
        key = space.build("--dry-run", label).keys[label].partition("/")[0]
        rows(space, b"a", key, b"damage" if damage else None)
        return [("cache-entry-corrupt" if damage else "cache-entry-missing", label, None, None)]

    return make


def lose_blob(*, damage: bool) -> Callable[[Space], Iterable[Cause]]:
    """Take out of the store, or spoil, what a layer is made of that is to be placed."""

    def make(space: Space) -> Iterable[Cause]:
        digest = Digest.of(b"NAME = 'gamma'\n")
        rows(space, b"b", digest.hash, b"damage" if damage else None)
        lost = ("cache-blob-lost", "wheel/gamma-1.0-py3-none-any.whl", str(digest), None)
        [layer] = (space.root / "_build").glob("framework-up@*")
        return [lost, *delete(layer.name)(space)]

    return make


def rows(space: Space, kind: bytes, key: str, value: bytes | None) -> None:
    with sqlite3.connect(space.store / "cache.db") as database:
        name = kind + bytes.fromhex(key)
        if value is None:
            found = database.execute("DELETE FROM Cache WHERE key = ?", (name,)).rowcount
        else:
            found = database.execute("UPDATE Cache SET value = ? WHERE key = ?", (value, name)).rowcount
    assert found == 1


def reaching(*parts: str) -> frozenset[str]:
    return frozenset(parts)


ASKED = reaching("low/lock", "up/lock", "world/lock")
LOW = ASKED | {"low"}

CHANGES = {
    "module": Change(edit("hello.py", "print(1)\n"), reaching("hello"), "launch"),
    "module renamed": Change(rename, reaching("hello"), "launch"),
    "module in a package": Change(edit("world/names.py", "NAME = 'deep'\n"), reaching("world"), "names"),
    "module added": Change(edit("world/more.py", "x = 1\n"), reaching("world"), "more"),
    "module removed": Change(remove("world/names.py"), reaching("world"), "names"),
    "support module": Change(
        lambda space: [
            *stack('launch_module = "world"', 'launch_module = "world"\nsupport_modules = ["extra.py"]')(space),
            *edit("extra.py", "x = 2\n")(space),
        ],
        reaching("world"), "support",
    ),
    "requirement changed": Change(
        stack('["alpha", ', '["alpha<1", ', parameter("frameworks.low.requirements", "alpha", "alpha<1")),
        LOW, "low", "low/lock"
    ),
    "requirement added": Change(
        stack('"beta"]', '"beta", "epsilon"]', parameter("frameworks.low.requirements", None, "epsilon")),
        LOW, "low", "low/lock"
    ),
    "requirement removed": Change(
        stack(', "beta"]', "]", parameter("frameworks.low.requirements", "beta", None)),
        LOW, "low", "low/lock"
    ),
    "first requirement": Change(
        stack(
            f"{HELLO}requirements = []", f'{HELLO}requirements = ["delta"]',
            parameter("applications.hello.requirements", None, "delta"),
        ),
        reaching("hello/lock", "hello"), "hello", "hello/lock"
    ),
    "last requirement": Change(
        stack('["zeta"]', "[]", parameter("applications.world.requirements", "zeta", None)),
        reaching("world/lock", "world"), "asked", "world/lock"
    ),
    "new version of a layer": Change(
        stack('["gamma"]', '["gamma", "delta"]', parameter("frameworks.up.requirements", None, "delta")),
        reaching("up/lock", "world/lock", "up", "hello", "world"), "up", "up/lock"
    ),
    "frameworks": Change(
        stack(
            HELLO, HELLO.replace('"up"', '"low"'),
            ("input-removed", f"{FILE}#applications.hello.frameworks", "framework-up", None),
        ),
        reaching("hello"), "launch hello",
    ),
    "uv setting": Change(
        stack("[tool.uv]", '[tool.uv]\nprerelease = "allow"', parameter("tool.uv.prerelease", None, "allow")),
        ASKED, "hello asked",
    ),
    "variable": Change(variable, ASKED, "hello asked"),
    "tool": Change(tool, ASKED, "hello asked"),
    "strata setting": Change(
        stack("[tool.strata]", "[tool.strata]\nentry_points = true",
              parameter("tool.strata.entry_points", "false", "true")),
        reaching("python", "low", "up", "hello", "world"), "low",
    ),
    "libraries left out": Change(
        stack('name = "low"\n', 'name = "low"\ndynlib_exclude = ["x*"]\n',
              parameter("frameworks.low.dynlib_exclude", None, "x*")),
        reaching("low"), "low",
    ),
    "output deleted": Change(delete("app-hello"), reaching("hello"), "output hello"),
    "output tampered with": Change(tamper("app-world"), reaching("world"), "output world"),
    "lower output tampered with": Change(tamper("framework-low"), reaching("low"), "output low"),
    "result lost": Change(lose_result("app-hello/install", damage=False), reaching("hello"), "hello low"),
    "result damaged": Change(lose_result("framework-low/link", damage=True), reaching("low"), "low"),
    "blob lost": Change(lose_blob(damage=False), reaching("up"), "up"),
    "blob damaged": Change(lose_blob(damage=True), reaching("up"), "up"),
}  # fmt: skip
LAST = ("result lost", "result damaged", "blob lost", "blob damaged")
"""What is done to the store after all else, for nothing may be built of it in between."""


@pytest.fixture(scope="module")
def grounds(template: Space, tmp_path_factory: pytest.TempPathFactory) -> Space:
    """Give a stack with a layer that has versions, after a build, whose store knows the template."""
    folder = tmp_path_factory.mktemp("grounds")
    made = template.copy(folder / "workspace", folder / "store")
    archive, sha256 = foreign_archive(folder, "win_amd64", OWN)
    text = STACK.replace(UP, f"{UP}versioned = true\n").replace('provider = "local"', 'provider = ["local", "archive"]')
    text = text.replace("[tool.strata.runtimes", "[tool.strata]\n[tool.strata.runtimes")
    where = f'url = {{ win_amd64 = "{archive.as_uri()}" }}\nsha256 = {{ win_amd64 = "{sha256}" }}\n'
    made.write(FILE, text.replace("[tool.strata.archive]", f"{where}\n[tool.strata.archive]"))
    made.ok("build")
    return made


@pytest.fixture
def ground(grounds: Space, tmp_path: Path) -> Space:
    made = grounds.copy(tmp_path / "workspace", tmp_path / "store", state=True)
    made.ok("build")
    return made


def told(space: Space) -> list[Cause]:
    causes = space.ok("graph", "why", "--json").json["root_causes"]
    return sorted(((each["reason"], each["subject"], each["old"], each["new"]) for each in causes), key=str)


class Grounds:
    """A workspace, and what was done to it that no build has seen yet."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.open: list[tuple[frozenset[str], set[Cause], str]] = []
        """Of each change, the parts of the stack that it has yet to reach, its causes, and the lock that it alters."""

    def make(self, names: Iterable[str]) -> None:
        for name in sorted(names, key=lambda name: name in LAST):
            self.note(CHANGES[name].reaches, CHANGES[name].make(self.space), CHANGES[name].alters)

    def note(self, reaches: frozenset[str], causes: Iterable[Cause], alters: str = "") -> None:
        self.open.append((reaches, set(causes), alters))

    def check(self, *command: str, options: Iterable[str] = ()) -> None:
        """Run a command, and compare what is told of it with what it was to find."""
        self.space.ok(*command, *options)
        self.compare(SCOPES[command], SCOPES[command])

    def compare(self, scope: frozenset[str], done: frozenset[str]) -> None:
        """Compare what is told of a command that looked at the parts in `scope` and ended well with those in `done`."""
        causes = set[Cause]().union(*(causes for reaches, causes, _ in self.open if reaches & scope))
        if causes:
            assert told(self.space) == sorted(causes, key=str)
        left = []
        for reaches, causes, alters in self.open:
            together = (further for further, _, altered in self.open if altered in reaches & done)
            further = frozenset(reaches).union(*together) - done
            left += [(further, causes, alters)] if further else []
        self.open = left

    def fail(self) -> None:
        """Build while a requirement cannot be fulfilled, as far as that goes; then mend it."""
        self.note(reaching("up/lock"), stack('"gamma"', '"gamma", "nosuch"', WANTED)(self.space))
        assert self.space.strata("build", "-k").code == 2
        # Locks of layers that have versions come first, and what they need.
        self.compare(reaching("low/lock", "up/lock"), reaching("low/lock"))
        self.note(reaching("up/lock"), stack('"gamma", "nosuch"', '"gamma"', (*WANTED[:2], *WANTED[:1:-1]))(self.space))


WANTED = parameter("frameworks.up.requirements", None, "nosuch")


def packed(seed: int) -> list[list[str]]:
    """Put all changes into scenarios, as many into each as do not meet."""
    names = sorted(CHANGES)
    random.Random(seed).shuffle(names)
    scenarios: list[list[str]] = []
    for name in names:
        groups = {*CHANGES[name].group.split()}
        for scenario in scenarios:
            if groups.isdisjoint(group for other in scenario for group in CHANGES[other].group.split()):
                scenario.append(name)
                break
        else:
            scenarios.append([name])
    return scenarios


SEED = 1


@pytest.mark.parametrize(("number", "names"), [*enumerate(packed(SEED))])
def test_root_causes_are_the_changes_that_were_made(ground: Space, number: int, names: list[str]) -> None:
    grounds = Grounds(ground)
    match number % 4:
        case 0:
            grounds.make(names)
        case 1:
            first = ("lock",) if number % 8 == 1 else ("build", "framework-up")
            grounds.make(name for name in names if name not in LAST)
            grounds.check(*first)
            grounds.make(name for name in names if name in LAST)
        case 2:
            grounds.make(names[::2])
            grounds.check("build", "framework-up")
            grounds.make(names[1::2])
        case _ if "up" in {group for name in names for group in CHANGES[name].group.split()}:
            grounds.make(names)
        case _:
            grounds.make(name for name in names if name not in LAST)
            grounds.fail()
    grounds.check("build")


def test_an_emptied_store_is_one_cause(ground: Space) -> None:
    grounds = Grounds(ground)
    grounds.make(["output deleted"])
    shutil.rmtree(ground.store)
    grounds.note(EVERYTHING, [("evicted", "store", None, None), ("forced", "app-world/link", None, None)])
    grounds.check("build", options=["--force", "app-world/link"])


def test_another_platform_is_new_once_per_layer(ground: Space) -> None:
    grounds = Grounds(ground)
    if host_platform() == "win_amd64":
        pytest.skip("this machine's own platform")
    # Locks are for this machine too; modules are new to what was never built.
    grounds.make(["requirement added"])
    edit("hello.py", "print(1)\n")(ground)
    layers = ("framework-low", "framework-up", "app-hello", "app-world")
    new = [f"{layer}/install[win_amd64]" for layer in layers] + ["python/download[win_amd64]"]
    grounds.note(EVERYTHING, [("first-build", label, None, None) for label in new])
    grounds.check("build", options=["--platform=win_amd64"])
