"""Runtime archives are hostile until they are read: each trick is refused, naming the member."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard

from strata_engine.errors import SpecError
from strata_engine.tree import File, Node, Symlink
from strata_rules.runtime import extract
from strata_rules.runtime.extract import check_case, check_links, read_archive

if TYPE_CHECKING:
    from conftest import Bench

Member = tuple[str, dict[str, object]]


def tar(*members: Member, data: bytes = b"x") -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name, fields in members:
            info = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(info, field, value)
            if info.isreg():
                info.size = len(data)
            made.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return raw.getvalue()


def folder(name: str) -> Member:
    return name, {"type": tarfile.DIRTYPE}


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return name, {"type": kind, "linkname": target}


def file(name: str, mode: int = 0o644) -> Member:
    return name, {"mode": mode}


def read(bench: Bench, data: bytes) -> dict[str, Node]:
    nodes = read_archive(bench.store, bench.store.put(data), lambda done: None)
    check_links(nodes)
    check_case(nodes)
    return nodes


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress]
)
def test_every_compression_gives_the_same(bench: Bench, pack: Callable[[bytes], bytes]) -> None:
    data = tar(
        folder("python/"),
        file("./python/bin/a", 0o6755),
        file("python/b"),
        link("python/c", "bin/../b"),
        link("python/d", "python/bin/a", tarfile.LNKTYPE),
    )
    x = bench.store.put(b"x")
    assert read(bench, pack(data)) == {
        "python/bin/a": File(x, True),
        "python/b": File(x),
        "python/c": Symlink("bin/../b"),
        "python/d": File(x, True),
    }


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([file("/etc/passwd")], "`/etc/passwd` has an absolute path"),
        ([file("C:/x")], "`C:/x` has an absolute path"),
        ([file("a/../../x")], "leads out of the archive"),
        ([file("a\\..\\x")], "has a character that no file name should have"),
        ([file("a\nb")], "`a\\nb` has a character that no file name should have"),
        ([file("a"), file("a")], "`a` occurs twice"),
        ([file("a/b"), file("a")], "`a` occurs twice"),
        ([file("a"), file("a/b")], "`a/b` lies below `a`, which is not a folder"),
        ([link("a", "/tmp"), file("a/b")], "`a/b` lies below `a`, which is not a folder"),
        ([link("a", "/etc/passwd")], "`a` is a symlink to `/etc/passwd`, which is not inside the archive"),
        ([link("a/b", "../../x")], "`a/b` is a symlink to `../../x`, which leads out of the archive"),
        # By its text alone `x/y/l` stays inside; through the link `s` it does not.
        ([link("x/y/s", "../.."), link("x/y/l", "s/../z")], "`x/y/l` is a symlink to `s/../z`, which leads out"),
        ([link("a", "b"), link("b", "a")], "is a symlink that never ends"),
        ([link("a", "/etc/passwd", tarfile.LNKTYPE)], "`a` is a hard link to `/etc/passwd`, which is no earlier"),
        ([link("a", "b", tarfile.LNKTYPE)], "is a hard link to `b`, which is no earlier file"),
        ([link("b", "x"), link("a", "b", tarfile.LNKTYPE)], "is a hard link to `b`, which is no earlier file"),
        ([("a", {"type": tarfile.CHRTYPE})], "`a` is a device or something else"),
        ([("a", {"type": tarfile.FIFOTYPE})], "`a` is a device or something else"),
        ([file("Lib/A"), file("lib/b")], "`lib/b` differs from `Lib` only in case or Unicode form"),
        ([file("\u00e9"), file("e\u0301")], "differs from `\u00e9` only in case or Unicode form"),
        ([("a", {"pax_headers": {"GNU.sparse.map": "0,1", "GNU.sparse.size": "999999999999"}})], "is a sparse file"),
    ],
)
def test_a_trick_is_refused(bench: Bench, members: list[Member], said: str) -> None:
    with pytest.raises(SpecError) as error:
        read(bench, tar(*members))
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.id == "unsafe-archive"
    assert said in diagnostic.message


def test_a_link_that_leads_nowhere_inside_is_kept(bench: Bench) -> None:
    assert read(bench, tar(link("a/b", "../c"))) == {"a/b": Symlink("../c")}


def test_a_bomb_is_refused_before_it_has_swollen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "ROOMY", 10 << 20)
    data = gzip.compress(tar(file("a"), data=bytes(64 << 20)))
    with pytest.raises(SpecError, match="unpack to more than any runtime has"):
        read(bench, data)
    monkeypatch.setattr(extract, "MOST_MEMBERS", 3)
    with pytest.raises(SpecError, match="is one of more than 3"):
        read(bench, tar(*(folder(f"f{n}") for n in range(4))))
    header = tar(("a", {"pax_headers": {"comment": "x" * (2 << 20)}}))
    with pytest.raises(SpecError, match="has a header that is too long"):
        read(bench, header)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress])
@pytest.mark.parametrize("harm", ["cut", "flipped", "garbage"])
def test_a_damaged_archive_is_an_error_of_its_own(bench: Bench, pack: Callable[[bytes], bytes], harm: str) -> None:
    data = bytearray(pack(tar(file("a"), data=b"".join(n.to_bytes(4, "big") for n in range(50_000)))))
    if harm == "cut":
        del data[len(data) // 2 :]
    elif harm == "flipped":
        data[8:60] = bytes(52)
    else:
        data[:] = pack(b"no tar at all" * 200)
    with pytest.raises(SpecError) as error:
        read(bench, bytes(data))
    assert error.value.diagnostics[0].id == "damaged-archive"


def test_a_zip_with_links_and_modes_is_read_and_its_tricks_are_refused(bench: Bench) -> None:
    def made(*members: tuple[str, int, bytes]) -> bytes:
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, mode, data in members:
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                archive.writestr(info, data)
        return raw.getvalue()

    link_mode = stat.S_IFLNK | 0o777
    nodes = read(bench, made(("p/", 0, b""), ("p/x", 0o100755, b"x"), ("p/l", link_mode, b"x")))
    assert nodes == {"p/x": File(bench.store.put(b"x"), True), "p/l": Symlink("x")}
    for members in ([("../x", 0, b"")], [("p/l", link_mode, b"/etc/passwd")], [("dev", stat.S_IFCHR, b"")]):
        with pytest.raises(SpecError) as error:
            read(bench, made(*members))
        assert error.value.diagnostics[0].id == "unsafe-archive"
    damaged = made(("a", 0, b"0123456789" * 1000)).replace(b"\x01", b"\x02")
    with pytest.raises(SpecError) as error:
        read(bench, damaged)
    assert error.value.diagnostics[0].id == "damaged-archive"


def test_nothing_of_an_archive_reaches_a_disk_but_the_store(bench: Bench, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    read(bench, tar(file("a"), file("b/c")))
    assert {path for path in tmp_path.rglob("*") if path not in before and bench.folder not in path.parents} == set()
