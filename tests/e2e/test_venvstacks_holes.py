"""What goes wrong in venvstacks 0.8, done right: one test for each hole, named after its row in the list of them.

Each docstring says what venvstacks does. Rows `5_2` are about reproducible archives, rows `5_4` about what is rebuilt;
below are defects that its users reported. Of those, lock upgrades (#22) are proved in `test_cost`, changed requirements
(#149) in `test_bad_locks`, versions side by side (#188, #189) and relative wheel paths (#291) in `test_stack_shapes`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from deployed import entries, layer, members, runtime, say, stack, start, table, unpack
from native import EXTENSION, compiled, needs_gcc
from refusals import here, refused, stamps
from runtimes import OWN, foreign_archive, interpreters, pbs_archive
from space import LAYERS, Space

from strata_engine.digest import digest_file
from strata_engine.store import open_store
from strata_rules.platforms import PLATFORMS, host_platform

HOST = host_platform()
ELSEWHERE = "win_amd64"
SHORT, _, PATCH = OWN.rpartition(".")
NEXT = f"{SHORT}.{int(PATCH) + 1}"
"""A patch release that nobody has."""
LOW = "requirements/framework-low/pylock.framework-low.toml"
LONG_AGO = 1_000_000_000


def archives(space: Space, output: str = "_artifacts") -> dict[str, str]:
    """Give the SHA-256 of each archive."""
    return {path.name: digest_file(path).hash for path in sorted((space.root / output).glob("*.tar.gz"))}


def files(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Stamp all files of a folder, and give their content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            about = path.stat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[path.relative_to(folder).as_posix()] = (about.st_ino, about.st_mtime_ns, digest)
    return found


def age(folders: Iterable[Path], moment: int) -> None:
    """Give everything in some folders one time."""
    for folder in folders:
        for path in folder.rglob("*"):
            os.utime(path, (moment, moment), follow_symlinks=False)


# -- reproducible archives --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def press(template: Space, tmp_path_factory: pytest.TempPathFactory) -> Space:
    """Give a workspace that has published with all it needs in the store. Not to be changed."""
    folder = tmp_path_factory.mktemp("press")
    space = template.copy(folder / "workspace", folder / "store")
    space.publish()
    return space


def test_5_2_row_1_archives_do_not_know_when_a_cache_was_filled(press: Space, tmp_path: Path) -> None:
    """An entry has the time at which uv's cache unpacked it, if that is older than the lock: caches can be told."""
    warm = press.copy(tmp_path / "warm", tmp_path / "warm-store")
    age([warm.root, warm.store], LONG_AGO)
    forced = warm.publish("--force")
    assert {label for label in forced.executed if "/archive" in label} == {f"{name}/archive[tar.gz]" for name in LAYERS}
    cold = press.copy(tmp_path / "cold")
    cold.store = tmp_path / "cold-store"
    age([cold.root], 2 * LONG_AGO)
    assert cold.publish().labels("cached") == set()
    assert len(archives(press)) == len(LAYERS)
    assert archives(warm) == archives(cold) == archives(press)


def test_5_2_row_2_the_umask_is_in_no_archive(press: Space, tmp_path: Path) -> None:
    """Under `umask 077` an archive has other modes, and so another hash. (All formats: `test_publish_elsewhere`.)"""
    space = press.copy(tmp_path / "workspace", tmp_path / "store")
    wheels = ("*/install", "*/link", "wheel/*", "*/archive*")
    chosen = ("--include", "framework-low", "--include", "app-world")
    space.ok("build", "-q", "--publish", *chosen, *(word for each in wheels for word in ("--force", each)), umask=0o077)
    private = archives(space)
    assert private == {name: archives(press)[name] for name in ("framework-low.tar.gz", "app-world.tar.gz")}
    for name in private:
        with tarfile.open(space.root / "_artifacts" / name) as opened:
            assert {stat.S_IMODE(member.mode) for member in opened if not member.issym()} <= {0o644, 0o755}


def test_5_2_row_3_local_wheels_are_known_by_their_content(space: Space, tmp_path: Path) -> None:
    """The wheel's time is shipped, its absolute folder is hashed, its content is not: a replaced one is not noticed."""
    space.publish()
    before = archives(space)
    names = {name for archive in before for name in members(space.root / "_artifacts" / archive)}
    assert not [name for name in names if "uv_cache" in name or "direct_url" in name]
    lock = space.read(LOW)
    wheel = space.root / "wheels" / "alpha-1.0-py3-none-any.whl"
    assert digest_file(wheel).hash in lock
    assert "file:" not in lock
    assert str(space.root) not in lock
    age([space.root / "wheels"], LONG_AGO)
    assert space.publish("--locked").executed == set()

    space.wheel("alpha", {"alpha.py": b"NAME = 'replaced'\n"})
    assert f"`wheels/{wheel.name}` is not the wheel" in refused(space, "build", "--locked", "-q", code=2)
    space.publish()
    assert [name for name, digest in archives(space).items() if digest != before[name]] == ["framework-low.tar.gz"]
    assert say(unpack(space, tmp_path / "stack"), "app-hello", "-m", "hello") == "hello replaced gamma\n"


def test_5_2_row_4_a_lock_does_not_name_the_interpreter(space: Space) -> None:
    """The header of a lock says which command made it: `python` or `python3`, whichever it was this time."""
    found = []
    names = (path for path in Path(sys.executable).parent.glob("python*") if "-" not in path.name)
    for python in sorted(names):
        for path in space.root.glob("requirements/*/pylock.*"):
            path.unlink()
        locking = Elsewhere(space, python)
        locking.ok("lock", "--upgrade")
        found.append({path.name: path.read_bytes() for path in space.root.glob("requirements/*/pylock.*.toml")})
    assert all(locks == found[0] for locks in found)
    assert len(found[0]) == len(LAYERS)
    assert len(found) > 1


class Elsewhere(Space):
    """A workspace in which another interpreter runs strata."""

    def __init__(self, space: Space, python: Path) -> None:
        super().__init__(space.root, space.store)
        self.environ = dict(space.environ)
        self.python = python

    def command(self) -> Sequence[str]:
        return (str(self.python), "-m", "strata_rules.entry")


def test_5_2_row_5_a_newer_table_of_runtimes_changes_no_locked_stack(tmp_path: Path, releases: Releases) -> None:
    """Which build of a Python is shipped depends on the version of a package on the machine that builds."""
    space = Space(tmp_path / "workspace", tmp_path / "store")
    listed = space.write("table.json", releases.table("first"))
    space.environ["UV_PYTHON_DOWNLOADS_JSON_URL"] = str(listed)
    base = layer("runtime", "python", python_implementation=f"cpython@{OWN}", platforms=[HOST])
    space.write("venvstacks.toml", stack(base, uv=""))
    first = space.publish()
    before = archives(space)
    listed.write_text(releases.table("rebuilt"))
    assert space.publish("--locked").executed == set()
    # Another machine that has never seen it takes what is pinned, not what its table says.
    other = space.copy(tmp_path / "other")
    other.store = tmp_path / "other-store"
    again = other.publish("--locked")
    assert {"python/download", "python/unpack"} <= again.executed
    assert (again.keys, archives(other)) == (first.keys, before)
    # The newer build comes when it is asked for.
    space.ok("lock", "--upgrade")
    assert "python/download" in space.publish().executed
    assert "lib/rebuilt.txt" in members(space.root / "_artifacts/python.tar.gz")
    assert archives(space) != before


def test_5_2_row_6_the_python_that_runs_strata_is_in_no_archive(
    press: Space, other_python: Path, tmp_path: Path
) -> None:
    """Bytes come from the standard library of whichever Python runs the tool, and which that was is not recorded."""
    space = press.copy(tmp_path / "workspace")
    space.store = tmp_path / "store"
    space.environ["STRATA_PYTHON"] = interpreters()[0].executable
    theirs = Elsewhere(space, other_python).publish("--locked")
    ours = press.publish("--explain")
    assert theirs.labels("cached") == set()
    codec = "import zlib; print(zlib.ZLIB_RUNTIME_VERSION)"
    versions = {
        subprocess.run([python, "-c", codec], capture_output=True, check=True).stdout
        for python in (sys.executable, other_python)
    }
    if len(versions) == 1:
        assert (archives(space), theirs.keys) == (archives(press), ours.keys)
    else:
        # What may differ is in the key, so that neither ever takes the other's archive for its own.
        different = {label for label, key in ours.keys.items() if theirs.keys[label] != key}
        assert different == {f"{name}/archive[tar.gz]" for name in LAYERS}
        for name in archives(press):
            assert members(space.root / "_artifacts" / name) == members(press.root / "_artifacts" / name)


# -- runtimes that can be replaced ------------------------------------------------------------------------------------


class Releases(NamedTuple):
    """Archives of one Python: as it was, built once more, and of the next patch release, which alone can be run."""

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / f"cpython-{name}-install_only.tar.gz"

    def source(self, name: str) -> dict[str, str]:
        return {"url": self.path(name).as_uri(), "sha256": digest_file(self.path(name)).hash}

    def table(self, name: str) -> str:
        """Write a table of builds, as uv's is, that knows one of them."""
        system, _, arch = HOST.partition("_")
        major, minor, patch = (int(part) for part in OWN.split("."))
        entry = {
            "name": "cpython",
            "arch": {"family": arch, "variant": None},
            "os": system,
            "libc": "gnu",
            "major": major,
            "minor": minor,
            "patch": patch,
            "prerelease": "",
            "variant": None,
            **self.source(name),
        }
        return json.dumps({"one": entry})


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    folder = tmp_path_factory.mktemp("releases")
    made = Releases(folder)
    store = open_store(folder / "store", lambda diagnostic: pytest.fail(diagnostic.message))
    whole, _ = pbs_archive(store.cas, interpreters()[0], folder)
    store.close()
    whole = whole.rename(made.path("whole"))
    small, _ = foreign_archive(folder, HOST, OWN)
    small.rename(made.path("first"))
    _rewrite(made.path("first"), made.path("rebuilt"), OWN, {"python/lib/rebuilt.txt": b"once more\n"})
    _rewrite(whole, made.path("patched"), NEXT, {f"python/lib/python{SHORT}/patched.py": b"RELEASE = 'patched'\n"})
    return made


def _rewrite(old: Path, new: Path, version: str, more: Mapping[str, bytes]) -> None:
    """Copy the archive of a runtime as another version, with files that it did not have."""
    with tarfile.open(old) as source, tarfile.open(new, "w:gz", compresslevel=1) as target:
        for member in source:
            stream = source.extractfile(member) if member.isfile() else None
            data = stream.read() if stream is not None else b""
            if member.name.endswith("/patchlevel.h"):
                data = f'#define PY_VERSION "{version}"\n'.encode()
                member.size = len(data)
            target.addfile(member, io.BytesIO(data))
        for name, data in more.items():
            added = tarfile.TarInfo(name)
            added.size = len(data)
            target.addfile(added, io.BytesIO(data))


# -- what is rebuilt --------------------------------------------------------------------------------------------------


def test_5_4_row_1_an_edited_module_renews_archive_and_manifest(space: Space) -> None:
    """The archive and the manifest of an application keep the old launch module, support modules and layers below."""
    space.write("aid.py", "AID = 1\n")
    space.replace(
        "venvstacks.toml", 'launch_module = "hello.py"', 'launch_module = "hello.py"\nsupport_modules = ["aid.py"]'
    )
    space.publish()
    seen = [entries(space)["app-hello"]]

    def renewed(path: str, data: bytes) -> dict[str, Any]:
        """Publish, and check that archive and manifest have what is new."""
        space.build("--publish")
        entry = entries(space)["app-hello"]
        archive = space.root / "_artifacts" / entry["archive_name"]
        [found] = [content for name, content in members(archive).items() if name.endswith(path)]
        assert data in found
        assert entry["archive_hashes"] == {"sha256": digest_file(archive).hash}
        assert entry["archive_build"] == seen[-1]["archive_build"] + 1
        seen.append(entry)
        return entry

    space.write("hello.py", "print('another hello')\n")
    assert renewed("/hello.py", b"another hello")["app_launch_module_hash"] != seen[0]["app_launch_module_hash"]
    space.write("aid.py", "AID = 2\n")
    assert renewed("/aid.py", b"AID = 2")["app_support_modules"] != seen[0]["app_support_modules"]
    [low] = [part for part in space.read("venvstacks.toml").split("\n\n") if 'name = "hello"' in part]
    space.replace("venvstacks.toml", low, low.replace('["up"]', '["low"]'))
    assert renewed("venvstacks_layer.json", b"../framework-low/")["required_layers"] == ["framework-low"]
    # A layer below gets versions, and then another one: its folder has another name, which applications refer to.
    space.replace("venvstacks.toml", 'name = "low"', 'name = "low"\nversioned = true')
    assert renewed("venvstacks_layer.json", b"../framework-low@2/")["required_layers"] == ["framework-low@2"]
    space.wheel("alpha", version="1.1")
    space.ok("lock", "--upgrade")
    assert renewed("venvstacks_layer.json", b"../framework-low@3/")["required_layers"] == ["framework-low@3"]


def exported(space: Space, layer: str) -> Path:
    """Give the launch module of an exported application."""
    [found] = (space.root / "_export" / layer).glob("lib/*/site-packages/hello.py")
    return found


def test_5_4_row_2_an_edited_module_is_exported_again(space: Space) -> None:
    """An export keeps the old launch module, while its metadata tells the hash of the new one."""
    space.ok("local-export")
    before = entries(space, "_export")["app-hello"]
    assert say(space.root / "_export", "app-hello", "-m", "hello") == "hello alpha gamma\n"
    space.write("hello.py", "print('another hello')\n")
    space.ok("local-export")
    after = entries(space, "_export")["app-hello"]
    assert exported(space, "app-hello").read_text() == "print('another hello')\n"
    assert after["app_launch_module_hash"] != before["app_launch_module_hash"]
    # Not the old bytecode either.
    assert say(space.root / "_export", "app-hello", "-m", "hello") == "another hello\n"


def test_5_4_row_3_an_export_shares_nothing_with_what_it_was_made_of(space: Space) -> None:
    """Files of an export are links to the build's own: the next build changes what was exported before."""
    space.ok("build")
    space.ok("local-export")
    folder = space.root / "_export"
    before = files(folder)
    others = [path for root in (space.root / "_build", space.store) for path in root.rglob("*") if path.is_file()]
    assert not {path.stat().st_ino for path in others} & {stamp[0] for stamp in before.values()}
    space.write("hello.py", "print('another hello')\n")
    space.ok("build")
    assert files(folder) == before
    assert say(folder, "app-hello", "-m", "hello") == "hello alpha gamma\n"
    # Nor does an edit in an export reach a build or the store.
    space.ok("local-export")
    exported(space, "app-hello").write_text("print('edited')\n")
    assert space.ok("run", "hello").stdout == "another hello\n"
    shutil.rmtree(space.root / "_build")
    assert space.ok("run", "hello").stdout == "another hello\n"
    space.ok("local-export", "--force")
    assert say(folder, "app-hello", "-m", "hello") == "another hello\n"


def test_5_4_row_4_a_removed_requirement_is_gone(space: Space, tmp_path: Path) -> None:
    """What is no longer required stays installed and is shipped in new archives. (What it costs: `test_cost`.)"""
    space.publish()
    space.ok("build")
    space.replace("venvstacks.toml", '["alpha", "beta"]', '["alpha"]')
    space.ok("build", "--publish")
    assert not list(space.layer("framework-low").rglob("*beta*"))
    place = unpack(space, tmp_path / "stack")
    assert "No module named 'beta'" in start(place, "app-hello", "-c", "import beta").stderr
    assert say(place, "app-hello", "-m", "hello") == "hello alpha gamma\n"


def test_5_4_row_5_removed_and_renamed_modules_are_gone(space: Space, tmp_path: Path) -> None:
    """Modules and files of packages that no longer exist stay in the environment and in later archives."""
    space.write("aid.py", "")
    space.write("world/old.py", "")
    space.write("world/deep/old.py", "")
    named = 'launch_module = "hello.py"'
    space.replace("venvstacks.toml", named, f'{named}\nsupport_modules = ["aid.py"]')
    space.ok("build", "--publish")
    (space.root / "hello.py").rename(space.root / "howdy.py")
    space.replace("venvstacks.toml", f'{named}\nsupport_modules = ["aid.py"]', 'launch_module = "howdy.py"')
    (space.root / "world" / "old.py").rename(space.root / "world" / "new.py")
    shutil.rmtree(space.root / "world" / "deep")
    space.ok("build", "--publish")
    place = unpack(space, tmp_path / "stack", "app-hello", "app-world")
    for folder in (space.root / "_build", place):
        modules = {path.name for path in folder.glob("app-hello/lib/*/site-packages/*.py")}
        assert modules == {"_strata_boot.py", "howdy.py"}
        [package] = folder.glob("app-world/lib/*/site-packages/world")
        assert {path.name for path in package.iterdir()} == {"__init__.py", "__main__.py", "names.py", "new.py"}


def test_5_4_row_6_another_patch_release_replaces_the_interpreter(tmp_path: Path, releases: Releases) -> None:
    """A changed `python_implementation` does nothing: interpreter, archive and manifest stay the old ones."""
    space = Space(tmp_path / "workspace", tmp_path / "store")
    space.write(
        "show.py",
        "import alpha\nfrom patched import RELEASE\nprint(RELEASE)\n",
    )
    space.wheel("alpha", {"alpha.py": b"NAME = 'alpha'\n"})

    def write(version: str, name: str) -> None:
        base = layer("runtime", "python", python_implementation=f"cpython@{version}", platforms=[HOST])
        base += table('tool.strata.runtimes."python"', provider="archive", **releases.source(name))
        low = layer("framework", "low", "alpha", runtime="python")
        app = layer("application", "show", frameworks=["low"], launch_module="show.py")
        space.write("venvstacks.toml", stack(base, low, app))

    write(OWN, "first")
    space.build("--publish")
    before = entries(space)

    write(NEXT, "patched")
    ran = space.build("--publish")
    assert {"python/download", "python/unpack", "python/link", "python/archive[tar.gz]"} <= ran.executed
    assert not {"framework-low/lock", "framework-low/install"} & ran.executed, "the packages are the same"
    after = entries(space)
    assert {entry["python_implementation"] for entry in after.values()} == {f"cpython@{NEXT}"}
    assert after["python"]["archive_hashes"] != before["python"]["archive_hashes"]
    assert say(unpack(space, tmp_path / "stack"), "app-show", "-m", "show") == "patched\n"
    assert space.ok("run", "show").stdout == "patched\n"
    for name in after:
        described = members(space.root / f"_artifacts/{name}.tar.gz")["share/venv/metadata/venvstacks_layer.json"]
        assert json.loads(described)["py_version"] == NEXT


# -- which locks are valid --------------------------------------------------------------------------------------------

INDEX = '\n[[tool.uv.index]]\nname = "own"\nurl = "https://index.invalid/simple"\nexplicit = true\n'

NO_INDEX, REQUIRED = "no-index = true\n", 'requirements = ["alpha", "beta"]\n'


def listed(platforms: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in sorted(platforms))


SETTINGS = [
    (NO_INDEX, f'{NO_INDEX}override-dependencies = ["alpha==0.9"]\n', "uv's setting `override-dependencies` is new"),
    (NO_INDEX, f'{NO_INDEX}constraint-dependencies = ["alpha<1"]\n', "uv's setting `constraint-dependencies` is new"),
    (NO_INDEX, f'{NO_INDEX}exclude-newer = "2020-01-01T00:00:00Z"\n', "uv's setting `exclude-newer` is new"),
    (NO_INDEX, f'{NO_INDEX}resolution = "lowest"\n', "uv's setting `resolution` is new"),
    (NO_INDEX, 'index-url = "https://index.invalid/simple"\n', "uv's setting `index-url` is new"),
    (NO_INDEX, "", "uv's setting `no-index` is gone"),
    (
        REQUIRED,
        f'{REQUIRED}package_indexes = {{ alpha = "own" }}\n',
        "`alpha` came from no index of its own and comes from the index `own`",
    ),
    (REQUIRED, f'{REQUIRED}priority_indexes = ["own"]\n', "the index `own` is new"),
    (
        REQUIRED,
        f'{REQUIRED}platforms = ["{HOST}", "{ELSEWHERE}"]\n',
        f"its platforms were {listed(PLATFORMS)} and are {listed((HOST, ELSEWHERE))}",
    ),
    (REQUIRED, f'{REQUIRED}linux_target = "glibc@2.17"\n', "its `linux_target` was `glibc@2.28` and is `glibc@2.17`"),
]
"""What stands in the stack file, what instead, and how that is told."""


@pytest.mark.usefixtures("plain_environment")
def test_5_4_row_7_settings_indexes_and_platforms_belong_to_a_lock(
    space: Space, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lock stays valid whatever becomes of uv's settings, of the layer's indexes and of its platforms."""
    root = ("-C", str(space.root))
    original = space.read("venvstacks.toml") + INDEX
    space.write("venvstacks.toml", original)
    assert here(capsys, *root, "lock", "--check").code == 0
    before = stamps(space.root)
    for old, new, why in SETTINGS:
        assert original.count(old) == 1
        space.write("venvstacks.toml", original.replace(old, new))
        assert here(capsys, *root, "lock", "--check").code == 4, new
        refusal = here(capsys, *root, "build", "--locked", "-q")
        assert refusal.code == 2
        assert "error[locked]: `framework-low/lock` would have to run" in refusal.stderr
        assert f"note: {why}\n" in refusal.stderr, refusal.stderr
        shown = here(capsys, *root, "show", "--json")
        assert "framework-low" in {each["name"] for each in shown.json["frameworks"] if not each["has_valid_lock"]}, new
    assert stamps(space.root) == before
    space.write("venvstacks.toml", original)
    assert here(capsys, *root, "lock", "--check").code == 0


def test_5_4_row_8_a_lock_follows_those_below_it(space: Space, tmp_path: Path) -> None:
    """After a merge that brings another lock of a lower layer, the locks above stay valid and contradict it."""
    space.ok("build")
    branch = space.copy(tmp_path / "branch", state=True)
    branch.replace("venvstacks.toml", '["alpha", "beta"]', '["alpha<1", "beta"]')
    branch.ok("lock")
    assert 'name = "alpha"\nversion = "0.9"' in branch.read(LOW)
    up = "requirements/framework-up/pylock.framework-up.toml"
    assert 'version = "0.9"' in branch.read(up)
    # Merged by hand: the branch's stack file and lower lock, and the upper locks as they were.
    shutil.copy(branch.root / "venvstacks.toml", space.root)
    shutil.copytree(
        branch.root / "requirements/framework-low", space.root / "requirements/framework-low", dirs_exist_ok=True
    )
    assert space.strata("lock", "--check").code == 4
    assert "`framework-up/lock` would have to run" in refused(space, "build", "--locked", "-q", "-j1", code=2)
    space.ok("build")
    assert (space.read(up), space.read(LOW)) == (branch.read(up), branch.read(LOW))
    assert space.build("--locked").executed == set()


def test_5_4_row_9_a_versioned_layer_is_exported_once(space: Space) -> None:
    """Layers with versions are exported at each run, because a name with its version is compared with one without."""
    text = space.read("venvstacks.toml")
    for name in ("low", "up", "hello"):
        text = text.replace(f'name = "{name}"', f'name = "{name}"\nversioned = true')
    space.write("venvstacks.toml", text)
    space.ok("local-export")
    folder = space.root / "_export"
    names = {entry["install_target"] for entry in entries(space, "_export").values()}
    assert {name.partition("@")[0] for name in names if "@" in name} == {"framework-low", "framework-up", "app-hello"}
    before = files(folder)
    assert {path.partition("/")[0] for path in before} == names | {"__venvstacks__"}
    for arguments in ((), ("--explain",)):
        space.ok("local-export", *arguments)
        assert files(folder) == before


def test_5_4_row_10_a_lock_with_exclude_newer_is_resolved_once_and_then_valid(space: Space) -> None:
    """With `exclude-newer` every lock is "needed" for ever, and gets a new version without being resolved."""
    space.replace("venvstacks.toml", "no-index = true\n", 'no-index = true\nexclude-newer = "2024-05-06T00:00:00Z"\n')
    space.replace("venvstacks.toml", 'name = "low"', 'name = "low"\nversioned = true')
    assert "framework-low/lock" in space.ok("lock", "--json").executed

    def metadata() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(space.read(LOW.replace(".toml", ".meta.json")))
        return found

    first = metadata()
    assert first["locked_at"] == "2024-05-06T00:00:00+00:00"
    for _ in range(2):
        assert space.ok("lock", "--json").executed == set()
        space.ok("lock", "--check")
    assert metadata() == first
    # And what is asked for next is really resolved.
    space.replace("venvstacks.toml", '["alpha", "beta"]', '["alpha<1", "beta"]')
    assert space.strata("lock", "--check").code == 4
    space.ok("lock")
    assert 'name = "alpha"\nversion = "0.9"' in space.read(LOW)
    assert metadata()["lock_version"] == first["lock_version"] + 1


def test_5_4_row_11_no_wheel_for_a_target_says_what_to_write(empty: Space) -> None:
    """A relock of its own sample fails: a package has no wheels for one platform, and how to go on is a riddle."""
    empty.wheel("tracer", {"tracer.py": b""}, tag="py3-none-win_amd64")
    empty.write("show.py", "print('shown')\n")
    platforms = [HOST, "win_amd64", "win_arm64"]
    requirement = "tracer; sys_platform == 'win32'"
    text = stack(
        runtime(platforms=platforms),
        layer("application", "show", requirement, runtime="python", launch_module="show.py"),
    )
    empty.write("venvstacks.toml", text)
    ran = empty.strata("lock", "-q")
    assert ran.code == 2
    said = ran.stderr
    assert "error[no-wheel]: `tracer` 1.0 has no wheel for `win_arm64`\n" in said
    assert "note: there are wheels for py3-none-win_amd64\n" in said
    # What the hint says is what helps.
    [hint] = [line for line in said.splitlines() if line.startswith("hint: ")]
    written = hint.partition("`")[2].partition("`")[0]
    assert sorted(json.loads(written.removeprefix("platforms = "))) == sorted([HOST, "win_amd64"])
    empty.write(
        "venvstacks.toml", text.replace('launch_module = "show.py"\n', f'launch_module = "show.py"\n{written}\n')
    )
    empty.ok("lock")
    assert empty.ok("run", "show").stdout == "shown\n"


# -- shared libraries -------------------------------------------------------------------------------------------------


def native(space: Space, folder: Path, *providers: str) -> None:
    """Make a wheel with an extension that needs `libbar.so.2`, and wheels that each have it under a versioned name."""
    foo = compiled(folder, "libfoo.so.1", "int foo(void) { return 40; }", "-Wl,-soname,libfoo.so.1")
    bar = compiled(
        folder, "libbar.so.2", "int foo(void); int bar(void) { return foo() + 2; }",
        "-Wl,-soname,libbar.so.2", f"-L{folder}", "-l:libfoo.so.1",
    )  # fmt: skip
    flags = ("-Wl,--no-as-needed", f"-L{folder}", "-l:libbar.so.2", "-l:libfoo.so.1", f"-Wl,-rpath-link,{folder}")
    extension = compiled(folder, "_fooext.abi3.so", EXTENSION, *flags)
    for name in providers:
        space.wheel(name, {f"{name}.libs/libfoo.so.1.2.3": foo, f"{name}.libs/libbar.so.2.0.1": bar, f"{name}.py": b""})
    space.wheel("fooext", {"deep/__init__.py": b"", "deep/_fooext.abi3.so": extension})
    space.write("show.py", "from deep._fooext import value\nprint(value())\n")


@needs_gcc
def test_5_4_row_12_versioned_library_names_are_linked(empty: Space, tmp_path: Path) -> None:
    """Only `.so` and `.dylib` are linked: `libfoo.so.1` of a lower layer is not found by what needs it above."""
    native(empty, tmp_path / "c", "bars")
    low = layer("framework", "low", "bars", runtime="python", dynlib_exclude=[])
    app = layer("application", "show", "fooext", frameworks=["low"], launch_module="show.py")
    empty.write("venvstacks.toml", stack(low, app))
    empty.publish()
    place = unpack(empty, tmp_path / "stack")
    links = {path.name for path in (place / "framework-low/share/venv/dynlib").iterdir()}
    assert {"libfoo.so.1", "libbar.so.2"} <= links
    assert say(place, "app-show", "-m", "show") == "42\n"
    # What is excluded is not offered, which is said, and reaches the archive of an unchanged lock (row 1 again).
    before = archives(empty)
    empty.replace("venvstacks.toml", "dynlib_exclude = []", 'dynlib_exclude = ["**/libbar.so*"]')
    ran = empty.publish()
    assert "libbar.so.2" in ran.stderr
    assert archives(empty)["framework-low.tar.gz"] != before["framework-low.tar.gz"]
    unpack(empty, tmp_path / "excluded")
    assert "libbar.so.2" in start(tmp_path / "excluded", "app-show", "-m", "show").stderr


@needs_gcc
def test_issue_156_and_222_all_conflicts_at_once_and_every_time(empty: Space, tmp_path: Path) -> None:
    """Ambiguous libraries are reported one per build, and a second build, without a change, succeeds."""
    native(empty, tmp_path / "c", "bars", "pubs")
    empty.write(
        "venvstacks.toml",
        stack(
            layer("framework", "one", "bars", runtime="python"),
            layer("framework", "two", "pubs", runtime="python"),
            layer("application", "show", "fooext", frameworks=["one", "two"], launch_module="show.py"),
            layer("application", "fine", frameworks=["one"], launch_module="fine.py"),
        ),
    )
    empty.write("fine.py", "print('fine')\n")
    for command in (("build", "-q"), ("build", "-q"), ("build", "-q", "--include", "app-show"), ("publish", "-q")):
        ran = empty.strata(*command)
        assert ran.code == 1, command
        for word in ("libfoo.so.1", "libbar.so.2", "framework-one", "framework-two"):
            assert word in ran.stderr, (command, word)
    assert not (empty.root / "_artifacts").exists()
    assert empty.ok("run", "fine").stdout == "fine\n"
    # One of them says that it is not offered, and all is well.
    empty.replace("venvstacks.toml", 'name = "two"\n', 'name = "two"\ndynlib_exclude = ["*"]\n')
    empty.publish()
    assert say(unpack(empty, tmp_path / "stack"), "app-show", "-m", "show") == "42\n"


# -- builds that fail, and builds at once -----------------------------------------------------------------------------


def test_5_4_row_13_no_part_costs_the_whole(built: Space, tmp_path: Path) -> None:
    """A layer can only be cleaned as a whole, and nothing is kept between wheels, environments and archives."""
    built.publish()
    shutil.rmtree(built.layer("framework-low"))
    (built.root / "_artifacts/app-world.tar.gz").unlink()
    again = built.build("--publish")
    assert again.executed == set()
    assert again.labels("cached") == {"framework-low/link"}
    assert (built.root / "_artifacts/app-world.tar.gz").is_file()
    # One action is done again, and what stands on it is not, because the same came out.
    assert built.build("--force", "framework-low/install").executed == {"framework-low/install"}
    # Another stack with the same wheels unpacks none; with the same layer it installs none.
    other = Space(tmp_path / "other", built.store)
    shutil.copytree(built.root / "wheels", other.root / "wheels")
    other.write("show.py", "import alpha, beta, zeta\n")
    low = layer("framework", "low", "alpha", "beta", runtime="python")
    other.write(
        "venvstacks.toml", stack(low, layer("application", "show", "zeta", frameworks=["low"], launch_module="show.py"))
    )
    ran = other.build()
    assert {label.rpartition("/")[2] for label in ran.executed} <= {"lock", "link"}
    assert {"python/link", "framework-low/install", "framework-low/link", "app-show/install"} <= ran.labels("cached")


def test_5_4_row_14_builds_at_once_are_both_right(space: Space) -> None:
    """Nothing locks the build folder: two runs at once spoil each other's environments."""
    space.wheel("alpha", {"alpha.py": b"NAME = 'again'\n"})
    started = [
        subprocess.Popen(
            [*space.command(), *command],
            cwd=space.root,
            env=space.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for command in (("build", "--publish"), ("publish",), ("build", "--include", "app-world"))
    ]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert space.build("--publish").executed == set()
    alone = space.copy(space.root.parent / "alone")
    alone.store = space.root.parent / "alone-store"
    alone.build("--publish")
    assert archives(alone) == archives(space)
    for name in LAYERS:
        assert {path: each[2] for path, each in files(alone.layer(name)).items()} == {
            path: each[2] for path, each in files(space.layer(name)).items()
        }


def test_5_4_row_14_a_failed_build_is_never_taken_for_a_good_one(built: Space) -> None:
    """A failed build leaves a half-updated environment, which later builds take as it is (#222)."""
    built.publish()
    before, published = files(built.layer("framework-up")), archives(built)
    good = (built.root / "wheels/gamma-1.0-py3-none-any.whl").read_bytes()
    bad = b"gamma.py,sha256=AAAA,6\n"
    built.wheel("gamma", {"gamma.py": b"NAME = 'bad'\n"}, requires=["alpha"], replace={"RECORD": bad})
    for command in (
        ("build",),
        ("build",),
        ("build", "--include", "app-hello"),
        ("build", "app-world/link"),
        ("publish",),
        ("run", "hello"),
    ):
        ran = built.strata(*command)
        assert ran.code == 2, (command, ran.stderr)
        assert "error[bad-record]: `gamma-1.0-py3-none-any.whl" in ran.stderr
        assert files(built.layer("framework-up")) == before
        assert archives(built) == published
    built.wheel("gamma", {"gamma.py": b"NAME = 'better'\n"}, requires=["alpha"])
    assert built.ok("run", "hello").stdout == "hello alpha better\n"
    (built.root / "wheels/gamma-1.0-py3-none-any.whl").write_bytes(good)
    assert built.build("--publish").executed == set(), "what was there before is still known"
    assert archives(built) == published


# -- what users reported ----------------------------------------------------------------------------------------------


def test_issue_66_postinstall_says_what_it_could_not_do(press: Space, tmp_path: Path) -> None:
    """A failing post-installation step ends as if all were well."""
    place = unpack(press, tmp_path / "stack", "framework-low", "framework-up", "app-hello")
    done = subprocess.run(
        [sys.executable, place / "app-hello/postinstall.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the runtime layer is not beside this one")
    assert "Traceback" not in done.stderr


def test_issue_137_resetting_a_lock_reaches_the_layers_above(space: Space) -> None:
    """`lock --include "framework*" --reset-lock "*"` leaves the applications with pins that are gone below."""
    space.wheel("alpha", version="1.1")
    space.wheel("zeta", version="1.1", requires=["gamma"])
    space.ok("lock")
    up, world = (f"requirements/{name}/pylock.{name}.toml" for name in ("framework-up", "app-world"))
    assert ('version = "1.0"' in space.read(LOW), "1.1" in space.read(LOW)) == (True, False), "locks keep their pins"
    space.ok("lock", "--include", "framework*", "--reset-lock", "*")
    for path in (LOW, up):
        assert 'name = "alpha"\nversion = "1.1"' in space.read(path)
    assert 'name = "zeta"\nversion = "1.1"' in space.read(world)
    assert space.ok("lock", "--check", "--json").executed == set()


def test_issue_269_a_shadowed_package_does_not_count(empty: Space, tmp_path: Path) -> None:
    """Two frameworks have one package in two versions: the layers above cannot be locked, or lock the hidden one."""
    for version in ("1.0", "2.0"):
        empty.wheel("twin", {"twin.py": f"VERSION = {version!r}\n".encode()}, version=version)
    empty.wheel("above", {"above.py": b""}, requires=["twin"])
    empty.write("show.py", "import above, twin\nprint(twin.VERSION)\n")
    frameworks = [layer("framework", f"v{n}", f"twin=={n}.0", runtime="python") for n in (1, 2)]
    apps = [
        layer("application", name, "above", frameworks=order, launch_module="show.py")
        for name, order in {"older": ["v1", "v2"], "newer": ["v2", "v1"]}.items()
    ]
    empty.write("venvstacks.toml", stack(*frameworks, *apps))
    empty.publish()
    place = unpack(empty, tmp_path / "stack")
    for name, version in {"older": "1.0", "newer": "2.0"}.items():
        assert say(place, f"app-{name}", "-m", "show") == f"{version}\n"
        assert f'name = "twin"\nversion = "{version}"' in empty.read(f"requirements/app-{name}/pylock.app-{name}.toml")
        assert not list((place / f"app-{name}").rglob("twin*"))
