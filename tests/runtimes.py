"""Python runtimes for tests: those of this machine, and archives shaped like python-build-standalone's made of them."""

from __future__ import annotations

import functools
import gzip
import io
import os
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from strata_engine.digest import digest_file
from strata_engine.tree import File, Store, Symlink, entries
from strata_rules.runtime.capture import capture_tree
from strata_rules.runtime.local import Interpreter, discover

OWN = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"


@functools.cache
def interpreters() -> tuple[Interpreter, ...]:
    """Find the CPythons of this machine that can be runtimes, the one that runs the tests first."""
    return discover(">=3.11", OWN, environ=os.environ).interpreters


@functools.cache
def kinds() -> dict[str, Interpreter]:
    """Give one interpreter of each kind that is here: of a distribution, with a shared libpython, static elsewhere."""
    found: dict[str, Interpreter] = {}
    for interpreter in interpreters():
        shared = any(Path(interpreter.libdir).glob(f"libpython{interpreter.python}.so*"))
        kind = "distribution" if interpreter.prefix == "/usr" else "shared" if shared else "static"
        found.setdefault(kind, interpreter)
    return found


PIP = {
    "pip/__init__.py": b"",
    "pip-24.0.dist-info/METADATA": b"Name: pip\n",
    "pip-24.0.dist-info/RECORD": b"pip/__init__.py,,\n../../../bin/pip3,,\n/etc/passwd,,\n",
    "setuptools-65.0.dist-info/RECORD": b"setuptools/__init__.py,,\n_odd_helper.py,,\n",
    "setuptools/__init__.py": b"",
    "pkg_resources/__init__.py": b"",
    "distutils-precedence.pth": b"import os",
    "_odd_helper.py": b"",
    "kept/__init__.py": b"",
}
"""What such an archive has in site-packages; the last is to stay."""


def write_tar(
    target: Path, files: Mapping[str, bytes], *, links: Mapping[str, str] | None = None, executables: frozenset[str]
) -> str:
    """Write a `.tar.gz` and give its SHA-256."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted({*files, *(links or {})}):
            info = tarfile.TarInfo(path)
            if path in files:
                info.size = len(files[path])
                info.mode = 0o4755 if path in executables else 0o644
                tar.addfile(info, io.BytesIO(files[path]))
            else:
                info.type, info.linkname = tarfile.SYMTYPE, (links or {})[path]
                tar.addfile(info)
    target.write_bytes(gzip.compress(raw.getvalue(), 1, mtime=0))
    return digest_file(target).hash


def pbs_archive(store: Store, interpreter: Interpreter, folder: Path) -> tuple[Path, str]:
    """Make an `install_only` archive of a CPython of this machine, and give its path and SHA-256."""
    short = interpreter.python
    files: dict[str, bytes] = {}
    links = {"python/bin/python": f"python{short}", "python/bin/python3": f"python{short}"}
    executables = {f"python/bin/python{short}", "python/bin/pip3"}
    for path, node in entries(store, capture_tree(store, interpreter)):
        if isinstance(node, File) and path == "bin/python":
            files[f"python/bin/python{short}"] = store.get(node.digest)
        elif isinstance(node, File):
            files[f"python/{path}"] = store.get(node.digest)
            executables |= {f"python/{path}"} if node.executable else set()
        elif isinstance(node, Symlink) and not path.startswith("bin/"):
            links[f"python/{path}"] = node.target
    site = f"python/lib/python{short}/site-packages"
    files |= {f"{site}/{path}": data for path, data in PIP.items()}
    files["python/bin/pip3"] = b"#!/bin/sh\n"
    files[f"python/include/python{short}/patchlevel.h"] = f'#define PY_VERSION "{interpreter.version}"\n'.encode()
    files[f"python/lib/python{short}/__pycache__/os.cpython-{short.replace('.', '')}.pyc"] = b"of another machine"
    files["python/share/terminfo/A/a"] = files["python/share/terminfo/a/a"] = b"case matters to ncurses"
    target = folder / f"cpython-{interpreter.version}+test-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"
    return target, write_tar(target, files, links=links, executables=frozenset(executables))


# -- archives for any platform, shaped like python-build-standalone's, with nothing in them that runs ----------------

TRIPLES = {
    "win_amd64": "x86_64-pc-windows-msvc",
    "win_arm64": "aarch64-pc-windows-msvc",
    "linux_x86_64": "x86_64-unknown-linux-gnu",
    "linux_aarch64": "aarch64-unknown-linux-gnu",
    "macosx_arm64": "aarch64-apple-darwin",
    "macosx_x86_64": "x86_64-apple-darwin",
}


class Shape(NamedTuple):
    """What an archive holds, below `python/`."""

    files: dict[str, bytes]
    links: dict[str, str]
    executables: frozenset[str]


def windows_shape(python: str) -> Shape:
    """Give the shape of `install_only` for Windows: the venv launchers have other names since 3.13."""
    digits = python.replace(".", "")
    new = tuple(map(int, python.split("."))) >= (3, 13)
    launcher, windowed = ("venvlauncher.exe", "venvwlauncher.exe") if new else ("python.exe", "pythonw.exe")
    binaries = ["python.exe", "pythonw.exe", "python3.dll", f"python{digits}.dll", "vcruntime140.dll"]
    binaries += ["vcruntime140_1.dll", "DLLs/_ssl.pyd", "DLLs/libssl-3.dll", f"libs/python{digits}.lib"]
    binaries += [f"Lib/venv/scripts/nt/{launcher}", f"Lib/venv/scripts/nt/{windowed}"]
    binaries += [f"Scripts/{name}.exe" for name in ("pip", "pip3", f"pip{python}")]
    files = {path: f"MZ {path}".encode() for path in binaries}
    files |= {
        "LICENSE.txt": b"PSF\r\n",
        "Lib/os.py": b"sep = '\\\\'\n",
        "Lib/venv/scripts/common/activate": b"# activate\n",
        "Lib/venv/scripts/nt/activate.bat": b"@echo off\r\n",
        f"Lib/__pycache__/os.cpython-{digits}.pyc": b"of another machine",
        "Lib/ensurepip/_bundled/pip-24.0-py3-none-any.whl": b"PK",
        "tcl/tcl8.6/init.tcl": b"# tcl\n",
        "include/patchlevel.h": b"",
        "Lib/site-packages/pip/__init__.py": b"",
        "Lib/site-packages/pip/__pycache__/__init__.pyc": b"",
        "Lib/site-packages/pip-24.0.dist-info/RECORD": b"pip/__init__.py,,\r\n../../Scripts/pip.exe,,\r\n",
        "Lib/site-packages/README.txt": b"",
    }
    return Shape(files, {}, frozenset(path for path in binaries if path.endswith(".exe")))


def posix_shape(python: str, platform: str) -> Shape:
    """Give the shape of `install_only` for Linux and macOS."""
    lib, site = f"lib/python{python}", f"lib/python{python}/site-packages"
    mac = platform.startswith("macosx")
    library = f"lib/libpython{python}.dylib" if mac else f"lib/libpython{python}.so.1.0"
    system = "_darwin_darwin" if mac else f"_linux_{platform.removeprefix('linux_')}-linux-gnu"
    files = {
        f"bin/python{python}": b"\xcf\xfa\xed\xfe" if mac else b"\x7fELF",
        f"bin/python{python}-config": b"#!/bin/sh\n",
        "bin/pip3": b"#!/bin/sh\n",
        "bin/idle3": b"#!/bin/sh\n",
        library: b"\xcf\xfa\xed\xfe",
        f"{lib}/os.py": b"sep = '/'\n",
        f"{lib}/_sysconfigdata_{system}.py": b"build_time_vars = {'prefix': '/install'}\n",
        f"{lib}/__pycache__/os.cpython-{python.replace('.', '')}.pyc": b"of another machine",
        f"{lib}/lib-dynload/_tkinter.cpython.so": b"\xcf\xfa\xed\xfe",
        f"{site}/pip/__init__.py": b"",
        f"{site}/pip-24.0.dist-info/RECORD": b"pip/__init__.py,,\n../../../bin/pip3,,\n",
        f"{site}/README.txt": b"",
        f"include/python{python}/patchlevel.h": b"",
        "share/terminfo/2/2621A": b"case matters to ncurses",
        "share/terminfo/2/2621a": b"case matters to ncurses",
        "share/man/man1/python3.1": b".TH\n",
    }
    links = {"bin/python": f"python{python}", "bin/python3": f"python{python}", "bin/idle": "idle3"}
    if not mac:
        links[f"lib/libpython{python}.so"] = f"libpython{python}.so.1.0"
    executables = {path for path in files if path.startswith("bin/")} | {library}
    return Shape(files, links, frozenset(executables))


def foreign_archive(folder: Path, platform: str, version: str) -> tuple[Path, str]:
    """Make an archive for a platform as python-build-standalone would name and shape it; give its path and SHA-256.

    Folders and files are read-only, as some releases have them.
    """
    python = version.rpartition(".")[0]
    shape = windows_shape(python) if platform.startswith("win_") else posix_shape(python, platform)
    header = f'#define PY_VERSION "{version}"\n'.encode()
    files = {path: header if path.endswith("patchlevel.h") else data for path, data in shape.files.items()}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted({*files, *shape.links}):
            info = tarfile.TarInfo(f"python/{path}")
            info.mode = 0o555 if path in shape.executables else 0o444
            if path in files:
                info.size = len(files[path])
                tar.addfile(info, io.BytesIO(files[path]))
            else:
                info.type, info.linkname = tarfile.SYMTYPE, shape.links[path]
                tar.addfile(info)
    target = folder / f"cpython-{version}+test-{TRIPLES[platform]}-install_only_stripped.tar.gz"
    target.write_bytes(gzip.compress(raw.getvalue(), 1, mtime=0))
    return target, digest_file(target).hash
