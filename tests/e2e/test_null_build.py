"""The null build: a snapshot answers the second build without looking further, and nothing that is in doubt."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from space import Space

import strata_engine
import strata_rules
from strata_engine import workspace
from strata_rules import null

CHEAP = ("build", "--json")


def builds(space: Space) -> int:
    """Count the builds that looked at anything: the record of one that a snapshot answered says so."""
    record = space.root / ".strata" / "runs.jsonl"
    lines = record.read_bytes().splitlines() if record.exists() else []
    return sum(b"by a snapshot" not in line for line in lines)


def answered(space: Space, *command: str, **more: object) -> bool:
    """Run a command that must end well, and tell whether a snapshot answered it."""
    before = builds(space)
    space.ok(*(command or ("build",)), **more)
    return builds(space) == before


def test_the_second_build_imports_nothing_that_costs(built: Space) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "strata_rules.entry", "build"],
        cwd=built.root,
        env=built.variables(),
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "strata_engine.snapshot" in imported
    roots = {name.partition(".")[0] for name in imported}
    assert not roots & {"asyncio", "anyio", "networkx", "msgspec", "click", "rich", "httpx2", "diskcache", "packaging"}
    assert not roots & {"hashlib", "inspect", "json", "logging", "tempfile"}
    assert {name for name in imported if name.startswith("strata_")} == {
        *("strata_engine", "strata_engine.seal", "strata_engine.snapshot"),
        *("strata_rules", "strata_rules.null"),
    }


def test_the_state_folder_has_one_name() -> None:
    assert null.STATE_FOLDER == workspace.STATE_FOLDER


COMMANDS = (
    ("build", "--json"),
    ("publish", "--json"),
    ("build", "app-hello", "--json"),
    ("build", "--publish", "--json", "venvstacks.toml"),
    ("build", "--json", "--console", "none"),
    ("-q", "build", "--json"),
)


def timeless(text: str) -> dict[str, Any]:
    """Give the document without what two builds never share."""
    document = json.loads(text) | {"run": "", "seconds": 0.0}
    return document | {"actions": [action | {"seconds": 0.0} for action in document["actions"]]}


def test_the_answer_is_what_looking_says(built: Space) -> None:
    for command in COMMANDS:
        built.ok(*command)
        before = builds(built)
        quick = built.ok(*command)
        assert builds(built) == before, command
        built.forget_snapshots()
        slow = built.ok(*command)
        assert builds(built) == before + 1, command
        assert timeless(quick.stdout) == timeless(slow.stdout)
        assert list(quick.json) == list(slow.json)
        assert [line.partition(" in ")[0] for line in quick.stderr.splitlines()] == [
            line.partition(" in ")[0] for line in slow.stderr.splitlines()
        ]
        assert (quick.stderr == "") == ("-q" in command or "none" in command)


def test_a_warning_is_given_again(space: Space) -> None:
    space.ok("publish")
    assert answered(space, "publish")
    assert "local-runtime-published" in space.ok("publish").stderr


def test_on_a_terminal_and_in_a_pipe(built: Space) -> None:
    def on_terminal() -> str:
        master, slave = pty.openpty()
        with os.fdopen(master, "rb", buffering=0) as stream:
            environ = built.variables({"TERM": "xterm"})
            command = [*built.command(), "build"]
            subprocess.run(command, cwd=built.root, env=environ, stderr=slave, stdin=slave, check=True)
            os.close(slave)
            read = b""
            try:
                while chunk := stream.read(10_000):
                    read += chunk
            except OSError:
                pass  # how Linux says that the terminal's other end is closed
        return read.decode()

    on_terminal()
    before = builds(built)
    assert "\x1b[32m" in on_terminal()
    assert "\x1b" not in built.ok("build").stderr
    assert builds(built) == before


def test_from_other_folders(built: Space) -> None:
    inner = built.root / "world"
    for folder, command in [
        (inner, ("build",)),
        (inner, ("build", "..")),
        (inner, ("-C", "..", "build")),
        (built.root.parent, ("build", "-C", built.root.name)),
        (built.root.parent, ("build", f"{built.root.name}/venvstacks.toml")),
    ]:
        assert not answered(built, *command, cwd=folder)
        assert answered(built, *command, cwd=folder)


def edit(path: str) -> Callable[[Space], object]:
    """Make an edit that keeps a file's size and times, as far as anyone can."""

    def apply(space: Space) -> None:
        target = space.root / path
        about = target.stat()
        data = target.read_bytes()
        target.write_bytes(data.replace(b"\n", b" ", 1) if path.endswith(".py") else data)
        os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))

    return apply


def replaced(space: Space) -> None:
    layer = space.layer("app-hello")
    shutil.copytree(layer, space.root / "copy", symlinks=True)
    shutil.rmtree(layer)
    (space.root / "copy").rename(layer)


CHANGES: dict[str, Callable[[Space], object]] = {
    "a launch module": edit("hello.py"),
    "a module of a launch package": edit("world/names.py"),
    "the stack file": edit("venvstacks.toml"),
    "a wheel": edit("wheels/beta-1.0-py3-none-any.whl"),
    "a lock": edit("requirements/framework-low/pylock.framework-low.toml"),
    "what a lock was made for": edit("requirements/framework-low/pylock.framework-low.meta.json"),
    "a new file in a launch package": lambda space: space.write("world/new.py", ""),
    "a new folder in a launch package": lambda space: space.write("world/new/data.txt", ""),
    "a new wheel": lambda space: space.wheel("alpha", version="7"),
    "a new work tree": lambda space: space.write(".git/HEAD", "ref: refs/heads/main\n"),
    "a module that goes": lambda space: (space.root / "world/names.py").unlink(),
    "a lock that goes": lambda space: (space.root / "requirements/app-world/pylock.app-world.toml").unlink(),
    "a runtime pin that goes": lambda space: next((space.root / "requirements").rglob("runtime.*.json")).unlink(),
    "an output that goes": lambda space: shutil.rmtree(space.layer("framework-up")),
    "an output that is replaced": replaced,
    "a file put into an output": lambda space: (space.layer("app-hello") / "notes").touch(),
}


def test_what_changes_is_looked_at(built: Space) -> None:
    assert answered(built)
    for name, change in CHANGES.items():
        change(built)
        assert not answered(built), name
        assert answered(built), name


def test_a_published_archive_that_goes_is_looked_at(space: Space) -> None:
    space.ok("publish")
    assert answered(space, "publish")
    next((space.root / "_artifacts").glob("*.tar.gz")).unlink()
    assert not answered(space, "publish")
    assert len(list((space.root / "_artifacts").glob("*.tar.gz"))) == 5


def test_a_new_gitignore_is_looked_at(space: Space) -> None:
    space.write(".git/HEAD", "ref: refs/heads/main\n")
    space.build()
    assert answered(space, *CHEAP)
    space.write("world/.gitignore", "")
    assert not answered(space, *CHEAP)


def test_a_second_stack_file_is_an_error(built: Space) -> None:
    assert answered(built)
    built.write("strata.toml", built.read("venvstacks.toml"))
    refused = built.strata("build")
    assert refused.code == 2
    assert "two-stack-files" in refused.stderr


def test_variables(built: Space) -> None:
    assert answered(built, env={"EDITOR": "ed", "COLUMNS": "40"})
    assert not answered(built, env={"UV_RESOLUTION": "lowest"})
    assert not answered(built, env={"STRATA_PYTHON": sys.executable})
    assert not answered(built, env={"GITHUB_ACTIONS": "true"})
    assert not answered(built, env={"STRATA_CACHE_DIR": str(built.store.parent / "another")})


def test_logins_are_not_kept(space: Space) -> None:
    environ = {
        "UV_INDEX_PRIVATE_PASSWORD": "correct-horse",
        "UV_INDEX_URL": "https://alice:battery-staple@index.invalid/simple",
    }
    space.ok("build", env=environ)
    assert answered(space, env=environ)
    kept = b"".join(path.read_bytes() for path in (space.root / ".strata" / "snapshots").iterdir())
    assert b"index.invalid" in kept
    assert b"horse" not in kept
    assert b"battery" not in kept
    moved = environ | {"UV_INDEX_URL": environ["UV_INDEX_URL"].replace("index.", "other.")}
    assert not answered(space, env=moved)


def test_other_arguments(built: Space) -> None:
    assert answered(built)
    for arguments in (["--json"], ["app-hello"], ["--locked"], ["--build-dir", "elsewhere"], ["--publish"]):
        assert not answered(built, "build", *arguments)
        assert answered(built, "build", *arguments)


def test_what_was_not_done_or_is_to_be_done_again_is_not_remembered(built: Space) -> None:
    for arguments in (["--force", "app-hello/link"], ["--dry-run"], ["--check"], ["-v"]):
        first = built.ok("build", *arguments).stderr
        second = built.ok("build", *arguments).stderr
        assert [line.partition(" in ")[0] for line in first.splitlines()] == [
            line.partition(" in ")[0] for line in second.splitlines()
        ]
    assert "1 executed" in built.ok("build", "--force", "app-hello/link").stderr


def test_a_failed_build_is_not_remembered(built: Space) -> None:
    built.replace("venvstacks.toml", '["gamma"]', '["gamma", "nowhere"]')
    for _ in range(2):
        failed = built.strata("build")
        assert failed.code != 0
        assert "nowhere" in failed.stderr


@pytest.mark.parametrize("damage", [b"", b"x" * 16, None])
def test_a_damaged_snapshot_is_no_answer(built: Space, damage: bytes | None) -> None:
    [snapshot] = (built.root / ".strata" / "snapshots").iterdir()
    assert answered(built)
    data = snapshot.read_bytes()
    torn = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    snapshot.write_bytes(torn if damage is None else damage)
    assert not answered(built)
    assert answered(built)


def test_only_so_many_snapshots_are_kept(built: Space) -> None:
    for number in range(30):
        old = built.write(f".strata/snapshots/{number:032}", b"of another request")
        os.utime(old, (1_000_000_000, 1_000_000_000 + number))
    assert not answered(built, "build", "-j1")
    kept = {path.name for path in (built.root / ".strata" / "snapshots").iterdir()}
    assert len(kept) == 16
    assert {f"{number:032}" for number in range(16, 30)} < kept
    assert answered(built)
    assert answered(built, "build", "-j1")


class Elsewhere(Space):
    """A space whose commands are those of another installation of strata, which a test may change."""

    python = Path(sys.executable)

    def command(self) -> tuple[str, ...]:
        return (str(self.python), "-m", "strata_rules.entry")


@pytest.fixture
def installed(space: Space, tmp_path: Path) -> Elsewhere:
    """Give a copy of the template that has been built by an installation of its own."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [site] = environment.glob("lib/python*/site-packages")
    for package in (strata_engine, strata_rules):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, site / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (site / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    assert uv is not None
    (environment / "bin" / "uv").symlink_to(uv)
    made = Elsewhere(space.root, space.store)
    made.python = environment / "bin" / "python"
    made.ok("build")
    assert answered(made)
    return made


def test_another_program_looks_for_itself(installed: Elsewhere) -> None:
    [site] = installed.python.parent.parent.glob("lib/python*/site-packages")
    with (site / "strata_rules" / "link" / "rule.py").open("a") as stream:
        stream.write("# changed\n")
    assert not answered(installed)
    assert answered(installed)
    (site / "zstandard-99.0.dist-info").mkdir()
    assert not answered(installed)
    assert answered(installed)
    uv = installed.python.parent / "uv"
    uv.unlink()
    shutil.copy(sys.executable if not shutil.which("uv") else str(shutil.which("uv")), uv)
    assert not answered(installed)
    assert answered(installed)
    # The program that the tests themselves run is another one, too.
    assert not answered(Space(installed.root, installed.store))
