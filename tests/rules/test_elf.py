"""Real shared objects made here, and the same files damaged in every way a byte can be."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from strata_rules import elf

GCC = shutil.which("gcc")
needs_gcc = pytest.mark.skipif(GCC is None, reason="needs gcc")


def shared(folder: Path, *flags: str) -> Path:
    source = folder / "a.c"
    source.write_text("int a(void) { return 1; }\n")
    out = folder / "liba.so.1.2"
    subprocess.run([str(GCC), "-shared", "-fPIC", "-o", str(out), str(source), *flags], check=True)
    return out


@needs_gcc
def test_says_name_needs_and_search_paths(tmp_path: Path) -> None:
    flags = ("-Wl,-soname,liba.so.1", "-Wl,--no-as-needed", "-lm", "-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN:/x")
    with shared(tmp_path, *flags).open("rb") as stream:
        found = elf.read(stream)
    assert found is not None
    assert (found.soname, found.runpath, found.rpath) == ("liba.so.1", ("$ORIGIN", "/x"), ())
    assert "libm.so.6" in found.needed
    assert found.machine.startswith("EM_")

    with shared(tmp_path, "-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/../lib").open("rb") as stream:
        old = elf.read(stream)
    assert old is not None
    assert (old.soname, old.runpath, old.rpath) == (None, (), ("$ORIGIN/../lib",))


@needs_gcc
def test_sections_are_not_needed(tmp_path: Path) -> None:
    data = bytearray(shared(tmp_path, "-Wl,-soname,liba.so.1").read_bytes())
    data[0x28:0x30] = bytes(8)  # e_shoff of ELF64
    data[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    found = elf.read(io.BytesIO(bytes(data)))
    assert found is not None
    assert found.soname == "liba.so.1"


def test_other_files_are_nothing() -> None:
    for data in (b"", b"\x7fEL", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF" + b"\xff" * 4000, b"PK\x03\x04" * 100):
        assert elf.read(io.BytesIO(data)) is None


@needs_gcc
def test_damaged_files_give_an_answer_and_cost_little(tmp_path: Path) -> None:
    whole = shared(tmp_path, "-Wl,-soname,liba.so.1").read_bytes()
    dice = random.Random(7)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 12)):
            # Most damage goes where the headers are: elsewhere it would not be read.
            data[dice.randrange(0, min(1024, len(data)))] = dice.randrange(256)
        elf.read(io.BytesIO(bytes(data)))
    for cut in range(0, len(whole), 997):
        elf.read(io.BytesIO(whole[:cut]))


@needs_gcc
def test_a_string_table_without_an_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    data = bytearray(shared(tmp_path, "-Wl,-soname,liba.so.1").read_bytes())
    start = data.index(b"liba.so.1\0")
    endless = bytes(data[:start]) + b"x" * (8 << 20)
    stream = io.BytesIO(endless)
    assert elf.read(stream) is None
    assert stream.tell() < elf.BUDGET * 2
