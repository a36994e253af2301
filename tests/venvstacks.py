"""The real venvstacks on the stacks of the tests: its own environment, its runtimes, and one workspace per tool.

The environment is made once and kept with pytest's cache, keyed by all that it is made of. Nothing in it is patched:
each command is started by a line of Python that puts our runtime archive into the table of python-build-standalone
builds that venvstacks asks. Strata gets the same archive as `provider = "archive"`, so both have one runtime.

Where it cannot be installed the tests fail: a comparison that is left out proves nothing.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from conftest import record_hash, uv_environ
from runtimes import interpreters
from space import Ran

from strata_engine.digest import Digest, digest_file
from strata_engine.store import open_store
from strata_engine.tree import File, Symlink, entries
from strata_rules import uv
from strata_rules.runtime.capture import capture_tree
from strata_rules.runtime.local import Interpreter

CONSTRAINTS = Path(__file__).with_name("venvstacks-constraints.txt")

FEED = """\
import json, sys
from pbs_installer import _versions
from pbs_installer._utils import PythonVersion
from pbs_installer._install import THIS_ARCH, THIS_PLATFORM
version, url, sha256 = json.loads(sys.argv.pop(1))
key = PythonVersion("cpython", *map(int, version.split(".")), False)
_versions.PYTHON_VERSIONS[key] = {(THIS_PLATFORM, THIS_ARCH, True): (url, sha256)}
sys.argv[0] = "venvstacks"
from venvstacks.cli import main
main()
"""


UNUSED = ("/ensurepip/", "/lib2to3/", "/pydoc_data/", "/tkinter/", "/distutils/", "/_pydecimal.py")
"""Parts of the standard library that only cost venvstacks time to compress."""


class Runtime(NamedTuple):
    """A runtime archive of the form that python-build-standalone publishes."""

    version: str
    path: Path
    sha256: str

    @property
    def python(self) -> str:
        """Give `X.Y`."""
        return self.version.rpartition(".")[0]

    @property
    def url(self) -> str:
        """Give the address of the archive: what a `+` would mean in it depends on who reads."""
        return self.path.as_uri().replace("+", "%2B")


class Venvstacks(NamedTuple):
    """The tool and the runtime that it is given."""

    python: Path
    runtime: Runtime
    cache: Path
    """uv's cache: on one device with the workspaces, as on a user's machine."""

    def run(self, root: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Ran:
        """Run a command in a folder."""
        kept = {k: v for k, v in uv_environ().items() if not k.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV"))}
        feed = json.dumps([self.runtime.version, self.runtime.url, self.runtime.sha256])
        done = subprocess.run(
            [str(self.python), "-I", "-c", FEED, feed, *arguments],
            cwd=root,
            env={**kept, "UV_CACHE_DIR": str(self.cache), "COLUMNS": "400", "NO_COLOR": "1", **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def ok(self, root: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Ran:
        """Run a command that must end well."""
        ran = self.run(root, *arguments, env=env)
        assert ran.code == 0, f"venvstacks {' '.join(arguments)}: {ran.code}\n{ran.stdout}\n{ran.stderr}"
        return ran


# -- its environment and its runtime ---------------------------------------------------------------------------------


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make what is in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def environment(cache: Path) -> Path:
    """Give the Python of an environment that has venvstacks; it is made where the cache has none."""
    version = subprocess.run([uv.find(), "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    base = os.path.realpath(sys.executable)
    made_of = f"{CONSTRAINTS.read_text()}\nuv=={version}\n{base}\n{sys.version}\n{Path(base).stat().st_mtime_ns}\n"
    folder = cache / f"environment-{Digest.of(made_of.encode()).hash[:16]}"
    python = folder / "venv" / "bin" / "python"
    with _alone(folder):
        if not (folder / "complete").exists():
            shutil.rmtree(folder / "venv", ignore_errors=True)
            for command in (
                ["venv", "--quiet", "--no-project", "--python", base, folder / "venv"],
                # The same uv for both, so that they differ in nothing but what they make of its answers.
                [
                    "pip",
                    "install",
                    "--quiet",
                    "--python",
                    python,
                    "--constraint",
                    CONSTRAINTS,
                    "venvstacks",
                    f"uv=={version}",
                ],
            ):
                done = subprocess.run(
                    [uv.find(), *map(str, command)], env=uv_environ(), capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"venvstacks cannot be installed:\n{done.stderr}"
            (folder / "complete").touch()
    return python


def runtime(cache: Path) -> Runtime:
    """Give a runtime archive made of a Python of this machine: of no distribution where there is a choice."""
    chosen = min(interpreters(), key=lambda found: found.prefix == "/usr")
    made_of = f"{Path(__file__).read_text()}\n{chosen}\n{Path(chosen.executable).stat().st_mtime_ns}"
    folder = cache / f"runtime-{Digest.of(made_of.encode()).hash[:16]}"
    path = folder / f"cpython-{chosen.version}+test-{platform.machine()}-unknown-linux-gnu-install_only_stripped.tar.gz"
    with _alone(folder):
        if not path.exists():
            part = path.with_name("part")
            _write_runtime(part, _runtime_files(folder / "store", chosen))
            part.replace(path)
    return Runtime(chosen.version, path, digest_file(path).hash)


class _Member(NamedTuple):
    data: bytes
    executable: bool = False
    link: str = ""


def _runtime_files(scratch: Path, chosen: Interpreter) -> dict[str, _Member]:
    """Capture a Python, with the names that its files have there, and with a `pip`, which both tools take out."""
    store = open_store(scratch, lambda diagnostic: None)
    files: dict[str, _Member] = {}
    for path, node in entries(store.cas, capture_tree(store.cas, chosen)):
        if any(part in path for part in UNUSED):
            continue
        if isinstance(node, File):
            files[path] = _Member(_stripped(scratch / "binary", store.cas.get(node.digest)), node.executable)
        elif isinstance(node, Symlink):
            files[path] = _Member(b"", link=node.target)
    store.close()
    shutil.rmtree(scratch)
    long = f"python{chosen.python}"
    files[f"bin/{long}"] = files["bin/python"]
    files |= {f"bin/{short}": _Member(b"", link=long) for short in ("python", "python3")}
    site = f"lib/{long}/site-packages"
    pip = {
        "pip/__init__.py": b"",
        "pip-24.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: pip\nVersion: 24.0\n",
        "pip-24.0.dist-info/INSTALLER": b"pip\n",
        "../../../bin/pip3": b"#!/bin/sh\n",
    }
    rows = [f"{path},{record_hash(data)},{len(data)}\n" for path, data in pip.items()]
    pip["pip-24.0.dist-info/RECORD"] = "".join([*rows, "pip-24.0.dist-info/RECORD,,\n"]).encode()
    return files | {os.path.normpath(f"{site}/{path}"): _Member(data, "bin" in path) for path, data in pip.items()}


def _stripped(scratch: Path, data: bytes) -> bytes:
    """Leave debugging symbols out where `strip` is there: less to compress."""
    if not data.startswith(b"\x7fELF") or shutil.which("strip") is None:
        return data
    scratch.write_bytes(data)
    subprocess.run(["strip", "--strip-unneeded", str(scratch)], check=True)
    return scratch.read_bytes()


def _write_runtime(target: Path, files: Mapping[str, _Member]) -> None:
    with tarfile.open(target, "w:gz", format=tarfile.GNU_FORMAT, compresslevel=1) as tar:
        for path, member in sorted(files.items()):
            info = tarfile.TarInfo(f"python/{path}")
            info.mtime = 1_700_000_000
            if member.link:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, member.link, 0o777
                tar.addfile(info)
            else:
                info.size, info.mode = len(member.data), 0o755 if member.executable else 0o644
                tar.addfile(info, io.BytesIO(member.data))
