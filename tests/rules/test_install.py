"""Install: what uv installs from the same wheels, as a merge of trees."""

from __future__ import annotations

import os
import posixpath
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import uv
from conftest import uv_environ

from strata_engine.action import Ref
from strata_engine.errors import SpecError
from strata_engine.tree import File, Symlink, Tree, assemble, entries, lookup
from strata_rules import platforms, pylock
from strata_rules.contents import InstalledPackage, Library, decode
from strata_rules.download.client import Network
from strata_rules.layout import layout
from strata_rules.wheel.fetch import Access, fetch_action
from strata_rules.wheel.install import install_action
from strata_rules.wheel.unpack import wheel_action

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE = f"lib/python{PYTHON}/site-packages"

LISTED = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "RECORD")
"""What differs from uv on purpose; strata_rules.wheel.install says why."""

STACKS = {
    "compiled": ["numpy==2.3.2", "zope.interface==7.2"],
    "scripts, data and headers": [
        "greenlet==3.2.4",
        "jmespath==1.0.1",
        "jupyterlab-widgets==3.0.15",
        "ninja==1.13.0",
        "pygments==2.19.2",
    ],
    "namespaces": [
        "sphinxcontrib-jsmath==1.0.1",
        "sphinxcontrib-devhelp==1.0.2",
        "zope.event==4.6",
        "zope.interface==6.0",
    ],
}


def run_uv(*arguments: str | Path, cache: Path) -> None:
    command = [uv.find_uv_bin(), *map(str, arguments), "--quiet", "--cache-dir", str(cache), "--no-config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=uv_environ())
    assert done.returncode == 0, done.stderr


def install(bench, wheels: Iterable[Path], **options) -> Tree:
    """Unpack and install wheels given as files, in this order."""
    inputs = []
    for file in wheels:
        bench.outputs[f"fetch/{file.name}"] = File(bench.store.put(file.read_bytes()))
        bench.run(wheel_action(f"wheel/{file.name}", file.name, Ref(f"fetch/{file.name}")))
        name = pylock.parse_wheel_filename(file.name)[0]
        inputs.append((name, Ref(f"wheel/{file.name}")))
    platform = options.pop("platform", "linux_x86_64")
    options.setdefault("ignores_case", not platform.startswith("linux"))
    options.setdefault("windows", platform if platform.startswith("win") else "")
    action = install_action("layer/install", wheels=inputs, layout=layout(platform, PYTHON), python=PYTHON, **options)
    made = bench.run(action)
    assert isinstance(made, Tree)
    return made


def read(bench, tree: Tree, path: str) -> bytes:
    node = lookup(bench.store, tree, path)
    assert isinstance(node, File), path
    return bench.store.get(node.digest)


def files(bench, tree: Tree) -> dict[str, tuple[bytes, bool]]:
    """Give the files of the layer with their executable bit."""
    layer = lookup(bench.store, tree, "tree")
    assert isinstance(layer, Tree)
    found = entries(bench.store, layer)
    return {path: (bench.store.get(n.digest), n.executable) for path, n in found if isinstance(n, File)}


def on_disk(folder: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & 0o111))
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def listed(path: str) -> bool:
    """Tell whether a path is a listed file of a distribution, not of one that a wheel carries inside as content."""
    folder, _, name = path.removeprefix(f"{SITE}/").rpartition("/")
    return folder.endswith(".dist-info") and "/" not in folder and name in LISTED


def rows(record: bytes) -> list[str]:
    """Give the rows of a RECORD without those of the listed files."""
    lines = record.decode().splitlines()
    return sorted(line for line in lines if not listed(line.split(",")[0]))


def reference(folder: Path, *batches: Iterable[Path]) -> dict[str, tuple[bytes, bool]]:
    """Install with uv into a fresh environment, a batch after the other, and give what that added."""
    venv, cache = folder / "venv", folder / "cache"
    run_uv("venv", "--relocatable", "--python", sys.executable, venv, cache=cache)
    before = on_disk(venv)
    for batch in batches:
        python = venv / "bin" / "python"
        run_uv("pip", "install", "--python", python, "--no-deps", "--link-mode", "copy", *batch, cache=cache)
    before[".lock"] = (b"", False)
    return {path: file for path, file in on_disk(venv).items() if path not in before}


def assert_equal_but_for_listed(
    ours: Mapping[str, tuple[bytes, bool]], theirs: Mapping[str, tuple[bytes, bool]], *, scripts: bool
) -> None:
    kept = {path for path in theirs if scripts or not path.startswith("bin/")}
    assert {p for p in ours if not listed(p)} == {p for p in kept if not listed(p)}
    assert [p for p in kept if not listed(p) and ours[p] != theirs[p]] == []
    records = [path for path in kept if listed(path) and path.endswith("/RECORD")]
    assert records
    for path in records:
        # uv goes on listing a script that it left out in favour of an entry point; a RECORD should not.
        there = [row for row in rows(theirs[path][0]) if posixpath.normpath(f"{SITE}/{row.split(',')[0]}") in kept]
        assert rows(ours[path][0]) == there
    assert {p.rpartition("/")[2] for p in ours if listed(p)} == {"INSTALLER", "RECORD"}


@pytest.mark.skipif(sys.platform != "linux", reason="the wheels are chosen for a Linux host")
@pytest.mark.parametrize("stack", STACKS)
def test_a_layer_equals_what_uv_installs(bench, tmp_path, stack):
    lock = tmp_path / "pylock.toml"
    (tmp_path / "requirements.in").write_text("\n".join(STACKS[stack]))
    run_uv(
        *("pip", "compile", "--format", "pylock.toml", "--no-build", "--python", sys.executable),
        *("-o", lock, tmp_path / "requirements.in"),
        cache=tmp_path / "cache",
    )
    selected = pylock.select(
        pylock.parse(lock.read_bytes(), "pylock.toml"),
        platform=platforms.host_platform(),
        python_version=".".join(map(str, sys.version_info[:3])),
        linux_target="glibc@2.28",
        macosx_target="13.0",
    )
    wheels = []
    (tmp_path / "wheels").mkdir()
    for wheel in selected:
        access = Access(Network(), tmp_path / "parts", tmp_path)
        fetched = bench.run(fetch_action(wheel, f"fetch/{wheel.file}", lock_folder=tmp_path, access=access))
        wheels.append(tmp_path / "wheels" / wheel.file)
        bench.store.export(fetched.digest, wheels[-1])
    theirs = reference(tmp_path, wheels)
    assert_equal_but_for_listed(files(bench, install(bench, wheels)), theirs, scripts=False)
    assert_equal_but_for_listed(files(bench, install(bench, wheels, entry_points=True)), theirs, scripts=True)
    assert not [warning for warning in bench.warnings if warning.id == "wheel-conflict"]


def test_modes_and_schemes_equal_uv(bench, make_wheel, tmp_path):
    tiny = make_wheel(
        "tiny",
        {
            "tiny/__init__.py": b"def main():\n    print('tiny')\n",
            "tiny/group.sh": b"#!/bin/sh\n",
            "tiny/odd mode": b"",
            "tiny.pth": b"import os\n",
            "other-1.0.data/data/x": b"not ours",
            "tiny-1.0.data/platlib/tiny_native.py": b"",
            "tiny-1.0.data/purelib/tiny_pure.py": b"",
            "tiny-1.0.data/data/etc/run": b"",
            "tiny-1.0.data/data/bin/program": b"\x7fELF",
            "tiny-1.0.data/data/bin/text": b"#!python\n",
            "tiny-1.0.data/data/bin/deep/er": b"",
            "tiny-1.0.data/headers/sub/tiny.h": b"",
            "tiny-1.0.data/scripts/with-args": b"#!python -u\nprint(1)\n",
            "tiny-1.0.data/scripts/windowed": b"#!pythonw\nprint(1)\n",
            "tiny-1.0.data/scripts/native": b"\x7fELF",
            "tiny-1.0.data/scripts/tiny-script.py": b"#!python\n",
            "tiny-1.0.dist-info/entry_points.txt": (
                b"[console_scripts]\ntiny = tiny:main\n[gui_scripts]\nwin = tiny:a.b\n"
            ),
        },
        modes={
            "tiny/group.sh": 0o100610,
            "tiny/odd mode": 0o755,
            "tiny-1.0.data/data/etc/run": 0o100755,
            "tiny-1.0.data/data/bin/program": 0o100755,
        },
    )
    theirs = reference(tmp_path, [tiny])
    assert_equal_but_for_listed(files(bench, install(bench, [tiny], entry_points=True)), theirs, scripts=True)
    assert_equal_but_for_listed(files(bench, install(bench, [tiny])), theirs, scripts=False)


def test_where_wheels_conflict_the_later_wins_as_with_uv(bench, make_wheel, tmp_path):
    first = make_wheel("first", {"shared/__init__.py": b"1", "shared/same.py": b"=", "shared/one.py": b""})
    second = make_wheel("second", {"shared/__init__.py": b"2", "shared/same.py": b"=", "shared/two.py": b""})
    made = install(bench, [first, second])
    ours, theirs = files(bench, made), reference(tmp_path, [first], [second])
    assert {p: f for p, f in ours.items() if not listed(p)} == {p: f for p, f in theirs.items() if not listed(p)}
    assert ours[f"{SITE}/shared/__init__.py"][0] == b"2"
    (warning,) = bench.warnings
    assert (warning.id, warning.severity) == ("wheel-conflict", "warning")
    assert warning.message == f"`first` and `second` both install `{SITE}/shared/__init__.py`, with different content"
    # Both list the file, and both with the hash that it has.
    lines = [set(ours[f"{SITE}/{name}-1.0.dist-info/RECORD"][0].splitlines()) for name in ("first", "second")]
    assert any(row.startswith(b"shared/__init__.py,") for row in lines[0] & lines[1])

    other_order = files(bench, install(bench, [second, first]))
    assert other_order[f"{SITE}/shared/__init__.py"][0] == b"1"


def test_the_last_of_three_wins_even_where_it_equals_the_first(bench, make_wheel):
    wheels = [make_wheel(name, {"shared/__init__.py": data}) for name, data in (("a", b"1"), ("b", b"2"), ("c", b"1"))]
    assert files(bench, install(bench, wheels))[f"{SITE}/shared/__init__.py"][0] == b"1"


def test_conflicts_are_refused_all_at_once_on_request(bench, make_wheel):
    one = make_wheel("one", {"shared/a.py": b"1", "shared/b.py": b"1"})
    two = make_wheel("two", {"shared/a.py": b"2", "shared/b.py": b"2"})
    three = make_wheel("three", {"shared/a.py": b"3"})
    with pytest.raises(SpecError) as caught:
        install(bench, [one, two, three], refuse_conflicts=True)
    assert sorted(d.message for d in caught.value.diagnostics) == [
        f"`one` and `two` both install 2 files, such as `{SITE}/shared/a.py`, with different content",
        f"`two` and `three` both install `{SITE}/shared/a.py`, with different content",
    ]
    assert {d.id for d in caught.value.diagnostics} == {"wheel-conflict"}


def test_a_file_and_a_folder_of_one_name_are_refused(bench, make_wheel):
    wheels = [make_wheel("file", {"thing": b""}), make_wheel("folder", {"thing/a.py": b""})]
    with pytest.raises(SpecError) as caught:
        install(bench, wheels)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.id == "wheel-conflict"
    assert diagnostic.message == f"`file` and `folder` both install `{SITE}/thing`, one as a file and one as a folder"


@pytest.mark.parametrize("platform", ["win_amd64", "macosx_arm64"])
def test_names_that_differ_in_case_are_refused_where_case_does_not_count(bench, make_wheel, platform):
    wheels = [make_wheel("upper", {"Crypto/a.py": b""}), make_wheel("lower", {"crypto/b.py": b""})]
    with pytest.raises(SpecError) as caught:
        install(bench, wheels, platform=platform)
    assert [d.id for d in caught.value.diagnostics] == ["case-clash"]
    assert "Crypto` and `" in caught.value.diagnostics[0].message
    assert f"{SITE}/crypto/b.py" in files(bench, install(bench, wheels))


@pytest.mark.parametrize("platform", ["win_amd64", "win_arm64"])
def test_windows_has_its_own_places_and_programs_for_scripts(bench, make_wheel, tmp_path, platform):
    tiny = make_wheel(
        "tiny",
        {
            "tiny.py": b"import sys\ndef main(): print('called as', sys.argv)\n",
            "tiny-1.0.data/data/Library/bin/tiny.dll": b"MZ library",
            "tiny-1.0.data/scripts/native.exe": b"MZ",
            "tiny-1.0.data/scripts/tool.py": b"#!python\nprint('a tool')\n",
            "tiny-1.0.data/scripts/window": b"#!pythonw -x\nprint('a window')\n",
            "tiny-1.0.data/scripts/batch.bat": b"@echo off\n",
            "tiny-1.0.dist-info/entry_points.txt": (
                b"[console_scripts]\ntiny = tiny:main\n[gui_scripts]\ntinyw = tiny:main\n"
            ),
        },
    )
    plain = files(bench, install(bench, [tiny], platform=platform))
    assert not [path for path in plain if path.startswith("Scripts")]
    made = files(bench, install(bench, [tiny], platform=platform, entry_points=True))
    programs = {f"Scripts/{name}.exe" for name in ("tiny", "tinyw", "tool", "window")}
    assert {path for path in made if ".dist-info" not in path} == programs | {
        "Lib/site-packages/tiny.py",
        "Library/bin/tiny.dll",
        "Scripts/native.exe",
        "Scripts/batch.bat",
    }
    assert bench.warnings == []
    record = made["Lib/site-packages/tiny-1.0.dist-info/RECORD"][0].decode()
    listed = [line.split(",")[0] for line in record.splitlines()]
    assert {"../../Scripts/tiny.exe", "../../Library/bin/tiny.dll"} <= set(listed)
    machine = {"win_amd64": 0x8664, "win_arm64": 0xAA64}[platform]
    for path in programs:
        data = made[path][0]
        at = int.from_bytes(data[0x3C:0x40], "little")
        assert (data[:2], data[at : at + 4], int.from_bytes(data[at + 4 : at + 6], "little")) == (
            b"MZ",
            b"PE\0\0",
            machine,
        )
        starts = "pythonw.exe" if path.endswith("w.exe") else "python.exe"
        assert f"#!<launcher_dir>\\{starts}\nPK".encode() in data
    # The code in a program runs, for Python takes what is appended to it.
    (tmp_path / "tiny.exe").write_bytes(made["Scripts/tiny.exe"][0])
    (tmp_path / "tiny.py").write_bytes(made["Lib/site-packages/tiny.py"][0])
    done = subprocess.run(
        [sys.executable, tmp_path / "tiny.exe", "x"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout == f"called as ['{tmp_path}/tiny', 'x']\n", done.stderr


def test_programs_of_a_runtime_start_the_one_above_them(bench, make_wheel):
    points = b"[console_scripts]\ntiny = tiny:main\n"
    wheel = make_wheel("tiny", {"tiny.py": b"", "tiny-1.0.dist-info/entry_points.txt": points})
    bench.outputs["unpack"] = runtime_tree(bench, "win_amd64")
    made = install(bench, [wheel], platform="win_amd64", entry_points=True, runtime=Ref("unpack"))
    assert b"#!<launcher_dir>\\..\\python.exe\nPK" in files(bench, made)["Scripts/tiny.exe"][0]


def test_names_that_windows_cannot_have_are_refused_there_alone(bench, make_wheel):
    wheel = make_wheel(
        "odd", {"odd/aux.py": b"", "odd/con/x.py": b"", "odd/dot.": b"", "odd/a:b": b"", "odd/auxiliary.py": b""}
    )
    with pytest.raises(SpecError) as caught:
        install(bench, [wheel], platform="win_amd64")
    assert {d.id for d in caught.value.diagnostics} == {"name-on-windows"}
    assert [d.message.partition("cannot have: ")[2] for d in caught.value.diagnostics] == [
        "`a:b` has ':' in it",
        "`aux.py` is the name of a device",
        "`con` is the name of a device",
        "`dot.` ends with a dot",
    ]
    assert caught.value.diagnostics[1].message.startswith("`odd` installs `Lib/site-packages/odd/aux.py`, which")
    for platform in ("linux_aarch64", "macosx_arm64"):
        assert f"{SITE}/odd/aux.py" in files(bench, install(bench, [wheel], platform=platform))


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        ("linux_x86_64", "python3"),
        ("linux_x86_64", "python_"),
        ("linux_x86_64", f"python{PYTHON}"),
        ("macosx_arm64", "Python"),
        ("win_amd64", "python3"),
        ("win_amd64", "PythonW"),
    ],
)
def test_a_script_may_not_replace_the_interpreter(bench, make_wheel, platform, name):
    points = f"[console_scripts]\n{name} = evil:main\n".encode()
    wheel = make_wheel("evil", {"evil-1.0.dist-info/entry_points.txt": points})
    install(bench, [wheel], platform=platform)
    with pytest.raises(SpecError) as caught:
        install(bench, [wheel], entry_points=True, platform=platform)
    assert [d.id for d in caught.value.diagnostics] == ["reserved-script"]


@pytest.mark.parametrize("platform", ["linux_x86_64", "macosx_arm64", "win_amd64"])
@pytest.mark.parametrize("is_runtime", [False, True])
def test_data_reaches_the_folder_of_scripts_only_on_request(bench, make_wheel, platform, is_runtime):
    folder, odd = ("Scripts", "sCRIPTS") if platform.startswith("win") else ("bin", "Bin")
    native = Path(__import__("_ctypes").__file__).read_bytes()
    given = {
        f"tool-1.0.data/data/{folder}/tool": b"a program",
        f"tool-1.0.data/data/{folder}/python-tool": native,
        "tool-1.0.data/data/share/tool": b"",
    }
    wheels = [
        make_wheel("tool", given),
        make_wheel("odd", {f"odd-1.0.data/data/{odd}/odd": b"spelt otherwise"}),
        make_wheel("folder", {f"folder-1.0.data/data/{folder}": b"where a folder is"}),
    ]
    below = {"runtime": Ref("unpack")} if is_runtime else {}
    bench.outputs["unpack"] = runtime_tree(bench, platform)
    same = not platform.startswith("linux")

    def landed(made: Tree) -> set[str]:
        there = files(bench, made)
        rows = set()
        for path in there:
            if path.endswith(".dist-info/RECORD"):
                site = path.rpartition("/")[0].rpartition("/")[0]
                listed = [row.split(",")[0] for row in there[path][0].decode().splitlines()]
                rows |= {posixpath.normpath(posixpath.join(site, name)) for name in listed}
        assert rows <= there.keys()
        return {path for path in rows if path.lower().startswith(f"{folder.lower()}/")}

    def natives(made: Tree) -> set[str]:
        found = decode(read(bench, made, "libraries.json"), list[Library])
        return {entry.path for entry in found if not entry.path.startswith("lib/lib")}

    off = install(bench, wheels, platform=platform, **below)
    assert "share/tool" in files(bench, off)
    assert landed(off) == (set() if same else {"Bin/odd"})
    assert not [path for path in files(bench, off) if path.endswith("tool") and path != "share/tool"]
    assert natives(off) == set()
    on = install(bench, wheels, platform=platform, entry_points=True, **below)
    assert landed(on) == {f"{folder}/tool", f"{folder}/python-tool", f"{folder if same else odd}/odd"}
    assert natives(on) == {f"{folder}/python-tool"}
    assert bench.warnings == []


@pytest.mark.parametrize(
    ("platform", "path"),
    [
        ("linux_x86_64", "bin/python"),
        ("linux_x86_64", "bin/python_"),
        ("linux_x86_64", f"bin/python{PYTHON}"),
        ("linux_x86_64", "bin/python3/nested"),
        ("macosx_arm64", "BIN/PYTHON3"),
        ("win_amd64", "scripts/PythonW.EXE"),
    ],
)
def test_data_may_not_replace_the_interpreter(bench, make_wheel, platform, path):
    wheel = make_wheel("evil", {f"evil-1.0.data/data/{path}": b"evil"})
    sound = make_wheel("sound", {"sound-1.0.data/data/bin/Python": b"", "sound-1.0.data/data/bin/python-config": b""})
    bench.outputs["unpack"] = runtime_tree(bench, platform)
    assert "bin/Python" in files(bench, install(bench, [sound], entry_points=True))
    for below in ({}, {"runtime": Ref("unpack")}):
        # Where nothing of a wheel lands there, nothing is replaced.
        off = files(bench, install(bench, [wheel], platform=platform, **below))
        assert [found for found, (data, _) in off.items() if data == b"evil"] == []
        with pytest.raises(SpecError) as caught:
            install(bench, [wheel], platform=platform, entry_points=True, **below)
        (diagnostic,) = caught.value.diagnostics
        folder, _, name = path.removesuffix("/nested").partition("/")
        expected = f"{'Scripts' if platform.startswith('win') else folder.lower()}/{name}"
        assert diagnostic.id == "reserved-script"
        assert diagnostic.message == f"`evil` installs `{expected}`, which is the layer's interpreter"
        assert diagnostic.hint == "turn `entry_points` off for this layer, or require another version of it"


def test_the_interpreter_at_the_root_of_a_runtime_for_windows_is_nobodys_else(bench, make_wheel):
    wheel = make_wheel("evil", {"evil-1.0.data/data/Python.exe": b"evil", "evil-1.0.data/data/python/x": b""})
    bench.outputs["unpack"] = runtime_tree(bench, "win_amd64")
    with pytest.raises(SpecError) as caught:
        install(bench, [wheel], platform="win_amd64", runtime=Ref("unpack"))
    assert [(d.id, d.message, d.hint) for d in caught.value.diagnostics] == [
        (
            "reserved-script",
            "`evil` installs `Python.exe`, which is the layer's interpreter",
            "leave it out of the runtime layer, or require another version of it",
        )
    ]
    assert "Python.exe" in files(bench, install(bench, [wheel], platform="win_amd64"))


def runtime_tree(bench, platform: str = "linux_x86_64") -> Tree:
    if platform.startswith("win"):
        return assemble(bench.store, {"python.exe": File(bench.store.put(b"MZ"))})
    library = next(Path(path) for path in Path("/proc/self/maps").read_text().split() if path.endswith("libc.so.6"))
    put = bench.store.put
    return assemble(
        bench.store,
        {
            "bin/python3.11": File(put(b"interpreter"), executable=True),
            "bin/python": Symlink("python3.11"),
            "lib/libfake.so.1": File(put(library.read_bytes())),
            f"lib/python{PYTHON}/os.py": File(put(b"")),
            "share/a": File(put(b"runtime's")),
        },
    )


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="takes a library of this process")
def test_a_runtime_layer_is_the_runtime_with_its_packages(bench, make_wheel):
    wheel = make_wheel("tiny", {"tiny.py": b"", "tiny-1.0.data/data/share/a": b"wheel's"})
    bench.outputs["unpack"] = runtime_tree(bench)
    made = install(bench, [wheel], runtime=Ref("unpack"))
    assert lookup(bench.store, made, "tree/bin/python") == Symlink("python3.11")
    assert files(bench, made)["bin/python3.11"] == (b"interpreter", True)
    assert files(bench, made)["share/a"][0] == b"wheel's"
    (warning,) = bench.warnings
    assert warning.message == "the runtime and `tiny` both install `share/a`, with different content"
    (library,) = decode(read(bench, made, "libraries.json"), list[Library])
    assert (library.path, library.soname) == ("lib/libfake.so.1", "libc.so.6")


def test_packages_are_listed_with_what_they_weigh(bench, make_wheel):
    wheels = [make_wheel("Zeta", {"zeta.py": b"12345"}, version="2.0"), make_wheel("alpha", {"alpha/__init__.py": b""})]
    made = install(bench, wheels)
    found = decode(read(bench, made, "packages.json"), list[InstalledPackage])
    assert [(p.name, p.version, p.dist_info, p.top_level) for p in found] == [
        ("alpha", "1.0", f"{SITE}/alpha-1.0.dist-info", ("alpha",)),
        ("zeta", "2.0", f"{SITE}/Zeta-2.0.dist-info", ("zeta",)),
    ]
    record = read(bench, made, f"tree/{SITE}/Zeta-2.0.dist-info/RECORD").decode().splitlines()
    assert found[1].files == len(record) - 1
    assert found[1].bytes == sum(int(row.rpartition(",")[2] or 0) for row in record)
    assert record == sorted(record)


def test_a_library_that_another_wheel_replaced_is_not_listed(bench, make_wheel):
    library = Path(sys.modules["_ctypes"].__file__ if "_ctypes" in sys.modules else __import__("_ctypes").__file__)
    has = make_wheel("has", {"shared/x.so": library.read_bytes(), "own/y.so": library.read_bytes()})
    made = install(bench, [has, make_wheel("hides", {"shared/x.so": b"text"})])
    found = decode(read(bench, made, "libraries.json"), list[Library])
    assert [entry.path for entry in found] == [f"{SITE}/own/y.so"]
    assert any(name.startswith("libc.so") for name in found[0].needed)


def test_a_layer_without_packages_is_empty(bench):
    made = install(bench, [])
    assert files(bench, made) == {}
    assert read(bench, made, "packages.json") == b"[]\n"


DETERMINISM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import Bench
from test_install import install
bench = Bench(Path(sys.argv[2]))
print(install(bench, [Path(wheel) for wheel in sys.argv[3:]], entry_points=True).root)
bench.store.flush()
"""


def test_equal_wheels_give_equal_trees_whatever_the_process(make_wheel, tmp_path):
    wheels = [
        make_wheel(
            name,
            {f"{name}/{letter}.py": letter.encode() * 9 for letter in "zyxabc"}
            | {f"{name}-1.0.dist-info/entry_points.txt": b"[console_scripts]\nb = a:b\na = a:b\n"},
        )
        for name in ("one",)
    ]
    digests = set()
    for seed, zone in (("1", "UTC"), ("2", "Asia/Kathmandu")):
        path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
        command = [sys.executable, "-c", DETERMINISM, str(Path(__file__).parents[1]), str(tmp_path / seed), *wheels]
        env = os.environ | {"PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C", "PYTHONPATH": path}
        old = os.umask(0o077 if seed == "1" else 0o022)
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        finally:
            os.umask(old)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_what_influences_the_layer_is_in_the_key():
    def params(**options):
        options = {"layout": layout("linux_x86_64", PYTHON), "python": PYTHON} | options
        return install_action("x", wheels=[("b", Ref("wheel/b")), ("a", Ref("wheel/a"))], **options).params

    assert params()["order"] == ["b", "a"]
    changes = [
        {"layout": layout("win_amd64", PYTHON)},
        {"entry_points": True},
        {"refuse_conflicts": True},
        {"ignores_case": True},
        {"windows": "win_amd64"},
        {"windows": "win_amd64", "entry_points": True},
        {"windows": "win_arm64", "entry_points": True},
        {"runtime": Ref("unpack"), "layout": layout("win_amd64", PYTHON)},
    ]
    assert len({repr(params(**change)) for change in changes} | {repr(params())}) == len(changes) + 1
    assert params(layout=layout("linux_aarch64", PYTHON)) == params(), "machines that lay layers out alike share one"
