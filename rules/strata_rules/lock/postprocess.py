"""Turn what uv exports into the lock of a layer, and derive from a lock what others read.

It runs nothing and knows no index; equal resolutions give equal bytes. The hard part is that a lock is for several
platforms at once: a package may come from below on one of them and be the layer's own on another.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit

from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from strata_engine.digest import is_sha256
from strata_engine.errors import Diagnostic, Place, SpecError
from strata_rules.lock import toml
from strata_rules.lock.markers import Targets, both
from strata_rules.lock.pins import Lower, Pin, dump, pins_of
from strata_rules.lock.request import Request
from strata_rules.platforms import raised_target
from strata_rules.pylock import (
    LOWER_LAYER,
    LockedPackage,
    LockedWheel,
    Pylock,
    best,
    no_wheel,
    parse,
    ranks,
)
from strata_rules.spec.uvconfig import without_credentials

PYLOCK = "pylock.toml"
PINS = "pins.json"
PACKAGES = "packages.txt"
REQUIREMENTS = "requirements.in"


class LocalWheel(NamedTuple):
    """A wheel in a local folder, found by its `file:` URL."""

    path: str
    """Posix, relative to the lock's folder."""
    sha256: str


Localize = Callable[[str], LocalWheel | None]
"""Finds the local wheel that a URL means; None where it is none."""

FindLocal = Callable[[LockedWheel], str | None]
"""Gives the SHA-256 of a wheel that a lock names by path; None where there is no such file."""


class NoWheelsError(SpecError):
    """Packages were chosen that some platforms would go without."""

    names: frozenset[str] = frozenset()
    """Which."""


def empty(request: Request) -> bytes:
    """Give the lock of a layer without requirements."""
    return _render(request, [])


def finish(exported: bytes, request: Request, lower: Lower, localize: Localize, place: Place | None = None) -> bytes:
    """Make the layer's lock of uv's export.

    Raises NoWheelsError for every package that a target platform would go without, SpecError (`no-sha256`).
    """
    targets = request.targets
    tags = {platform: _ranks(request, platform) for platform in targets.platforms}
    kinds = {(tag.interpreter, tag.abi) for rank in tags.values() for tag in rank}
    entries: list[dict[str, Any]] = []
    missing: list[tuple[LockedPackage, list[str]]] = []
    for raw in map(_unarchived, tomllib.loads(exported.decode()).get("packages", [])):
        own, shared = _split(raw, targets, lower)
        entries += [_bare(raw, marker) for marker in shared]
        for marker, on in own:
            wheels = _wheels(raw, kinds, localize)
            package = _checked(raw, wheels, [tags[platform] for platform in on], place)
            without = [platform for platform in on if best(package.wheels, tags[platform]) is None]
            if without:
                missing.append((package, without))
            index = without_credentials(str(raw.get("index", "")))
            origin = {"index": index} if index and not index.startswith("file:") else {}
            usable = [entry for entry in wheels.values() if "hashes" in entry]
            entries.append({**_bare(raw, marker), **origin, "wheels": usable})
    if missing:
        raise _no_wheels(missing, targets.platforms, place)
    data = _render(request, entries)
    parse(data, f"the lock of `{request.layer}`")
    return data


def usable(document: Mapping[str, Any], pylock: Pylock, request: Request, find: FindLocal) -> bytes | None:
    """Complete a lock that somebody else has made with the SHA-256 of its local wheels, as far as these are there.

    Logins in URLs are left out. None where there is nothing to do: the lock can be used as it is.
    """
    entries: list[dict[str, Any]] = []
    changed = False
    for raw, package in zip(document.get("packages", []), pylock.packages, strict=True):
        wheels = []
        for entry, wheel in zip(raw.get("wheels", ()), package.wheels, strict=True):
            sha256 = wheel.sha256 or (wheel.path is not None and find(wheel)) or ""
            changed |= sha256 != wheel.sha256 or entry.get("url") != wheel.url
            known = {name: entry[name] for name in ("name", "path", "upload-time", "size") if name in entry}
            known |= {"url": wheel.url} if wheel.url is not None else {}
            wheels.append(known | {"hashes": {"sha256": sha256} if sha256 else {}})
        index = without_credentials(str(raw.get("index", "")))
        origin = {"index": index} if index and not index.startswith("file:") else {}
        own = {} if package.from_lower_layer else {**origin, "wheels": wheels}
        entries.append({**_bare(raw, raw.get("marker") or None), **own})
    return _render(request, entries) if changed else None


def outputs(data: bytes, request: Request) -> dict[str, bytes]:
    """Derive all that a Lock gives from the lock itself."""
    pylock = parse(data, f"the lock of `{request.layer}`")
    return {
        PYLOCK: data,
        PINS: dump(pins_of(pylock)),
        PACKAGES: _summary(pylock, request.layer),
        REQUIREMENTS: _requirements(request),
    }


def _ranks(request: Request, platform: str) -> dict[Tag, int]:
    return ranks(
        platform,
        request.python,
        linux_target=request.linux_target,
        macosx_target=request.macosx_target,
        implementation=request.implementation,
    )


def _split(
    raw: Mapping[str, Any], targets: Targets, lower: Lower
) -> tuple[list[tuple[str | None, list[str]]], list[str]]:
    """Say where a package is the layer's own, by marker and platforms, and under which markers it comes from below."""
    marker: str | None = raw.get("marker")
    verdicts = {platform: targets.verdict(marker, platform) for platform in targets.platforms}
    matching = [platform for platform, holds in verdicts.items() if holds is not False]
    if not matching:
        return [], []
    if all(verdicts.values()):
        marker = None
    pin = Pin(raw["name"], raw["version"], marker)
    below = [platform for platform in matching if lower.provides(pin, platform)]
    if not below:
        return [(marker, matching)], []
    if len(below) == len(matching):
        return [], [both(marker, LOWER_LAYER)]
    rest = [platform for platform in matching if platform not in below]
    return [(both(marker, targets.only(rest)), rest)], [both(both(marker, targets.only(below)), LOWER_LAYER)]


def _unarchived(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give a package that was required from the URL of a wheel as any other: venvstacks drops what uv says of it."""
    archive = raw.get("archive")
    if archive is None:
        return raw
    url = archive["url"] if "url" in archive else Path(archive["path"]).as_uri()
    found = {name: archive[name] for name in ("size", "upload-time", "hashes") if name in archive}
    return {**raw, "wheels": [{"url": urldefrag(url).url, **found}]}


def _bare(raw: Mapping[str, Any], marker: str | None) -> dict[str, Any]:
    found = {"name": raw["name"], "version": raw["version"]}
    return found if marker is None else found | {"marker": marker}


def _wheels(raw: Mapping[str, Any], kinds: set[tuple[str, str]], localize: Localize) -> dict[str, dict[str, Any]]:
    """List a package's wheels for this Python by file name, local ones by path; `hashes` is left out where unknown."""
    found: dict[str, dict[str, Any]] = {}
    for wheel in raw.get("wheels", []):
        url = str(wheel.get("url", ""))
        last = unquote(urlsplit(url).path.rpartition("/")[2])
        name = str(wheel.get("name", last))
        entry: dict[str, Any] = {} if name == last else {"name": name}
        local = localize(url)
        if local is not None:
            entry |= {"path": local.path, "hashes": {"sha256": local.sha256}}
        else:
            entry |= {"url": without_credentials(url)}
            entry |= {key: wheel[key] for key in ("upload-time", "size") if key in wheel}
            sha256 = wheel.get("hashes", {}).get("sha256", "")
            entry |= {"hashes": {"sha256": sha256}} if is_sha256(sha256) else {}
        if _kinds(name) & kinds:
            found[name] = entry
    return dict(sorted(found.items()))


def _kinds(file: str) -> set[tuple[str, str]]:
    try:
        return {(tag.interpreter, tag.abi) for tag in parse_wheel_filename(file)[3]}
    except InvalidWheelFilename:
        return set()


def _checked(
    raw: Mapping[str, Any],
    wheels: Mapping[str, Mapping[str, Any]],
    tags: Iterable[Mapping[Tag, int]],
    place: Place | None,
) -> LockedPackage:
    """Give a package with the wheels that have a SHA-256. Raises SpecError where only others would fit."""
    name, version = raw["name"], raw["version"]
    every = [LockedWheel(name, version, file, e.get("hashes", {}).get("sha256", "")) for file, e in wheels.items()]
    known = tuple(wheel for wheel in every if wheel.sha256)
    if any(best(known, rank) is None and best(every, rank) is not None for rank in tags):
        raise SpecError.of(
            "no-sha256",
            f"the index gives no SHA-256 of the wheels of `{name}` {version}",
            place,
            hint="take the package from an index that does, or put its wheels into a folder that `find-links` names",
        )
    return LockedPackage(name, version, wheels=known)


def _no_wheels(
    missing: Sequence[tuple[LockedPackage, Sequence[str]]], platforms: Sequence[str], place: Place | None
) -> NoWheelsError:
    bad = {platform for _, without in missing for platform in without}
    good = [platform for platform in platforms if platform not in bad]
    diagnostics: list[Diagnostic] = []
    for package, without in missing:
        listed = ", ".join(f'"{platform}"' for platform in good)
        hint = f"narrow the layer with `platforms = [{listed}]`, or require another version of `{package.name}`"
        # These wheels are for the layer's Python, so where there are any, it is the system that is too old for them.
        tags = [tag for wheel in package.wheels for tag in wheel.tags]
        raised = [raised_target(tags, platform) for platform in without]
        if all(raised):
            settings = " and ".join(dict.fromkeys(f"`{setting}`" for setting in raised))
            hint = f"give the layer {settings}, or require a version of `{package.name}` for older systems"
        diagnostics.append(no_wheel(package, without, place, hint if good or all(raised) else None))
    error = NoWheelsError(*diagnostics)
    error.names = frozenset(package.name for package, _ in missing)
    return error


def _render(request: Request, entries: Iterable[dict[str, Any]]) -> bytes:
    lines = [
        f"# Locked requirements for {request.layer} (DO NOT EDIT)",
        "#     Auto-generated by strata with the following command:",
        "#         strata lock",
        *toml.lines({"lock-version": "1.0", "created-by": "strata", "requires-python": f"=={request.python}.*"}),
    ]

    def order(entry: dict[str, Any]) -> tuple[str, Version, str]:
        return entry["name"], Version(entry["version"]), entry.get("marker", "")

    ordered = sorted(entries, key=order)
    if not ordered:
        lines += ["packages = []"]
    for entry in ordered:
        lines += ["", "[[packages]]", *toml.lines(entry)]
    return "\n".join([*lines, ""]).encode()


def _summary(pylock: Pylock, layer: str) -> bytes:
    own: list[str] = []
    shared: list[str] = []
    for package in pylock.packages:
        (shared if package.from_lower_layer else own).append(str(Pin(package.name, package.version, package.marker)))
    lines = [f"# Package summary for {layer}", "#     Auto-generated by strata (DO NOT EDIT)", *sorted(own), ""]
    if shared:
        lines += ["# Shared packages inherited from other layers", *sorted(shared), ""]
    return "\n".join(lines).encode()


def _requirements(request: Request) -> bytes:
    lines = [
        "# DO NOT EDIT. Automatically generated by strata.",
        "#              Relock layer dependencies to update.",
        *request.lines,
        "",
    ]
    return "\n".join(lines).encode()
