"""Wheel: real and hostile wheels unpacked by scheme."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from strata_engine.action import Literal, Ref
from strata_engine.errors import SpecError
from strata_engine.tree import File, Tree, entries, lookup
from strata_rules.contents import EntryPoint, Library, WheelContents, decode
from strata_rules.wheel.unpack import run, wheel_action


def unpack(bench, wheel: Path, data: bytes | None = None) -> Tree:
    action = wheel_action(f"wheel/{wheel.name}", wheel.name, Ref("fetch"))
    bench.outputs["fetch"] = File(bench.store.put(wheel.read_bytes() if data is None else data))
    return bench.run(action)


def files(bench, tree: Tree) -> dict[str, tuple[bytes, bool]]:
    return {
        path: (bench.store.get(node.digest), node.executable)
        for path, node in entries(bench.store, tree)
        if isinstance(node, File)
    }


def refusal(bench, wheel: Path, data: bytes | None = None) -> list[str]:
    with pytest.raises(SpecError) as caught:
        unpack(bench, wheel, data)
    for diagnostic in caught.value.diagnostics:
        assert wheel.name in diagnostic.message
        assert diagnostic.hint
    return [f"{diagnostic.id}: {diagnostic.message}" for diagnostic in caught.value.diagnostics]


def edited(wheel: Path, change) -> bytes:
    """Copy a wheel, letting `change(zip, {path: (ZipInfo, data)})` write what it likes."""
    with zipfile.ZipFile(wheel) as old:
        members = {info.filename: (info, old.read(info)) for info in old.infolist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for info, data in members.values():
            new.writestr(info, data)
        change(new)
    return buffer.getvalue()


def test_members_are_sorted_by_scheme_and_described(bench, make_wheel):
    wheel = make_wheel(
        "Some.Thing",
        {
            "thing/__init__.py": b"",
            "thing/run.sh": b"#!/bin/sh\n",
            "thing.pth": b"import os\n",
            "Some.Thing-1.0.data/platlib/_native.abi3.so": b"not really",
            "Some.Thing-1.0.data/scripts/tool": b"#!python\n",
            "Some.Thing-1.0.data/data/etc/thing.conf": b"a = 1\n",
            "Some.Thing-1.0.data/headers/thing.h": b"/**/\n",
            "other-1.0.data/data/kept": b"somebody else's\n",
            "Some.Thing-1.0.dist-info/entry_points.txt": (
                b"[console_scripts]\nThing = thing.cli:main.run [extra]\n[gui_scripts]\nwin=thing:gui\n[other]\nx = y\n"
            ),
        },
        modes={"thing/run.sh": 0o100654},
    )
    made = files(bench, unpack(bench, wheel))
    dist_info = {f"purelib/Some.Thing-1.0.dist-info/{n}" for n in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    assert made.keys() == dist_info | {
        "purelib/thing/__init__.py",
        "purelib/thing/run.sh",
        "purelib/thing.pth",
        "purelib/other-1.0.data/data/kept",
        "platlib/_native.abi3.so",
        "scripts/tool",
        "data/etc/thing.conf",
        "headers/thing.h",
        "wheel.json",
        "libraries.json",
    }
    assert {path for path, (_, executable) in made.items() if executable} == {"scripts/tool", "purelib/thing/run.sh"}
    assert made["libraries.json"][0] == b"[]\n"
    assert decode(made["wheel.json"][0], WheelContents) == WheelContents(
        name="some-thing",
        version="1.0",
        dist_info="Some.Thing-1.0.dist-info",
        root="purelib",
        tags=("py3-none-any",),
        entry_points=(
            EntryPoint(name="Thing", module="thing.cli", attr="main.run"),
            EntryPoint(name="win", module="thing", attr="gui", gui=True),
        ),
        top_level=("_native", "thing"),
    )


def test_elf_files_are_described_however_large(bench, make_wheel):
    small = elf_library("libsmall.so.1", ("libc.so.6",))
    large = elf_library("liblarge.so.2", ("libsmall.so.1",)) + bytes(5 << 20)
    replace = {"WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\n"}
    wheel = make_wheel("native", {"native.libs/libsmall-1.so": small, "native/liblarge.so": large}, replace=replace)
    made = files(bench, unpack(bench, wheel))
    assert made["platlib/native/liblarge.so"][0] == large
    found = decode(made["libraries.json"][0], list[Library])
    assert [(lib.path, lib.soname, lib.needed) for lib in found] == [
        ("platlib/native.libs/libsmall-1.so", "libsmall.so.1", ("libc.so.6",)),
        ("platlib/native/liblarge.so", "liblarge.so.2", ("libsmall.so.1",)),
    ]


def elf_library(soname: str, needed: tuple[str, ...]) -> bytes:
    """Make the smallest ELF file with a dynamic section: one segment that is the file, one that is the section."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in (soname, *needed))
    offsets = [strings.index(b"\0" + name.encode() + b"\0") + 1 for name in (soname, *needed)]
    start, at_strings = 64 + 2 * 56, 64 + 2 * 56 + 16 * (len(needed) + 4)
    tags = [(14, offsets[0]), *((1, offset) for offset in offsets[1:]), (5, at_strings), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    total = at_strings + len(strings)
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, total, total, 4096)
    segment = struct.pack("<IIQQQQQQ", 2, 4, start, start, start, len(dynamic), len(dynamic), 8)
    return header + load + segment + dynamic + strings


def add(path: str, data: bytes = b"", **fields: int):
    """Give a change that adds one member, with any fields of its header."""

    def change(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("placeholder")
        info.filename = path
        for field, value in fields.items():
            setattr(info, field, value)
        archive.writestr(info, data)

    return change


UNSAFE = {
    "parent": (add("../outside"), "`..`"),
    "inner parent": (add("pkg/../../outside"), "`..`"),
    "empty part": (add("pkg//file"), "not a plain path"),
    "folder above": (add("../"), "`..`"),
    "absolute": (add("/etc/passwd"), "absolute"),
    "drive": (add("C:/windows"), "absolute"),
    "backslash": (add("pkg\\..\\..\\x"), "backslash"),
    "control character": (add("pkg/a\nb"), "control character"),
    "symlink": (add("pkg/link", b"/etc/passwd", external_attr=(stat.S_IFLNK | 0o777) << 16), "a symlink"),
    "device": (add("pkg/null", external_attr=(stat.S_IFCHR | 0o666) << 16), "neither a file nor a folder"),
    "bzip2": (add("pkg/b", b"b" * 99, compress_type=zipfile.ZIP_BZIP2), "method 12"),
    "twice": (add("pkg/__init__.py", b"other"), "twice"),
    "file and folder": (add("pkg/__init__.py/inner"), "as a file and as a folder"),
}


@pytest.mark.parametrize("case", UNSAFE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_members_are_refused(bench, make_wheel, case):
    change, expected = UNSAFE[case]
    wheel = make_wheel("pkg", {"pkg/__init__.py": b"1"})
    (message,) = refusal(bench, wheel, edited(wheel, change))
    assert message.startswith("unsafe-wheel: ")
    assert expected in message


def test_all_hostile_members_are_told_at_once(bench, make_wheel):
    wheel = make_wheel("pkg", {"pkg/__init__.py": b"1"})

    def change(archive: zipfile.ZipFile) -> None:
        add("../a")(archive)
        add("/b")(archive)

    assert len(refusal(bench, wheel, edited(wheel, change))) == 2


def test_encrypted_members_are_refused(bench, make_wheel):
    wheel = make_wheel("pkg", {"pkg/__init__.py": b"1"})
    data = bytearray(wheel.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    (message,) = refusal(bench, wheel, bytes(data))
    assert message == f"unsafe-wheel: `{wheel.name}` has the member `pkg/__init__.py`, which is encrypted"


def test_bombs_are_refused_unread(bench, make_wheel):
    wheel = make_wheel("bomb", {"bomb/zeros": bytes(1 << 20)})
    data = bytearray(wheel.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 0xF0000000)
    (message,) = refusal(bench, wheel, bytes(data))
    assert "a decompression bomb" in message


def test_a_member_gives_no_more_bytes_than_declared(bench, make_wheel):
    wheel = make_wheel("bomb", {"bomb/zeros": bytes(1 << 20)})
    data = bytearray(wheel.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    (message,) = refusal(bench, wheel, bytes(data))
    assert message.startswith("bad-wheel: ")


@pytest.mark.parametrize("cut", [0, 10, 200, -30])
def test_truncated_wheels_are_refused(bench, make_wheel, cut):
    wheel = make_wheel("pkg", {"pkg/__init__.py": b"1" * 1000})
    (message,) = refusal(bench, wheel, wheel.read_bytes()[:cut])
    assert message.startswith("bad-wheel: ")


def test_case_clashes_are_refused_where_case_may_not_count(bench, make_wheel):
    clashing = {"pkg/Name.py": b"1", "pkg/name.py": b"2"}
    (message,) = refusal(bench, make_wheel("pkg", clashing))
    assert message.startswith("unsafe-wheel: ")
    assert "`pkg/Name.py` and `pkg/name.py`" in message
    unpack(bench, make_wheel("pkg", clashing, tag="py3-none-manylinux_2_17_x86_64"))


INFO = "pkg-1.0.dist-info"
BAD = {
    "wheel version 2": ({}, {"WHEEL": b"Wheel-Version: 2.0\n"}, "bad-wheel", "Wheel-Version: 2.0"),
    "no wheel version": ({}, {"WHEEL": b"Root-Is-Purelib: true\n"}, "bad-wheel", "Wheel-Version: "),
    "no WHEEL": ({}, {"WHEEL": None}, "bad-wheel", "has no `pkg-1.0.dist-info/WHEEL`"),
    "no METADATA": ({}, {"METADATA": None}, "bad-wheel", "has no `pkg-1.0.dist-info/METADATA`"),
    "binary METADATA": ({}, {"METADATA": b"Name: \xff"}, "bad-wheel", "not UTF-8"),
    "another name": ({}, {"METADATA": b"Name: other\nVersion: 1.0\n"}, "bad-wheel", "`other` 1.0"),
    "another version": ({}, {"METADATA": b"Name: pkg\nVersion: 2.0\n"}, "bad-wheel", "`pkg` 2.0"),
    "two dist-infos": ({"other-1.0.dist-info/METADATA": b""}, {}, "bad-wheel", "`other-1.0.dist-info`"),
    "unknown scheme": ({"pkg-1.0.data/secrets/x": b""}, {}, "bad-wheel", "pkg-1.0.data/secrets/x"),
    "scheme without file": ({"pkg-1.0.data/data": b""}, {}, "bad-wheel", "pkg-1.0.data/data"),
    "folder of scripts": ({"pkg-1.0.data/scripts/a/b": b""}, {}, "bad-wheel", "pkg-1.0.data/scripts/a/b"),
    "root and data": ({"a.py": b"", "pkg-1.0.data/purelib/a.py": b""}, {}, "unsafe-wheel", "both from its root"),
    "entry point path": (
        {f"{INFO}/entry_points.txt": b"[console_scripts]\n../x = a:b\n"},
        {},
        "unsafe-wheel",
        "`../x`",
    ),
    "entry point code": (
        {f"{INFO}/entry_points.txt": b"[console_scripts]\nx = a; import os:b\n"},
        {},
        "bad-wheel",
        "`a; import os:b`",
    ),
    "entry point syntax": ({f"{INFO}/entry_points.txt": b"x\n"}, {}, "bad-wheel", "cannot be read"),
    "no RECORD": ({}, {"RECORD": None}, "bad-record", f"`{INFO}/RECORD`"),
    "binary RECORD": ({}, {"RECORD": b"\xff"}, "bad-record", "UTF-8"),
    "short row": ({}, {"RECORD": b"a.py\n"}, "bad-record", "cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_broken_wheels_are_refused(bench, make_wheel, case):
    members, replaced, id_, expected = BAD[case]
    messages = refusal(bench, make_wheel("pkg", members, replace=replaced))
    assert [message for message in messages if message.startswith(f"{id_}: ") and expected in message]


def test_the_folder_must_be_called_as_the_file(bench, make_wheel):
    wheel = make_wheel("pkg", {})
    renamed = wheel.rename(wheel.with_name("pkg-1.1-py3-none-any.whl"))
    assert "`pkg-1.0.dist-info` says `pkg` 1.0" in refusal(bench, renamed)[0]


def test_metadata_may_leave_out_the_local_version(bench, make_wheel):
    metadata = {"METADATA": b"Name: pkg\nVersion: 1.0\n"}
    unpack(bench, make_wheel("pkg", {}, version="1.0+cpu", replace=metadata))


def row(path: str, data: bytes, algorithm: str = "sha256") -> str:
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).rstrip(b"=").decode()
    return f"{path},{algorithm}={digest},{len(data)}\n"


META = b"Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n"
WHEEL = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
SOUND = row(f"{INFO}/METADATA", META) + row(f"{INFO}/WHEEL", WHEEL) + f"{INFO}/RECORD,,\n"
RECORDS = {
    "wrong hash": (row("a.py", b"other"), "`a.py` is not what RECORD says"),
    "wrong size": (row("a.py", b"text").replace(",4", ",5"), "`a.py` is not what RECORD says"),
    "wrong sha512": (row("a.py", b"tex_", "sha512"), "`a.py` is not what RECORD says"),
    "md5": (row("a.py", b"text", "md5"), "hashes `a.py` with `md5`"),
    "sha1": (row("a.py", b"text", "sha1"), "hashes `a.py` with `sha1`"),
    "unknown hash": ("a.py,blake9=abc,4\n", "the row of `a.py`"),
    "no hash": ("a.py,,4\n", "no hash of `a.py`"),
    "missing": ("", "`a.py` is not listed"),
    "absent": (row("a.py", b"text") + row("b.py", b""), "lists `b.py`, which is not there"),
    "contradiction": (row("a.py", b"text") + row("a.py", b"other"), "lists `a.py` twice"),
    "bad size": ("a.py,sha256=x,four\n", "the row of `a.py`"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_every_file_must_fit_its_row_in_record(bench, make_wheel, case):
    rows, expected = RECORDS[case]
    wheel = make_wheel("pkg", {"a.py": b"text"}, replace={"RECORD": (rows + SOUND).encode()})
    messages = refusal(bench, wheel)
    assert all(message.startswith("bad-record: ") for message in messages)
    assert any(expected in message for message in messages)


@pytest.mark.parametrize(
    "rows",
    [
        row("a.py", b"text", "sha512"),
        row("a.py", b"text", "sha384"),
        row("/a.py", b"text"),
        row("a.py", b"text") * 2,
        row("a.py", b"text").replace(",4\n", ",\n"),
    ],
)
def test_sound_records_of_all_kinds_are_accepted(bench, make_wheel, rows):
    signed = {"a.py": b"text", f"{INFO}/RECORD.jws": b"{}"}
    made = unpack(bench, make_wheel("pkg", signed, replace={"RECORD": (rows + SOUND).encode()}))
    assert isinstance(lookup(bench.store, made, "purelib/a.py"), File)


def test_the_tree_depends_on_the_files_alone(bench, make_wheel, tmp_path):
    content = {"pkg/a.py": b"1", "pkg/b.py": b"2"}
    first = make_wheel("pkg", content)
    reordered = io.BytesIO()
    with zipfile.ZipFile(first) as old, zipfile.ZipFile(reordered, "w") as new:
        for info in reversed(old.infolist()):
            moved = zipfile.ZipInfo(info.filename, (2001, 2, 3, 4, 5, 6))
            moved.external_attr = info.external_attr
            new.writestr(moved, old.read(info))
    assert unpack(bench, first) == unpack(bench, first, reordered.getvalue())


def test_the_key_is_the_bytes_and_the_file_name(make_wheel):
    action = wheel_action("wheel/a", "a-1-py3-none-any.whl", Ref("fetch/a"))
    assert (action.mnemonic, action.params, set(action.inputs)) == (
        "Wheel",
        {"file": "a-1-py3-none-any.whl"},
        {"wheel.whl"},
    )
    assert action.run is run, "nothing else can be closed over"
    assert not isinstance(action.inputs["wheel.whl"], Literal)
