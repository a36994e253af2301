"""Mach-O files as they are, as they could be, and damaged in every way a byte can be."""

from __future__ import annotations

import io
import random
import struct
import sys
from pathlib import Path

import machfiles as mach
import pytest

from strata_engine.action import Literal
from strata_engine.tree import File, lookup
from strata_rules import macho
from strata_rules.contents import Library, decode, libraries
from strata_rules.macho import MachO
from strata_rules.wheel.unpack import wheel_action


def read(data: bytes) -> tuple[MachO, ...] | None:
    return macho.read(io.BytesIO(data))


LIBRARY = mach.thin(
    mach.command(mach.ID, "@rpath/libfoo.1.dylib"),
    mach.command(mach.LOAD, "/usr/lib/libSystem.B.dylib"),
    mach.command(mach.REEXPORT, "@loader_path/libbär.dylib"),
    mach.command(mach.WEAK, "@rpath/libmaybe.dylib"),
    mach.command(mach.WEAK, "/usr/lib/libSystem.B.dylib"),
    mach.command(mach.RPATH, "@loader_path/../.dylibs"),
    mach.command(mach.RPATH, "@loader_path/../.dylibs"),
)


def test_says_name_needs_and_search_paths() -> None:
    assert read(LIBRARY) == (
        MachO(
            machine="CPU_TYPE_ARM64",
            install_name="@rpath/libfoo.1.dylib",
            needed=("/usr/lib/libSystem.B.dylib", "@loader_path/libbär.dylib"),
            weak=("@rpath/libmaybe.dylib",),
            rpath=("@loader_path/../.dylibs",),
        ),
    )
    extension = mach.library("", "@rpath/libfoo.1.dylib", machine=mach.X86_64)
    assert read(extension) == (MachO("CPU_TYPE_X86_64", None, ("@rpath/libfoo.1.dylib",), (), ()),)


@pytest.mark.parametrize("wide", [False, True])
def test_a_universal_file_counts_for_both_architectures(wide: bool) -> None:
    both = mach.fat(
        (mach.X86_64, mach.library("@rpath/libfoo.dylib", "/a", machine=mach.X86_64)),
        (mach.ARM64, mach.library("@rpath/libfoo.dylib", "/b")),
        (7, b"\xce\xfa\xed\xfe" + bytes(200)),  # 32 bits
        wide=wide,
    )
    assert [(found.machine, found.needed) for found in read(both) or ()] == [
        ("CPU_TYPE_X86_64", ("/a",)),
        ("CPU_TYPE_ARM64", ("/b",)),
    ]
    listed = libraries("purelib/libfoo.dylib", io.BytesIO(both))
    assert [entry.machine for entry in listed] == ["CPU_TYPE_X86_64", "CPU_TYPE_ARM64"]
    assert {(entry.path, entry.soname) for entry in listed} == {("purelib/libfoo.dylib", "@rpath/libfoo.dylib")}


def test_other_files_are_nothing() -> None:
    object_file, other_machine = mach.thin(kind=1), mach.thin(machine=0x0100000E)
    java = b"\xca\xfe\xba\xbe\x00\x00\x00\x41" + bytes(5000)
    old = struct.pack("<IIIIIII", 0xFEEDFACE, 7, 3, 6, 0, 0, 0)
    big_endian = struct.pack(">IIIIIIII", 0xFEEDFACF, 0x01000012, 0, 6, 0, 0, 0, 0)
    for data in (
        b"",
        b"\xcf\xfa",
        b"\xca\xfe\xba\xbe",
        b"#!/bin/sh\n",
        object_file,
        other_machine,
        java,
        old,
        big_endian,
    ):
        assert read(data) is None
        assert libraries("x", io.BytesIO(data)) == []


def header(count: int, size: int) -> bytes:
    return struct.pack("<IIIIIIII", 0xFEEDFACF, mach.ARM64, 0, mach.DYLIB, count, size, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        header(1, 0xFFFFFFFF),
        header(1, 1 << 21) + bytes(1 << 21),
        header(0xFFFFFFFF, 64) + bytes(64),
        header(2, 8) + struct.pack("<II", 0x1B, 8),
        header(1, 8) + struct.pack("<II", 0x1B, 4),
        header(1, 8) + struct.pack("<II", 0x1B, 0xFFFFFFF8),
        header(1, 8) + struct.pack("<II", mach.RPATH, 8),
        header(1, 16) + struct.pack("<IIII", mach.RPATH, 16, 4, 0),
        header(1, 16) + struct.pack("<IIII", mach.RPATH, 16, 16, 0),
        header(1, 16) + struct.pack("<III4s", mach.RPATH, 16, 12, b"\xff\xfe\xfd\xfc"),
        struct.pack(">II", 0xCAFEBABE, 17) + bytes(17 * 20),
        struct.pack(">II", 0xCAFEBABF, 1) + struct.pack(">IIQQII", mach.ARM64, 0, 1 << 63, 10, 0, 0),
        struct.pack(">II", 0xCAFEBABE, 1) + struct.pack(">IIIII", mach.ARM64, 0, 0, 10, 0),  # itself
    ],
)
def test_claims_that_do_not_hold_are_refused(data: bytes) -> None:
    assert read(data) is None


class Counted(io.BytesIO):
    """Counts the bytes that were asked for."""

    asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size >= 0
        self.asked += size
        return super().read(size)


def test_random_and_damaged_bytes_give_an_answer_and_cost_little() -> None:
    dice = random.Random(11)
    both = mach.fat((mach.X86_64, mach.library("/x", "/a", machine=mach.X86_64)), (mach.ARM64, LIBRARY))
    bound = macho.MAX_SLICES * (macho.MAX_COMMANDS + 64)
    for number in range(4000):
        if number % 4:
            data = bytearray(both if number % 2 else LIBRARY)
            for _ in range(dice.randrange(1, 8)):
                data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            del data[dice.randrange(len(data)) if number % 3 == 0 else len(data) :]
        else:
            data = bytearray(dice.choice(macho.MAGICS) + dice.randbytes(dice.randrange(300)))
        stream = Counted(bytes(data))
        found = macho.read(stream)
        assert found is None or all(isinstance(one, MachO) for one in found)
        assert stream.asked <= bound
    assert macho.read(io.BytesIO(bytes(both))) is not None


def test_wheels_say_what_their_dylibs_are(bench, make_wheel) -> None:
    """From a wheel's bytes to `libraries.json`, small members and streamed ones alike."""
    large = mach.library("@rpath/liblarge.dylib") + bytes(5 << 20)
    wheel = make_wheel(
        "mac",
        {
            "mac/.dylibs/liblarge.dylib": large,
            "mac/_e.cpython-312-darwin.so": mach.library("", "@rpath/liblarge.dylib"),
        },
        tag="cp312-cp312-macosx_11_0_arm64",
    )
    action = wheel_action("wheel/mac", wheel.name, Literal(wheel.read_bytes()))
    made = bench.run(action)
    node = lookup(bench.store, made, "libraries.json")
    assert isinstance(node, File)
    assert decode(bench.store.get(node.digest), list[Library]) == [
        Library(path="purelib/mac/.dylibs/liblarge.dylib", soname="@rpath/liblarge.dylib", machine="CPU_TYPE_ARM64"),
        Library(
            path="purelib/mac/_e.cpython-312-darwin.so", needed=("@rpath/liblarge.dylib",), machine="CPU_TYPE_ARM64"
        ),
    ]


@pytest.mark.skipif(sys.platform != "darwin", reason="reads the interpreter of macOS")
def test_a_real_interpreter() -> None:
    with Path(sys.executable).resolve().open("rb") as stream:
        [found, *_] = macho.read(stream) or ()
    assert any(name.startswith("/usr/lib/libSystem") for name in found.needed)
