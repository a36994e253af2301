"""Layers for macOS, built where this runs: whose dylibs are offered, needed, linked and missed."""

from __future__ import annotations

from pathlib import Path

import machfiles as mach
from deployed import layer, stack, table
from runtimes import foreign_archive
from space import Space

VERSION, SITE = "3.12.7", "lib/python3.12/site-packages"
MAC = "macosx_arm64"


def test_dylibs_of_lower_layers_are_linked_and_preloaded(empty: Space, tmp_path: Path) -> None:
    archive, sha256 = foreign_archive(tmp_path, MAC, VERSION)
    foo = mach.fat(
        *((machine, mach.library("@rpath/libfoo.1.dylib", machine=machine)) for machine in (mach.X86_64, mach.ARM64))
    )
    empty.wheel("foo", {"foo/lib/libfoo.1.dylib": foo, "foo/lib/libgone.dylib": mach.library("@rpath/libgone.dylib")},
                tag="py3-none-macosx_11_0_universal2")  # fmt: skip
    bar = mach.library("@rpath/libbar.dylib", "@rpath/libfoo.1.dylib", "/usr/lib/libSystem.B.dylib")
    empty.wheel("bar", {"bar/.dylibs/libbar.dylib": bar}, tag="py3-none-macosx_11_0_arm64")
    extension = mach.library("", "@rpath/libbar.dylib", "@rpath/libgone.dylib", weak=["@rpath/libmaybe.dylib"])
    own = mach.library("", "@rpath/libfoo.1.dylib", rpath=["@loader_path/.dylibs"])
    files = {
        "pkg/_e.cpython-312-darwin.so": extension,
        "pkg/_own.cpython-312-darwin.so": own,
        "pkg/.dylibs/libfoo.1.dylib": mach.library("/DLC/pkg/.dylibs/libfoo.1.dylib"),
    }
    empty.wheel("pkg", {**files, "pkg/__init__.py": b""}, tag="cp312-cp312-macosx_11_0_arm64")
    empty.write("start.py", "")
    runtime = layer("runtime", "python", python_implementation=f"cpython@{VERSION}", platforms=[MAC])
    source = {"provider": "archive", "url": {MAC: archive.as_uri()}, "sha256": {MAC: sha256}}
    empty.write(
        "venvstacks.toml",
        stack(
            runtime,
            table('tool.strata.runtimes."python"', **source),
            layer("framework", "foo", "foo", runtime="python", dynlib_exclude=["foo/**/libgone.*"]),
            layer("framework", "bar", "bar", frameworks=["foo"], versioned=True),
            layer("application", "start", "pkg", frameworks=["bar"], launch_module="start.py"),
        ),
    )
    built = empty.ok("build", "--platform", MAC)
    place = empty.root / "_build" / MAC
    links = place / "framework-foo/share/venv/dynlib"
    assert {path.name: path.resolve().relative_to(place.resolve()).as_posix() for path in links.iterdir()} == {
        "libfoo.1.dylib": f"framework-foo/{SITE}/foo/lib/libfoo.1.dylib"
    }
    boot = (place / "app-start" / SITE / "_strata_boot.py").read_text()
    needs = boot[boot.index("_NEEDS = {") : boot.index("_root =")]
    assert needs == (
        "_NEEDS = {\n    'pkg._e': (\n"
        f"        'framework-foo/{SITE}/foo/lib/libfoo.1.dylib',\n"
        f"        'framework-bar@1/{SITE}/bar/.dylibs/libbar.dylib',\n"
        "    ),\n}\n"
    ), "what has its own library beside it needs nothing of ours"
    assert (
        "warning[unresolved-library]: `app-start` needs `@rpath/libgone.dylib`, which no layer offers" in built.stderr
    )
    assert "`dynlib_exclude` has `foo/**/libgone.*`" in built.stderr
    assert "libmaybe" not in built.stderr
