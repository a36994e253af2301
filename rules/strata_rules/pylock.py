"""Read a `pylock.toml` (PEP 751) and choose the wheels that one platform needs.

It knows no index, no uv and no layer: a lock is bytes from a repository, hostile until checked. The hard part is that
`packaging.pylock` cannot be used: it refuses the packages that a lower layer provides, which have no wheels at all.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec
from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, is_normalized_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from strata_engine.digest import is_sha256
from strata_engine.errors import Diagnostic, Place, SpecError
from strata_rules import platforms

LOWER_LAYER = "sys_platform == 'from_lower_layer'"
"""The marker that no environment fulfils: the package comes from a layer below (venvstacks' convention)."""

MAX_SIZE = 64 << 20
"""Locks above this are not read: the largest real ones are under 2 MiB."""

_NO_EXTRAS: dict[str, str | frozenset[str]] = {"extra": "", "extras": frozenset(), "dependency_groups": frozenset()}
_SCHEMES = frozenset({"http", "https", "file"})
_FROM_LOWER = "from_lower_layer"
_RESTORE = "take it from git again, or have it made anew with `strata lock --upgrade`"
CONFLICTED = "has git's conflict markers in it"
TAKE_A_SIDE = "take either side, as with `git checkout --ours` and its path; `strata lock` then makes what fits both"
_CONFLICT = re.compile(rb"^<{7} ", re.MULTILINE)
_TOML_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)$")


class LockedWheel(msgspec.Struct, frozen=True):
    """One wheel that a lock names."""

    name: str
    """The normalised distribution name."""
    version: str
    file: str
    """The wheel's file name, a valid one."""
    sha256: str
    """Empty where the lock gives none, as venvstacks' locks of local wheels do: such a wheel is never selected."""
    size: int | None = None
    url: str | None = None
    path: str | None = None
    """Posix, relative to the lock's folder; see `local_path`."""

    @property
    def tags(self) -> frozenset[Tag]:
        """What the file name says it runs on."""
        return parse_wheel_filename(self.file)[3]


class LockedPackage(msgspec.Struct, frozen=True):
    """One package of a lock. A name can stand there twice, under markers that exclude each other."""

    name: str
    version: str
    marker: str | None = None
    """Where it is needed: without the clause that says that it comes from below."""
    from_lower_layer: bool = False
    wheels: tuple[LockedWheel, ...] = ()
    index: str | None = None


class Pylock(msgspec.Struct, frozen=True):
    """A lock, checked. `file` is for messages."""

    file: str
    packages: tuple[LockedPackage, ...] = ()
    requires_python: str | None = None
    created_by: str = ""


_T = TypeVar("_T")


class _InvalidError(Exception):
    """What is wrong with the lock; becomes a SpecError at the module's boundary."""


def parse(data: bytes, file: str) -> Pylock:
    """Read and check a lock. Raises SpecError (`bad-lock`), which names the package that is at fault."""
    return check(load(data, file), file)


def conflict(data: bytes, file: str) -> Place | None:
    """Find where git has left both sides of a merge in a file that is kept with a lock."""
    found = _CONFLICT.search(data)
    return None if found is None else Place(file, data.count(b"\n", 0, found.start()) + 1)


def load(data: bytes, file: str) -> dict[str, Any]:
    """Read the document that a lock is. Raises SpecError (`bad-lock`)."""
    if len(data) > MAX_SIZE:
        raise _bad(file, f"is larger than {MAX_SIZE >> 20} MiB")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise _bad(file, "is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        if (place := conflict(data, file)) is not None:
            raise SpecError.of("bad-lock", f"the lock {CONFLICTED}", place, hint=TAKE_A_SIDE) from None
        raise _bad_toml(file, str(error)) from None
    except RecursionError:
        raise _bad(file, "is nested too deeply") from None
    except ValueError:
        # An integer of more digits than Python reads.
        raise _bad(file, "has a number that no lock has") from None


def check(document: Mapping[str, Any], file: str) -> Pylock:
    """Check the document of a lock. Raises SpecError (`bad-lock`), which names the package that is at fault."""
    try:
        return _read(document, file)
    except InvalidSpecifier:
        raise _bad(file, "has a `requires-python` that is not a version specifier") from None
    except _InvalidError as error:
        raise _bad(file, str(error)) from None


def versions(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List name and version of a layer's own packages, those that can be read, however the document was mangled."""
    packages = document.get("packages")
    found = []
    for entry in packages if isinstance(packages, list) else ():
        name, version, marker = (
            entry.get(key) if isinstance(entry, dict) else None for key in ("name", "version", "marker")
        )
        if not isinstance(name, str) or not isinstance(version, str) or _FROM_LOWER in str(marker):
            continue
        if is_normalized_name(name) and _is_version(version):
            found.append((name, version))
    return found


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def select(
    pylock: Pylock,
    *,
    platform: str,
    python_version: str,
    linux_target: str,
    macosx_target: str,
    implementation: str = "cpython",
    place: Place | None = None,
) -> tuple[LockedWheel, ...]:
    """Choose, in lock order, the wheel of each package that a platform and a Python `X.Y.Z` need.

    Packages of lower layers are left out. All packages that have no wheel are told in one SpecError (`no-wheel`,
    `no-sha256`).
    """
    environment = platforms.marker_environment(platform, python_version, implementation)
    if pylock.requires_python is not None and not SpecifierSet(pylock.requires_python).contains(
        python_version, prereleases=True
    ):
        raise SpecError.of(
            "lock-python",
            f"the lock is for Python {pylock.requires_python}, the runtime is Python {python_version}",
            place or Place(pylock.file, 0),
            hint="lock the layer again with `strata lock`",
        )
    rank = ranks(
        platform, python_version, linux_target=linux_target, macosx_target=macosx_target, implementation=implementation
    )
    chosen: dict[str, LockedWheel] = {}
    missing: list[Diagnostic] = []
    for package in pylock.packages:
        if package.from_lower_layer or not holds(package.marker, environment):
            continue
        if package.name in chosen:
            raise _bad(pylock.file, f"gives `{package.name}` two versions on `{platform}`")
        wheel = best(package.wheels, rank)
        if wheel is None:
            missing.append(no_wheel(package, (platform,), place or Place(pylock.file, 0)))
        elif not wheel.sha256:
            missing.append(no_sha256(wheel, place or Place(pylock.file, 0)))
        else:
            chosen[package.name] = wheel
    if missing:
        raise SpecError(*missing)
    return tuple(chosen.values())


def ranks(
    platform: str, python_version: str, *, linux_target: str, macosx_target: str, implementation: str = "cpython"
) -> dict[Tag, int]:
    """Number the tags that a platform and a Python accept, the best first."""
    python = ".".join(python_version.split(".")[:2])
    tags = platforms.supported_tags(
        platform, python, implementation=implementation, linux_target=linux_target, macosx_target=macosx_target
    )
    return {tag: position for position, tag in reversed(list(enumerate(tags)))}


def best(wheels: Iterable[LockedWheel], rank: Mapping[Tag, int]) -> LockedWheel | None:
    """Choose the wheel with the best tag; then the highest build number, then the first file name."""

    def order(wheel: LockedWheel) -> tuple[int, tuple[int, str], str]:
        build = parse_wheel_filename(wheel.file)[2]
        return (
            min((rank[tag] for tag in wheel.tags if tag in rank), default=len(rank)),
            (-build[0], build[1]) if build else (0, ""),
            wheel.file,
        )

    fitting = [wheel for wheel in wheels if not wheel.tags.isdisjoint(rank)]
    return min(fitting, key=order, default=None)


def holds(marker: str | None, environment: Mapping[str, str]) -> bool:
    """Tell whether a marker of a checked lock holds; no extras and no groups are asked for."""
    if marker is None:
        return True
    full: dict[str, str | frozenset[str]] = {**environment, **_NO_EXTRAS}
    return Marker(marker).evaluate(full, context="lock_file")


def no_wheel(package: LockedPackage, on: Sequence[str], place: Place | None, hint: str | None = None) -> Diagnostic:
    """Say that a package has no wheel for some platforms, what there is, and what can be done."""
    targets = ", ".join(f"`{platform}`" for platform in on)
    there = sorted({"-".join(wheel.file[: -len(".whl")].split("-")[-3:]) for wheel in package.wheels})
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    return Diagnostic(
        "no-wheel",
        f"`{package.name}` {package.version} has no wheel for {targets}",
        place,
        (f"there are wheels for {shown}" if there else "there are no wheels at all: a source package is never built",),
        hint
        or f"leave {targets} out of the layer's `platforms = [...]`, or require a version of `{package.name}` that"
        " has such a wheel",
    )


def no_sha256(wheel: LockedWheel, place: Place | None) -> Diagnostic:
    """Say that nothing tells what a wheel has to be."""
    why = f"its path is `{wheel.path}`, where there is none" if wheel.path is not None else "its index may give none"
    message = f"the lock gives no SHA-256 of `{wheel.file}`"
    return Diagnostic("no-sha256", message, place, (why,), "lock the layer again with `strata lock --upgrade`")


def local_path(wheel: LockedWheel, *, lock_folder: Path, workspace: Path, wheel_folders: Sequence[Path] = ()) -> Path:
    """Give where a wheel with a `path` lies. Raises SpecError where that is neither in the workspace nor declared.

    Paths are compared as written, symlinks are not followed: those inside the workspace are the user's own.
    """
    assert wheel.path is not None
    path = Path(posixpath.normpath((lock_folder.absolute() / PurePosixPath(wheel.path)).as_posix()))
    if any(path.is_relative_to(folder.absolute()) for folder in (workspace, *wheel_folders)):
        return path
    raise SpecError.of(
        "wheel-outside",
        f"the lock takes `{wheel.file}` from outside the workspace and the declared wheel folders",
        Place(str(lock_folder), 0),
        notes=(f"its path is `{wheel.path}`",),
        hint="pass the wheel's folder with `--local-wheels`, or lock again",
    )


def _bad(file: str, what: str) -> SpecError:
    return SpecError(Diagnostic("bad-lock", f"the lock {what}", Place(file, 0), hint=_RESTORE))


def _bad_toml(file: str, message: str) -> SpecError:
    found = _TOML_PLACE.search(message)
    place = Place(file, int(found[1]), int(found[2])) if found else Place(file, 0)
    text = _TOML_PLACE.sub("", message)
    return SpecError(Diagnostic("bad-lock", f"the lock is not TOML: {text}", place, hint=_RESTORE))


def _read(document: Mapping[str, Any], file: str) -> Pylock:
    version = _get(document, "lock-version", str)
    if version is None or version.split(".")[0] != "1":
        raise _InvalidError(f"has `lock-version` {version!r} where 1.0 was expected")
    requires_python = _get(document, "requires-python", str)
    if requires_python is not None:
        SpecifierSet(requires_python)
    packages = tuple(_package(entry) for entry in _tables(document, "packages"))
    return Pylock(file, packages, requires_python, _get(document, "created-by", str) or "")


def _package(entry: Mapping[str, Any]) -> LockedPackage:
    name = _get(entry, "name", str)
    if name is None or not is_normalized_name(name):
        raise _InvalidError(f"has a package with the name {name!r}, which is not a normalised one")
    # The first beta of venvstacks 0.8 wrote an empty marker for what is needed everywhere.
    version, marker = _get(entry, "version", str), _get(entry, "marker", str) or None
    try:
        if version is None:
            raise _InvalidError(f"gives no version of `{name}`")
        Version(version)
        marker, lower = (None, False) if marker is None else _condition(name, marker)
    except InvalidVersion:
        raise _InvalidError(f"gives `{name}` the version {version!r}, which is not one") from None
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName, RecursionError):
        raise _InvalidError(f"gives `{name}` a marker that cannot be evaluated") from None
    wheels = tuple(_wheel(name, version, wheel) for wheel in _tables(entry, "wheels"))
    if not wheels and not lower:
        other = [kind for kind in ("vcs", "directory", "archive", "sdist") if kind in entry]
        raise _InvalidError(
            f"has no wheel of `{name}`" + (f" but a `{other[0]}`, which is never built" if other else "")
        )
    return LockedPackage(name, version, marker, lower, wheels, _get(entry, "index", str))


def _condition(name: str, text: str) -> tuple[str | None, bool]:
    """Read a marker: where the package is needed, and whether it comes from below there.

    Raises what `packaging` does where it cannot be evaluated.
    """
    holds(text, _ANY_ENVIRONMENT)
    marker = str(Marker(text)).replace('"', "'")
    if _FROM_LOWER not in marker:
        return marker, False
    if marker == LOWER_LAYER:
        return None, True
    rest = marker.removesuffix(f" and {LOWER_LAYER}")
    if _FROM_LOWER in rest:
        raise _InvalidError(f"gives `{name}` the marker `{text}`, which says from where in a form that is not known")
    return (rest[1:-1] if _is_group(rest) else rest), True


def _is_group(marker: str) -> bool:
    """Tell whether one pair of parentheses is around all of a marker."""
    depth = 0
    for position, character in enumerate(marker):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position > 0 and position == len(marker) - 1
    return False


def _wheel(name: str, version: str, entry: Mapping[str, Any]) -> LockedWheel:
    url, path, size = _get(entry, "url", str), _get(entry, "path", str), _get(entry, "size", int)
    if url is None and path is None:
        raise _InvalidError(f"has a wheel of `{name}` with neither `url` nor `path`")
    try:
        parts = urlsplit(url or "file:///")
    except ValueError:
        raise _InvalidError(f"has a wheel of `{name}` with a malformed `url`") from None
    if parts.scheme not in _SCHEMES:
        raise _InvalidError(
            f"has a wheel of `{name}` with the url scheme `{parts.scheme}`; expected https, http or file"
        )
    if path is not None and not _is_relative(path):
        raise _InvalidError(f"has a wheel of `{name}` with a `path` that is not a relative posix path")
    file = _get(entry, "name", str) or (PurePosixPath(path).name if path else unquote(parts.path.rsplit("/", 1)[-1]))
    if not is_wheel_name(file, name, version):
        raise _InvalidError(f"has {file!r} as a wheel of `{name}` {version}")
    hashes = entry.get("hashes", {})
    sha256 = hashes.get("sha256", "") if isinstance(hashes, dict) else None
    if not isinstance(sha256, str) or (sha256 and not is_sha256(sha256.lower())):
        raise _InvalidError(f"gives a SHA-256 of `{file}` that is none")
    if url is not None and "@" in parts.netloc:
        # A login of someone's: it must not get into messages, and ours come from the environment.
        url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if size is not None and size < 0:
        raise _InvalidError(f"gives `{file}` a negative size")
    return LockedWheel(name, version, file, sha256.lower(), size, url, path)


def is_wheel_name(file: str, name: str, version: str) -> bool:
    """Tell whether `file` is the name of a wheel of that distribution and version, and of nothing but a file."""
    if len(file) > 255 or not file.isascii() or not file.isprintable() or set(file) & set('/\\:*?"<>| '):
        return False
    try:
        distribution, number, _, _ = parse_wheel_filename(file)
        return distribution == canonicalize_name(name) and number == Version(version)
    except (InvalidWheelFilename, InvalidVersion):
        return False


def _is_relative(path: str) -> bool:
    return bool(path) and path.isprintable() and not path.startswith(("/", "~")) and not set(path) & set("\\:")


def _get(table: Mapping[str, Any], key: str, kind: type[_T]) -> _T | None:
    value = table.get(key)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise _InvalidError(f"has `{key}` of the wrong type; expected {kind.__name__}")
    return value


def _tables(table: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise _InvalidError(f"has `{key}` of the wrong type; expected an array of tables")
    return value


_ANY_ENVIRONMENT = platforms.marker_environment("linux_x86_64", "3.11.0")
