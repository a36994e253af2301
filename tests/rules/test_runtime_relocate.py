"""The bytes of a captured file lose the prefix that they were installed with, and nothing else."""

from __future__ import annotations

import ctypes
import io
import shutil
import subprocess
from pathlib import Path

import pytest
from runtimes import interpreters

from strata_rules import elf
from strata_rules.runtime.relocate import NotRelocatable, set_runpath, without_distribution, without_prefix


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("elf")
    # `lib` is a symbol on purpose: a linker may keep its name as the end of the RUNPATH's text.
    (folder / "a.c").write_text("int lib(void) { return 1; }\nint b(void) { return lib(); }\n")
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", "a.so", "a.c", "-Wl,-rpath,/opt/some/python/lib"]
    subprocess.run([*command, "-Wl,-rpath,/opt/tcl/lib", "-Wl,--enable-new-dtags"], cwd=folder, check=True)
    return (folder / "a.so").read_bytes()


def moved(entry: str) -> str:
    return "$ORIGIN/../lib" if entry == "/opt/some/python/lib" else entry


def test_a_runpath_is_rewritten_in_place(library: bytes, tmp_path: Path) -> None:
    changed = set_runpath(library, moved)
    found = elf.read(io.BytesIO(changed))
    assert found is not None
    assert found.runpath == ("$ORIGIN/../lib", "/opt/tcl/lib")
    assert len(changed) == len(library)
    assert b"/opt/some/python" not in changed
    (tmp_path / "a.so").write_bytes(changed)
    assert ctypes.CDLL(str(tmp_path / "a.so")).lib() == 1
    assert ctypes.CDLL(str(tmp_path / "a.so")).b() == 1


def test_what_needs_no_change_is_given_back(library: bytes) -> None:
    assert set_runpath(library, lambda entry: entry) == library
    assert set_runpath(b"#!/bin/sh\n", moved) == b"#!/bin/sh\n"


def test_a_runpath_that_does_not_fit_is_refused(library: bytes) -> None:
    with pytest.raises(NotRelocatable, match="is too short to become"):
        set_runpath(library, lambda entry: entry + "/longer")


@pytest.mark.parametrize("size", [8, 40, 70, 1000])
def test_a_damaged_file_is_refused(library: bytes, size: int) -> None:
    with pytest.raises(NotRelocatable, match="its ELF headers cannot be read"):
        set_runpath(library[:size], moved)


def test_texts_lose_an_own_prefix_and_keep_what_only_looks_like_it() -> None:
    text = b"CC='cc -L/opt/py/lib' x=/opt/py y=/opt/python3/lib z=/opt/py.d"
    assert without_prefix("lib/python3.12/_x.py", text, "/opt/py") == (
        b"CC='cc -L/install/lib' x=/install y=/opt/python3/lib z=/opt/py.d"
    )
    assert without_prefix("a.so", b"\x7fELF\0/opt/py/lib", "/opt/py") == b"\x7fELF\0/opt/py/lib"
    assert without_prefix("a.bin", b"\0/opt/py/lib", "/opt/py") == b"\0/opt/py/lib"


def test_texts_keep_a_shared_prefix_but_for_recorded_places() -> None:
    data = b"""build_time_vars = {'BINDIR': '/usr/bin',
 'CONFIG_ARGS': "'--prefix=/usr'",
 'INSTALL': '/usr/bin/install -c',
 'TZPATH': '/usr/share/zoneinfo:/usr/lib/zoneinfo',
 'prefix': '/usr'}
"""
    assert without_prefix("lib/python3.11/_sysconfigdata__x.py", data, "/usr") == (
        data.replace(b"'/usr/bin',", b"'/install/bin',").replace(b"'prefix': '/usr'", b"'prefix': '/install'")
    )
    assert without_prefix("lib/python3.11/os.py", b"#!/usr/bin/env python", "/usr") == b"#!/usr/bin/env python"


def test_a_distributions_sysconfig_answers_as_upstream() -> None:
    data = b"    if x:\n            prefix_scheme = 'posix_local'\n"
    assert b"= 'posix_prefix'\n" in without_distribution("sysconfig.py", data)
    assert without_distribution("other.py", data) == data


def test_the_interpreters_here_can_be_rewritten() -> None:
    for interpreter in interpreters():
        data = Path(interpreter.executable).read_bytes()
        old = f"{interpreter.prefix}/lib"
        found = elf.read(io.BytesIO(set_runpath(data, lambda e, old=old: "$ORIGIN/../lib" if e == old else e)))  # type: ignore[misc] # a default binds the loop's value
        assert found is not None
        assert old not in (*found.runpath, *found.rpath)
