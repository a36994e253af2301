"""What a stack file may say: one frozen struct per kind of table, the source of the JSON schema.

These structs must not know what the values mean together; `spec` judges that. The docstrings of classes and fields
are the descriptions in the schema, so they speak to whoever writes a stack file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import msgspec

Kind: TypeAlias = Literal["runtime", "framework", "application"]
Provider: TypeAlias = Literal["pbs", "archive", "local", "conda"]
ArchiveFormat: TypeAlias = Literal["tar.xz", "tar.zst", "tar.gz", "zip", "dir"]

LEVELS: dict[str, range] = {
    "tar.xz": range(10),
    "tar.zst": range(1, 23),
    "tar.gz": range(10),
    "zip": range(10),
    "dir": range(0),
}
"""The compression levels that each archive format has."""


class LayerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What every layer may say."""

    name: str
    """The layer's name, by which other layers refer to it."""
    requirements: tuple[str, ...]
    """The distributions that the layer is for, as PEP 508 requirements; may be empty."""
    platforms: tuple[str, ...] | None = None
    """The target platforms, where not all that the layers below have; `[]` disables the layer."""
    versioned: bool = False
    """Whether the deployed name carries the version of the lock, as `NAME@VERSION`."""
    linux_target: str | None = None
    """The C library that Linux wheels may need, `glibc` or `glibc@X.Y`; `glibc@2.28` without it."""
    macosx_target: str | None = None
    """The oldest macOS that wheels must run on; `$MACOSX_DEPLOYMENT_TARGET` or `13.0` without it."""
    dynlib_exclude: tuple[str, ...] = ()
    """Globs of shared libraries that are not offered to the layers above; `*` for none at all."""
    package_indexes: Mapping[str, str] = {}
    """Distribution to the named index that it is taken from, here and in the layers above."""
    index_overrides: Mapping[str, str] = {}
    """Accepted conflicts with `package_indexes` of lower layers: the index that yields, and the one that wins."""
    priority_indexes: tuple[str, ...] = ()
    """Named indexes that this layer asks before all others."""


class RuntimeSpec(LayerSpec, frozen=True, kw_only=True):
    """A Python runtime, the bottom of a stack."""

    python_implementation: str
    """The Python to use, as `cpython@X.Y.Z` or `pypy@X.Y.Z`."""


class FrameworkSpec(LayerSpec, frozen=True, kw_only=True):
    """Packages that several layers share: on one runtime, or on other frameworks."""

    runtime: str | None = None
    """The runtime below, where there is no framework between."""
    frameworks: tuple[str, ...] | None = None
    """The frameworks below, the first one first on `sys.path`."""


class ApplicationSpec(FrameworkSpec, frozen=True, kw_only=True):
    """Something to run, on frameworks or a runtime."""

    launch_module: str
    """The module or package that is run, as a path relative to the stack file."""
    support_modules: tuple[str, ...] = ()
    """Modules and packages that are shipped beside it, as paths relative to the stack file."""


class RuntimeSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a runtime comes from."""

    provider: Provider | tuple[Provider, ...] = "pbs"
    """Who gives the runtime; of a list, the first that works."""
    url: str | Mapping[str, str] | None = None
    """The archive's address, or one for each platform."""
    sha256: str | Mapping[str, str] | None = None
    """The archive's SHA-256, or one for each platform."""
    accept: str | None = None
    """The versions that a `local` runtime may have, such as `>=3.11,<3.15`."""

    @property
    def providers(self) -> tuple[Provider, ...]:
        """The providers to try, in order."""
        return (self.provider,) if isinstance(self.provider, str) else self.provider

    def url_for(self, platform: str) -> str | None:
        """Give the archive's address for a target platform."""
        return self.url if isinstance(self.url, str) or self.url is None else self.url.get(platform)

    def sha256_for(self, platform: str) -> str | None:
        """Give the archive's SHA-256 for a target platform."""
        return self.sha256 if isinstance(self.sha256, str) or self.sha256 is None else self.sha256.get(platform)


class ArchiveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How layers are archived."""

    format: ArchiveFormat | None = None
    """The format; without it `zip` for Windows and `tar.xz` elsewhere."""
    level: int | None = None
    """The compression level, in the format's own scale."""
    bytecode: bool = False
    """Whether archives have the bytecode of modules in them, for layers that this machine can run."""


class RemoteSource(msgspec.Struct, frozen=True, kw_only=True):
    """Which remote caches are asked, where neither the command line nor the environment names any."""

    cache: str | tuple[str, ...] = ()
    """The cache's URL, or several, which are asked in order."""
    zone: str = ""
    """The zone that is read first and written; without it `main`, or that of the pull request that CI builds."""
    trusted: tuple[str, ...] = ("main",)
    """The zones that are read besides."""
    public_keys: tuple[str, ...] = ()
    """Whose signatures are accepted, as `ed25519:BASE64`; where there are any, a result must be signed with one."""

    @property
    def caches(self) -> tuple[str, ...]:
        """The caches' URLs, in order."""
        return (self.cache,) if isinstance(self.cache, str) else self.cache


class ToolStrata(msgspec.Struct, frozen=True, kw_only=True):
    """What only Strata reads: other tools see no difference."""

    runtimes: Mapping[str, RuntimeSource] = {}
    """Where runtimes come from, by the runtime's name."""
    conflicts: Literal["warn", "error"] = "warn"
    """What happens where two wheels of a layer have different content for one path."""
    dynlib: Literal["preload", "launcher"] = "preload"
    """How shared libraries of lower layers are found: loaded beforehand, or through `LD_LIBRARY_PATH`."""
    archive: ArchiveOptions = ArchiveOptions()
    """How layers are archived."""
    entry_points: bool = False
    """Whether layers keep the console scripts of their packages."""
    remote: RemoteSource = RemoteSource()
    """Which remote caches are asked."""
    epoch: str = ""
    """Any word; another one disowns every result that was made before, here and in remote caches."""


class Category(NamedTuple):
    """One array of tables of a stack file."""

    key: str
    """The array's name."""
    kind: Kind
    prefix: str
    """What the names of these layers start with among all layers."""
    spec: type[LayerSpec]


CATEGORIES = (
    Category("runtimes", "runtime", "", RuntimeSpec),
    Category("frameworks", "framework", "framework-", FrameworkSpec),
    Category("applications", "application", "app-", ApplicationSpec),
)
"""The arrays of a stack file, in build order."""
