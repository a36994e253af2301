"""How venvstacks names what a lock was made from: its four hashes, so that it can read our locks and we its.

Nothing of ours is decided by them: they concatenate without separators, and miss much of what a lock depends on
(reference: venvstacks 0.8, `*.meta.json`). They are here for the other tool's sake.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from packaging.markers import Marker

from strata_engine.digest import DigestWriter
from strata_rules.pylock import LOWER_LAYER, LockedPackage, Pylock


def hash_strings(strings: Iterable[str]) -> str:
    """Hash strings one after the other, with nothing between them."""
    writer = DigestWriter()
    for text in strings:
        writer.update(text.encode())
    return f"sha256:{writer.digest().hash}"


def lock_input_hash(requirements: Iterable[str]) -> str:
    """Hash the declared requirements, as `packaging` writes them."""
    return hash_strings(sorted(requirements))


def requirements_hash(pylock: Pylock) -> str:
    """Hash what a lock has chosen: packages, indexes and wheels."""
    lines = []
    for package in pylock.packages:
        lines.append(f"{_requirement(package)} from {package.index or 'unspecified index'}")
        lines += [f"{wheel.file}:sha256:{wheel.sha256}" for wheel in package.wheels]
    return hash_strings(sorted(lines))


def other_inputs_hash(
    *, python: str, platforms: Sequence[str], linux_target: str, macosx_target: str, lower: Sequence[str]
) -> str:
    """Hash what else decides: Python `X.Y`, targets, and the names of the runtime and the frameworks in order."""
    inputs = [f"py_version={python}"]
    if any(platform.startswith("linux_") for platform in platforms):
        inputs.append(f"linux_target={linux_target}")
    if any(platform.startswith("macosx_") for platform in platforms):
        inputs.append(f"macosx_target={macosx_target}")
    return hash_strings([*inputs, *lower])


def version_inputs_hash(layer: str, *, versioned: bool, modules: Iterable[str] = ()) -> str:
    """Hash what gives a versioned layer a new version besides its packages: the hashes of its modules."""
    return hash_strings([f"env_name={layer}", f"is_versioned_layer={versioned}", *modules])


def _requirement(package: LockedPackage) -> str:
    marker = str(Marker(package.marker)).replace('"', "'") if package.marker else ""
    marker = "" if marker == LOWER_LAYER else marker.replace(f" and {LOWER_LAYER}", "")
    return f"{package.name}=={package.version}" + (f" ; {marker}" if marker else "")
