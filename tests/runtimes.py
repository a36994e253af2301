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
