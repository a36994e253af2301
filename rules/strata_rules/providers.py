"""Providers: the typed values by which rules meet. A rule reads those of the targets below it and gives its own."""

from __future__ import annotations

import msgspec

from strata_engine.action import Ref


class RuntimeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A Python runtime, unpacked and normalised, before any requirement is installed into it."""

    layer: str
    """The runtime layer's environment name."""
    implementation: str
    """`cpython` or `pypy`."""
    version: str
    """`X.Y.Z`."""
    platform: str
    """The target platform, `linux_x86_64`."""
    tree: Ref
    """The runtime's tree: `bin/python`, `lib/pythonX.Y/…` on POSIX."""
    facts: Ref
    """A JSON file about the runtime that other rules may key on; see `runtime`."""
    provider: str
    """`pbs`, `archive` or `local`."""

    @property
    def python(self) -> str:
        """`X.Y`."""
        return ".".join(self.version.split(".")[:2])


class LockInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's lock: one for all its platforms."""

    layer: str
    pylock: Ref
    """The `pylock.*.toml` file."""
    pins: Ref
    """`pins.json`: what the locks of upper layers are constrained by."""


class InstallInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's packages, merged into one tree."""

    layer: str
    platform: str
    tree: Ref
    """For a runtime layer the runtime with its packages, for others the packages alone, in the layer's layout."""
    packages: Ref
    """`packages.json`: what is installed, for metadata (`contents.InstalledPackage`)."""
    libraries: Ref
    """`libraries.json`: the native files of this layer (`contents.Library`)."""


class LinkInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A layer as it is deployed."""

    layer: str
    install_target: str
    """The folder name it expects: the environment name, with `@version` where the layer is versioned."""
    platform: str
    tree: Ref
    libraries: Ref
    """`libraries.json`: the shared libraries that upper layers may need, by SONAME."""


class ArchiveInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's archive."""

    layer: str
    install_target: str
    platform: str
    format: str
    """`tar.xz`, `tar.zst`, `tar.gz`, `zip` or `dir`."""
    archive: Ref


class CompiledInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A layer as it is deployed, with bytecode; without any where it is for a platform that is not this machine's."""

    layer: str
    install_target: str
    platform: str
    tree: Ref
    """For what replaces a folder as a whole: its bytecode is never compared with its source."""
    checked: Ref
    """For what is unpacked, maybe over an older version: its bytecode is compared with its source at each import."""
