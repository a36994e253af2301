"""Where a person finds what an action is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata_engine.action import Action
from strata_engine.digest import Digest
from strata_engine.tree import EMPTY_TREE
from strata_rules.origins import annotator
from strata_rules.runtime.choose import Chosen, LocalChoice, PbsChoice
from strata_rules.spec.load import load_stack

STACK = """
[[runtimes]]
name = "rt"
python_implementation = "cpython@3.12.9"
requirements = []

[[frameworks]]
name = "up"
runtime = "rt"
versioned = true
package_indexes = { alpha = "own" }
requirements = ["alpha"]

[[applications]]
name = "web"
frameworks = ["up"]
launch_module = "web.py"
macosx_target = "14"
requirements = []
"""
UV = '[[index]]\nname = "own"\nurl = "https://index.invalid/simple"\nexplicit = true\n'
HOST = "linux_x86_64"
PBS = PbsChoice(version="3.12.9", url="", urls=(), sha256="0" * 64)
LOCAL = LocalChoice(version="3.12.9", identity="x", tree=Digest.of(b""), find=lambda: pytest.fail("not looked for"))


def annotated(folder: Path, label: str, mnemonic: str, *, chosen: Chosen = PBS, inline: bool = False) -> Action:
    (folder / "stack.toml").write_text(STACK + (UV.replace("[[index]]", "[[tool.uv.index]]") if inline else ""))
    (folder / "venvstacks.uv.toml").write_text(UV)
    (folder / "web.py").touch()
    stack = load_stack(folder / "stack.toml", Path.read_bytes)
    annotate = annotator(stack, {("rt", HOST): chosen, ("rt", "win_amd64"): PBS}, HOST)
    return annotate(Action(label=label, mnemonic=mnemonic, version=1, run=lambda execution: EMPTY_TREE))


def test_a_lock_is_made_of_what_its_layer_and_uvs_settings_say(tmp_path: Path) -> None:
    up = annotated(tmp_path, "framework-up/lock", "Lock")
    assert dict(up.origins) == {
        "requirements": "stack.toml#frameworks.up.requirements",
        "platforms": "stack.toml#runtimes.rt.platforms",
        "linux_target": "stack.toml#frameworks.up.linux_target",
        "macosx_target": "$MACOSX_DEPLOYMENT_TARGET",
        "python": "stack.toml#runtimes.rt.python_implementation",
        "implementation": "stack.toml#runtimes.rt.python_implementation",
        "uv.settings": "venvstacks.uv.toml",
        "uv.index": "venvstacks.uv.toml#index",
        "uv.sources": "venvstacks.uv.toml#sources",
        "uv.sources.alpha": "stack.toml#frameworks.up.package_indexes.alpha",
    }
    web = annotated(tmp_path, "app-web/lock", "Lock", chosen=LOCAL, inline=True)
    assert web.origins["uv.index"] == "stack.toml#tool.uv.index"
    assert web.origins["uv.settings"] == "stack.toml#tool.uv"
    assert web.origins["macosx_target"] == "stack.toml#applications.web.macosx_target"
    assert web.origins["python"] == "requirements/rt/runtime.rt.json", "a captured Python is pinned there"


def test_what_layers_have_from_below_is_written_there(tmp_path: Path) -> None:
    web = annotated(tmp_path, "app-web/lock", "Lock")
    assert web.origins["uv.sources.alpha"] == "stack.toml#frameworks.up.package_indexes.alpha"
    assert web.presence == "requirements"
    assert web.members == {"pins": "stack.toml#applications.web.frameworks"}
    assert annotated(tmp_path, "framework-up/link", "Link").members == {"lower": "stack.toml#frameworks.up.runtime"}


def test_versions_and_orders_come_from_locks(tmp_path: Path) -> None:
    assert annotated(tmp_path, "framework-up/install", "Install").derived == {"order": "framework-up/lock"}
    link = annotated(tmp_path, "app-web/link", "Link")
    assert link.derived == {"install_targets.framework-up": "framework-up/lock"}
    assert link.origins["lower"] == "stack.toml#applications.web.frameworks"
    assert link.origins["install_targets.framework-up"] == "stack.toml#frameworks.up.versioned"
    assert link.origins["install_targets.app-web"] == "stack.toml#applications.web.versioned"
    for details, of in (("", ""), ("[zip]", ""), ("[win_amd64,tar.xz]", "[win_amd64]")):
        archive = annotated(tmp_path, f"framework-up/archive{details}", "Archive")
        assert archive.derived == {"prefix": f"framework-up/link{of}"}


def test_each_platform_has_its_own_runtime(tmp_path: Path) -> None:
    here = annotated(tmp_path, "rt/capture", "Capture", chosen=LOCAL)
    there = annotated(tmp_path, "rt/unpack[win_amd64]", "Unpack", chosen=LOCAL)
    assert here.origins == {"version": "requirements/rt/runtime.rt.json"}
    assert there.origins == {"version": "stack.toml#runtimes.rt.python_implementation"}


def test_what_belongs_to_no_layer_comes_from_nowhere(tmp_path: Path) -> None:
    wheel = annotated(tmp_path, "wheel/alpha-1-py3-none-any.whl", "Wheel")
    assert (wheel.origins, wheel.derived) == ({}, {})
