"""What a lock of a venvstacks before 0.8 is still good for: the versions that it chose.

Such locks, `requirements-LAYER[-PLATFORM].txt`, can neither be valid nor be replaced, as 0.8 does not read them either.
Whoever locks anew keeps their versions, where nobody has locked since. They are read as hostile input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from strata_rules.lock.pins import Pin
from strata_rules.platforms import PLATFORMS

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
_MAX_SIZE = 10_000_000


def files(folder: Path, layer: str) -> list[Path]:
    """List the locks of earlier versions in a layer's folder: one, or one per platform."""
    names = [f"requirements-{layer}.txt", *(f"requirements-{layer}-{platform}.txt" for platform in PLATFORMS)]
    return [path for path in (folder / name for name in names) if path.is_file()]


def pins(folder: Path, layer: str) -> tuple[Pin, ...]:
    """List the versions of these locks; nothing of one that cannot be read."""
    return tuple(sorted({pin for path in files(folder, layer) for pin in _pins(path)}))


def _pins(path: Path) -> Iterator[Pin]:
    try:
        text = path.read_text("utf-8") if path.stat().st_size <= _MAX_SIZE else ""
    except (OSError, UnicodeDecodeError):
        return
    for name, version in _PINNED.findall(text):
        try:
            yield Pin(canonicalize_name(name), str(Version(version)))
        except InvalidVersion:
            continue
