"""What options select, against venvstacks' documented rules; the end-to-end tests compare with the tool itself."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from strata_engine.errors import SpecError
from strata_rules.selection import Wish, Wishes, select
from strata_rules.spec.load import Stack, load_stack

STACK = """\
[[runtimes]]
name = "py"
python_implementation = "cpython@3.12.9"
requirements = []
[[frameworks]]
name = "low"
runtime = "py"
requirements = []
[[frameworks]]
name = "up"
frameworks = ["low"]
requirements = []
[[frameworks]]
name = "win"
runtime = "py"
requirements = []
platforms = ["win_amd64"]
[[frameworks]]
name = "off"
runtime = "py"
requirements = []
platforms = []
[[applications]]
name = "one"
frameworks = ["up"]
requirements = []
launch_module = "one.py"
[[applications]]
name = "b[x]"
runtime = "py"
requirements = []
launch_module = "two.py"
"""

HOST = ("linux_x86_64",)
LOCK = Wishes(lock=Wish.YES)
BUILD = Wishes(lock=Wish.NO, build=Wish.YES, publish=True)
PUBLISH = Wishes(publish=True)


@pytest.fixture(scope="module")
def stack() -> Stack:
    return load_stack(Path("stack.toml"), lambda path: STACK.encode(), probe=lambda path: False, env={})


def wish(base: Wishes, *include: str, reset: tuple[str, ...] = (), lock: Wish | None = None, **more: object) -> Wishes:
    return msgspec.structs.replace(base, include=include, reset_lock=reset, lock=lock or base.lock, **more)


IF_NEEDED = "lock-if-needed build-if-needed"
DERIVED = {"build_derived": True, "publish_derived": True}
BELOW = {"build_dependencies": True, "publish_dependencies": True}

CASES = {
    "all layers but disabled ones; what is for other platforms is only locked": (
        wish(BUILD, lock=Wish.IF_NEEDED),
        {
            "py": "lock-if-needed build publish",
            "framework-low": "lock-if-needed build publish",
            "framework-up": "lock-if-needed build publish",
            "framework-win": "lock-if-needed",
            "app-one": "lock-if-needed build publish",
            "app-b[x]": "lock-if-needed build publish",
        },
    ),
    "what stands on a layer that is locked is locked again": (
        wish(LOCK, "framework-low"),
        {"py": IF_NEEDED, "framework-low": "lock", "framework-up": "lock", "app-one": "lock"},
    ),
    "but not where locks are only to be valid": (
        wish(LOCK, "framework-low", lock=Wish.IF_NEEDED),
        {"py": IF_NEEDED, "framework-low": "lock-if-needed"},
    ),
    "dependencies are locked on request": (
        wish(LOCK, "app-one", lock_dependencies=True),
        {
            "py": "lock build-if-needed",
            "framework-low": "lock build-if-needed",
            "framework-up": "lock build-if-needed",
            "app-one": "lock",
        },
    ),
    "dependencies of what is built are built if needed, and not published": (
        wish(BUILD, "app-one"),
        {"py": IF_NEEDED, "framework-low": IF_NEEDED, "framework-up": IF_NEEDED, "app-one": "build publish"},
    ),
    "or as if they were included": (
        wish(BUILD, "framework-up", **BELOW),
        {
            "py": "lock-if-needed build publish",
            "framework-low": "lock-if-needed build publish",
            "framework-up": "build publish",
        },
    ),
    "dependencies that are not built are not published": (
        wish(BUILD, "framework-low", publish_dependencies=True),
        {"py": IF_NEEDED, "framework-low": "build publish"},
    ),
    "unless nothing is built": (
        wish(BUILD, "framework-low", build=Wish.NO, publish_dependencies=True),
        {"py": "lock-if-needed build-if-needed publish", "framework-low": "publish"},
    ),
    "what stands on included layers is built and published on request": (
        wish(BUILD, "framework-low", **DERIVED),
        {
            "py": IF_NEEDED,
            "framework-low": "build publish",
            "framework-up": "build publish",
            "app-one": "build publish",
        },
    ),
    "and not published where it is not built": (
        wish(BUILD, "framework-low", publish_derived=True),
        {"py": IF_NEEDED, "framework-low": "build publish"},
    ),
    "publishing has dependents and dependencies too": (
        wish(PUBLISH, "framework-up", publish_dependencies=True, publish_derived=True),
        {
            "py": "lock-if-needed build-if-needed publish",
            "framework-low": "lock-if-needed build-if-needed publish",
            "framework-up": "publish",
            "app-one": "publish",
        },
    ),
    "only what is locked loses its lock": (
        wish(LOCK, "framework-up", reset=("*",)),
        {
            "py": IF_NEEDED,
            "framework-low": IF_NEEDED,
            "framework-up": "reset-lock lock",
            "app-one": "reset-lock lock",
        },
    ),
    "dependencies only where their locks are asked for": (
        wish(LOCK, "framework-up", reset=("py", "framework-low"), lock_dependencies=True),
        {
            "py": "reset-lock lock build-if-needed",
            "framework-low": "reset-lock lock build-if-needed",
            "framework-up": "lock",
            "app-one": "lock",
        },
    ),
    "a name with brackets is a name": (
        wish(BUILD, "app-b[x]"),
        {"py": IF_NEEDED, "app-b[x]": "build publish"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wanted_of_each_layer(stack: Stack, case: str) -> None:
    wishes, expected = CASES[case]
    found = select(stack, wishes, HOST)
    assert {name: " ".join(chosen.operations) for name, chosen in found.layers.items()} == expected
    assert list(found.layers) == [layer.env_name for layer in stack.layers if layer.env_name in expected]


def test_other_platforms_are_built_where_they_are_asked_for(stack: Stack) -> None:
    assert select(stack, BUILD, ("win_amd64",)).layers["framework-win"].operations == ("build", "publish")


def test_whose_locks_are_made_anew(stack: Stack) -> None:
    found = select(stack, wish(LOCK, "framework-up", reset=("app-one",)), HOST)
    assert found.anew() == {"app-one"}
    # What is only below is locked if needed, and keeps its versions.
    assert found.anew(upgrade=True) == {"framework-up", "app-one"}
    assert found.locked() == ["py", "framework-low", "framework-up", "app-one"]
    # Where nothing is locked, nothing is reset.
    assert select(stack, wish(BUILD, reset=("*",)), HOST).anew() == frozenset()


@pytest.mark.parametrize(
    ("wishes", "message", "hint"),
    [
        (
            wish(LOCK, "framework-low", "app-one"),
            "`framework-up` is above an included layer and below another: unclear whether to lock it",
            "include it too, or give `--lock-dependencies`",
        ),
        (
            wish(BUILD, "framework-low", "app-one", build_derived=True),
            "`framework-up` is above an included layer and below another: unclear whether to build it",
            "include it too, or give `--build-dependencies` and `--build-derived` or neither",
        ),
        (
            wish(PUBLISH, "framework-low", "app-one", publish_derived=True),
            "`framework-up` is above an included layer and below another: unclear whether to publish it",
            "include it too, or give `--publish-dependencies` and `--publish-derived` or neither",
        ),
    ],
)
def test_conflicting_wishes(stack: Stack, wishes: Wishes, message: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        select(stack, wishes, HOST)
    [found] = caught.value.diagnostics
    assert (found.id, found.message, found.hint) == ("conflicting-selection", message, hint)
    assert found.place is not None
    # Included itself, there is no doubt.
    select(stack, msgspec.structs.replace(wishes, include=(*wishes.include, "framework-up")), HOST)


def test_patterns_that_match_nothing(stack: Stack) -> None:
    wishes = wish(LOCK, "zzz*", "up", "framework-off", "app-one", reset=("app-on",))
    with pytest.raises(SpecError) as caught:
        select(stack, wishes, HOST)
    assert [(each.message, each.hint) for each in caught.value.diagnostics] == [
        (
            "no layer matches `zzz*`",
            "layers are `py`, `framework-low`, `framework-up`, `framework-win`, `app-one`, `app-b[x]`",
        ),
        ("no layer matches `up`", "did you mean `framework-up`?"),
        ("`framework-off` matches only layers without a platform, such as `framework-off`", "give them a platform"),
        ("no layer matches `app-on`", "did you mean `app-one`?"),
    ]
    found = select(stack, wish(LOCK, "zzz*", "app-one", allow_missing=True), HOST)
    assert found.layers["app-one"].operations == ("lock",)
    assert [(each.severity, each.message) for each in found.warnings] == [("warning", "no layer matches `zzz*`")]
    # What matches nothing includes nothing: it must not fall back to all.
    assert not select(stack, wish(LOCK, "zzz*", allow_missing=True), HOST).layers
