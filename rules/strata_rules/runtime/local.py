"""Finds the CPythons of this machine and asks each what it is made of, by running it isolated.

It captures nothing. `discover` is deterministic in what it finds: candidates are listed in a fixed order, and every
path that was looked at is in the answer, so that a build notices when one of them changes or appears.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.version import Version

_QUERY = """
import sys, json, sysconfig, importlib
v = sysconfig.get_config_vars()
def works(name):
    try:
        importlib.import_module(name)
    except Exception:
        return False
    return True
base = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps(dict(
    implementation=sys.implementation.name,
    version=".".join(map(str, sys.version_info[:3])),
    final=sys.version_info.releaselevel == "final",
    executable=base,
    prefix=sys.base_prefix,
    stdlib=sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}),
    dynload=str(v.get("DESTSHARED") or ""),
    libdir=str(v.get("LIBDIR") or ""),
    multiarch=str(v.get("MULTIARCH") or ""),
    platlibdir=getattr(sys, "platlibdir", "lib"),
    framework=bool(v.get("PYTHONFRAMEWORK")),
    debug=bool(v.get("Py_DEBUG")),
    free_threaded=bool(v.get("Py_GIL_DISABLED")),
    missing=[m for m in ("zlib", "ssl", "ctypes", "hashlib", "venv") if not works(m)],
)))
"""


class Interpreter(msgspec.Struct, frozen=True):
    """A Python of this machine, as it describes itself."""

    implementation: str
    version: str
    """`X.Y.Z`."""
    final: bool
    executable: str
    """The base interpreter, resolved out of virtual environments."""
    prefix: str
    stdlib: str
    dynload: str
    """The folder of extension modules, `lib-dynload`."""
    libdir: str
    multiarch: str
    platlibdir: str
    framework: bool
    debug: bool
    free_threaded: bool
    missing: tuple[str, ...]
    """Modules that a runtime must have and that do not import here."""

    @property
    def python(self) -> str:
        """`X.Y`."""
        return self.version.rpartition(".")[0]


Probe = Callable[[Path], "Interpreter | None"]
"""Runs an interpreter and says what it is; None where it cannot be run or is no Python."""


class Rejected(NamedTuple):
    """A Python that was found and does not do."""

    executable: str
    version: str
    why: str


class Found(NamedTuple):
    """The Pythons that do, best first, and what there is to know about the search."""

    interpreters: tuple[Interpreter, ...]
    rejected: tuple[Rejected, ...]
    observed: tuple[Path, ...]
    """Every path whose change could change this answer, absent ones included."""
    refused: Rejected | None = None
    """What `STRATA_PYTHON` names, where that does not do."""


def probe(path: Path) -> Interpreter | None:
    """Ask the interpreter at `path`."""
    if not (path.is_file() and os.access(path, os.X_OK)):
        return None
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    try:
        done = subprocess.run(
            # -S: what a distribution's or a user's site hooks do is no business of this question.
            [path, "-I", "-S", "-B", "-c", _QUERY],
            capture_output=True,
            timeout=30,
            check=False,
            env=environment,
            cwd=path.anchor,
            stdin=subprocess.DEVNULL,
        )
        return msgspec.json.decode(done.stdout, type=Interpreter) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError):
        return None


def candidates(environ: Mapping[str, str], running: str = sys.executable) -> tuple[list[Path], list[Path]]:
    """List the paths at which a Python may be, best first, and the folders that were listed for it."""
    home = Path(environ.get("HOME") or "/nonexistent")
    paths = [Path(environ["STRATA_PYTHON"])] if environ.get("STRATA_PYTHON") else []
    paths.append(Path(running))
    names = [f"python3.{minor}" for minor in range(20, 8, -1)] + ["python3", "python"]
    folders = [Path(folder) for folder in environ.get("PATH", "").split(os.pathsep) if folder.startswith("/")]
    # A pyenv shim asks pyenv, which asks the current folder: what it would find is listed below by itself.
    folders = [folder for folder in folders if folder.name != "shims"]
    folders += [Path("/usr/local/bin"), Path("/usr/bin")]
    paths += [folder / name for folder in folders for name in names]
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    managed = [
        Path(environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv/python"),
        Path(environ.get("PYENV_ROOT") or home / ".pyenv") / "versions",
    ]
    for folder in managed:
        paths += [version / "bin/python3" for version in _listed(folder)]
    return list(dict.fromkeys(paths)), managed


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted((path for path in folder.iterdir() if path.is_dir()), reverse=True)
    except OSError:
        return []


def discover(
    accept: str, exact: str, *, environ: Mapping[str, str], probe: Probe = probe, running: str = sys.executable
) -> Found:
    """Find the CPythons that `accept` allows (a specifier such as `>=3.11`): the `exact` version first, then the one
    that runs this program, then the newest.
    """
    paths, folders = candidates(environ, running)
    asked = environ.get("STRATA_PYTHON", "")
    answers: dict[str, Interpreter | None] = {}
    known: dict[str, Interpreter] = {}
    seen: set[str] = set()
    for path in paths:
        real = os.path.realpath(path)
        # A virtual environment's python is a link to its base: one question for both.
        if real in seen or not path.exists():
            continue
        seen.add(real)
        found = answers[str(path)] = probe(path)
        if found is not None:
            seen.add(os.path.realpath(found.executable))
            known.setdefault(os.path.realpath(found.executable), found)
    allowed, rejected = [], []
    specifier = SpecifierSet(accept)
    for found in known.values():
        why = unfit(found) or ("" if specifier.contains(found.version) else f"not `{accept}`")
        if why:
            rejected.append(Rejected(found.executable, found.version, why))
        else:
            allowed.append(found)
    given = answers.get(asked)
    named = None if given is None else known[os.path.realpath(given.executable)]
    refused = Rejected(asked, "", "no Python that runs") if asked and given is None else None
    refused = refused or next((each for each in rejected if named and each.executable == named.executable), None)
    own = known.get(os.path.realpath(running))
    order = {id(found): position for position, found in enumerate(known.values())}
    allowed.sort(
        key=lambda i: (
            i is not named,
            i.version != exact,
            i is not own,
            tuple(-part for part in Version(i.version).release),
            order[id(i)],
        )
    )
    return Found(tuple(allowed), tuple(rejected), (*paths, *folders), refused)


def unfit(interpreter: Interpreter) -> str:
    """Say why this Python cannot become a runtime, as far as its own description tells; empty where it can."""
    if interpreter.implementation != "cpython":
        return f"`{interpreter.implementation}` is not CPython"
    if not interpreter.final:
        return "a pre-release"
    if interpreter.debug or interpreter.free_threaded:
        return "a debug build" if interpreter.debug else "a free-threaded build"
    if interpreter.framework:
        return "a macOS framework build cannot be moved"
    if os.name == "nt":
        return "only Pythons of POSIX systems can be captured"
    return f"it cannot import {', '.join(f'`{name}`' for name in interpreter.missing)}" if interpreter.missing else ""
