"""Finish a layer where it was unpacked: compile what has no bytecode; on Windows also write what must name its place.

Run it with the Python of the runtime layer: `RUNTIME/bin/python LAYER/postinstall.py`. It may be run any number of
times. On Linux and macOS layers work without it. It uses nothing but the standard library, and ships in each layer.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import py_compile
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

CONFIG = Path("share", "venv", "metadata", "venvstacks_layer.json")
NAME = "postinstall.py"

SITECUSTOMIZE = """\
# Made by postinstall.py of this layer. Not to be edited.
import os
import site

for folder in {pylib!a}:
    site.addsitedir(folder)
for folder in {dynlib!a}:
    if os.path.isdir(folder) and hasattr(os, "add_dll_directory"):
        os.add_dll_directory(folder)
"""


class LayerError(Exception):
    """The layer cannot be finished; the message says why."""


class Layer(NamedTuple):
    """What a layer says of itself, its paths made absolute."""

    folder: Path
    python: Path
    base_python: Path
    version: str
    site: Path
    pylib: list[str]
    dynlib: list[str]

    @property
    def for_windows(self) -> bool:
        """Tell what it was made for: it may lie on another system, to be looked at or passed on."""
        return self.python.suffix == ".exe"

    @property
    def library(self) -> Path:
        """Give the folder that all modules of the layer are in."""
        return self.folder / self.site.relative_to(self.folder).parts[0]


def main(arguments: list[str]) -> int:
    """Finish the layer that this file lies in."""
    # Symlinks stay as they are, for the layers are beside this one; `..` would look like a way out.
    folder = Path(os.path.abspath(__file__)).parent  # noqa: PTH100 - absolute() would keep `..`
    try:
        if arguments == ["--compile"]:
            compile_missing(read_layer(folder).library)
            return 0
        return finish(folder, windows=os.name == "nt")
    except (LayerError, OSError, UnicodeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def finish(folder: Path, *, windows: bool) -> int:
    """Prepare and compile the layer in `folder`; `windows` says what system this is. Give the exit code."""
    layer = read_layer(folder)
    if layer.for_windows != windows:
        system = "Windows" if layer.for_windows else "Linux or macOS"
        raise LayerError(f"the layer in {folder} is for {system}, and has to be finished there")
    prepare(layer)
    if sys.executable and layer.base_python.samefile(sys.executable):
        compile_missing(layer.library)
        return 0
    # Another Python's bytecode would never be read.
    command = [str(layer.base_python), "-I", str(folder / NAME), "--compile"]
    return subprocess.run(command, check=False).returncode


def read_layer(folder: Path) -> Layer:
    """Read what the layer says of itself, and refuse whatever leads out of the folder that it lies in."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return Layer(
            folder,
            Path(inside(folder, config["python"], folder)),
            Path(inside(folder, config["base_python"])),
            str(config["py_version"]),
            Path(inside(folder, config["site_dir"], folder)),
            [inside(folder, item) for item in listed(config["pylib_dirs"])],
            [inside(folder, item) for item in listed(config["dynlib_dirs"])],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LayerError(f"{path} is not a layer's description: {error}") from None


def inside(folder: Path, relative: str, boundary: Path | None = None) -> str:
    """Give the absolute path of something in this layer or, without a `boundary`, in one beside it."""
    # Layers for Windows are described as paths are written there, and can be looked at anywhere.
    path = os.path.normpath(folder / relative.replace("\\", "/"))
    boundary = boundary or folder.parent
    if boundary not in Path(path).parents:
        raise LayerError(f"{relative} leads out of {boundary}")
    return path


def listed(value: list[str]) -> list[str]:
    """Take a list of paths and nothing else."""
    if not isinstance(value, list):
        raise TypeError(f"expected a list, not {value!r}")
    return value


def prepare(layer: Layer) -> None:
    """Check that the runtime is there, and write what on Windows must name the places of the layers below."""
    if not layer.base_python.exists():
        raise LayerError(f"the runtime layer is not beside this one: there is no {layer.base_python}")
    if not layer.for_windows or layer.python == layer.base_python:
        return
    # The launcher reads `home` alone, as UTF-8, and takes the first line that begins so.
    lines = [
        f"home = {layer.base_python.parent}",
        "include-system-site-packages = false",
        f"version = {layer.version}",
        f"executable = {layer.base_python}",
    ]
    write(layer.folder / "pyvenv.cfg", "\n".join(lines) + "\n")
    write(layer.site / "sitecustomize.py", SITECUSTOMIZE.format(pylib=layer.pylib, dynlib=layer.dynlib))


def write(path: Path, text: str) -> None:
    """Write a file in one move, unless it has that text."""
    data = text.encode("utf-8")
    if path.exists() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.replace(path)


def compile_missing(folder: Path) -> None:
    """Compile each module that has no bytecode, or bytecode of an older version of itself."""
    for path in sorted(folder.rglob("*.py")):
        if not path.is_file() or has_bytecode(path):
            continue
        # Templates and files for another Python are found in many packages: importing one says what is wrong with it.
        with contextlib.suppress(py_compile.PyCompileError, UnicodeError, ValueError):
            # With the source's time and size in it, so that a later version of the source is never mistaken for it.
            mode = py_compile.PycInvalidationMode.TIMESTAMP
            py_compile.compile(str(path), doraise=True, quiet=1, invalidation_mode=mode)


def has_bytecode(source: Path) -> bool:
    """Tell whether the interpreter would take the bytecode that is there."""
    bytecode = Path(importlib.util.cache_from_source(str(source)))
    if not bytecode.exists():
        return False
    with bytecode.open("rb") as stream:
        header = stream.read(16)
    if len(header) < 16 or header[:4] != importlib.util.MAGIC_NUMBER:
        return False
    flags, mtime, size = struct.unpack("<LLL", header[4:])
    found = source.stat()
    return bool(flags) or (mtime, size) == (int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
