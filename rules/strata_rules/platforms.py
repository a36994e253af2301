"""Target platforms: their names, the wheels that run on them, and what markers see there. Pure but for the host.

Everything is computed from names and versions alone, so that a layer for a foreign platform gets the same answer on
every host; only `host_platform` looks at this machine.
"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from strata_engine.errors import HostError

if TYPE_CHECKING:
    from packaging.tags import Tag

PLATFORMS = ("win_amd64", "win_arm64", "linux_x86_64", "linux_aarch64", "macosx_arm64", "macosx_x86_64")
"""The target platforms, in the order in which they are listed everywhere."""

IMPLEMENTATIONS = {"cpython": "CPython", "pypy": "PyPy"}
"""The Python implementations by the name that a stack file uses, and as `platform.python_implementation` says them."""

DEFAULT_LINUX_TARGET = "glibc@2.28"
DEFAULT_MACOSX_TARGET = "13.0"

_UV_MANYLINUX = (17, 28, *range(31, 41))
"""The glibc 2.x minors for which uv has a `--python-platform` name."""

_LEGACY_MANYLINUX = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


_RAISED = {
    "linux": ("linux_target", re.compile(r"manylinux_(\d+)_(\d+)_(\w+)")),
    "macosx": ("macosx_target", re.compile(r"macosx_(\d+)_(\d+)_(\w+)")),
}
"""The setting that says how old a system may be, and the tags that say how old it may be for a wheel."""


def host_platform() -> str:
    """Give the target platform of this machine. Raises HostError where it is none of them."""
    import platform as machine  # noqa: PLC0415 - as with `packaging` below

    name = platform_of(sysconfig.get_platform(), machine.machine())
    if name is None or (name.startswith("linux_") and "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or "")):
        raise HostError.of(
            "unsupported-host",
            f"this machine (`{sysconfig.get_platform()}`) is none of the target platforms",
            notes=[f"target platforms are {', '.join(f'`{known}`' for known in PLATFORMS)}"],
        )
    return name


def platform_of(build: str, arch: str) -> str | None:
    """Find the target platform for `sysconfig.get_platform()` and `platform.machine()` of some machine.

    >>> platform_of("macosx-10.9-universal2", "arm64")
    'macosx_arm64'
    """
    system = build.partition("-")[0]
    arch = arch.lower() if system == "macosx" else build.rpartition("-")[2].lower()
    name = f"{system}_{ {'arm64': 'aarch64'}.get(arch, arch) if system == 'linux' else arch }"
    return name if name in PLATFORMS else None


def parse_linux_target(text: str) -> tuple[int, int]:
    """Read `glibc` or `glibc@X.Y` into a glibc version. Raises ValueError with a message for the user."""
    variant, at, version = text.partition("@")
    if variant != "glibc":
        raise ValueError(f"Linux libc variant must be one of `glibc`, not `{variant}`")
    if not at:
        return parse_linux_target(DEFAULT_LINUX_TARGET)
    if not (match := re.fullmatch(r"\s*(\d{1,3})\s*\.\s*(\d{1,3})\s*", version, re.ASCII)):
        raise ValueError(f"Linux libc version must be of the form `X.Y`, not `{version}`")
    return int(match[1]), int(match[2])


def parse_macosx_target(text: str) -> tuple[int, int]:
    """Read `MAJOR` or `MAJOR.MINOR` into a macOS version. Raises ValueError with a message for the user.

    Apple's tools take a third part as well, as in `10.13.4`; no wheel tells it.
    """
    if not (match := re.fullmatch(r"(\d{1,3})(?:\.(\d{1,3})(?:\.\d{1,3})?)?", text, re.ASCII)):
        raise ValueError(f"macOS target must be of the form `MAJOR` or `MAJOR.MINOR`, not `{text}`")
    return int(match[1]), int(match[2] or 0)


def supported_tags(
    platform: str,
    python: str,
    *,
    implementation: str = "cpython",
    linux_target: str = DEFAULT_LINUX_TARGET,
    macosx_target: str = DEFAULT_MACOSX_TARGET,
) -> tuple[Tag, ...]:
    """List the wheel tags that `platform` takes for Python `X.Y`, best first."""
    # Here and not above: commands that only name platforms read records, and are to answer at once.
    from packaging import tags  # noqa: PLC0415 - see the comment above

    major, minor = (int(part) for part in python.split(".")[:2])
    version = (major, minor)
    platforms = list(_wheel_platforms(platform, linux_target, macosx_target))
    if implementation == "pypy":
        specific = tags.generic_tags(f"pp{major}{minor}", [f"pypy{major}{minor}_pp73"], platforms)
        return (*specific, *tags.compatible_tags(version, f"pp{major}", platforms))
    interpreter = f"cp{major}{minor}"
    specific = tags.cpython_tags(version, [interpreter], platforms)
    return (*specific, *tags.compatible_tags(version, interpreter, platforms))


def _wheel_platforms(platform: str, linux_target: str, macosx_target: str) -> Iterator[str]:
    from packaging import tags  # noqa: PLC0415 - as above

    system, _, arch = platform.partition("_")
    if system == "linux":
        yield from _manylinux(arch, parse_linux_target(linux_target))
    elif system == "macosx":
        yield from tags.mac_platforms(parse_macosx_target(macosx_target), arch)
    else:
        yield platform


def _manylinux(arch: str, glibc: tuple[int, int]) -> Iterator[str]:
    """List the newest first, the bare `linux_ARCH` last: it promises least (uv ranks it so as well)."""
    major, newest = glibc
    oldest = 5 if arch == "x86_64" else 17
    for minor in range(newest, oldest - 1, -1) if major == 2 else ():
        yield f"manylinux_2_{minor}_{arch}"
        if minor in _LEGACY_MANYLINUX:
            yield f"{_LEGACY_MANYLINUX[minor]}_{arch}"
    yield f"linux_{arch}"


def marker_environment(platform: str, full_version: str, implementation: str = "cpython") -> dict[str, str]:
    """Give what PEP 508 markers see on `platform` under Python `X.Y.Z`.

    `platform_release` and `platform_version` describe a machine and not a platform: they are empty, as in uv.
    """
    system, _, arch = platform.partition("_")
    os_name, sys_platform, platform_system = {
        "win": ("nt", "win32", "Windows"),
        "linux": ("posix", "linux", "Linux"),
        "macosx": ("posix", "darwin", "Darwin"),
    }[system]
    return {
        "implementation_name": implementation,
        "implementation_version": full_version,
        "os_name": os_name,
        "platform_machine": arch.upper() if system == "win" else arch,
        "platform_python_implementation": IMPLEMENTATIONS[implementation],
        "platform_release": "",
        "platform_system": platform_system,
        "platform_version": "",
        "python_full_version": full_version,
        "python_version": ".".join(full_version.split(".")[:2]),
        "sys_platform": sys_platform,
    }


def uv_platform(platform: str, linux_target: str = DEFAULT_LINUX_TARGET) -> str:
    """Give uv's `--python-platform` for a target; the newest manylinux that uv knows and the target still has.

    On macOS uv takes the version from the variable `MACOSX_DEPLOYMENT_TARGET`.
    """
    system, _, arch = platform.partition("_")
    if system == "win":
        return f"{ {'amd64': 'x86_64', 'arm64': 'aarch64'}[arch] }-pc-windows-msvc"
    if system == "macosx":
        return f"{ {'arm64': 'aarch64'}.get(arch, arch) }-apple-darwin"
    _, minor = parse_linux_target(linux_target)
    known = max((value for value in _UV_MANYLINUX if value <= minor), default=_UV_MANYLINUX[0])
    return f"{arch}-manylinux_2_{known}"


def raised_target(tags: Iterable[Tag], platform: str) -> str | None:
    """Give the setting of a layer with which a platform would take one of these tags; None where none is for it."""
    system, _, arch = platform.partition("_")
    if system not in _RAISED:
        return None
    field, pattern = _RAISED[system]
    found = [pattern.fullmatch(tag.platform) for tag in tags]
    fitting = [(int(match[1]), int(match[2])) for match in found if match and match[3] in {arch, "universal2"}]
    if not fitting:
        return None
    major, minor = min(fitting)
    return f'{field} = "{"glibc@" if system == "linux" else ""}{major}.{minor}"'
