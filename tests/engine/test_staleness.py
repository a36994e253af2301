from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from builds import make
from conftest import Bench

from strata_engine.action import Action, Literal, Ref, Scope, Source, SourceTree
from strata_engine.cas import BlobLost
from strata_engine.digest import Digest
from strata_engine.key import compute
from strata_engine.staleness import Reason, ReasonCode, explain
from strata_engine.tree import EMPTY_TREE, File, Node, Symlink, Tree, assemble


def short(text: str) -> str:
    return Digest.of(text.encode()).hash[:12]


class Explained:
    """Computes keys and keeps what explains them, as builds do."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def file(self, text: str, *, executable: bool = False) -> File:
        return File(self.bench.store.put(text.encode()), executable)

    def tree(self, **files: str) -> Tree:
        return assemble(self.bench.store, {name.replace("_", "/"): self.file(text) for name, text in files.items()})

    def key(self, action: Action, inputs: Mapping[str, Node], salt: bytes = b"") -> Digest:
        key = compute(action, inputs, self.bench.store, salt)
        self.bench.store.put(key.action)
        self.bench.store.put(key.command)
        return key.digest

    def __call__(
        self, old: Action, before: Mapping[str, Node], new: Action, after: Mapping[str, Node], salt: bytes = b""
    ) -> list[Reason]:
        keys = self.key(old, before), self.key(new, after, salt)
        return list(explain(self.bench.store, *keys, new, lambda path: f"./{path}"))


@pytest.fixture
def explained(bench: Bench) -> Explained:
    return Explained(bench)


def action(**fields: Any) -> Action:
    return make(
        "app/install", **{"mnemonic": "Install", "params": {"python": "3.12"}, "environment": {"LANG": "C"}} | fields
    )


C = ReasonCode


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {"mnemonic": "Link"}, [Reason(C.DEFINITION_CHANGED, "app/install", "strata Install", "strata Link")]),
        (
            {"scope": Scope.FIXED_OUTPUT, "fixed": "0" * 64},
            {"scope": Scope.FIXED_OUTPUT, "fixed": "1" * 64},
            [
                Reason(
                    C.DEFINITION_CHANGED, "app/install",
                    f"fixed-output sha256:{'0' * 64}", f"fixed-output sha256:{'1' * 64}",
                )
            ],
        ),
        ({}, {"version": 2}, [Reason(C.RULE_CHANGED, "Install", "v1", "v2")]),
        ({}, {"params": {"python": "3.13"}}, [Reason(C.PARAMETER_CHANGED, "python", "3.12", "3.13")]),
        ({}, {"params": {"python": "3.12", "x": ""}}, [Reason(C.PARAMETER_CHANGED, "x", None, "")]),
        (
            {"params": {"uv": {"index": [{"url": "a"}, {"url": "b"}], "on": True, "n": 1, "names": ["x", "y"]}}},
            {"params": {"uv": {"index": [{"url": "a"}, {"url": "c"}], "on": False, "n": 2, "names": ["y"]}}},
            [
                Reason(C.PARAMETER_CHANGED, "uv.index[1].url", "b", "c"),
                Reason(C.PARAMETER_CHANGED, "uv.n", "1", "2"),
                Reason(C.PARAMETER_CHANGED, "uv.names", "x", None),
                Reason(C.PARAMETER_CHANGED, "uv.on", "true", "false"),
            ],
        ),
        (
            {"environment": {"LANG": "C", "OLD": "1"}},
            {"environment": {"LANG": "C.UTF-8", "NEW": "2"}},
            [
                Reason(C.ENV_CHANGED, "LANG", "C", "C.UTF-8"),
                Reason(C.ENV_CHANGED, "NEW", None, "2"),
                Reason(C.ENV_CHANGED, "OLD", "1", None),
            ],
        ),
        (
            {"platform": {"tool:uv": "0.8", "libc": "2.36"}},
            {"platform": {"tool:uv": "0.9", "libc": "2.39"}},
            [Reason(C.TOOL_CHANGED, "uv", "0.8", "0.9"), Reason(C.PLATFORM_CHANGED, "libc", "2.36", "2.39")],
        ),
        (
            {"params": {"python": "3.12", "old": "1", "uv": {"a": "1"}}, "platform": {"tool:gcc": "1", "cpu": "x"}},
            {
                "version": 2, "params": {"python": "3.13", "new": "1", "uv": {"b": "1"}}, "environment": {},
                "platform": {"tool:uv": "1", "cpu": "y"},
            },
            # What the new version alone wants to know is no change of its own.
            [
                Reason(C.RULE_CHANGED, "Install", "v1", "v2"),
                Reason(C.PARAMETER_CHANGED, "python", "3.12", "3.13"),
                Reason(C.PARAMETER_CHANGED, "uv.a", "1", None),
                Reason(C.PARAMETER_CHANGED, "uv.b", None, "1"),
                Reason(C.ENV_CHANGED, "LANG", "C", None),
                Reason(C.PLATFORM_CHANGED, "cpu", "x", "y"),
            ],
        ),
    ],
)  # fmt: skip
def test_every_change_of_the_definition(
    explained: Explained, old: dict[str, Any], new: dict[str, Any], expected: list[Reason]
) -> None:
    assert explained(action(**old), {}, action(**new), {}) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (["numpy>=2", "six"], ["six", "numpy>=2.1"], [("numpy>=2", "numpy>=2.1")]),
        (["numpy>=2"], ["numpy-stl", "numpy>=2"], [(None, "numpy-stl")]),
        (["a", "b", "c"], ["b"], [("a", None), ("c", None)]),
        (["a[x]>1", "b"], ["A>2", "c"], [("a[x]>1", "A>2"), ("b", None), (None, "c")]),
        (["a", "b"], ["b", "a"], [('["a", "b"]', '["b", "a"]')]),
        ([], ["a"], [(None, "a")]),
        (["; x", "; y"], ["; z"], [("; x", None), ("; y", None), (None, "; z")]),
    ],
)
def test_of_a_list_each_element_is_told(
    explained: Explained, old: list[str], new: list[str], expected: list[tuple[str | None, str | None]]
) -> None:
    found = explained(action(params={"requirements": old}), {}, action(params={"requirements": new}), {})
    assert found == [Reason(C.PARAMETER_CHANGED, "requirements", *pair) for pair in expected]


def test_parameters_are_told_where_a_person_has_written_them(explained: Explained) -> None:
    origins = {"uv": "stack.toml#tool.uv", "uv.index": "stack.toml#index", "": "stack.toml#python"}
    old = {"uv": {"index": [{"url": "a"}], "index-strategy": "x", "no": True}, "uvx": "1"}
    new = {"uv": {"index": [{"url": "b"}], "index-strategy": "y", "no": False}, "uvx": "2"}
    assert explained(action(params=old), {}, action(params=new, origins=origins), {}) == [
        Reason(C.PARAMETER_CHANGED, "stack.toml#tool.uv.index-strategy", "x", "y"),
        Reason(C.PARAMETER_CHANGED, "stack.toml#index[0].url", "a", "b"),
        Reason(C.PARAMETER_CHANGED, "stack.toml#tool.uv.no", "true", "false"),
        Reason(C.PARAMETER_CHANGED, "uvx", "1", "2"),
    ]
    fixed = [{"scope": Scope.FIXED_OUTPUT, "fixed": digit * 64, "origins": origins} for digit in "01"]
    [reason] = explained(action(**fixed[0]), {}, action(**fixed[1]), {})
    assert (reason.reason, reason.subject) == (C.DEFINITION_CHANGED, "stack.toml#python")


def test_a_parameter_taken_from_an_output_changes_with_that_action(explained: Explained) -> None:
    old, new = {"order": ["a", "b"], "name": "x@1"}, {"order": ["b"], "name": "x@2"}
    derived = {"order": "app/lock", "name": "app/lock"}
    assert explained(action(params=old), {}, action(params=new, derived=derived), {}) == [
        Reason(C.UPSTREAM_CHANGED, "app/lock", "x@1", "x@2"),
        Reason(C.UPSTREAM_CHANGED, "app/lock", '["a", "b"]', '["b"]'),
    ]


def test_that_a_derived_parameter_is_there_is_written_where_its_origin_is(explained: Explained) -> None:
    told = {"derived": {"name": "app/lock"}, "origins": {"name": "stack.toml#versioned"}}
    plain, one, two = (action(params=params, **told) for params in ({}, {"name": "x@1"}, {"name": "x@2"}))
    assert explained(plain, {}, one, {}) == [Reason(C.PARAMETER_CHANGED, "stack.toml#versioned", None, "x@1")]
    assert explained(one, {}, two, {}) == [Reason(C.UPSTREAM_CHANGED, "app/lock", "x@1", "x@2")]


def test_an_action_that_had_no_parameters(explained: Explained) -> None:
    bare = Action(label="a", mnemonic="M", version=1, run=lambda execution: EMPTY_TREE)
    full = Action(label="a", mnemonic="M", version=1, params={"x": "1"}, run=bare.run)
    assert explained(bare, {}, full, {}) == [Reason(C.PARAMETER_CHANGED, "x", None, "1")]
    assert explained(full, {}, bare, {}) == [Reason(C.PARAMETER_CHANGED, "x", "1", None)]


def test_a_new_salt(explained: Explained) -> None:
    assert explained(action(), {}, action(), {}, salt=b"2") == [Reason(C.SALT_CHANGED, "salt", "", "2")]


def test_every_change_of_an_input(explained: Explained) -> None:
    inputs = {
        "app.py": Source("src/app.py"),
        "modules": SourceTree("lib"),
        "wheels/0000": Ref("wheel/a"),
        "wheels/0001": Ref("wheel/b", "part"),
        "literal": Literal(b""),
    }
    e = explained
    before: dict[str, Node] = {
        "app.py": e.file("1"),
        "modules": e.tree(same="s", changed="1", d_gone="g"),
        "wheels/0000": e.tree(a="1", b="2"),
        "wheels/0001": e.tree(a="1"),
        "literal": e.file("1"),
    }
    tree = e.tree(same="s", changed="2", d_new="n")
    after = before | {"app.py": e.file("2")}
    assert e(action(inputs=inputs), before, action(inputs=inputs), before) == []
    assert e(action(inputs=inputs), before, action(inputs=inputs), after) == [
        Reason(C.INPUT_CHANGED, "./src/app.py", short("1"), short("2"))
    ]
    after = before | {"app.py": e.file("1", executable=True)}
    assert e(action(inputs=inputs), before, action(inputs=inputs), after) == [
        Reason(C.INPUT_CHANGED, "./src/app.py", short("1"), f"{short('1')}+x")
    ]
    after = before | {"modules": tree}
    assert e(action(inputs=inputs), before, action(inputs=inputs), after) == [
        Reason(C.INPUT_CHANGED, "./lib/changed", short("1"), short("2")),
        Reason(C.INPUT_REMOVED, "./lib/d/gone", short("g"), None),
        Reason(C.INPUT_ADDED, "./lib/d/new", None, short("n")),
    ]
    new = e.tree(a="2", b="3", c="4")
    old_tree = before["wheels/0000"]
    assert isinstance(old_tree, Tree)
    # However much of it changed: what happened is the upstream action's own story.
    assert e(action(inputs=inputs), before, action(inputs=inputs), before | {"wheels/0000": new}) == [
        Reason(C.UPSTREAM_CHANGED, "wheel/a", old_tree.root.hash[:12], new.root.hash[:12])
    ]
    after = before | {"literal": Symlink("x")}
    assert e(action(inputs=inputs), before, action(inputs=inputs), after) == [
        Reason(C.INPUT_CHANGED, "literal", short("1"), "→ x")
    ]


def test_inputs_that_come_and_go_are_one_reason_each(explained: Explained) -> None:
    e = explained
    big = e.tree(**{f"f{n}": str(n) for n in range(50)})
    old_inputs = {"wheels/a": Ref("wheel/a"), "wheels/b": Ref("wheel/b"), "src": SourceTree("src"), "x": Ref("x")}
    new_inputs = {"wheels/b": Ref("wheel/b"), "wheels/c": Ref("wheel/c"), "src2": SourceTree("src2"), "x/y": Ref("y")}
    before: dict[str, Node] = {"wheels/a": big, "wheels/b": big, "src": big, "x": e.file("x")}
    after: dict[str, Node] = {"wheels/b": big, "wheels/c": big, "src2": big, "x/y": e.file("y")}
    digest = big.root.hash[:12]
    assert e(action(inputs=old_inputs), before, action(inputs=new_inputs), after) == [
        Reason(C.INPUT_ADDED, "./src2", None, digest),
        Reason(C.INPUT_ADDED, "wheel/c", None, digest),
        Reason(C.INPUT_ADDED, "y", None, short("y")),
        Reason(C.INPUT_REMOVED, "src", digest, None),
        Reason(C.INPUT_REMOVED, "wheels/a", digest, None),
        Reason(C.INPUT_REMOVED, "x", short("x"), None),
    ]


def test_inputs_that_come_and_go_with_a_new_rule_belong_to_it(explained: Explained) -> None:
    e = explained
    before: dict[str, Node] = {"src/a": e.file("a"), "src/b": e.file("b"), "boot": e.file("1"), "old/x": e.file("x")}
    after: dict[str, Node] = {"src/a": e.file("2"), "src/c": e.file("c"), "boot": e.file("2"), "new/y": e.file("y")}
    inputs = {name: Source(name) for name in after}
    assert e(action(), before, action(version=2, inputs=inputs), after) == [
        Reason(C.RULE_CHANGED, "Install", "v1", "v2"),
        Reason(C.INPUT_CHANGED, "./boot", short("1"), short("2")),
        Reason(C.INPUT_CHANGED, "./src/a", short("a"), short("2")),
        Reason(C.INPUT_ADDED, "./src/c", None, short("c")),
        Reason(C.INPUT_REMOVED, "src/b", short("b"), None),
    ]


def test_an_action_that_begins_to_do_anything_does_so_for_one_reason(explained: Explained) -> None:
    idle = action(params={"names": [], "python": "3.12"}, environment={}, presence="names")
    busy = action(
        params={"names": ["a"], "python": "3.13", "uv": {"x": "1"}}, environment={"E": "1"}, presence="names",
        platform={"tool:uv": "1"}, inputs={"pins": Ref("low/lock")},
    )  # fmt: skip
    pins: dict[str, Node] = {"pins": explained.file("pins")}
    told = [
        Reason(C.PARAMETER_CHANGED, "names", None, "a"),
        Reason(C.PARAMETER_CHANGED, "python", "3.12", "3.13"),
    ]
    assert explained(idle, {}, busy, pins) == told
    assert explained(busy, pins, idle, {}) == [
        Reason(reason.reason, reason.subject, reason.new, reason.old) for reason in told
    ]
    more = msgspec.structs.replace(busy, params=dict(busy.params) | {"names": ["a", "b"], "uv": {}})
    assert [reason.subject for reason in explained(busy, pins, more, pins)] == ["names", "uv", "uv.x"]


def test_a_parameter_that_comes_with_another_ones_value_is_no_change_of_its_own(explained: Explained) -> None:
    attends = {"glibc": "platforms", "targets": "platforms"}
    old = action(params={"platforms": ["linux", "mac"], "glibc": "2.28", "targets": {"a": "1", "b": "2"}})
    new = action(params={"platforms": ["mac"], "targets": {"a": "1"}}, attends=attends)
    assert explained(old, {}, new, {}) == [Reason(C.PARAMETER_CHANGED, "platforms", "linux", None)]
    gone = action(params={"platforms": ["linux", "mac"], "targets": {"a": "1", "b": "2"}}, attends=attends)
    assert explained(old, {}, gone, {}) == [Reason(C.PARAMETER_CHANGED, "glibc", "2.28", None)]


def test_who_is_in_a_numbered_list_of_inputs_is_told_as_that_list(explained: Explained) -> None:
    e, subject = explained, "stack.toml#app.frameworks"
    members = {"lower": subject}

    def side(*layers: str, changed: str = "") -> tuple[Action, dict[str, Node]]:
        names = {f"lower/{number:04}-{layer}/facts.json": layer for number, layer in enumerate(layers)}
        inputs = {name: Ref(f"{layer}/link", "facts") for name, layer in names.items()}
        nodes = {name: e.file(layer + "!" * (layer == changed)) for name, layer in names.items()}
        params = {"lower": list(layers)}
        return action(params=params, inputs=inputs, members=members, origins={"lower": subject}), {**nodes}

    def told(old: tuple[Action, dict[str, Node]], new: tuple[Action, dict[str, Node]]) -> list[Reason]:
        return e(*old, *new)

    assert told(side("a", "b", "base"), side("b", "c", "base")) == [
        Reason(C.INPUT_REMOVED, subject, "a", None), Reason(C.INPUT_ADDED, subject, None, "c"),
    ]  # fmt: skip
    assert told(side("a", "b"), side("b", "a")) == [Reason(C.INPUT_CHANGED, subject, '["a", "b"]', '["b", "a"]')]
    assert told(side("a", "base"), side("a", "b", "base", changed="base")) == [
        Reason(C.INPUT_ADDED, subject, None, "b"),
        Reason(C.UPSTREAM_CHANGED, "base/link", short("base"), short("base!")),
    ]


def test_several_parts_of_one_output_are_told_once(explained: Explained) -> None:
    e = explained
    inputs = {"facts/a": Ref("low/link", "facts"), "facts/b": Ref("low/link", "facts")}
    before, after = ({name: e.file(text) for name in inputs} for text in ("1", "2"))
    assert e(action(inputs=inputs), before, action(inputs=inputs), after) == [
        Reason(C.UPSTREAM_CHANGED, "low/link", short("1"), short("2"))
    ]


def test_a_key_that_is_no_longer_kept_cannot_be_explained(explained: Explained) -> None:
    kept = explained.key(action(), {})
    with pytest.raises(BlobLost):
        explain(explained.bench.store, Digest.of(b"evicted"), kept, action(), str)


def test_reasons_for_a_person() -> None:
    assert str(Reason(C.VOLATILE, "a/run")) == "volatile a/run"
    assert str(Reason(C.FIRST_BUILD)) == "first-build"
    assert str(Reason(C.TOOL_CHANGED, "uv", "0.8", "0.9")) == "tool-changed uv: 0.8 → 0.9"
    assert str(Reason(C.ENV_CHANGED, "X", None, "1")) == "env-changed X: (none) → 1"


def test_the_codes_are_the_ones_that_others_rely_on() -> None:
    assert " ".join(ReasonCode) == (
        "first-build definition-changed rule-changed tool-changed parameter-changed env-changed platform-changed "
        "input-changed input-added input-removed upstream-changed output-missing output-tampered forced volatile "
        "salt-changed cache-entry-missing cache-entry-corrupt cache-blob-lost cache-untrusted evicted "
        "previous-failed racy-input"
    )
