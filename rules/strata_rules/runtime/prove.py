"""Proves that a captured runtime can be moved, by moving it and running it twice. It knows nothing of how it was made.

Nothing may come from the old place: no mapped file, no module, no entry of `sys.path`; and every extension module that
loads there must load here. Where a system has no `/proc`, mapped files cannot be seen, and the rest must do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from strata_engine.action import Execution
from strata_engine.errors import Diagnostic, HostError, Place
from strata_engine.place import place
from strata_engine.tree import Tree

MODULES = (
    "ssl", "sqlite3", "ctypes", "lzma", "bz2", "zlib", "hashlib", "venv", "sysconfig", "asyncio", "multiprocessing",
    "decimal", "zoneinfo", "json", "readline", "curses", "uuid", "tkinter", "xml.parsers.expat", "email", "logging",
    "unittest", "socket", "select", "subprocess", "tempfile", "tomllib", "importlib.metadata", "concurrent.futures",
)  # fmt: skip
"""What is imported besides every extension module. One that the original cannot import may be missing here too."""

_SCRIPT = """
import sys, json, importlib, os
failed = {}
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = f"{type(error).__name__}: {error}"
import site, sysconfig
try:
    with open("/proc/self/maps") as stream:
        maps = sorted({line.split(None, 5)[5].strip() for line in stream if line.count("/")})
except OSError:
    maps = []
files = sorted({f for m in list(sys.modules.values()) if isinstance(f := getattr(m, "__file__", None), str)})
answer = dict(
    prefix=sys.prefix, base_prefix=sys.base_prefix, exec_prefix=sys.exec_prefix, executable=sys.executable,
    version=".".join(map(str, sys.version_info[:3])), path=sys.path, failed=failed, maps=maps, files=files,
    site=[os.path.realpath(p) for p in site.getsitepackages()], purelib=sysconfig.get_path("purelib"),
)
with open(sys.argv[1], "w", encoding="utf-8") as stream:
    json.dump(answer, stream)
"""


class Original(NamedTuple):
    """What the runtime was captured from."""

    executable: str
    version: str
    places: tuple[str, ...]
    """Paths from which nothing may come any more."""
    extensions: tuple[str, ...]
    """Names of its extension modules."""


def prove(execution: Execution, tree: Tree, original: Original, where: Place | None = None) -> None:
    """Run `tree` in two other places. Raises HostError `runtime-not-relocatable` with all that was found."""
    names = (*MODULES, *original.extensions)
    before = _ask(execution, original.executable, names, execution.scratch)
    excused = before.get("failed", {}).keys()
    first, second = execution.scratch / "proof" / "here", execution.scratch / "proof" / "moved" / "there"
    first.parent.mkdir(parents=True)
    place(execution.store, tree, first)
    problems = _check(_ask(execution, str(first / "bin/python"), names, Path("/")), first, original, excused)
    second.parent.mkdir(parents=True)
    first.rename(second)
    if not problems:
        problems = _check(_ask(execution, str(second / "bin/python"), names, second.parent), second, original, excused)
    if problems:
        message = f"CPython {original.version} at `{original.executable}` cannot be made a runtime: {problems[0]}"
        hint = 'use another Python (`STRATA_PYTHON`), or `provider = "pbs"`'
        raise HostError(Diagnostic("runtime-not-relocatable", message, where, tuple(problems[1:]), hint))


def _ask(execution: Execution, executable: str, names: Sequence[str], cwd: Path) -> dict[str, Any]:
    told = execution.scratch / "answer.json"
    told.unlink(missing_ok=True)
    done = execution.command([executable, "-I", "-B", "-c", _SCRIPT, str(told), *names], cwd=cwd)
    try:
        answer = json.loads(told.read_bytes()) if done.returncode == 0 else None
    except (OSError, ValueError):
        answer = None
    return answer if isinstance(answer, dict) else {"crashed": done.stderr.strip() or f"exit code {done.returncode}"}


def _check(answer: dict[str, Any], here: Path, original: Original, excused: Any) -> list[str]:
    """List what is wrong with a run of the moved runtime."""
    if "crashed" in answer:
        last = answer["crashed"].splitlines()[-1]
        return [f"it does not run in another place ({last})"]
    real = str(here.resolve())
    problems = [
        f"`sys.{name}` is `{answer[name]}` in another place"
        for name in ("prefix", "base_prefix", "exec_prefix")
        if answer[name] not in {str(here), real}
    ]
    if answer["version"] != original.version:
        problems.append(f"it says that it is {answer['version']}, not {original.version}")

    def inside(path: str, folder: str) -> bool:
        return path == folder or path.startswith(folder.rstrip("/") + "/")

    for what, paths in (("a file is mapped", answer["maps"]), ("a module comes", answer["files"])):
        left = [path for path in paths if any(inside(path, place_) for place_ in original.places)]
        problems += [f"{what} from the old place: `{path}`" for path in left[:5]]
    foreign = [path for path in answer["path"] if not inside(path, str(here)) and not inside(path, real)]
    problems += [f"`sys.path` has `{path}`, which is not in the runtime" for path in foreign]
    problems += [f"`import {name}` fails: {text}" for name, text in answer["failed"].items() if name not in excused]
    if os.path.realpath(answer["purelib"]) not in answer["site"]:
        problems.append(f"packages would be installed into `{answer['purelib']}`, where it does not look for them")
    return problems
