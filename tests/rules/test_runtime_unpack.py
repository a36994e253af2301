"""Unpack: a python-build-standalone archive becomes a runtime that runs, without pip; foreign platforms' ones too."""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from runtimes import foreign_archive, interpreters, pbs_archive

from strata_engine.action import Ref
from strata_engine.errors import SpecError
from strata_engine.place import place
from strata_engine.tree import File, Node, Symlink, Tree, assemble, entries, lookup
from strata_rules.platforms import PLATFORMS
from strata_rules.runtime.facts import facts_of
from strata_rules.runtime.unpack import Unpacking, normalise, unpack_action

if TYPE_CHECKING:
    from conftest import Bench

pytestmark = pytest.mark.skipif(not interpreters(), reason="no CPython here can be a runtime")


def unpack(bench: Bench, archive: bytes, version: str, platform: str = "linux_x86_64") -> Tree:
    bench.outputs["rt/download"] = File(bench.store.put(archive))
    wanted = Unpacking(
        label="rt/unpack",
        archive=Ref("rt/download"),
        implementation="cpython",
        version=version,
        platform=platform,
    )
    output = bench.run(unpack_action(wanted))
    assert isinstance(output, Tree)
    return output


def facts_in(bench: Bench, output: Tree) -> dict[str, Any]:
    node = lookup(bench.store, output, "facts.json")
    assert isinstance(node, File)
    facts: dict[str, Any] = json.loads(bench.store.get(node.digest))
    return facts


def tree_in(bench: Bench, output: Tree) -> Tree:
    node = lookup(bench.store, output, "tree")
    assert isinstance(node, Tree)
    return node


def test_an_archive_becomes_a_runtime_that_runs(bench: Bench, tmp_path: Path) -> None:
    interpreter = interpreters()[0]
    archive, _ = pbs_archive(bench.store, interpreter, tmp_path)
    output = unpack(bench, archive.read_bytes(), interpreter.version)
    tree = tree_in(bench, output)
    paths = {path for path, node in entries(bench.store, tree) if not isinstance(node, Tree)}
    site = f"lib/python{interpreter.python}/site-packages"
    assert {path for path in paths if path.startswith((site, "bin/"))} == {
        "bin/python",
        "bin/python3",
        f"bin/python{interpreter.python}",
        f"{site}/README.txt",
        f"{site}/kept/__init__.py",
    }
    assert not any(path.endswith(".pyc") for path in paths)
    assert {"share/terminfo/A/a", "share/terminfo/a/a"} <= paths
    facts = facts_in(bench, output)
    assert (facts["version"], facts["python"]) == (interpreter.version, interpreter.python)
    assert facts["interpreter"] == "bin/python"
    assert "libc.so.6" in facts["system_libraries"]
    assert not [name for name in facts["system_libraries"] if name.startswith("libpython")]
    assert facts["glibc"].startswith("2.")
    place(bench.store, tree, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere" / f"bin/python{interpreter.python}").stat().st_mode & 0o4000
    done = subprocess.run(
        [tmp_path / "elsewhere/bin/python", "-I", "-c", "import ssl, sys; print(sys.prefix)"],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    assert done.stdout.strip() == str(tmp_path / "elsewhere")


def test_an_archive_of_another_version_is_refused(bench: Bench, tmp_path: Path) -> None:
    interpreter = interpreters()[0]
    archive, _ = pbs_archive(bench.store, interpreter, tmp_path)
    for version in (f"{interpreter.python}.99", "3.10.1"):
        with pytest.raises(SpecError) as error:
            unpack(bench, archive.read_bytes(), version)
        (diagnostic,) = error.value.diagnostics
        assert diagnostic.id == "wrong-python"
        assert diagnostic.message == f"the archive has cpython {interpreter.version}, not {version}"


WINDOWS = {
    "python/python.exe": b"MZ",
    "python/pythonw.exe": b"MZ",
    "python/python312.dll": b"MZ",
    "python/Lib/os.py": b"",
    "python/Lib/__pycache__/os.cpython-312.pyc": b"",
    "python/Lib/site-packages/pip/__init__.py": b"",
    "python/Lib/site-packages/pip-24.0.dist-info/RECORD": b"pip/__init__.py,,\r\n../../Scripts/pip.exe,,\r\n",
    "python/Lib/site-packages/sub/wheel-holder.txt": b"",
    "python/Scripts/pip.exe": b"MZ",
    "python/Scripts/pip3.12.exe": b"MZ",
    "python/DLLs/_ssl.pyd": b"MZ",
    "python/include/patchlevel.h": b'#define PY_VERSION "3.12.9"\n',
}


def test_a_windows_archive_is_unpacked_on_any_host(bench: Bench) -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for path, data in WINDOWS.items():
            archive.writestr(path, data)
    output = unpack(bench, raw.getvalue(), "3.12.9", "win_amd64")
    tree = tree_in(bench, output)
    assert {path for path, node in entries(bench.store, tree) if isinstance(node, File)} == {
        "python.exe",
        "pythonw.exe",
        "python312.dll",
        "Lib/os.py",
        "Lib/site-packages/sub/wheel-holder.txt",
        "DLLs/_ssl.pyd",
        "include/patchlevel.h",
    }
    assert facts_in(bench, output) == {
        "schema": 1,
        "implementation": "cpython",
        "version": "3.12.9",
        "python": "3.12",
        "platform": "win_amd64",
        "interpreter": "python.exe",
        "interpreters": ["python.exe", "pythonw.exe"],
        "site_packages": "Lib/site-packages",
    }
    with pytest.raises(SpecError, match="no Python for this platform: no `bin/python`"):
        unpack(bench, raw.getvalue(), "3.12.9", "linux_x86_64")


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("version", ["3.12.9", "3.13.2"])
def test_archives_for_all_platforms_are_unpacked_here(
    bench: Bench, tmp_path: Path, platform: str, version: str
) -> None:
    archive, _ = foreign_archive(tmp_path, platform, version)
    output = unpack(bench, archive.read_bytes(), version, platform)
    nodes = dict(entries(bench.store, tree_in(bench, output)))
    files = {path: node for path, node in nodes.items() if isinstance(node, File)}
    links = {path: node.target for path, node in nodes.items() if isinstance(node, Symlink)}
    python, facts = version.rpartition(".")[0], facts_in(bench, output)
    assert not [path for path in nodes if "pip" in path and "ensurepip" not in path]
    assert not [path for path in nodes if "__pycache__" in path]
    assert (facts["platform"], facts["version"], facts["implementation"]) == (platform, version, "cpython")
    if platform.startswith("win_"):
        launcher = "venvlauncher" if python == "3.13" else "python"
        assert {f"Lib/venv/scripts/nt/{launcher}.exe", "Lib/site-packages/README.txt", "vcruntime140.dll"} <= set(files)
        assert not links
        assert "Scripts" not in nodes
        assert files["python.exe"].executable
        assert (facts["interpreter"], facts["interpreters"]) == ("python.exe", ["python.exe", "pythonw.exe"])
        assert facts["site_packages"] == "Lib/site-packages"
        return
    assert links["bin/python"] == links["bin/python3"] == f"python{python}"
    mac = platform.startswith("macosx_")
    library = f"lib/libpython{python}.dylib" if mac else f"lib/libpython{python}.so.1.0"
    assert {path for path, node in files.items() if node.executable} == {
        f"bin/python{python}",
        f"bin/python{python}-config",
        "bin/idle3",
        library,
    }
    # What the publisher tested is what is used: no prefix is rewritten, and ncurses keeps its names.
    assert [path for path in files if "_sysconfigdata_" in path]
    assert {"share/terminfo/2/2621A", "share/terminfo/2/2621a"} <= set(files)
    assert facts["interpreters"] == ["bin/python", "bin/python3", f"bin/python{python}"]
    assert facts["site_packages"] == f"lib/python{python}/site-packages"
    assert ("system_libraries" in facts) == (not mac)


def test_pypy_has_folders_and_programs_of_its_own(bench: Bench) -> None:
    def made(platform: str, *paths: str) -> dict[str, Node]:
        x = File(bench.store.put(b"x"))
        nodes: dict[str, Node] = {f"pypy3.11-v7.3.20-x/{path}": x for path in paths}
        return normalise(bench.store, nodes, implementation="pypy", version="3.11.13", platform=platform)

    mac = made("macosx_arm64", "bin/pypy3.11", "bin/pypy3", "lib/pypy3.11/os.py")
    assert mac["bin/python"] == Symlink("pypy3")
    assert mac["bin/pypy3"] == File(bench.store.put(b"x"), True), "a runtime that cannot be started is none"
    windows = made("win_amd64", "pypy3.exe", "pypyw.exe", "Lib/os.py", "libpypy3.11-c.dll")
    assert windows["python.exe"] == windows["pypy3.exe"]
    for platform, nodes, site in (
        ("macosx_arm64", mac, "lib/pypy3.11/site-packages"),
        ("win_amd64", windows, "Lib/site-packages"),
    ):
        facts = json.loads(
            facts_of(
                bench.store,
                assemble(bench.store, nodes),
                implementation="pypy",
                version="3.11.13",
                platform=platform,
            )
        )
        assert facts["site_packages"] == site
        assert facts["interpreter"] in facts["interpreters"]


@pytest.mark.parametrize("root", ["", "python/", "odd name/", "python/install/"])
def test_the_runtime_is_found_wherever_the_archive_has_it(bench: Bench, root: str) -> None:
    x = File(bench.store.put(b"x"), True)
    nodes: dict[str, Node] = {f"{root}bin/python3.12": x, f"{root}lib/python3.12/os.py": x}
    if root == "python/install/":
        nodes["python/build/object.o"] = x
    made = normalise(bench.store, nodes, implementation="cpython", version="3.12.9", platform="linux_aarch64")
    assert made == {"bin/python3.12": x, "lib/python3.12/os.py": x, "bin/python": Symlink("python3.12")}


def test_a_link_out_of_the_runtime_is_refused_though_it_stays_in_the_archive(bench: Bench) -> None:
    x = File(bench.store.put(b"x"), True)
    nodes: dict[str, Node] = {
        "python/bin/python": x,
        "python/lib/python3.12/os.py": x,
        "python/l": Symlink("../python"),
    }
    with pytest.raises(SpecError, match="which leads out of the archive"):
        normalise(bench.store, nodes, implementation="cpython", version="3.12.9", platform="linux_x86_64")


def test_the_same_archive_gives_the_same_output(bench: Bench) -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for path, data in reversed(WINDOWS.items()):
            archive.writestr(path, data)
    again = io.BytesIO()
    with zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in WINDOWS.items():
            archive.writestr(path.removeprefix("python/"), data)
    one, other = (unpack(bench, made.getvalue(), "3.12.9", "win_amd64") for made in (raw, again))
    assert one == other
    assert one != assemble(bench.store, {"tree": tree_in(bench, one)})
