"""Layers for other platforms: built here from wheels and runtime archives, apart from this machine's, and published."""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
import stat
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from conftest import WheelMaker
from runtimes import OWN, foreign_archive
from space import Ran, Space, copy_tree

from strata_rules.link import postinstall
from strata_rules.platforms import PLATFORMS, host_platform

HOST = host_platform()
MINOR = OWN.rpartition(".")[0]
TAG = f"cp{MINOR.replace('.', '')}"
FOREIGN = [name for name in ("linux_aarch64", "linux_x86_64") if name != HOST] + ["macosx_arm64", "win_amd64"]
LINUX, MAC, WINDOWS = FOREIGN
ASKED = [f"--platform={name}" for name in FOREIGN]

WHEELS = {
    "win_amd64": "win_amd64",
    "win_arm64": "win_arm64",
    "macosx_arm64": "macosx_11_0_universal2",
    "linux_x86_64": "manylinux_2_17_x86_64",
    "linux_aarch64": "manylinux_2_17_aarch64",
}
"""The tags of `native`; of a Mac with an Intel processor there is only the wheel for both."""

STACK = f"""\
[[runtimes]]
name = "python"
python_implementation = "cpython@{OWN}"
requirements = []

[[frameworks]]
name = "low"
runtime = "python"
requirements = ["native", "plain", "markupsafe==3.0.2 ; platform_machine != 'ARM64'"]

[[applications]]
name = "hello"
launch_module = "hello.py"
frameworks = ["low"]
requirements = []

[[applications]]
name = "mac"
launch_module = "hello.py"
runtime = "python"
requirements = []
platforms = ["macosx_arm64"]

[tool.uv]
find-links = ["wheels"]

[tool.strata]
entry_points = true

[tool.strata.runtimes."python"]
provider = ["local", "archive"]
accept = "=={OWN}"
"""


def write_stack(root: Path) -> None:
    """Write the stack: a runtime of this machine here, archives elsewhere, and wheels for each platform."""
    (root / "runtimes").mkdir(parents=True)
    made = {name: foreign_archive(root / "runtimes", name, OWN) for name in PLATFORMS if name != HOST}
    urls = ", ".join(f'{name} = "{path.as_uri()}"' for name, (path, _) in made.items())
    hashes = ", ".join(f'{name} = "{sha256}"' for name, (_, sha256) in made.items())
    (root / "venvstacks.toml").write_text(f"{STACK}url = {{ {urls} }}\nsha256 = {{ {hashes} }}\n")
    (root / "hello.py").write_text("import native, plain\nprint('hello')\n")
    wheel = WheelMaker(root / "wheels")
    for name, tag in WHEELS.items():
        windows = name.startswith("win_")
        files = {"native/__init__.py": b"", f"native/_core.{'pyd' if windows else 'so'}": tag.encode()}
        if windows:
            files["native-1.0.data/data/Library/bin/native.dll"] = b"MZ"
        wheel("native", files, tag=f"{TAG}-{TAG}-{tag}")
    wheel("onlywin", {"onlywin.py": b""}, tag="py3-none-win_amd64")
    points = {"plain.py": b"", "plain-1.0.dist-info/entry_points.txt": b"[console_scripts]\nplain = plain:main\n"}
    wheel("plain", points, requires=["onlywin ; platform_system == 'Windows' and platform_machine == 'AMD64'"])


@pytest.fixture(scope="module")
def made(template: Space, tmp_path_factory: pytest.TempPathFactory) -> Space:
    """Give the stack, built for this machine and three others. Not to be changed."""
    folder = tmp_path_factory.mktemp("platforms")
    copy_tree(template.store, folder / "store")
    space = Space(folder / "workspace", folder / "store")
    write_stack(space.root)
    space.ok("build", f"--platform={HOST}", *ASKED)
    return space


@pytest.fixture
def space(made: Space, tmp_path: Path) -> Space:
    """Give a copy of the stack in which nothing has been built; the store knows all of it."""
    return made.copy(tmp_path / "workspace")


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}


def own(names: set[str]) -> set[str]:
    """Leave out what describes distributions and the package of the index."""
    return {name for name in names if ".dist-info/" not in name and "/markupsafe/" not in name}


def content(folder: Path) -> dict[str, str]:
    """Give each file's mode and content, and where each symlink leads."""
    found = {}
    for name in sorted(listing(folder)):
        path = folder / name
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            mode = stat.S_IMODE(path.stat().st_mode) & 0o111
            found[name] = f"{mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return found


def outcomes(ran: Ran) -> set[str]:
    return {action["outcome"] for action in ran.json["actions"]}


# -- trees -------------------------------------------------------------------------------------------------------------


def test_each_platform_has_its_layers_apart(made: Space) -> None:
    build = made.root / "_build"
    assert {path.name for path in build.iterdir()} == {"python", "framework-low", "app-hello", *FOREIGN}
    for name in FOREIGN:
        apps = {"app-hello", "app-mac"} if name == MAC else {"app-hello"}
        assert {path.name for path in (build / name).iterdir()} == {"python", "framework-low", *apps}
    assert made.ok("run", "hello").stdout == "hello\n"
    pins = json.loads(made.read("requirements/python/runtime.python.json"))["platforms"]
    assert {name: pin["provider"] for name, pin in pins.items()} == {HOST: "local"} | dict.fromkeys(FOREIGN, "archive")


def test_posix_layers_are_laid_out_as_this_machines(made: Space) -> None:
    build = made.root / "_build"
    site = f"lib/python{MINOR}/site-packages"
    for name in (LINUX, MAC):
        for layer in ("framework-low", "app-hello"):
            assert own(listing(build / name / layer)) == own(listing(build / layer)), (name, layer)
        assert (build / name / f"framework-low/{site}/native/_core.so").read_text() == WHEELS[name]
        compiled = [path.name for path in (build / name / f"framework-low/{site}/markupsafe").glob("*.so")]
        assert [("darwin" in file) for file in compiled] == [name == MAC]
        assert (build / name / "app-hello/bin/python").readlink() == Path("../../python/bin/python")
        assert (build / name / "python/bin/python").readlink() == Path(f"python{MINOR}")
        for file in ("bin/plain", f"bin/python{MINOR}"):
            assert (build / name / ("framework-low" if file == "bin/plain" else "python") / file).stat().st_mode & 0o100
        assert "LD_LIBRARY_PATH" not in (build / name / f"app-hello/{site}/_strata_boot.py").read_text()


def test_windows_layers_are_laid_out_as_windows_has_them(made: Space) -> None:
    build = made.root / "_build" / WINDOWS
    shared = {"postinstall.py", "share/venv/metadata/venvstacks_layer.json"}
    launchers = {"Scripts/python.exe", "Scripts/pythonw.exe"}
    assert listing(build / "app-hello") == shared | launchers | {"Lib/site-packages/hello.py"}
    assert own(listing(build / "framework-low")) == shared | launchers | {
        "Lib/site-packages/native/__init__.py",
        "Lib/site-packages/native/_core.pyd",
        "Lib/site-packages/onlywin.py",
        "Lib/site-packages/plain.py",
        "Library/bin/native.dll",
        "Scripts/plain.exe",
    }
    assert [path.suffix for path in (build / "framework-low/Lib/site-packages/markupsafe").glob("_speedups.*-*")] == [
        ".pyd"
    ]
    launcher = next((build / "python/Lib/venv/scripts/nt").glob("*[nr].exe"))
    assert (build / "app-hello/Scripts/python.exe").read_bytes() == launcher.read_bytes()
    assert not [path for path in build.rglob("*") if path.is_symlink()]
    assert not [name for name in listing(build / "python") if "pip" in name and "ensurepip" not in name]


# -- builds ------------------------------------------------------------------------------------------------------------


def test_nothing_is_done_twice_and_no_platform_disturbs_another(space: Space) -> None:
    assert outcomes(space.build(f"--platform={HOST}", *ASKED)) == {"cached", "up_to_date"}
    before = {path: path.lstat().st_mtime_ns for path in (space.root / "_build").rglob("*")}
    for asked in ([], ASKED, [ASKED[0]], [f"--platform={HOST}", *ASKED], []):
        assert outcomes(space.build(*asked)) == {"up_to_date"}, asked
        space.forget_snapshots()
    assert {path: path.lstat().st_mtime_ns for path in (space.root / "_build").rglob("*")} == before


def test_an_edited_module_is_linked_for_each_platform_and_nothing_else(space: Space) -> None:
    space.build(*ASKED)
    space.write("hello.py", "print('changed')\n")
    ran = space.build(*ASKED)
    assert ran.executed == {f"app-hello/link[{name}]" for name in FOREIGN} | {f"app-mac/link[{MAC}]"}
    assert outcomes(ran) == {"executed", "up_to_date"}
    for name in FOREIGN:
        site = "Lib/site-packages" if name == WINDOWS else f"lib/python{MINOR}/site-packages"
        assert (space.root / f"_build/{name}/app-hello/{site}/hello.py").read_text() == "print('changed')\n"


def test_another_host_builds_the_same(made: Space, other_python: Path, tmp_path: Path) -> None:
    """Another Python runs Strata, with another store: foreign layers come out byte for byte."""

    class Elsewhere(Space):
        def command(self) -> Sequence[str]:
            return (str(other_python), "-m", "strata_rules.entry")

        def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
            return {**super().variables(more), "STRATA_PYTHON": sys.executable, "TZ": "Pacific/Chatham", "LC_ALL": "C"}

    shutil.copytree(made.root, tmp_path / "öther", ignore=shutil.ignore_patterns("_build", ".strata"), symlinks=True)
    other = Elsewhere(tmp_path / "öther", tmp_path / "store")
    ran = other.build("--locked", *ASKED)
    assert {label for label in ran.executed if label.startswith("python/unpack")} == {
        f"python/unpack[{name}]" for name in FOREIGN
    }
    for name in FOREIGN:
        assert content(other.root / "_build" / name) == content(made.root / "_build" / name)


# -- publishing --------------------------------------------------------------------------------------------------------


def test_archives_are_tagged_and_each_platform_has_a_manifest(space: Space, tmp_path: Path) -> None:
    first = space.publish(*ASKED)
    assert f"app-hello/archive[{WINDOWS}]" in first.executed
    folder = space.root / "_artifacts"
    layers = ["python", "framework-low", "app-hello"]
    names = {f"{layer}-{name}-1.{'zip' if name == WINDOWS else 'tar.xz'}" for name in FOREIGN for layer in layers}
    assert {path.name for path in folder.iterdir()} == names | {f"app-mac-{MAC}-1.tar.xz", "__venvstacks__"}
    assert {path.name for path in (folder / "__venvstacks__").glob("*.json")} == {
        f"venvstacks-{name}.json" for name in FOREIGN
    }
    for name in FOREIGN:
        manifest = json.loads((folder / f"__venvstacks__/venvstacks-{name}.json").read_text())["layers"]
        for layer in (*manifest["frameworks"], *manifest["applications"]):
            assert layer["target_platform"] == name
            assert layer["bound_to_implementation"] == (name == WINDOWS)
            assert layer["python_implementation"] == f"cpython@{OWN}"
            archive = folder / layer["archive_name"]
            assert layer["archive_hashes"] == {"sha256": hashlib.sha256(archive.read_bytes()).hexdigest()}
    assert outcomes(space.publish(*ASKED)) == {"up_to_date"}
    with lzma.open(folder / f"app-hello-{MAC}-1.tar.xz") as stream, tarfile.open(fileobj=stream) as tar:
        kinds = {member.name: (member.issym(), member.linkname) for member in tar}
    assert kinds["app-hello/bin/python"] == (True, "../../python/bin/python")

    # What an installer on Windows does, as far as it can be done here: unpack, and run postinstall.py.
    stack = tmp_path / "C drive ü"
    for layer in layers:
        with zipfile.ZipFile(folder / f"{layer}-{WINDOWS}-1.zip") as archive:
            assert {info.compress_type for info in archive.infolist() if info.file_size > 400} == {zipfile.ZIP_DEFLATED}
            assert not [info for info in archive.infolist() if stat.S_ISLNK(info.external_attr >> 16)]
            archive.extractall(stack)
    (stack / "python/python.exe").unlink()
    (stack / "python/python.exe").symlink_to(Path(sys.executable).resolve())
    app = stack / "app-hello"
    assert postinstall.finish(app, windows=True) == 0
    assert f"home = {stack / 'python'}\n" in (app / "pyvenv.cfg").read_text(encoding="utf-8")
    assert ascii(str(stack / "framework-low/Library/bin")) in (app / "Lib/site-packages/sitecustomize.py").read_text()
    assert list(app.rglob("hello.*.pyc"))


# -- what cannot be ----------------------------------------------------------------------------------------------------


def test_layers_for_other_platforms_than_those_asked_for_are_left_out_and_said(space: Space) -> None:
    ran = space.ok("build", f"--platform={WINDOWS}")
    assert "warning[other-platform]: `app-mac` is left out" in ran.stderr
    assert "note: it is for `macosx_arm64`" in ran.stderr
    assert "app-mac" not in space.ok("build", f"--platform={MAC}").stderr
    refused = space.strata("build", f"--platform={WINDOWS}", "--include=app-mac")
    assert (refused.code, refused.stderr.splitlines()) == (
        2,
        [f"error[other-platform]: no selected layer is for `{WINDOWS}`", "hint: they are for `macosx_arm64`"],
    )


def test_an_unknown_platform_is_refused_with_what_is_near(space: Space) -> None:
    for command in ("build", "publish"):
        ran = space.strata(command, "--platform=win_arm46")
        assert ran.code == 2
        assert "there is no platform `win_arm46`: did you mean `win_arm64`?" in ran.stderr


def test_a_runtime_that_cannot_be_had_is_said_before_anything_runs(space: Space) -> None:
    text = space.read("venvstacks.toml")
    stack, _, rest = text.partition('provider = ["local", "archive"]\n')
    (space.root / "requirements/python/runtime.python.json").unlink()
    space.write("venvstacks.toml", f'{stack}provider = "local"\naccept = "=={OWN}"\n')
    ran = space.strata("build", f"--platform={WINDOWS}")
    assert ran.code == 2
    assert f"error[no-runtime]: no runtime for `python` on `{WINDOWS}`: it takes a Python of this machine" in ran.stderr
    assert f'`provider = ["local", "pbs"]`, or an `archive` with `url = {{ {WINDOWS} = "…" }}`' in ran.stderr

    # The archive is not what the stack file says that it is.
    [archive] = (space.root / "runtimes").glob("*aarch64-pc-windows*")
    changed = rest.replace(hashlib.sha256(archive.read_bytes()).hexdigest(), "0" * 64)
    space.write("venvstacks.toml", f'{stack}provider = ["local", "archive"]\n{changed}')
    ran = space.strata("build", "--platform=win_arm64")
    assert ran.code in {1, 3}
    assert "sha256" in ran.stderr.lower()
    assert "Traceback" not in ran.stderr
    assert not (space.root / "_build/win_arm64").exists()


def test_a_wheel_that_a_platform_does_not_have_is_named(space: Space) -> None:
    shutil.rmtree(space.root / "requirements")
    next((space.root / "wheels").glob("native-*win_arm64.whl")).unlink()
    ran = space.strata("build", "--platform=win_arm64")
    assert ran.code == 2
    assert "`native` 1.0 has no wheel for `win_arm64`" in ran.stderr
    assert "platforms" in ran.stderr
