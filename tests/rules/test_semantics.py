"""What reasons mean, told from real Actions in a store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from builds import make
from conftest import Bench

from strata_engine.action import Action, Input, Literal, Ref, Source, SourceTree
from strata_engine.digest import Digest
from strata_engine.events import Outcome
from strata_engine.key import compute
from strata_engine.run_record import ActionReport
from strata_engine.staleness import Reason, ReasonCode, explain
from strata_engine.tree import File, Node, Symlink, Tree, assemble
from strata_rules.semantics import LINES, WIDTH, details

STACK = """\
[[runtimes]]
name = "python"
python_implementation = "cpython@3.12.9"
requirements = []

[[frameworks]]
name = "num.eric"
runtime = "python"
requirements = [
  "six",
  "numpy >= 2.1",
]
linux_target = "glibc@2.28"

[tool.uv]
exclude-newer = "2027-01-01"
[[tool.uv.index]]
name = "own"
url = "https://own.invalid/simple"
"""

FILE = "venvstacks.toml"
C = ReasonCode


class Told:
    """Makes two keys, and gives what their differences mean."""

    def __init__(self, bench: Bench, root: Path) -> None:
        self.bench = bench
        self.root = root
        (root / FILE).write_text(STACK)

    def file(self, data: str | bytes) -> File:
        return File(self.bench.store.put(data.encode() if isinstance(data, str) else data))

    def tree(self, files: Mapping[str, str | bytes]) -> Tree:
        return assemble(self.bench.store, {name: self.file(data) for name, data in files.items()})

    def key(self, action: Action, inputs: Mapping[str, Node]) -> Digest:
        key = compute(action, inputs, self.bench.store)
        self.bench.store.put(key.action)
        self.bench.store.put(key.command)
        return key.digest

    def report(self, mnemonic: str, old: Digest, new: Digest, **more: Any) -> ActionReport:
        return ActionReport(
            label="a", mnemonic=mnemonic, key=str(new), previous=str(old), outcome=Outcome.EXECUTED, **more
        )

    def __call__(self, old: Mapping[str, Any], new: Mapping[str, Any], mnemonic: str = "Link") -> dict[str, list[str]]:
        """Give the lines of each reason, by its subject; sides have fields of an action, and `nodes`: its inputs."""
        actions = [make("a", **{"mnemonic": mnemonic} | _without(side, "nodes")) for side in (old, new)]
        sides = list(zip(actions, [side.get("nodes", {}) for side in (old, new)], strict=True))
        keys = [self.key(*side) for side in sides]
        report = self.report(mnemonic, *keys)
        reasons = explain(self.bench.store, *keys, sides[1][0], str)
        return {each.subject: details(self.bench.store, self.root, report, each) for each in reasons}

    def parameter(self, subject: str, old: str | None, new: str | None) -> list[str]:
        return self.reason(Reason(C.PARAMETER_CHANGED, f"{FILE}#{subject}", old, new))

    def reason(self, reason: Reason, mnemonic: str = "Link", **more: Any) -> list[str]:
        report = self.report(mnemonic, Digest.of(b"gone"), Digest.of(b"lost"), **more)
        return details(self.bench.store, self.root, report, reason)


def _without(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


@pytest.fixture
def told(bench: Bench, tmp_path: Path) -> Told:
    return Told(bench, tmp_path)


@pytest.mark.parametrize(
    ("subject", "old", "new", "line"),
    [
        ("frameworks.num.eric.requirements", "numpy>=2", "numpy>=2.1", f"{FILE}:11  numpy>=2 → numpy>=2.1"),
        ("frameworks.num.eric.requirements", None, "six", f"{FILE}:10  + six"),
        ("frameworks.num.eric.requirements", "rich", None, f"{FILE}:9  - rich"),
        ("frameworks.num.eric.linux_target", "glibc@2.17", "glibc@2.28",
         f"{FILE}:13  [frameworks.num.eric] linux_target  glibc@2.17 → glibc@2.28"),
        ("frameworks.num.eric.platforms", None, "win_amd64", f"{FILE}:6  [frameworks.num.eric] platforms  + win_amd64"),
        ("tool.uv.exclude-newer", None, "2027-01-01", f"{FILE}:16  [tool.uv] exclude-newer  + 2027-01-01"),
        ("tool.uv.index[0].url", "https://u:p@old.invalid/x?sig=1", "https://own.invalid/simple",
         f"{FILE}:19  [tool.uv.index[0]] url  https://old.invalid/x → https://own.invalid/simple"),
        ("tool.uv.index[4].url", "a", "b", f"{FILE}:17  [tool.uv.index[4]] url  a → b"),
        ("nowhere.at.all", "1", "2", f"{FILE}  [nowhere.at] all  1 → 2"),
    ],
)  # fmt: skip
def test_a_parameter_is_told_by_its_line(told: Told, subject: str, old: str | None, new: str | None, line: str) -> None:
    assert told.parameter(subject, old, new) == [line]


def test_an_archive_a_pin_and_a_variable(told: Told) -> None:
    sides = (f"fixed-output sha256:{digit * 64}" for digit in "12")
    archive = Reason(C.DEFINITION_CHANGED, f"{FILE}#runtimes.python.python_implementation", *sides)
    assert told.reason(archive, "Download") == [f"{FILE}:3  archive sha256 {'1' * 12} → {'2' * 12}"]
    pin = Reason(C.PARAMETER_CHANGED, "requirements/python/runtime.python.json", "3.12.1", "3.12.9")
    assert told.reason(pin) == ["requirements/python/runtime.python.json  Python 3.12.1 → 3.12.9"]
    variable = Reason(C.PARAMETER_CHANGED, "$MACOSX_DEPLOYMENT_TARGET", "13.0", "14.0")
    assert told.reason(variable) == ["$MACOSX_DEPLOYMENT_TARGET  13.0 → 14.0"]


def test_a_layer_that_came_below_another_is_told_by_its_line(told: Told) -> None:
    added = Reason(C.INPUT_ADDED, f"{FILE}#frameworks.num.eric.runtime", None, "python")
    assert told.reason(added) == [f"{FILE}:8  [frameworks.num.eric] runtime  + python"]


def test_tools_variables_and_strata_itself(told: Told) -> None:
    assert told.reason(Reason(C.TOOL_CHANGED, "uv", "0.8", "0.9")) == ["uv, which resolves locks: 0.8 → 0.9"]
    assert told.reason(Reason(C.RULE_CHANGED, "Link", "v3", "v4")) == [
        "Strata itself changed: what `Link` does is version 3 → 4"
    ]
    assert told.reason(Reason(C.ENV_CHANGED, "UV_RESOLUTION", None, "lowest")) == ["$UV_RESOLUTION  (none) → lowest"]
    urls = "https://a.invalid/x", "https://a.invalid/x https://me:secret@b.invalid/y"
    assert told.reason(Reason(C.ENV_CHANGED, "UV_INDEX", *urls)) == ["$UV_INDEX  + https://b.invalid/y"]
    assert told.reason(Reason(C.SALT_CHANGED, "salt", "", "2")) == []


def test_a_module_is_told_line_by_line(told: Told) -> None:
    inputs: dict[str, Input] = {"modules/app.py": Source("src/app.py"), "support": SourceTree("lib")}
    old = "".join(f"line {number}\n" for number in range(20))
    new = old.replace("line 7\n", "line seven\nsee https://me:secret@host.invalid/x?token=y\n")
    before = {"modules/app.py": told.file(old), "support": told.tree({"a/b.py": "1\n", "c.bin": b"\0\1"})}
    after = {"modules/app.py": told.file(new), "support": told.tree({"a/b.py": "2\n", "c.bin": b"\0\1\2", "d": "x"})}
    assert told({"inputs": inputs, "nodes": before}, {"inputs": inputs, "nodes": after}) == {
        "src/app.py": ["+2 -1 lines, from line 8 on", "- line 7", "+ line seven", "+ see https://host.invalid/x"],
        "lib/a/b.py": ["+1 -1 lines, from line 1 on", "- 1", "+ 2"],
        "lib/c.bin": ["2 B → 3 B"],
        "lib/d": ["+1 line"],
    }


def test_what_is_long_is_cut_and_what_is_large_is_not_read(told: Told) -> None:
    def lines(old: str | bytes, new: str | bytes) -> list[str]:
        nodes = ({"m": told.file(text)} for text in (old, new))
        before, after = ({"inputs": {"m": Source("m")}, "nodes": each} for each in nodes)
        [found] = told(before, after).values()
        return found

    many = lines("a\n" * 500, "b\n" * 600)
    assert (many[0], many[-1], len(many)) == ("+600 -500 lines, from line 1 on", "…", 10)
    assert len(many) <= LINES
    assert lines("x\n" * 9000, "y\n" * 9001) == ["+9001 -9000 lines"]
    assert lines("", "z" * 2000)[1] == f"+ {'z' * (WIDTH - 3)}…"
    assert lines("x\x1b[31m\x07\n", "y\n")[1] == "- x"
    assert lines(b"x" * (1 << 20) + b"y", b"x") == ["1.0 MB → 1 B"]


def wheel(told: Told, name: str, version: str, *files: str, tag: str = "py3-none-any") -> Tree:
    said = json.dumps({"name": name, "version": version, "tags": [tag]})
    content = {"wheel.json": said, "libraries.json": "[]"} | {f"purelib/{file}": version for file in files}
    return told.tree({**content, f"purelib/{name}-{version}.dist-info/METADATA": version})


def test_an_install_is_told_by_packages(told: Told) -> None:
    before = [wheel(told, "numpy", "2.1.2", "a.py", "b.py"), wheel(told, "six", "1.16"), wheel(told, "x", "1")]
    after = [
        wheel(told, "numpy", "2.1.3", "a.py", "c.py"),
        wheel(told, "rich", "14.0"),
        wheel(told, "x", "1", tag="cp312-cp312-win_amd64"),
    ]
    names = ["numpy", "six", "x"], ["numpy", "rich", "x"]

    def side(wheels: Sequence[Tree], packages: list[str]) -> dict[str, Any]:
        inputs = {f"wheels/{name}": Ref(f"wheel/{name}") for name in packages}
        nodes = dict(zip(inputs, wheels, strict=True))
        return {"params": {"order": packages}, "derived": {"order": "app/lock"}, "inputs": inputs, "nodes": nodes}

    found = told(side(before, names[0]), side(after, names[1]), "Install")
    assert found["app/lock"] == [
        "numpy 2.1.2 → 2.1.3", "+ rich 14.0", "- six 1.16", "x 1: wheel py3-none-any → cp312-cp312-win_amd64",
    ]  # fmt: skip
    assert found["wheel/numpy"] == [
        "numpy 2.1.2 → 2.1.3",
        "files: 2 added, 2 removed, 2 changed: purelib/a.py, purelib/b.py, purelib/c.py, …",
    ]
    assert found["wheel/rich"] == ["+ rich 14.0"]


def test_a_tree_is_told_by_packages_and_files(told: Told) -> None:
    def side(version: str, code: str, *more: str) -> dict[str, Any]:
        site = f"tree/lib/site-packages/np-{version}.dist-info"
        files = {f"{site}/METADATA": version, "tree/lib/np.py": code, "tree/lib/same.py": ""} | dict.fromkeys(more, "")
        return {"inputs": {"install": Ref("app/install", "tree")}, "nodes": {"install": told.tree(files)}}

    assert told(side("1", "a"), side("2", "b")) == {
        "app/install": ["np 1 → 2", "files: 1 added, 1 removed, 1 changed: tree/lib/np.py"]
    }
    assert told(side("1", "a"), side("1", "a", "x", "y/a", "y/b", "z")) == {
        "app/install": ["files: 4 added: x, y/a, y/b, …"]
    }


def test_what_lower_layers_give(told: Told) -> None:
    def lock(version: str, number: int) -> dict[str, Any]:
        pins = [{"name": "numpy", "version": version}, {"name": "six", "version": "1"}]
        pins += [{"name": "six", "version": "2", "marker": "m"}] * (version == "3")
        name = f"pins/{number:04}-framework-low.json"
        return {
            "inputs": {name: Ref("framework-low/lock", "pins.json")},
            "nodes": {name: told.file(json.dumps(pins))},
            "members": {"pins": f"{FILE}#x"},
        }

    assert told(lock("2", 0), lock("3", 0), "Lock") == {
        "framework-low/lock": ["numpy 2 → 3", "- six 1", "+ six 1", "+ six 2"]
    }
    assert told(lock("2", 0), lock("2.5", 1), "Lock")["framework-low/lock"] == ["numpy 2 → 2.5"], "renumbered"

    def link(*names: str) -> dict[str, Any]:
        offers = json.dumps({"layer": "low", "libraries": dict.fromkeys(names, "x"), "withheld": {}, "modules": {}})
        name = "lower/0000-low/libraries.json"
        return {"inputs": {name: Ref("low/link", "libraries.json")}, "nodes": {name: told.file(offers)}}

    assert told(link("a.so", "b.so"), link("b.so", "c.so")) == {"low/link": ["+ library c.so", "- library a.so"]}


def test_what_strata_ships_and_what_a_runtime_is_made_of(told: Told) -> None:
    inputs: dict[str, Input] = {"postinstall.py": Literal(b"")}
    sides = [{"inputs": inputs, "nodes": {"postinstall.py": told.file(text)}} for text in ("a\n", "b\n")]
    assert told(*sides)["postinstall.py"][0] == "Strata itself changed: `postinstall.py` is shipped with every layer"
    archives = [told.file(text) for text in ("one", "two")]
    unpack = [{"inputs": {"archive": Ref("python/download")}, "nodes": {"archive": each}} for each in archives]
    hashes = [each.digest.hash[:12] for each in archives]
    assert told(*unpack, "Unpack") == {"python/download": [f"archive sha256 {hashes[0]} → {hashes[1]}"]}


def test_a_lock_is_told_by_what_it_selects_now(told: Told) -> None:
    def output(version: str, *tags: str, index: str = "") -> Tree:
        wheels = "".join(f'{{url = "https://x.invalid/numpy-2.0-cp312-cp312-{tag}.whl"}},' for tag in tags)
        lines = f'[[packages]]\nname = "numpy"\nversion = "2.0"\nwheels = [{wheels}]\n'
        lines += f'index = "{index}"\n' if index else ""
        pins = [{"name": "numpy", "version": "2.0"}, {"name": "six", "version": version}]
        return told.tree({"pins.json": json.dumps(pins), "pylock.toml": lines})

    question = Reason(C.PARAMETER_CHANGED, f"{FILE}#frameworks.num.eric.requirements", None, "six")
    place = f"{FILE}:10  + six"

    def lines(former: Tree, now: Tree) -> list[str]:
        return told.reason(question, "Lock", former=str(former.root), output=str(now.root))

    old = output("1", "win_amd64", "linux_x86_64")
    assert lines(old, output("2", "win_amd64", "linux_x86_64")) == [place, "six 1 → 2"]
    new = output("1", "win_amd64", "macosx_11_0_arm64", index="https://me:pw@i.invalid/simple")
    assert lines(old, new) == [
        place, "numpy 2.0: index (none) → https://i.invalid/simple",
        "numpy 2.0: wheels + cp312-cp312-macosx_11_0_arm64, - cp312-cp312-linux_x86_64",
    ]  # fmt: skip
    assert lines(old, old) == [place]


def test_what_is_gone_or_damaged_is_told_of_in_no_line(told: Told) -> None:
    edited = Reason(C.INPUT_CHANGED, "src/app.py", "a", "b")
    assert told.reason(edited) == []
    sides = [{"inputs": {"m": Source("m")}, "nodes": {"m": told.file(text)}} for text in ("1\n", "2\n")]
    keys = [told.key(make("a", inputs=side["inputs"]), side["nodes"]) for side in sides]
    [reason] = explain(told.bench.store, *keys, make("a", inputs=sides[1]["inputs"]), str)
    report = told.report("Link", *keys)
    assert details(told.bench.store, told.root, report, reason) == ["+1 -1 lines, from line 1 on", "- 1", "+ 2"]

    class Lossy:
        """A store in which one blob is another one."""

        load = staticmethod(told.bench.store.load)

        @staticmethod
        def get(digest: Digest) -> bytes:
            return b"\xff garbage" if digest == keys[0] else told.bench.store.get(digest)

    assert details(Lossy(), told.root, report, reason) == []
    assert details(told.bench.store, told.root, told.report("Link", *keys), edited) == []
    broken = ActionReport(label="a", mnemonic="Link", key="x", previous="", outcome=Outcome.EXECUTED)
    assert details(told.bench.store, told.root, broken, reason) == []
    parameter = Reason(C.PARAMETER_CHANGED, f"{FILE}#tool.uv.x", "1", "2")
    for text in (b"\xff", b"not = toml = ", b"#" * (1 << 20) + b"#"):
        (told.root / FILE).write_bytes(text)
        assert told.reason(parameter) == []
    (told.root / FILE).unlink()
    assert told.reason(parameter) == []


def test_whatever_stands_in_the_place_of_a_file(told: Told) -> None:
    source: dict[str, Input] = {"m": SourceTree("m")}

    def lines(old: Node, new: Node) -> list[str]:
        sides = ({"inputs": source, "nodes": {"m": each}} for each in (old, new))
        return [line for found in told(*sides).values() for line in found]

    plain = told.file("#!\n")
    assert lines(plain, plain._replace(executable=True)) == ["it can be run now"]
    assert lines(plain, Symlink("x")) == ["a file of 3 B → a symlink to x"]
    assert lines(told.tree({"a": "", "b": "x\ny\n"}), told.tree({"a": ""})) == ["-2 lines"]
