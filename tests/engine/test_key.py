from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from builds import make
from conftest import Bench
from reapi import official, proto_digest, proto_directory

from strata_engine.action import Action, Literal, Ref, Scope, Source
from strata_engine.codec import decode_action, decode_command
from strata_engine.digest import EMPTY, Digest
from strata_engine.errors import InternalError, Place
from strata_engine.key import canonical_json, compute
from strata_engine.tree import EMPTY_TREE, File, Node, Symlink, Tree, assemble

WHEELS = {"wheels/0000": b"zero", "wheels/0001": b"one", "app.py": b"print()"}


def inputs_of(bench: Bench) -> dict[str, Node]:
    nodes: dict[str, Node] = {name: File(bench.store.put(data)) for name, data in WHEELS.items()}
    tool = File(bench.store.put(b"#!"), executable=True)
    lib = assemble(bench.store, {"bin/tool": tool, "lib/é": Symlink("../bin")})
    return nodes | {"runtime": lib, "empty": EMPTY_TREE}


ACTION = make(
    "app-x/install",
    mnemonic="Install",
    version=7,
    params={"python": "3.12", "list": ["b", "a"], "deep": {"z": True, "a": 0}, "é": "ü\n"},
    environment={"LANG": "C", "HOME": "/nowhere"},
    platform={"tool:uv": "0.9", "OSFamily": "linux"},
)


def official_directory(store: Any, tree: Tree) -> Any:
    return proto_directory(store.load(tree.root))


def test_a_key_is_what_the_official_runtime_makes_of_it(bench: Bench) -> None:
    inputs = inputs_of(bench)
    key = compute(ACTION, inputs, bench.store, b"epoch 2")
    command = official(
        "Command",
        arguments=[
            "strata", "Install", "v7",
            '{"deep":{"a":0,"z":true},"list":["b","a"],"python":"3.12","say":"app-x/install","é":"ü\\n"}',
        ],
        environment_variables=[
            official("Variable", name="HOME", value="/nowhere"), official("Variable", name="LANG", value="C"),
        ],
        output_paths=["out"],
    ).SerializeToString(deterministic=True)  # fmt: skip

    def digest(message: Any) -> Any:
        return proto_digest(Digest.of(message.SerializeToString(deterministic=True)))

    def file(name: str) -> Any:
        return official("FileNode", name=name.rpartition("/")[2], digest=proto_digest(Digest.of(WHEELS[name])))

    runtime = inputs["runtime"]
    assert isinstance(runtime, Tree)
    root = official(
        "Directory",
        files=[file("app.py")],
        directories=[
            official("DirectoryNode", name="empty", digest=proto_digest(EMPTY)),
            official("DirectoryNode", name="runtime", digest=digest(official_directory(bench.store, runtime))),
            official(
                "DirectoryNode",
                name="wheels",
                digest=digest(official("Directory", files=[file("wheels/0000"), file("wheels/0001")])),
            ),
        ],
    )
    action = official(
        "Action",
        command_digest=proto_digest(Digest.of(command)),
        input_root_digest=digest(root),
        salt=b"epoch 2",
        platform=official(
            "Platform",
            properties=[
                official("Variable", name="OSFamily", value="linux"), official("Variable", name="tool:uv", value="0.9"),
            ],
        ),
    ).SerializeToString(deterministic=True)  # fmt: skip
    assert key.command == command
    assert key.action == action
    assert key.digest == Digest.of(action)


def test_a_key_is_always_this_one(bench: Bench) -> None:
    # A change of this line disowns every result that anybody has.
    key = compute(ACTION, inputs_of(bench), bench.store)
    assert str(key.digest) == "6ccab02dbf3d04102d0564965912e66d74590784812f3463e58f0b472f2250ed/179"


def test_what_a_key_does_not_depend_on(bench: Bench) -> None:
    inputs = inputs_of(bench)
    key = compute(ACTION, inputs, bench.store)
    fields: dict[str, Any] = {
        "label": "app-other/install", "description": "said otherwise", "place": Place("elsewhere.toml", 9),
        "pool": "network", "scope": Scope.LOCAL, "run": lambda execution: None,
        # How an input is found is not what it is.
        "inputs": {name: Source(f"/other/{name}") if len(name) > 8 else Ref("x", name) for name in inputs},
    }  # fmt: skip
    for name, value in fields.items():
        assert compute(changed(**{name: value}), inputs, bench.store) == key, name
    params = dict(reversed(ACTION.params.items()))
    upside_down = changed(
        params=params, environment=dict(reversed(ACTION.environment.items())),
        platform=dict(reversed(ACTION.platform.items())),
    )  # fmt: skip
    assert compute(upside_down, dict(reversed(inputs.items())), bench.store) == key


def changed(**fields: Any) -> Action:
    return Action(**{name: getattr(ACTION, name) for name in ACTION.__struct_fields__} | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"mnemonic": "Link"}, {"version": 8}, {"params": {**ACTION.params, "python": "3.13"}},
        {"params": {**ACTION.params, "list": ["a", "b"]}}, {"params": {**ACTION.params, "more": ""}},
        {"params": {**ACTION.params, "deep": {"z": 1, "a": 0}}},
        {"params": {**ACTION.params, "deep": {"z": True, "a": "0"}}},
        {"environment": {**ACTION.environment, "LANG": "C.UTF-8"}}, {"environment": {}},
        {"platform": {**ACTION.platform, "tool:uv": "0.10"}}, {"platform": {}},
    ],
)  # fmt: skip
def test_every_keyed_field_changes_the_key(bench: Bench, fields: dict[str, Any]) -> None:
    inputs = inputs_of(bench)
    assert compute(changed(**fields), inputs, bench.store).digest != compute(ACTION, inputs, bench.store).digest


def test_every_input_changes_the_key(bench: Bench) -> None:
    inputs = inputs_of(bench)
    zero, one = inputs["wheels/0000"], inputs["wheels/0001"]
    assert isinstance(zero, File)
    variants: list[Mapping[str, Node]] = [
        inputs,
        inputs | {"wheels/0000": one},
        inputs | {"wheels/0000": one, "wheels/0001": zero},
        inputs | {"wheels/0000": File(zero.digest, executable=True)},
        inputs | {"wheels/0002": zero},
        {name: node for name, node in inputs.items() if name != "wheels/0001"},
        {f"{name}x" if name == "app.py" else name: node for name, node in inputs.items()},
        inputs | {"app.py": Symlink("wheels/0000")},
        inputs | {"runtime": EMPTY_TREE},
    ]
    keys = [compute(ACTION, variant, bench.store).digest for variant in variants]
    keys += [compute(ACTION, inputs, bench.store, salt).digest for salt in (b"1", b"2")]
    assert len(set(keys)) == len(keys)


def test_a_fixed_output_is_its_sha256_and_nothing_else(bench: Bench) -> None:
    sha256 = Digest.of(b"wheel").hash
    one = make("fetch/a.whl", mnemonic="Fetch", scope=Scope.FIXED_OUTPUT, fixed=sha256)
    other = make(
        "fetch/b.whl", mnemonic="Download", version=9, params={"url": "mirror"}, environment={"A": "b"},
        platform={"tool:uv": "1"}, inputs={"x": Literal(b"x")}, scope=Scope.FIXED_OUTPUT, fixed=sha256,
    )  # fmt: skip
    key = compute(one, {}, bench.store)
    assert compute(other, inputs_of(bench), bench.store) == key
    action = decode_action(key.action)
    assert decode_command(key.command).arguments == ("fixed-output", f"sha256:{sha256}")
    assert action.input_root_digest == EMPTY
    assert action.platform == ()
    assert compute(changed(scope=Scope.FIXED_OUTPUT, fixed="0" * 64), {}, bench.store).digest != key.digest


@pytest.mark.parametrize("value", [1.0, None, {"a": [None]}, {"a": {1: "x"}}, b"bytes", Path("p"), {"a", "b"}])
def test_what_has_no_canonical_text_is_a_defect(value: Any) -> None:
    with pytest.raises(InternalError, match="params"):
        canonical_json({"x": value})


def test_where_a_bad_parameter_is() -> None:
    with pytest.raises(InternalError, match=r"params\.a\.b\[1\]: float has no canonical text"):
        canonical_json({"a": {"b": [1, 2.5]}})  # type: ignore[list-item] # on purpose


def test_canonical_text() -> None:
    assert canonical_json({"b": [True, 1, "é"], "a": {}}) == '{"a":{},"b":[true,1,"é"]}'
    assert canonical_json({"\ue000": 1, "\U0001f40d": 2}) == '{"\ue000":1,"\U0001f40d":2}'
