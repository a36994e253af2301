"""How venvstacks names what a lock was made from: its four hashes, so that it can read our locks and we its.

They concatenate without separators, and miss much of what a lock depends on (reference: venvstacks 0.8, `*.meta.json`).
So they decide only about locks that venvstacks has made; of ours they are told for the other tool's sake. The hard part
is to be exact, in its oddities too: each function is held against venvstacks' own by a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from packaging.markers import InvalidMarker, Marker
from packaging.version import InvalidVersion, Version

from strata_engine.digest import DigestWriter
from strata_rules.pylock import LOWER_LAYER


class Targets(msgspec.Struct, frozen=True):
    """The C library targets of a layer, as its table in the stack file states them."""

    linux: str | None = None
    macosx: str | None = None


def hash_strings(strings: Iterable[str]) -> str:
    """Hash strings one after the other, with nothing between them."""
    writer = DigestWriter()
    for text in strings:
        writer.update(text.encode())
    return f"sha256:{writer.digest().hash}"


def lock_input_hash(requirements: Iterable[str]) -> str:
    """Hash the declared requirements, as `packaging` writes them."""
    return hash_strings(sorted(text for line in requirements if (text := _flat(line))))


def requirements_hash(document: Mapping[str, Any]) -> str | None:
    """Hash what the document of a lock has chosen: packages, indexes and wheels; None where venvstacks would fail."""
    lines = []
    try:
        for package in document.get("packages", []):
            lines.append(f"{_requirement(package)} from {package.get('index', 'unspecified index')}")
            for wheel in package.get("wheels", ()):
                name = _wheel_name(wheel)
                lines += [f"{name}:{algorithm}:{value}" for algorithm, value in wheel["hashes"].items()]
    except (AttributeError, InvalidMarker, InvalidVersion, KeyError, RecursionError, TypeError, ValueError):
        return None
    return hash_strings(sorted(lines))


def other_inputs_hash(*, python: str, targets: Targets, lower: Sequence[str]) -> str:
    """Hash what else decides: Python `X.Y`, targets, and the names of the runtime and the frameworks in order."""
    inputs = [f"py_version={python}"]
    if targets.linux:
        inputs.append(f"linux_target={targets.linux}")
    if targets.macosx:
        inputs.append(f"macosx_target={targets.macosx}")
    return hash_strings([*inputs, *lower])


def version_inputs_hash(layer: str, *, versioned: bool, modules: Iterable[str] = ()) -> str:
    """Hash what gives a versioned layer a new version besides its packages: the hashes of its modules."""
    return hash_strings([f"env_name={layer}", f"is_versioned_layer={versioned}", *modules])


def _flat(line: str) -> str:
    """Read a requirement as a line of a requirements file: without comment; nothing where it is a hash."""
    text = line.rstrip("\\").strip().partition("#")[0].strip()
    return "" if "--hash" in text else text


def _requirement(package: Mapping[str, Any]) -> str:
    text = package.get("marker", "")
    marker = str(Marker(text)).replace('"', "'") if text else ""
    if marker == LOWER_LAYER:
        marker = ""
    elif "from_lower_layer" in marker:
        marker = marker.removeprefix("(").removesuffix(f" and {LOWER_LAYER}").removesuffix(")")
    return f"{package['name']}=={Version(package['version'])}" + (f" ; {marker}" if marker else "")


def _wheel_name(wheel: Mapping[str, Any]) -> str:
    """Name a wheel; the escapes of a URL stay, except in that of a file."""
    if wheel.get("name") is not None:
        return str(wheel["name"])
    if wheel.get("path") is not None:
        return PurePosixPath(wheel["path"]).name
    parts = urlsplit(wheel["url"])
    return PurePosixPath(unquote(parts.path) if parts.scheme == "file" else parts.path).name
