"""The request: all that a lock's answer may depend on but for the state of the indexes, as data for a key.

No file is read and nothing is run here; the old lock is not part of it. The hard part is what must stay out:
credentials, and where things lie on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
from packaging.requirements import Requirement

from strata_engine.action import Input, Json, Source, SourceTree
from strata_rules import uv
from strata_rules.lock.markers import Targets
from strata_rules.spec.uvconfig import LayerUvConfig, local_path

LOCK_FOLDER = "requirements"
"""Where locks are kept, beside the stack file; one folder for each layer."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the resolver, for one layer and all of its platforms."""

    layer: str
    """The layer's environment name."""
    requirements: tuple[str, ...]
    """The declared requirements, in any order."""
    python: str
    """`X.Y`: a lock serves all patch releases."""
    platforms: tuple[str, ...]
    linux_target: str
    macosx_target: str
    uv: LayerUvConfig
    implementation: str = "cpython"
    below: tuple[str, ...] = ()
    """What layers below require from URLs: no index may have those wheels, so their versions alone say too little."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The requirements as `packaging` writes them, sorted."""
        return tuple(sorted(str(Requirement(text)) for text in self.requirements))

    @property
    def targets(self) -> Targets:
        """The platforms and the Python, for markers."""
        return Targets(self.platforms, self.python, self.implementation)

    @property
    def lock_folder(self) -> Path:
        """The folder that the lock is kept in, from which paths of local wheels start."""
        return self.uv.root / LOCK_FOLDER / self.layer

    def params(self) -> dict[str, Json]:
        """Give the parameters for the key. A layer without requirements depends on nothing else."""
        lines: list[Json] = [*dict.fromkeys(self.lines)]
        found: dict[str, Json] = {"layer": self.layer, "python": self.python, "requirements": lines}
        if not self.requirements:
            return found
        found["implementation"] = self.implementation
        found["platforms"] = [*sorted(self.platforms)]
        if any(platform.startswith("linux_") for platform in self.platforms):
            found["linux_target"] = self.linux_target
        if any(platform.startswith("macosx_") for platform in self.platforms):
            found["macosx_target"] = self.macosx_target
        if self.below:
            found["below"] = [*self.below]
        return found | {"uv": self.uv.canonical()}


class WheelFolder(msgspec.Struct, frozen=True):
    """A local folder (or page, or a single wheel) that uv may take wheels from."""

    path: Path
    deep: bool = False
    """Whether it is an index, with a folder for each distribution, or a flat folder of wheels."""

    def source(self) -> Input:
        """Give it as an input: the wheels, by name and content, and the pages that list them."""
        if self.path.suffix in (".html", ".htm", ".whl"):
            return Source(str(self.path))
        deep = self.deep
        return SourceTree(
            str(self.path),
            lambda path, is_folder: deep if is_folder else path.endswith((".whl", ".html")),
        )

    def file(self, url: str) -> str | None:
        """Give the path inside this folder that a wheel's `file:` URL means."""
        parts = urlsplit(url)
        path = Path(unquote(parts.path))
        if parts.scheme != "file" or not path.is_relative_to(self.path):
            return None
        return path.relative_to(self.path).as_posix()


def wheel_sources(request: Request, environ: Mapping[str, str]) -> tuple[WheelFolder, ...]:
    """List what may give wheels on this machine: folders, and the wheels that are required by their `file:` URLs."""
    urls = [urlsplit(Requirement(text).url or "") for text in request.requirements]
    files = {_normal(Path(unquote(url.path))) for url in urls if url.scheme == "file"}
    return (*_wheel_folders(request.uv, environ), *(WheelFolder(path) for path in sorted(files)))


def _wheel_folders(config: LayerUvConfig, environ: Mapping[str, str]) -> tuple[WheelFolder, ...]:
    """List the local folders that may give wheels: those of the settings, then those of `UV_FIND_LINKS`."""
    links = (local_path(text, config.root) for text in config.settings.get("find-links", ()))
    flat = {_normal(path) for path in links if path is not None}
    found = [WheelFolder(_normal(path), deep=_normal(path) not in flat) for path in config.folders()]
    given = map(os.path.expanduser, uv.find_links_folders(environ))
    found += [WheelFolder(_normal(Path(text).absolute())) for text in given]
    return tuple({folder.path: folder for folder in reversed(found)}.values())[::-1]


def inputs(folders: Sequence[WheelFolder], lower: Iterable[tuple[str, Input]]) -> dict[str, Input]:
    """Name the inputs: `pins/NNNN-LAYER.json` in the layers' order, `wheels/NNNN` in the folders'."""
    found: dict[str, Input] = {}
    for number, (layer, pins) in enumerate(lower):
        found[f"pins/{number:04}-{layer}.json"] = pins
    for number, folder in enumerate(folders):
        found[f"wheels/{number:04}"] = folder.source()
    return found


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))
