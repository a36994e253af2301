"""Archives of a real tree: unpacked by the usual tools they give that tree, and their bytes depend on nothing else."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import untar

from strata_engine import codec
from strata_engine.action import Action, Json, Ref
from strata_engine.capture import capture
from strata_engine.digest import EMPTY, Digest, content_mtime
from strata_engine.errors import ActionError, SpecError
from strata_engine.rule import RuleContext, Target, analyze
from strata_engine.tree import Node, Symlink, Tree, assemble, edit
from strata_rules import compress
from strata_rules.archive import members, tarstream
from strata_rules.archive import rule as archive
from strata_rules.providers import ArchiveInfo, CompiledInfo, LinkInfo

TARS = ("tar.xz", "tar.zst", "tar.gz")


class Memory:
    """A store in memory."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {EMPTY: b""}

    def get(self, digest: Digest) -> bytes:
        return self.blobs[digest]

    def put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.blobs[digest] = bytes(data)
        return digest

    def put_file(self, path: Path) -> Digest:
        return self.put(path.read_bytes())

    def load(self, digest: Digest) -> codec.Directory:
        return codec.decode_directory(self.blobs[digest])

    def save(self, directory: codec.Directory) -> Digest:
        return self.put(codec.encode_directory(directory))

    def open(self, digest: Digest) -> io.BytesIO:
        return io.BytesIO(self.blobs[digest])

    @contextmanager
    def writer(self) -> Iterator[SimpleNamespace]:
        buffer = bytearray()
        yield SimpleNamespace(write=buffer.extend, commit=lambda: self.put(bytes(buffer)))


class Running:
    """As much of an Execution as Archive uses."""

    label = "app-x/archive"

    def __init__(self, store: Memory, tree: Tree, params: Mapping[str, Json]) -> None:
        self.store, self.tree, self.params = store, tree, params
        self.heard: list[tuple[int, int | None]] = []
        self.checks = 0
        self.cancel_at = -1

    def node(self, name: str) -> Node:
        assert name == "tree"
        return self.tree

    def progress(self, done: int, total: int | None = None) -> None:
        self.heard.append((done, total))

    def check_cancelled(self) -> None:
        self.checks += 1
        if self.checks == self.cancel_at:
            raise KeyboardInterrupt


def packed(store: Memory, tree: Tree, format_: str, *, symlinks: str = "keep", level: int | None = None) -> bytes:
    level = archive.checked_level(format_, level)
    params: dict[str, Json] = {"format": format_, "level": level, "prefix": "app-x@2", "symlinks": symlinks}
    running = Running(store, tree, params)
    out = archive.run(running)  # type: ignore[arg-type]  # as much of an Execution as it uses
    assert running.heard[-1][0] == running.heard[-1][1]
    return store.get(out.digest)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A layer with everything that can be in one."""
    root = tmp_path / "source"
    (root / "bin").mkdir(parents=True)
    (root / "bin/python").symlink_to("../../cpython/bin/python")
    (root / "bin/tool").write_bytes(b"#!/bin/sh\n")
    (root / "bin/tool").chmod(0o755)
    deep = root / "lib" / ("d" * 60) / ("e" * 60) / "naïve-ünï-日本"
    deep.mkdir(parents=True)
    (deep / "module.py").write_text("x = 1\n")
    (deep / "empty").touch()
    dice = random.Random(3)
    for number in range(40):
        (root / "lib" / f"m{number}.py").write_bytes(dice.randbytes(dice.randrange(9000)) * 3)
    (root / "lib/big.bin").write_bytes(dice.randbytes(5 << 18) + bytes(1 << 20))
    (root / "lib/inner").symlink_to("m1.py")
    return root


def picture(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR))
    return found


@pytest.mark.parametrize("format_", [*TARS, "zip"])
def test_unpacking_gives_the_tree(format_: str, source: Path, tmp_path: Path) -> None:
    store = Memory()
    data = packed(store, capture(store, source), format_)
    file = tmp_path / f"a.{format_}"
    file.write_bytes(data)
    out = tmp_path / "out"
    out.mkdir()
    tool = {"tar.xz": "xz", "tar.zst": "zstd", "tar.gz": "gzip", "zip": "unzip"}[format_]
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    command = ["unzip", "-q", str(file)] if format_ == "zip" else ["tar", "-xf", str(file)]
    env = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in out.iterdir()] == ["app-x@2"]
    assert picture(out / "app-x@2") == picture(source)
    tool_ = out / "app-x@2/bin/tool"
    assert tool_.stat().st_mtime == content_mtime(Digest.of(tool_.read_bytes()))


@pytest.mark.parametrize("format_", ["tar.xz", "tar.gz"])
def test_python_reads_it_with_plain_members(format_: str, source: Path) -> None:
    store = Memory()
    data = packed(store, capture(store, source), format_)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        listed = tar.getmembers()
        assert {(m.uid, m.gid, m.uname, m.gname) for m in listed} == {(0, 0, "root", "root")}
        assert {oct(m.mode) for m in listed} == {"0o755", "0o644", "0o777"}
        # PAX records only where a plain header cannot hold the name.
        assert all(not m.pax_headers for m in listed if m.name.isascii() and len(m.name) <= 100)
        content = tar.extractfile("app-x@2/lib/big.bin")
        assert content is not None
        assert content.read() == (source / "lib/big.bin").read_bytes()


def test_python_reads_the_zip(source: Path) -> None:
    store = Memory()
    with zipfile.ZipFile(io.BytesIO(packed(store, capture(store, source), "zip"))) as file:
        assert file.testzip() is None
        assert file.read("app-x@2/lib/big.bin") == (source / "lib/big.bin").read_bytes()
        assert file.read("app-x@2/bin/python") == b"../../cpython/bin/python"


@pytest.mark.parametrize("format_", [*TARS, "zip"])
def test_bytes_depend_on_neither_cores_nor_place_nor_umask(
    format_: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec_ = compress.CODECS.get(format_.removeprefix("tar."))
    if codec_:
        # Many chunks out of a small tree.
        small = codec_._replace(chunk=64 << 10)
        monkeypatch.setitem(compress.CODECS, format_.removeprefix("tar."), small)
    store = Memory()
    monkeypatch.setattr(archive, "cores", lambda: 1)
    one = packed(store, capture(store, source), format_)
    monkeypatch.setattr(archive, "cores", lambda: 7)
    other = tmp_path / "elsewhere"
    shutil.copytree(source, other, symlinks=True)
    for path in other.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
            os.utime(path, (1, 1))
    again = Memory()
    assert packed(again, capture(again, other), format_) == one


@pytest.mark.parametrize("name", ["xz", "gz", "zst"])
def test_chunks_join_to_one_file_that_the_tools_read(name: str, tmp_path: Path) -> None:
    tool = {"xz": "xz", "gz": "gzip", "zst": "zstd"}[name]
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    codec_ = compress.CODECS[name]
    dice = random.Random(5)
    parts = [dice.randbytes(dice.randrange(70_000)) + b"ab" * dice.randrange(90_000) for _ in range(200)]
    joiner = codec_.joiner()
    packs = [codec_.pack([part[:1000], part[1000:]], 1) for part in [*parts, b""]]
    assert packs[0].data == codec_.pack(iter(parts[:1]), 1).data
    data = b"".join([*(joiner.add(pack) for pack in packs), joiner.end()])
    assert subprocess.run([tool, "-dc"], input=data, capture_output=True, check=True).stdout == b"".join(parts)
    if name == "xz":
        (tmp_path / "a.xz").write_bytes(data)
        listing = subprocess.run(
            ["xz", "--robot", "-l", str(tmp_path / "a.xz")], capture_output=True, text=True, check=True
        )
        assert listing.stdout.splitlines()[1].split("\t")[1:3] == ["1", "200"], "one stream of many blocks"


def test_an_edit_changes_one_members_header_and_one_chunk(source: Path) -> None:
    store = Memory()
    tree = capture(store, source)
    changed = edit(store, tree, {"lib/m7.py": members.File(store.put(b"y = 2\n"))})
    before = {m.path: tarstream.header(m) for m in members.members(store, tree, "a")}
    after = {m.path: tarstream.header(m) for m in members.members(store, changed, "a")}
    assert [path for path in before if before[path] != after[path]] == ["a/lib/m7.py"]

    def cut(of: Tree) -> list[list[members.Piece]]:
        return list(members.chunks(tarstream.runs(members.members(store, of, "a")), 64 << 10))

    old, new = cut(tree), cut(changed)
    assert len(old) > 20
    assert sum(chunk not in old for chunk in new) <= 3


def test_the_level_is_used_and_checked(source: Path) -> None:
    store = Memory()
    tree = capture(store, source)
    assert len(packed(store, tree, "tar.gz", level=9)) < len(packed(store, tree, "tar.gz", level=1))
    for format_, level in [("tar.gz", 0), ("zip", 10), ("tar.zst", 23), ("tar.xz", -1)]:
        with pytest.raises(SpecError, match="level"):
            archive.checked_level(format_, level)
    with pytest.raises(SpecError, match="rar"):
        archive.checked_level("rar", None)


def test_windows_gets_copies_for_symlinks(tmp_path: Path) -> None:
    store = Memory()
    file = members.File(store.put(b"data"))
    tree = assemble(store, {"a/f": file, "a/up": Symlink("../a/f"), "b": Symlink("a"), "c/d": Symlink("../b/up")})
    with zipfile.ZipFile(io.BytesIO(packed(store, tree, "zip", symlinks="copy"))) as found:
        files = {name: found.read(name) for name in found.namelist() if not name.endswith("/")}
    names = ["a/f", "a/up", "b/f", "b/up", "c/d"]
    assert files == {f"app-x@2/{name}": b"data" for name in names}
    for bad in ("../../x", "/etc/passwd", "nowhere", "loop", "."):
        with pytest.raises(ActionError, match="symlink"):
            packed(store, assemble(store, {"f": file, "loop": Symlink(bad)}), "zip", symlinks="copy")


@pytest.mark.parametrize("format_", ["tar.xz", "zip"])
def test_it_can_be_stopped(format_: str, source: Path) -> None:
    store = Memory()
    tree = capture(store, source)
    before = set(store.blobs)
    running = Running(store, tree, {"format": format_, "level": 1, "prefix": "a", "symlinks": "keep"})
    running.cancel_at = 3
    with pytest.raises(KeyboardInterrupt):
        archive.run(running)  # type: ignore[arg-type]  # as much of an Execution as it uses
    assert set(store.blobs) == before


@pytest.mark.parametrize("sizes", [(0, 5), (1, 1), (12345, 678), (5, 0)])
def test_checksums_join(sizes: tuple[int, int]) -> None:
    first, second = (random.Random(size).randbytes(size) for size in sizes)
    joined = compress.crc32_join(compress.crc32(first), compress.crc32(second), len(second))
    assert joined == compress.crc32(first + second)


@pytest.mark.parametrize(
    ("platform", "format_", "label"),
    [
        ("linux_x86_64", "", "app-x/archive"),
        ("linux_x86_64", "tar.xz", "app-x/archive"),
        ("linux_x86_64", "zip", "app-x/archive[zip]"),
        ("win_amd64", "", "app-x/archive[win_amd64]"),
        ("win_amd64", "tar.zst", "app-x/archive[win_amd64,tar.zst]"),
        ("linux_x86_64", "dir", None),
    ],
)
def test_the_rule_names_what_the_bytes_depend_on(platform: str, format_: str, label: str | None) -> None:
    linked = LinkInfo(
        layer="app-x",
        install_target="app-x@4",
        platform=platform,
        tree=Ref("app-x/link", "tree"),
        libraries=Ref("app-x/link", "libraries.json"),
    )

    def link(ctx: RuleContext) -> tuple[object, ...]:
        ctx.add(Action(label="app-x/link", mnemonic="Link", version=1, run=lambda execution: execution.node("x")))
        return (linked,)

    attrs = archive.ArchiveAttrs(layer="app-x", platform=platform, host="linux_x86_64", format=format_)
    analysis = analyze(
        [
            Target(name="link", rule=link),
            Target(name="archive", rule=archive.archive, attrs=attrs, deps=("link",)),
        ]
    )
    info = analysis.get("archive", ArchiveInfo)
    if label is None:
        assert info.archive == linked.tree
        return
    action = analysis.graph.item(info.archive.label)
    assert isinstance(action, Action)
    assert action.label == label
    assert action.params["prefix"] == "app-x@4"
    (tool,) = action.platform
    assert tool == {"tar.xz": "tool:lzma", "tar.zst": "tool:zstd", "zip": "tool:zlib"}[info.format]
    assert action.platform[tool]


@pytest.mark.parametrize(("format_", "path"), [("tar.gz", "checked"), ("zip", "checked"), ("dir", "plain")])
def test_bytecode_is_of_the_kind_that_fits_what_is_made(format_: str, path: str) -> None:
    tree = Ref("made", "linked")
    compiled = CompiledInfo(
        layer="app-x",
        install_target="app-x",
        platform="linux_x86_64",
        tree=Ref("made", "plain"),
        checked=Ref("made", "checked"),
    )
    linked = LinkInfo(layer="app-x", install_target="app-x", platform="linux_x86_64", tree=tree, libraries=tree)

    def made(ctx: RuleContext) -> tuple[object, ...]:
        ctx.add(Action(label="made", mnemonic="Made", version=1, run=lambda execution: execution.node("x")))
        return (linked, compiled)

    found = {}
    for bytecode in (False, True):
        attrs = archive.ArchiveAttrs(
            layer="app-x", platform="linux_x86_64", host="linux_x86_64", format=format_, bytecode=bytecode
        )
        target = Target(name="archive", rule=archive.archive, attrs=attrs, deps=("made",))
        analysis = analyze([Target(name="made", rule=made), target])
        ref = analysis.get("archive", ArchiveInfo).archive
        action = analysis.graph.item(ref.label)
        assert isinstance(action, Action)
        found[bytecode] = ref if format_ == "dir" else action.inputs["tree"]
    assert found == {False: tree, True: Ref("made", path)}


def test_a_new_version_unpacked_over_a_used_old_one_runs_anew(tmp_path: Path) -> None:
    store = Memory()
    for number in (1, 2):
        tree = assemble(store, {"module.py": members.File(store.put(f"print({number})\n".encode()))})
        with tarfile.open(fileobj=io.BytesIO(packed(store, tree, "tar.gz"))) as tar:
            untar(tar, tmp_path)
        command = [sys.executable, "-c", "import module"]
        for _ in range(2):  # the second time from bytecode
            env = {"PYTHONPATH": str(tmp_path / "app-x@2")}
            assert subprocess.run(command, env=env, capture_output=True, check=True).stdout == f"{number}\n".encode()
        assert list((tmp_path / "app-x@2/__pycache__").iterdir())


def test_bytes_are_what_they_were() -> None:
    """The tar stream itself is frozen: whoever changes it raises the rule's version."""
    store = Memory()
    tree = assemble(
        store,
        {
            "bin/run": members.File(store.put(b"#!/bin/sh\n"), executable=True),
            "lib/ü.py": members.File(store.put(b"x = 1\n")),
            "lib/link": Symlink("ü.py"),
        },
    )
    listed = members.members(store, tree, "app-x")
    stream = b"".join(
        b"".join(members.read(store, chunk, lambda: None)) for chunk in members.chunks(tarstream.runs(listed), 1 << 20)
    )
    assert archive.VERSION == 1
    assert str(Digest.of(stream)) == "37a15e7e8d3430ac82634136ce983bfdaded1d7ef4f8d2299edcac06ae912103/10240"
