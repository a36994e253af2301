"""request: what enters the key, and what must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from strata_engine.action import SourceTree
from strata_engine.key import canonical_json
from strata_rules.lock.request import Request, WheelFolder, inputs, wheel_sources
from strata_rules.spec.uvconfig import LayerUvConfig, UvIndex


def request(root: str = "/stack", **changes: Any) -> Request:
    config = LayerUvConfig(
        root=Path(root),
        settings={"find-links": ["wheels", "https://u:p@links.invalid/"]},
        indexes=(UvIndex(url="https://user:hunter2@host.invalid/simple", name="own"), UvIndex(url="local")),
        sources={},
    )
    base = Request(
        layer="app-x",
        requirements=("b", "a>=1,<2"),
        python="3.11",
        platforms=("win_amd64", "linux_x86_64"),
        linux_target="glibc@2.28",
        macosx_target="13.0",
        uv=config,
    )
    return msgspec.structs.replace(base, **changes)


def text(made: Request) -> str:
    return canonical_json(made.params())


def test_the_key_does_not_know_the_machine_or_the_user() -> None:
    assert text(request("/stack")) == text(request("/home/other/place"))
    assert "hunter2" not in text(request())
    assert "/stack" not in text(request())
    assert "u:p" not in text(request())


def test_declared_order_does_not_matter_but_content_does() -> None:
    same = request(requirements=("a<2,>=1", "b"), platforms=("linux_x86_64", "win_amd64"))
    assert text(same) == text(request())
    changes: tuple[dict[str, Any], ...] = (
        {"requirements": ("b",)},
        {"python": "3.12"},
        {"platforms": ("linux_x86_64",)},
        {"linux_target": "glibc@2.34"},
        {"implementation": "pypy"},
        {"layer": "app-y"},
    )
    assert len({text(request(**change)) for change in changes} | {text(request())}) == len(changes) + 1


def test_a_target_that_no_platform_has_does_not_matter() -> None:
    assert text(request(macosx_target="14.0")) == text(request())


def test_a_layer_without_requirements_depends_on_little() -> None:
    bare = request(requirements=(), linux_target="glibc@2.34", platforms=())
    assert bare.params() == {"layer": "app-x", "python": "3.11", "requirements": []}


def test_wheel_sources_are_flat_and_local_indexes_are_deep() -> None:
    folders = wheel_sources(request(), {"UV_FIND_LINKS": "/more"})
    assert folders == (
        WheelFolder(Path("/stack/wheels")),
        WheelFolder(Path("/stack/local"), deep=True),
        WheelFolder(Path("/more")),
    )
    named = inputs(folders, [("cpython", SourceTree("x")), ("framework-a", SourceTree("y"))])
    assert list(named)[:2] == ["pins/0000-cpython.json", "pins/0001-framework-a.json"]
    flat, deep = (named[f"wheels/{number:04}"] for number in (0, 1))
    assert isinstance(flat, SourceTree)
    assert isinstance(deep, SourceTree)
    assert flat.accept is not None
    assert deep.accept is not None
    assert (flat.accept("sub", True), flat.accept("a.whl", False), flat.accept("a.txt", False)) == (False, True, False)
    assert deep.accept("sub", True)


def test_a_wheel_is_found_in_its_folder_by_url() -> None:
    folder = WheelFolder(Path("/my wheels"))
    assert folder.file("file:///my%20wheels/a-1.0-py3-none-any.whl") == "a-1.0-py3-none-any.whl"
    assert folder.file("file:///other/a-1.0-py3-none-any.whl") is None
    assert folder.file("https:///my%20wheels/a-1.0-py3-none-any.whl") is None
