"""What python-build-standalone offers: the only door to pbs-installer's table, and the mirrors of it.

It downloads nothing and chooses nothing but the flavour: the table has one `install_only` entry for a version and
platform (the stripped one where there is one) and one full build.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from strata_engine.digest import is_sha256
from strata_engine.errors import SpecError
from strata_engine.logins import split_url
from strata_rules.download.client import local_path

RELEASES = (
    "https://github.com/astral-sh/python-build-standalone/releases/download",
    "https://github.com/indygreg/python-build-standalone/releases/download",
)
"""Where builds are published, under the present and the former owner: what `UV_PYTHON_INSTALL_MIRROR` replaces."""

_SYSTEMS = {"linux": "linux", "macosx": "macos", "win": "windows"}
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


class Build(NamedTuple):
    """One archive of the table."""

    url: str
    sha256: str | None


def find(
    implementation: str,
    version: str,
    platform: str,
    environ: Mapping[str, str],
    read: Callable[[Path], bytes | None],
) -> Build | None:
    """Look up the archive of exactly this version for a target platform.

    uv's own table is used instead where `UV_PYTHON_DOWNLOADS_JSON_URL` names one on this machine.
    """
    table = environ.get("UV_PYTHON_DOWNLOADS_JSON_URL", "")
    if table:
        return _find_in_uv_table(_read_uv_table(table, read), implementation, version, platform)
    wanted = tuple(int(part) for part in version.split("."))
    for known, found in _known(implementation, platform, environ.get("PBS_INSTALLER_BASE_URL") or None):
        if known == wanted:
            return found
    return None


def versions(implementation: str, near: str, platform: str, environ: Mapping[str, str]) -> list[str]:
    """List the versions of the same `X.Y` that pbs-installer's table has for a target platform, the newest first."""
    if environ.get("UV_PYTHON_DOWNLOADS_JSON_URL"):
        return []
    series = tuple(int(part) for part in near.split(".")[:2])
    found = {known for known, _ in _known(implementation, platform, None) if known[:2] == series}
    return [".".join(map(str, known)) for known in sorted(found, reverse=True)]


def _known(implementation: str, platform: str, base: str | None) -> Iterator[tuple[tuple[int, ...], Build]]:
    # Reading the table costs tens of milliseconds, and a pinned runtime never asks.
    from pbs_installer._versions import get_python_versions  # noqa: PLC0415

    system, arch = _names(platform)
    for known, files in get_python_versions(base).items():
        if (known.implementation, known.freethreaded) != (implementation, False):
            continue
        found = files.get((system, arch, True)) or files.get((system, arch, False))
        if found:
            yield (known.major, known.minor, known.micro), Build(found[0], found[1] or None)


def candidates(url: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """List where to get a build: from the mirror first, if there is one, and then from where it is published."""
    mirror = environ.get("UV_PYTHON_INSTALL_MIRROR", "").rstrip("/")
    for base in RELEASES:
        if mirror and url.startswith(f"{base}/"):
            return f"{mirror}{url.removeprefix(base)}", url
    return (url,)


def _names(platform: str) -> tuple[str, str]:
    system, _, arch = platform.partition("_")
    return _SYSTEMS[system], _ARCHITECTURES.get(arch, arch)


def _read_uv_table(url: str, read: Callable[[Path], bytes | None]) -> dict[str, Any]:
    path = local_path(url)
    if path is None:
        raise SpecError.of(
            "unsupported-table",
            f"`UV_PYTHON_DOWNLOADS_JSON_URL` must name a file, not a `{split_url(url).scheme}` address",
            hint="download the table and use its `file://` address, so that a build does not depend on when it is read",
        )
    data = read(path)
    try:
        table = json.loads(data) if data is not None else None
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise SpecError.of("bad-table", f"`{path}` (`UV_PYTHON_DOWNLOADS_JSON_URL`) is not a table of Python builds")
    return table


def _find_in_uv_table(table: dict[str, Any], implementation: str, version: str, platform: str) -> Build | None:
    system, arch = _names(platform)
    wanted = {
        "name": implementation,
        "os": {"macos": "darwin"}.get(system, system),
        "arch": {"family": arch, "variant": None},
        "libc": "gnu" if system == "linux" else "none",
        "variant": None,
        "prerelease": "",
    }
    for entry in table.values():
        if not isinstance(entry, dict) or any(entry.get(key) != value for key, value in wanted.items()):
            continue
        if ".".join(str(entry.get(part)) for part in ("major", "minor", "patch")) == version:
            sha256 = entry.get("sha256")
            return Build(str(entry.get("url")), sha256 if isinstance(sha256, str) and is_sha256(sha256) else None)
    return None
