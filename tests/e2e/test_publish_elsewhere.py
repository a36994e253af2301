"""What is published works elsewhere: unpacked by plain tools, as another user, without what it was made with."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import stat
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard
from conftest import untar
from runtimes import OWN
from space import LAYERS, Space

from strata_engine.digest import digest_file
from strata_rules.platforms import host_platform
from strata_rules.prove_layer import prove_layer

FORMATS = {"tar.xz": "0", "tar.zst": "1", "tar.gz": "1", "zip": "1", "dir": ""}
"""With a level that does not keep a test waiting."""

GREETINGS = {"hello": "hello alpha gamma\n", "world": "world wide beta\n"}

OTHER_USER: dict[str, Any] = {}
"""For `subprocess.run`: root becomes another user; others can only be themselves."""
if os.geteuid() == 0:
    _nobody = pwd.getpwnam("nobody")
    OTHER_USER = {"user": _nobody.pw_uid, "group": _nobody.pw_gid, "extra_groups": []}


class Press(NamedTuple):
    """A workspace that has published in every format."""

    space: Space
    folders: dict[str, Path]


@pytest.fixture(scope="module")
def press(template: Space, tmp_path_factory: pytest.TempPathFactory) -> Press:
    folder = tmp_path_factory.mktemp("press")
    space = template.copy(folder / "workspace", folder / "store")
    given = 'format = "tar.gz"\nlevel = 1\n'
    folders = {}
    for format_, level in FORMATS.items():
        wanted = f'format = "{format_}"\n' + (f"level = {level}\n" if level else "")
        space.replace("venvstacks.toml", given, wanted)
        space.publish("--output-dir", f"out-{format_}")
        folders[format_], given = space.root / f"out-{format_}", wanted
    return Press(space, folders)


class Unpacked(NamedTuple):
    """The layers of one format, side by side in a folder that everyone may enter."""

    format: str
    stack: Path
    press: Press


@pytest.fixture(scope="module", params=list(FORMATS))
def unpacked(press: Press, request: pytest.FixtureRequest) -> Iterator[Unpacked]:
    """Unpack one format as another user. pytest's own folders will not do: they are private."""
    format_ = request.param
    room = Path(tempfile.mkdtemp(prefix="strata-elsewhere-"))
    try:
        room.chmod(0o755)
        shutil.copytree(press.folders[format_], room / "published", symlinks=True)
        stack = room / "öther place" / "stack"
        stack.mkdir(parents=True)
        if OTHER_USER:
            for folder in (stack.parent, stack):
                os.chown(folder, OTHER_USER["user"], OTHER_USER["group"])
        for layer in LAYERS:
            unpack(format_, room / "published", layer, stack)
        shutil.rmtree(room / "published")
        yield Unpacked(format_, stack, press)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def unpack(format_: str, published: Path, layer: str, stack: Path) -> None:
    """Unpack a layer with a tool that everyone has; Python does it where this machine lacks it."""
    archive = published / f"{layer}.{format_}"
    if format_ == "dir":
        as_other("cp", "-R", "-P", "-p", published / layer, stack)
    elif format_ == "tar.xz" and shutil.which("xz"):
        as_other("tar", "-xf", archive, "-C", stack)
    elif format_ == "tar.zst" and shutil.which("zstd"):
        as_other("tar", "--zstd", "-xf", archive, "-C", stack)
    elif format_ == "zip" and shutil.which("unzip"):
        as_other("unzip", "-q", archive, "-d", stack)
    elif format_ == "zip":
        unzip(archive, stack)
    else:
        with contextlib.ExitStack() as opened:
            stream = opened.enter_context(archive.open("rb"))
            if format_ == "tar.zst":
                stream = opened.enter_context(
                    zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
                )
                tar = opened.enter_context(tarfile.open(fileobj=stream, mode="r|"))
            else:
                tar = opened.enter_context(tarfile.open(fileobj=stream))
            # Where there are filters, this one refuses what leads out of the folder: links to neighbours must not.
            untar(tar, stack)


def unzip(archive: Path, stack: Path) -> None:
    """Do what `unzip` does and Python's zipfile does not: modes and symlinks."""
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            target, mode = stack / info.filename, info.external_attr >> 16
            if stat.S_ISLNK(mode):
                target.symlink_to(opened.read(info).decode())
            else:
                opened.extract(info, stack)
                target.chmod(stat.S_IMODE(mode))


def as_other(*command: str | Path) -> None:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, umask=0o022, cwd="/", **OTHER_USER
    )
    assert done.returncode == 0, done.stderr


def greet(stack: Path, application: str) -> str:
    """Run an application as another user, elsewhere, with no variable set."""
    done = subprocess.run(
        [str(stack / f"app-{application}" / "bin" / "python"), "-m", application],
        cwd="/",
        env={},
        capture_output=True,
        text=True,
        check=False,
        **OTHER_USER,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@contextlib.contextmanager
def out_of_reach(space: Space) -> Iterator[None]:
    """Take away what the layers were made with."""
    moved = [(folder, folder.with_name(f"{folder.name}-moved")) for folder in (space.root, space.store)]
    for folder, away in moved:
        folder.rename(away)
        away.chmod(0)
    try:
        yield
    finally:
        for folder, away in moved:
            away.chmod(0o755)
            away.rename(folder)


def protect(stack: Path, *, writable: bool) -> None:
    """Give or take the right to write, as read-only media do."""
    for folder, folders, files in os.walk(stack):
        for path in (Path(folder, name) for name in (".", *folders, *files)):
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | 0o200 if writable else mode & ~0o222)


def content(stack: Path) -> dict[str, object]:
    """Give what is in a folder but for bytecode: links, modes, content."""
    found: dict[str, object] = {}
    for path in stack.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(stack))] = path.readlink()
        elif path.is_file() and path.parent.name != "__pycache__":
            found[str(path.relative_to(stack))] = (stat.S_IMODE(path.stat().st_mode), digest_file(path))
    return found


# -- elsewhere --------------------------------------------------------------------------------------------------------


def test_applications_run_with_no_further_step(unpacked: Unpacked) -> None:
    with out_of_reach(unpacked.press.space):
        protect(unpacked.stack, writable=False)
        try:
            read_only = {name: greet(unpacked.stack, name) for name in GREETINGS}
            assert not list(unpacked.stack.rglob("__pycache__"))
        finally:
            protect(unpacked.stack, writable=True)
        assert read_only == GREETINGS
        assert {name: greet(unpacked.stack, name) for name in GREETINGS} == GREETINGS


def test_layers_can_be_moved(unpacked: Unpacked) -> None:
    with out_of_reach(unpacked.press.space):
        for layer, statement in (("app-hello", "import alpha, gamma"), ("app-world", "import world.names, beta")):
            assert prove_layer(unpacked.stack, layer, statement).problems == ()


def test_every_format_has_the_same_in_it(unpacked: Unpacked) -> None:
    published = unpacked.press.folders["dir"]
    for layer in LAYERS:
        assert content(unpacked.stack / layer) == content(published / layer)


@pytest.mark.parametrize("unpacked", ["dir"], indirect=True)
def test_postinstall_is_harmless(unpacked: Unpacked) -> None:
    before = content(unpacked.stack)
    times = []
    for _ in range(2):
        for layer in LAYERS[1:]:
            as_other(unpacked.stack / "python" / "bin" / "python", unpacked.stack / layer / "postinstall.py")
        assert content(unpacked.stack) == before
        times.append({path: path.stat().st_mtime_ns for path in unpacked.stack.rglob("*.pyc")})
    assert any("app-hello" in str(path) for path in times[0])
    assert times[0] == times[1], "nothing is compiled twice"
    assert {name: greet(unpacked.stack, name) for name in GREETINGS} == GREETINGS


# -- what is written --------------------------------------------------------------------------------------------------


def documents(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the manifest's entries and the metadata files, by layer."""
    manifest = json.loads((folder / "__venvstacks__" / "venvstacks.json").read_text())
    entries = {entry["layer_name"]: entry for kind in manifest["layers"].values() for entry in kind}
    files = {path.stem: json.loads(path.read_text()) for path in folder.glob("__venvstacks__/env_metadata/*.json")}
    return entries, files


@pytest.mark.parametrize("format_", list(FORMATS))
def test_metadata_says_what_is_there(press: Press, format_: str) -> None:
    folder = press.folders[format_]
    entries, files = documents(folder)
    assert entries == files
    assert set(entries) == set(LAYERS)
    names = {"__venvstacks__"}
    for layer, entry in entries.items():
        if format_ == "dir":
            names.add(layer)
            assert not [name for name in entry if name.startswith("archive_")]
        else:
            names.add(entry["archive_name"])
            digest = digest_file(folder / f"{layer}.{format_}")
            archive = (f"{layer}.{format_}", digest.size, {"sha256": digest.hash}, 1, host_platform())
            fields = ("archive_name", "archive_size", "archive_hashes", "archive_build", "target_platform")
            assert tuple(entry[name] for name in fields) == archive
        shared = (layer, "python", f"cpython@{OWN}", 1)
        fields = ("install_target", "runtime_layer", "python_implementation", "lock_version")
        assert tuple(entry[name] for name in fields) == shared
    assert {path.name for path in folder.iterdir()} == names
    assert entries["app-hello"]["required_layers"] == ["framework-up", "framework-low"]
    assert entries["app-hello"]["app_launch_module"] == "hello"
    assert entries["app-hello"]["app_launch_module_hash"].startswith("sha256:")
    assert entries["app-world"]["app_launch_module_hash"].startswith("sha256/")


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_publishing_again_writes_only_what_changed(space: Space) -> None:
    space.publish()
    folder = space.root / "_artifacts"
    before, entries = stamps(folder), documents(folder)
    assert len(before) == 2 * len(LAYERS) + 1
    for _ in range(2):
        assert space.publish().executed == set()
        assert stamps(folder) == before
    os.utime(space.root / "hello.py")
    shutil.rmtree(space.root / ".strata")
    space.publish()
    assert (stamps(folder), documents(folder)) == (before, entries), "the destination is known by its content alone"

    space.write("hello.py", space.read("hello.py").replace("hello", "howdy"))
    assert space.publish().executed == {"app-hello/link", "app-hello/archive[tar.gz]"}
    after = stamps(folder)
    changed = {name.rpartition("/")[2] for name in before if after[name] != before[name]}
    assert changed == {"app-hello.tar.gz", "app-hello.json", "venvstacks.json"}
    now, _ = documents(folder)
    builds = {layer: entry["archive_build"] for layer, entry in now.items()}
    assert builds == dict.fromkeys(LAYERS, 1) | {"app-hello": 2}
    assert now["app-hello"]["archive_hashes"] == {"sha256": digest_file(folder / "app-hello.tar.gz").hash}


def test_publishing_folders_again_writes_only_what_changed(press: Press) -> None:
    space, options = press.space, ("--format", "dir", "--output-dir", "folders")
    space.publish(*options)
    folder = space.root / "folders"
    before = stamps(folder)
    # Another command, so that it is not the snapshot of the last one that answers.
    assert space.publish(*options, "--explain").executed == set()
    assert stamps(folder) == before
    edited = space.read("hello.py")
    space.write("hello.py", edited + "print('once more')\n")
    try:
        assert space.publish(*options).executed == {"app-hello/link"}
    finally:
        space.write("hello.py", edited)
    after = stamps(folder)
    # Its other files may be new too: a folder is built beside its place and takes it as a whole.
    assert {path.partition("/")[0] for path in before if after[path] != before[path]} == {"app-hello", "__venvstacks__"}
    assert "once more" in next((folder / "app-hello").rglob("hello.py")).read_text()


def test_a_narrow_umask_changes_nothing(press: Press) -> None:
    space, folder = press.space, press.space.root / "narrow"
    layers = ("app-hello", "framework-up")
    for format_ in FORMATS:
        chosen = [word for layer in layers for word in ("--include", layer)]
        space.ok("publish", "--force", "--format", format_, "--output-dir", f"narrow/{format_}", *chosen, umask=0o077)
        space.ok("publish", "--force", "--format", format_, "--output-dir", f"wide/{format_}", *chosen, umask=0o022)
        narrow, wide = content(folder / format_), content(space.root / "wide" / format_)
        assert narrow == wide
        assert len(narrow) >= 2 * len(layers) + 1
