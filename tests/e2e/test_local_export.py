"""`strata local-export`: layers as folders that are run where they are, replaced only as wholes and only by exports."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from deployed import unpack
from runtimes import OWN, foreign_archive
from space import LAYERS, Ran, Space

EXPORT = Path("_export")
UNCHECKED, CHECKED = b"\1\0\0\0", b"\3\0\0\0"


def export(space: Space, *arguments: str) -> Ran:
    """Run `strata local-export --json`, which must end well."""
    return space.ok("local-export", "--json", *arguments)


def start(folder: Path, layer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the Python of an exported layer as a user does: what it compiles it writes."""
    command = [str(folder / layer / "bin" / "python"), *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=kept)


def say(folder: Path, layer: str, module: str) -> str:
    ran = start(folder, layer, "-m", module)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Give a stamp of each file and folder."""
    found = ((path, path.lstat()) for path in sorted(folder.rglob("*")))
    return {str(path.relative_to(folder)): (stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in found}


def bytecode(folder: Path) -> dict[str, bytes]:
    """Give the flags of each bytecode file, by its module's path."""
    found = {}
    for path in sorted(folder.rglob("__pycache__/*.pyc")):
        module = path.parent.parent / f"{path.name.rsplit('.', 2)[0]}.py"
        found[str(module.relative_to(folder))] = path.read_bytes()[4:8]
    return found


def modules(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob("*/lib/**/*.py") if path.is_file()}


@pytest.fixture(scope="module")
def exported(template: Space, tmp_path_factory: pytest.TempPathFactory) -> Space:
    """Give a copy of the template that has been exported. Not to be changed: see `again`."""
    folder = tmp_path_factory.mktemp("exported")
    made = template.copy(folder / "workspace", folder / "store")
    made.write(
        "hello.py", "import alpha, gamma\nprint('hello', alpha.NAME, gamma.NAME)\ndef fail():\n    raise OSError\n"
    )
    export(made)
    return made


@pytest.fixture
def again(exported: Space, tmp_path: Path) -> Space:
    """Give a copy of that workspace, with an export of its own; the store is shared."""
    made = exported.copy(tmp_path / "workspace")
    made.ok("local-export")
    return made


@pytest.fixture
def fresh(exported: Space, tmp_path: Path) -> Space:
    """Give a copy of that workspace in which nothing was exported; the store is shared."""
    return exported.copy(tmp_path / "workspace")


def test_exported_applications_run_where_they_are_and_elsewhere(exported: Space, tmp_path: Path) -> None:
    folder = exported.root / EXPORT
    assert {path.name for path in folder.iterdir()} == {*LAYERS, "__venvstacks__"}
    # Nothing was put into the folder of builds for it.
    assert not (exported.root / "_build").exists()
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved, symlinks=True)
    for place in (folder, moved):
        assert say(place, "app-hello", "hello") == "hello alpha gamma\n"
        assert say(place, "app-world", "world") == "world wide beta\n"
        failed = start(place, "app-hello", "-c", "import hello; hello.fail()").stderr
        [source] = place.glob("app-hello/lib/*/site-packages/hello.py")
        assert f'File "{source}", line 4, in fail\n    raise OSError\n' in failed


def test_each_module_has_bytecode_and_postinstall_adds_none(exported: Space, tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    shutil.copytree(exported.root / EXPORT, folder, symlinks=True)
    found = bytecode(folder)
    assert set(found.values()) == {UNCHECKED}
    assert found.keys() == modules(folder)
    assert {path.partition("/")[0] for path in found} == set(LAYERS)
    before = files(folder)
    for layer in LAYERS:
        done = subprocess.run(
            [folder / "python/bin/python", "-I", "-B", folder / layer / "postinstall.py"], check=False
        )
        assert done.returncode == 0
    assert files(folder) == before


def test_what_is_unchanged_is_neither_made_nor_placed_again(again: Space) -> None:
    folder = again.root / EXPORT
    before = files(folder)
    again.forget_snapshots()
    for answered in (False, True):
        assert not export(again).executed
        # The second time without a look at anything but stamps.
        assert ('"by a snapshot"' in again.read(".strata/runs.jsonl").splitlines()[-1]) == answered
    assert files(folder) == before
    # A changed module reaches its own layer, and nothing is compiled but what is new.
    again.replace("hello.py", "'hello'", "'howdy'")
    ran = export(again)
    assert ran.executed == {"app-hello/link", "app-hello/compile"}
    after = files(folder)
    changed = {path.split("/")[0] for path in before if after.get(path) != before[path]}
    assert changed == {"app-hello", "__venvstacks__"}
    assert say(folder, "app-hello", "hello") == "howdy alpha gamma\n"
    # A removed folder comes back.
    shutil.rmtree(folder / "framework-low")
    assert not export(again).executed
    assert say(folder, "app-world", "world") == "world wide beta\n"


def test_a_version_over_one_that_was_run_never_runs_the_old_bytecode(again: Space) -> None:
    folder = again.root / EXPORT
    moment = 1_700_000_000
    for text in ("AAA", "BBB", "AAA"):
        again.write("hello.py", f"import later\nprint('{text}', later.TEXT)\n")
        again.write("later.py", f"TEXT = '{text}'\n")
        if "later.py" not in again.read("venvstacks.toml"):
            named = 'launch_module = "hello.py"'
            again.replace("venvstacks.toml", named, f'{named}\nsupport_modules = ["later.py"]')
        for name in ("hello.py", "later.py"):
            os.utime(again.root / name, (moment, moment))
        again.ok("local-export")
        # Twice, and once so that Python compiles for itself whatever it finds without bytecode.
        [site] = folder.glob("app-hello/lib/*/site-packages")
        (site / "own.py").write_text(f"TEXT = '{text}'\n")
        os.utime(site / "own.py", (moment, moment))
        for _ in range(2):
            assert say(folder, "app-hello", "hello") == f"{text} {text}\n"
            assert start(folder, "app-hello", "-c", "import own; print(own.TEXT)").stdout == f"{text}\n"


def test_what_no_export_has_made_is_never_replaced(again: Space, tmp_path: Path) -> None:
    folder = again.root / "elsewhere"
    again.write("elsewhere/app-hello/precious.txt", "mine")
    again.write("elsewhere/app-world", "a file")
    (tmp_path / "target").mkdir()
    (folder / "python").symlink_to(tmp_path / "target")
    (folder / "framework-up").mkdir()
    before = files(folder)
    ran = again.strata("local-export", "--output-dir", "elsewhere")
    assert ran.code == 3
    said = [line for line in ran.stderr.splitlines() if line.startswith("error")]
    assert said == [
        "error[place-taken]: `elsewhere/python` is no folder, and a layer is to be exported there",
        "error[place-taken]: `elsewhere/app-hello` is a folder that no export has made, and a layer is to be exported"
        " there",
        "error[place-taken]: `elsewhere/app-world` is no folder, and a layer is to be exported there",
    ]
    assert files(folder) == before
    # `--force` is for what exports have made.
    assert again.strata("local-export", "--force", "--output-dir", "elsewhere").code == 3
    assert files(folder) == before
    shutil.rmtree(folder / "app-hello")
    for name in ("app-world", "python"):
        (folder / name).unlink()
    again.ok("local-export", "--output-dir", "elsewhere")
    assert say(folder, "app-hello", "hello") == "hello alpha gamma\n"


@pytest.mark.parametrize("path", ["_export", "_export/__venvstacks__", "_export/__venvstacks__/env_metadata"])
def test_a_file_where_a_folder_is_needed_is_said_before_anything_is_placed(fresh: Space, path: str) -> None:
    fresh.write(path, "a file")
    ran = fresh.strata("local-export")
    assert ran.code == 3
    assert "error[host-error]" in ran.stderr
    assert "a file stands where a folder is needed" in ran.stderr
    assert not (fresh.root / EXPORT / "python").exists()


def test_exports_of_a_lost_state_and_of_venvstacks_are_replaced(again: Space) -> None:
    folder = again.root / EXPORT
    shutil.rmtree(again.root / ".strata")
    [source] = folder.glob("app-hello/lib/*/site-packages/hello.py")
    source.write_text("print('edited')\n")
    again.ok("local-export")
    assert say(folder, "app-hello", "hello") == "hello alpha gamma\n"


def test_force_puts_in_its_place_what_was_edited_there(again: Space) -> None:
    folder = again.root / EXPORT
    [source] = folder.glob("app-hello/lib/*/site-packages/hello.py")
    source.write_text("print('edited')\n")
    ran = export(again, "--force")
    assert not ran.executed
    assert source.read_text().startswith("import alpha")


def test_what_is_left_of_a_removed_layer_is_told_and_stays(again: Space) -> None:
    folder = again.root / EXPORT
    text = again.read("venvstacks.toml")
    first, second = text.index('[[applications]]\nname = "world"'), text.index("[tool.uv]")
    again.write("venvstacks.toml", text[:first] + text[second:])
    ran = again.ok("local-export")
    assert "warning[stale-export]: `_export/app-world` was exported earlier and is no layer of the stack" in ran.stderr
    assert ran.stderr.count("stale-export") == 1
    assert (folder / "app-world").is_dir()
    # A layer that is merely not selected is none of those.
    assert "stale-export" not in again.ok("local-export", "--include", "app-hello").stderr


def test_versions_lie_side_by_side_and_are_not_exported_again(fresh: Space) -> None:
    """Row 9 of venvstacks' holes: a layer with a version is always exported again."""
    fresh.replace("venvstacks.toml", 'name = "hello"', 'name = "hello"\nversioned = true')
    fresh.ok("local-export")
    folder = fresh.root / EXPORT
    before = files(folder)
    fresh.forget_snapshots()
    assert not export(fresh).executed
    assert files(folder) == before
    [first] = folder.glob("app-hello@*")
    fresh.replace("hello.py", "'hello'", "'howdy'")
    ran = fresh.ok("local-export")
    assert f"`_export/{first.name}` was exported earlier" in ran.stderr
    [second] = set(folder.glob("app-hello@*")) - {first}
    assert say(folder, first.name, "hello") == "hello alpha gamma\n"
    assert say(folder, second.name, "hello") == "howdy alpha gamma\n"


def test_selected_layers_are_exported_and_a_dry_run_exports_nothing(fresh: Space) -> None:
    folder = fresh.root / EXPORT
    ran = fresh.ok("local-export", "--dry-run", "--include", "app-*")
    assert ran.stdout.splitlines() == ["_export/app-hello  would be written", "_export/app-world  would be written"]
    assert not folder.exists()
    ran = export(fresh, "--include", "app-hello", "--publish-dependencies")
    assert {path.name for path in folder.iterdir()} == {*LAYERS, "__venvstacks__"} - {"app-world"}
    layers = {category: [layer["layer_name"] for layer in found] for category, found in ran.json["layers"].items()}
    assert layers == {
        "runtimes": ["python"], "frameworks": ["framework-low", "framework-up"], "applications": ["app-hello"],
    }  # fmt: skip
    assert ran.json["layers"] == json.loads((folder / "__venvstacks__/venvstacks.json").read_bytes())["layers"]
    dry = fresh.ok("local-export", "--dry-run", "--include", "framework-low", "--publish-derived")
    assert dry.stdout.splitlines() == [
        "_export/framework-low  up to date",
        "_export/framework-up  up to date",
        "_export/app-hello  up to date",
        "_export/app-world  would be written",
    ]
    assert fresh.strata("local-export", "--include", "nothing-*").code == 2
    assert "nothing-*" in fresh.ok("local-export", "--include", "nothing-*", "--allow-missing").stderr
    shown = fresh.ok("local-export", "--show-only", "--include", "app-world").stdout
    assert "app-world" in shown
    assert not (folder / "app-world").exists()


def test_the_metadata_has_the_fields_of_exports(exported: Space) -> None:
    folder = exported.root / EXPORT / "__venvstacks__"
    assert {path.name for path in folder.iterdir()} == {"venvstacks.json", "env_metadata"}
    described: dict[str, Any] = {
        path.stem: json.loads(path.read_bytes()) for path in (folder / "env_metadata").iterdir()
    }
    assert described.keys() == set(LAYERS)
    common = {
        "layer_name", "install_target", "requirements_hash", "lock_version", "locked_at", "runtime_layer",
        "python_implementation", "bound_to_implementation",
    }  # fmt: skip
    assert described["python"].keys() == common
    assert described["framework-up"].keys() == common | {"required_layers"}
    modules_of = {"app_launch_module", "app_launch_module_hash"}
    assert described["app-hello"].keys() == common | {"required_layers"} | modules_of
    assert described["app-hello"]["required_layers"] == ["framework-up", "framework-low"]


def test_archives_have_bytecode_on_request_that_no_other_version_ever_takes(fresh: Space, tmp_path: Path) -> None:
    fresh.replace("venvstacks.toml", "level = 1\n", "level = 1\nbytecode = true\n")
    fresh.write("hello.py", "import later\nprint('AAA', later.TEXT)\n")
    fresh.write("later.py", "TEXT = 'AAA'\n")
    named = 'launch_module = "hello.py"'
    fresh.replace("venvstacks.toml", named, f'{named}\nsupport_modules = ["later.py"]')
    selected = ("--include", "app-hello", "--publish-dependencies")
    fresh.ok("publish", *selected)
    folder = unpack(fresh, tmp_path / "stack")
    found = bytecode(folder)
    assert set(found.values()) == {CHECKED}
    assert found.keys() == modules(folder)
    assert say(folder, "app-hello", "hello") == "AAA AAA\n"
    # The next version is unpacked over it: as long, and without bytecode of its own.
    fresh.replace("venvstacks.toml", "bytecode = true\n", "")
    fresh.write("hello.py", "import later\nprint('BBB', later.TEXT)\n")
    fresh.write("later.py", "TEXT = 'BBB'\n")
    fresh.ok("publish", "--include", "app-hello")
    unpack(fresh, folder, "app-hello")
    assert say(folder, "app-hello", "hello") == "BBB BBB\n"


def test_a_layer_for_another_platform_is_exported_as_it_was_linked(fresh: Space, tmp_path: Path) -> None:
    path, digest = foreign_archive(tmp_path, "win_amd64", OWN)
    source = f'url = {{ win_amd64 = "{path.as_uri()}" }}\nsha256 = {{ win_amd64 = "{digest}" }}\n'
    fresh.replace("venvstacks.toml", 'provider = "local"\n', f'provider = ["local", "archive"]\n{source}')
    ran = export(fresh, "--platform", "win_amd64")
    folder = fresh.root / EXPORT
    assert {found.name for found in folder.iterdir()} == {*LAYERS, "__venvstacks__"}
    assert not bytecode(folder)
    assert not [label for label in ran.executed if "bytecode" in label or "compile" in label]
    assert (folder / "app-hello/Lib/site-packages/hello.py").exists()


def content(folder: Path) -> dict[str, bytes]:
    """Read a layer, with what its links lead to."""
    found = ((path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")))
    return {
        name: bytes(path.readlink()) if path.is_symlink() else path.read_bytes()
        for name, path in found
        if path.is_symlink() or path.is_file()
    }


def test_an_export_that_is_killed_leaves_each_layer_old_or_new(again: Space) -> None:
    """However far it came, what stands at a layer's place is one whole version of it, and it runs."""
    folder, changed = again.root / EXPORT, ("app-hello", "app-world", "framework-up")
    old = {name: content(folder / name) for name in changed}
    again.write("hello.py", "import alpha, gamma\nprint('new', alpha.NAME, gamma.NAME)\n")
    again.write("world/names.py", "NAME = 'new'\n")
    again.wheel("gamma", {"gamma.py": b"NAME = 'gamma'\n", "more.py": b""}, requires=["alpha"])
    clean = again.copy(again.root.parent / "clean")
    export(clean)
    new = {name: content(clean.root / EXPORT / name) for name in changed}
    assert all(old[name] != new[name] for name in changed)
    killed = 0
    for step in range(40):
        process = subprocess.Popen(
            [*again.command(), "local-export", "-q"], cwd=again.root, env=again.variables(), start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(step * 0.2)
        ended = process.poll() is not None
        if not ended:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        for name in changed:
            assert content(folder / name) in (old[name], new[name]), (step, name)
        assert say(folder, "app-hello", "hello") in ("hello alpha gamma\n", "new alpha gamma\n")
        if ended:
            break
    assert killed
    export(again)
    assert {name: content(folder / name) for name in changed} == new
    assert export(again).executed == set()
