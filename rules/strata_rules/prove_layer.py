"""Proves that deployed layers can be moved, by moving them and running one as hostile a machine would.

It knows folders and processes, not how layers are made. The stack is moved, its old place is poisoned, and the layer's
Python runs in another folder, with an emptied environment and a home whose user packages raise; then it starts a child
from `sys.executable`, as multiprocessing does. Whatever was loaded must come from the new place or from the system.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from strata_rules.layout import CONFIG_PATH

_PROBE = """
import json, os, subprocess, sys
exec(sys.argv[1])
if len(sys.argv) == 3:
    child = subprocess.run([sys.executable, "-c", *sys.argv[2:], sys.argv[1]], env={}, stdout=subprocess.PIPE)
    child = json.loads(child.stdout) if child.returncode == 0 else f"exit code {child.returncode}"
else:
    child = None
try:
    with open("/proc/self/maps") as stream:
        maps = sorted({line.split(None, 5)[5].strip() for line in stream if "/" in line})
except OSError:
    maps = []
files = sorted({f for m in list(sys.modules.values()) if isinstance(f := getattr(m, "__file__", None), str)})
print(json.dumps(dict(prefix=sys.prefix, base_prefix=sys.base_prefix, executable=sys.executable, path=sys.path,
                      maps=maps, files=files, child=child)))
"""


class Proof(NamedTuple):
    """What came out: what is wrong, in sentences, and what the interpreter said of itself."""

    problems: tuple[str, ...]
    answer: dict[str, Any]


def prove_layer(stack: Path, layer: str, statement: str = "pass", *, timeout: float = 120) -> Proof:
    """Move the folder `stack`, run `statement` in the layer's Python there, and move it back.

    `statement` imports what is to work. Raises OSError where the folder cannot be moved.
    """
    stack = stack.resolve()
    config = json.loads((stack / layer / CONFIG_PATH).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix=".strata-proof-", dir=stack.parent) as scratch:
        room = Path(scratch)
        new = room / "moved ünï" / "stack"
        new.parent.mkdir()
        home = room / "home"
        _hostile_home(home, ".".join(str(config["py_version"]).split(".")[:2]))
        elsewhere = room / "elsewhere"
        elsewhere.mkdir()
        with _moved(stack, new, config):
            python = new / layer / config["python"]
            try:
                done = subprocess.run(
                    [str(python), "-c", _PROBE, statement, _PROBE],
                    cwd=elsewhere,
                    env={"HOME": str(home)},
                    capture_output=True,
                    text=True,
                    encoding="utf-8",
                    timeout=timeout,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                return Proof((f"it does not run: {error}",), {})
            if done.returncode:
                return Proof((f"it ends with exit code {done.returncode}: {done.stderr.strip()}",), {})
            try:
                answer = json.loads(done.stdout.splitlines()[-1])
            except (ValueError, IndexError):
                return Proof(("it prints something else than it was asked for",), {})
            return Proof(tuple(_problems(answer, stack, new, layer, config, home)), answer)


@contextmanager
def _moved(stack: Path, new: Path, config: dict[str, Any]) -> Iterator[None]:
    """Move a folder and leave something at its old place that would be noticed."""
    stack.rename(new)
    try:
        for folder in {config["site_dir"], "lib", "bin"}:
            poison = stack / "poison" / folder
            poison.mkdir(parents=True, exist_ok=True)
        for layer in (path.name for path in new.iterdir() if path.is_dir()):
            # One poisoned folder serves as every layer: whatever is imported or run from it stops the proof.
            (stack / layer).symlink_to("poison")
        for name in ("sitecustomize.py", "os.py", "encodings.py"):
            (stack / "poison" / config["site_dir"] / name).write_text("raise SystemExit('from the old place')\n")
        script = stack / "poison" / "bin" / "python"
        script.write_text("#!/bin/sh\necho 'from the old place' >&2\nexit 99\n")
        script.chmod(0o755)
        yield
    finally:
        shutil.rmtree(stack, ignore_errors=True)
        new.rename(stack)


def _hostile_home(home: Path, python: str) -> None:
    site = home / ".local" / "lib" / f"python{python}" / "site-packages"
    site.mkdir(parents=True)
    for name in ("usercustomize.py", "sitecustomize.py"):
        (site / name).write_text("raise SystemExit('from the user site')\n")
    (site / "evil.pth").write_text("import os; os._exit(77)\n")


def _problems(
    answer: dict[str, Any], old: Path, new: Path, layer: str, config: dict[str, Any], home: Path
) -> Iterator[str]:
    runtime = os.path.normpath(new / layer / config["base_python"])
    expected = {
        "prefix": str(new / layer),
        "base_prefix": str(Path(runtime).parent.parent),
        "executable": str(new / layer / config["python"]),
    }
    for who, said in (("", answer), ("in a child, ", answer.get("child"))):
        if not isinstance(said, dict):
            yield f"a child started from `sys.executable` fails: {said}"
            continue
        for name, value in expected.items():
            if said[name] != value:
                yield f"{who}`sys.{name}` is `{said[name]}` and not `{value}`"
        for path in {*said["path"], *said["files"], *said["maps"]}:
            if path == str(old) or path.startswith((f"{old}/", f"{home}/")):
                yield f"{who}`{path}` is used"
        for path in said["path"]:
            if path and not path.startswith(f"{new}/"):
                yield f"{who}`sys.path` has `{path}`, which is in no layer"
        wanted = [os.path.normpath(new / layer / folder) for folder in (config["site_dir"], *config["pylib_dirs"])]
        order = [path for path in said["path"] if path in wanted]
        present = [path for path in wanted if Path(path).is_dir()]
        if [path for path in order if path in present] != present:
            yield f"{who}the layers are in another order on `sys.path`: {order}"
