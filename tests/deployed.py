"""Stack files written from their layers, and what was published of them unpacked elsewhere and run there."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from conftest import untar
from runtimes import OWN
from space import Space

WHEELS = """\
[tool.uv]
no-index = true
find-links = ["wheels"]
"""

ARCHIVES = """\
[tool.strata.archive]
format = "tar.gz"
level = 1
"""


def layer(kind: str, name: str, *requirements: str, **more: Any) -> str:
    """Write a layer; `kind` is `runtime`, `framework` or `application`."""
    return table(f"[{kind}s]", name=name, requirements=requirements, **more)


def table(header: str, **fields: Any) -> str:
    """Write a table of TOML."""
    return f"[{header}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in fields.items()) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(each)}" for key, each in value.items()) + " }"
    # What JSON has of numbers, truth, texts and lists is TOML too.
    return json.dumps(value, ensure_ascii=False)


def runtime(name: str = "python", *requirements: str, version: str = OWN, **more: Any) -> str:
    """Write a runtime layer that is captured from a CPython of this machine."""
    source = table(f'tool.strata.runtimes."{name}"', provider="local", accept=f"=={version}")
    return layer("runtime", name, *requirements, python_implementation=f"cpython@{version}", **more) + source


def stack(*tables: str, uv: str = WHEELS) -> str:
    """Write a stack file on the runtime that the template has, unless there is a runtime among the tables."""
    base = () if any(each.startswith("[[runtimes]]") for each in tables) else (runtime(),)
    return "\n".join([*base, *tables, uv, ARCHIVES])


def unpack(space: Space, stack: Path, *names: str, output: str = "_artifacts") -> Path:
    """Unpack published archives side by side: all of them, or those with these names."""
    stack.mkdir(parents=True, exist_ok=True)
    folder = space.root / output
    for path in [folder / f"{name}.tar.gz" for name in names] or sorted(folder.glob("*.tar.gz")):
        with tarfile.open(path) as archive:
            untar(archive, stack)
    return stack


def start(stack: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an unpacked layer's Python elsewhere with an emptied environment, however it ends."""
    python = stack / name / "bin" / "python"
    return subprocess.run([python, *arguments], cwd="/", env={}, capture_output=True, text=True, check=False)


def say(stack: Path, name: str, *arguments: str) -> str:
    """Run an unpacked layer's Python, which must end well and without a warning, and give what it prints."""
    done = start(stack, name, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def members(archive: Path) -> dict[str, bytes]:
    """Give the files of a `.tar.gz`, below the layer's folder."""
    with tarfile.open(archive) as opened:
        files = [(member, opened.extractfile(member)) for member in opened if member.isfile()]
        return {member.name.partition("/")[2]: stream.read() for member, stream in files if stream is not None}


def entries(space: Space, output: str = "_artifacts") -> dict[str, dict[str, Any]]:
    """Give the manifest's entries by layer."""
    manifest = json.loads(space.read(f"{output}/__venvstacks__/venvstacks.json"))
    kinds: Iterable[list[dict[str, Any]]] = manifest["layers"].values()
    return {entry["layer_name"]: entry for kind in kinds for entry in kind}
