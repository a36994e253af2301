"""What the machine refuses: full disks, folders and stores that cannot be written, files that cannot be read."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from refusals import refused
from space import Space

STORE_FULL = """\
error[disk-full]: no space left for the store `{store}`: {why}
hint: free some space, or put the store where there is some with `STRATA_CACHE_DIR`
note: `python/capture` ran because of first-build
"""
FULL = "hint: free some space; `strata cache gc --max-size 5GB` makes the store smaller\n"
OWNER = "hint: check who owns it and who may write there\n"


class Powerless(Space):
    """Runs commands without root's power to write and read whatever it likes."""

    def command(self) -> tuple[str, ...]:
        """Give the command line."""
        plain = tuple(super().command())
        if os.geteuid() != 0:
            return plain
        tool = shutil.which("setpriv")
        if tool is None:
            pytest.skip("root cannot give up its power here: there is no setpriv")
        lost = "-dac_override,-dac_read_search"
        return (tool, f"--bounding-set={lost}", f"--inh-caps={lost}", "--", *plain)


@pytest.fixture
def powerless(space: Space) -> Powerless:
    return Powerless(space.root, space.store)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of two megabytes."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "strata-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_under_the_store(space: Space, tiny: Path) -> None:
    full = Space(space.root, tiny / "store")
    said = STORE_FULL.format(store=full.store, why="No space left on device")
    assert refused(full, "build", "-q", code=3) == said
    assert space.build().counts["executed"] == 0


def test_a_limit_on_the_size_of_files(space: Space, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    limited = Space(space.root, tmp_path / "limited")
    said = STORE_FULL.format(store=limited.store, why="File too large")
    assert refused(limited, "build", "-q", code=3, preexec_fn=limit) == said
    assert limited.build("framework-low/lock").counts["failed"] == 0


def test_a_full_disk_under_the_outputs(built: Space, tiny: Path) -> None:
    for command in (("build", "--build-dir"), ("publish", "--output-dir")):
        said = refused(built, *command, str(tiny / "out"), "-q", code=3)
        where = tiny / "out" / "python" if command[0] == "build" else tiny / "out"
        assert said.endswith(f"error[disk-full]: no space is left for `{where}`\n{FULL}")
    assert [path.name for path in tiny.rglob("*") if path.is_file()] == []
    assert built.build().counts["executed"] == 0


def test_a_full_disk_under_the_workspace(built: Space, tiny: Path) -> None:
    small = built.copy(tiny / "workspace")
    locks = {path: path.read_bytes() for path in (small.root / "requirements").rglob("*") if path.is_file()}
    small.wheel("alpha", {"alpha.py": b"NAME = 'more'\n" + b"#" * 100})
    with (tiny / "filler").open("wb", buffering=0) as filler:
        try:
            while filler.write(b"x" * 4096):
                pass
        except OSError:
            pass
    ran = small.strata("build", "-q")
    assert ran.code == 3
    assert "Traceback" not in ran.stderr
    assert "error[cannot-write-lock]: cannot write the lock of `framework-low`: No space left on device\n" in ran.stderr
    assert {path: path.read_bytes() for path in locks} == locks
    (tiny / "filler").unlink()
    small.build("framework-low/install")
    assert small.build("framework-low/install").counts["executed"] == 0


def protect(*places: Path) -> None:
    for place in places:
        subprocess.run(["chmod", "-R", "a-w", str(place)], check=True)


def free(*places: Path) -> None:
    for place in places:
        subprocess.run(["chmod", "-R", "u+w", str(place)], check=True)


def test_a_store_that_can_only_be_read(powerless: Powerless) -> None:
    protect(powerless.store)
    try:
        # It serves all that it has.
        assert powerless.build().counts["executed"] == 0
        assert powerless.ok("run", "hello").stdout == "hello alpha gamma\n"
        powerless.write("hello.py", powerless.read("hello.py") + "# edited\n")
        assert refused(powerless, "build", "-q", code=3) == (
            f"error[store-read-only]: the store `{powerless.store}` cannot be written: it is read-only\n"
            "hint: make it writable for this user, or put the store elsewhere with `STRATA_CACHE_DIR`\n"
        )
    finally:
        free(powerless.store)
    assert powerless.build().executed == {"app-hello/link"}


def test_outputs_that_cannot_be_written(powerless: Powerless) -> None:
    powerless.build()
    powerless.write("hello.py", powerless.read("hello.py") + "# edited\n")
    protect(powerless.root / "_build")
    try:
        said = refused(powerless, "build", "-q", code=3)
    finally:
        free(powerless.root / "_build")
    assert said.startswith(f"error[not-writable]: cannot write `{powerless.root}/_build/")
    assert said.endswith(f"`: Permission denied\n{OWNER}")
    powerless.build()
    assert powerless.ok("run", "hello").stdout == "hello alpha gamma\n"


def test_files_that_cannot_be_read(powerless: Powerless) -> None:
    hint = "hint: check who owns it and who may read it\n"
    for file, command in (("hello.py", "build"), ("venvstacks.toml", "build"), ("venvstacks.toml", "check")):
        (powerless.root / file).chmod(0)
        try:
            said = refused(powerless, command, "-q", code=3)
        finally:
            (powerless.root / file).chmod(0o644)
        assert said == f"error[unreadable]: cannot read `{file}`: Permission denied\n{hint}"


def test_a_file_where_a_folder_is_needed(space: Space) -> None:
    for name, command in (("_build", "build"), ("_artifacts", "publish")):
        space.write(name, "mine")
        said = refused(space, command, "-q", code=3)
        assert f"error[host-error]: cannot use `{space.root}/{name}`: " in said
        assert said.endswith("hint: a file stands where a folder is needed, or a folder where a file is\n")
        assert space.read(name) == "mine"
    space.environ["STRATA_CACHE_DIR"] = str(space.write("file", ""))
    assert refused(space, "build", code=3) == (
        f"error[store-failed]: the store `{space.root}/file` cannot be used: Not a directory\n"
    )
