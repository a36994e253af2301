"""parts: each part of a request, when it changes, is named, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from strata_rules.lock.parts import Parts, changes, parts_of
from strata_rules.lock.request import Request
from strata_rules.spec.uvconfig import LayerUvConfig, UvIndex

ONE = UvIndex(name="one", url="https://one.invalid/simple")
TWO = UvIndex(name="two", url="https://two.invalid/simple", explicit=True)
PLAIN = UvIndex(url="https://plain.invalid/simple")
BELOW = [("python", b"pins"), ("framework-a", b"more pins")]


def parts(
    variables: dict[str, str] | None = None, below: list[tuple[str, bytes]] | None = None, **changed: Any
) -> Parts:
    uv_fields = {name: value for name, value in changed.items() if name in LayerUvConfig.__struct_fields__}
    config = LayerUvConfig(
        root=Path("/stack"),
        settings={"resolution": "highest", "no-build": True},
        indexes=(ONE, TWO, PLAIN),
        sources={"torch": "two"},
    )
    request = Request(
        layer="app-x",
        requirements=("torch",),
        python="3.11",
        platforms=("linux_x86_64", "macosx_arm64"),
        linux_target="glibc@2.28",
        macosx_target="13.0",
        uv=msgspec.structs.replace(config, **uv_fields),
    )
    others = {name: value for name, value in changed.items() if name not in uv_fields}
    request = msgspec.structs.replace(request, **others)
    return parts_of(request, {"UV_INDEX": "https://x.invalid"} if variables is None else variables, below or BELOW)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"python": "3.12"}, "it was locked for cpython 3.11, and this is cpython 3.12"),
        ({"implementation": "pypy"}, "it was locked for cpython 3.11, and this is pypy 3.11"),
        (
            {"platforms": ("win_amd64", "macosx_arm64", "linux_x86_64")},
            "its platforms were `linux_x86_64`, `macosx_arm64` and are `linux_x86_64`, `macosx_arm64`, `win_amd64`",
        ),
        ({"linux_target": "glibc@2.35"}, "its `linux_target` was `glibc@2.28` and is `glibc@2.35`"),
        ({"macosx_target": "14.0"}, "its `macosx_target` was `13.0` and is `14.0`"),
        ({"settings": {"resolution": "lowest"}}, "uv's setting `resolution` has changed"),
        ({"settings": {}}, "uv's setting `resolution` is gone"),
        ({"settings": {"resolution": "highest", "prerelease": "allow"}}, "uv's setting `prerelease` is new"),
        ({"indexes": (ONE, PLAIN, TWO)}, None),
        ({"indexes": (TWO, ONE, PLAIN)}, "the indexes are asked in another order: `two`, `one`, `#3`"),
        ({"indexes": (ONE, TWO)}, "the index `#3` is gone"),
        (
            {"indexes": (ONE, msgspec.structs.replace(TWO, url="https://three.invalid"), PLAIN)},
            "the index `two` has changed",
        ),
        ({"sources": {"torch": "one"}}, "`torch` came from the index `two` and comes from the index `one`"),
        ({"sources": {}}, "`torch` came from the index `two` and comes from no index of its own"),
        ({"variables": {"UV_INDEX": "https://y.invalid"}}, "the variable `UV_INDEX` has changed"),
        ({"below": [("python", b"pins"), ("framework-a", b"")]}, "`framework-a` below it has other packages now"),
        ({"below": [*BELOW, ("framework-b", b"")]}, "`framework-b` is below it now"),
        ({"below": BELOW[:1]}, "`framework-a` is no longer below it"),
        ({"below": BELOW[::-1]}, "the layers below it have another order: `framework-a`, `python`"),
    ],
)
def test_what_has_changed_is_named(changed: dict[str, Any], said: str | None) -> None:
    found = changes(parts(), parts(**changed))
    assert found == [said] if said is not None else len(found) == 2
    assert changes(parts(**changed), parts(**changed)) == []


def test_a_layer_without_requirements_depends_on_its_python_alone() -> None:
    empty = parts(requirements=())
    assert empty == parts(requirements=(), platforms=(), settings={}, below=[("other", b"")])
    assert changes(empty, parts(requirements=(), python="3.12")) != []


def test_no_secret_and_no_path_of_a_machine_is_recorded() -> None:
    secret = UvIndex(name="one", url="https://user:hunter2@one.invalid/simple?token=hunter2")
    found = parts(indexes=(secret, PLAIN), settings={"find-links": ["/stack/wheels"]})
    text = msgspec.json.encode(found).decode()
    assert "hunter2" not in text
    assert "/stack" not in text
    other = UvIndex(name="one", url="https://user:another@one.invalid/simple?token=another")
    assert changes(found, parts(indexes=(other, PLAIN), settings={"find-links": ["/stack/wheels"]})) == []


def test_what_a_hostile_record_says_is_only_compared() -> None:
    hostile = msgspec.structs.replace(parts(), indexes=("", " ", "one", "x y z"), below=("",))
    assert changes(hostile, parts())
