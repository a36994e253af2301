"""Local exports: layers as folders, side by side in one place, to be run from there.

It places nothing, which the engine does, and writes no metadata, which `publish` does as for archives. It knows what
an exported layer is, what may be in its way, and what earlier exports have left.

Hard part: exporting replaces whole folders, and the place is the user's choice. So only a folder that an export made
is replaced: the state of this workspace tells that, or else the metadata that exports leave beside them, venvstacks'
too. What is left of layers that are gone is told, and stays.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from strata_engine.errors import Diagnostic, HostError, host_error
from strata_rules.layout import METADATA_FOLDER
from strata_rules.providers import ArchiveInfo, CompiledInfo
from strata_rules.publish import LAYERS_FOLDER, Manifest, read_document


def exported(compiled: CompiledInfo) -> ArchiveInfo:
    """Give a layer as it is exported: with bytecode that is never looked at twice, for it goes with its folder."""
    return ArchiveInfo(
        layer=compiled.layer,
        install_target=compiled.install_target,
        platform=compiled.platform,
        format="dir",
        archive=compiled.tree,
    )


def check_places(destination: Path, places: Iterable[Path], is_ours: Callable[[Path], bool]) -> None:
    """Refuse to replace what no export has made. `is_ours` tells whether this workspace has put something at a path.

    Raises HostError with all that is in the way.
    """
    for folder in (destination, destination / METADATA_FOLDER, destination / METADATA_FOLDER / LAYERS_FOLDER):
        if os.path.lexists(folder) and not folder.is_dir():
            raise host_error(NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)), str(folder))
    named = _named(destination)
    found = []
    for path in places:
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            found.append(_in_the_way(path, "is no folder"))
        elif path.is_dir() and path.name not in named and not is_ours(path) and any(path.iterdir()):
            found.append(_in_the_way(path, "is a folder that no export has made"))
    if found:
        raise HostError(*found)


def _named(destination: Path) -> set[str]:
    """List the folders that the metadata of earlier exports names, whoever made them."""
    documents = (read_document(path) for path in (destination / METADATA_FOLDER / LAYERS_FOLDER).glob("*.json"))
    return {str(document.get("install_target")) for document in documents if "archive_name" not in document}


def _in_the_way(path: Path, what: str) -> Diagnostic:
    return Diagnostic(
        "place-taken",
        f"`{os.path.relpath(path)}` {what}, and a layer is to be exported there",
        hint="move it away, or export to another folder with `--output-dir`",
    )


def left_over(manifests: Iterable[Manifest], current: Collection[str]) -> list[Diagnostic]:
    """Tell of folders that were exported and belong to no layer any more; `current` are the folders of the stack."""
    return [
        Diagnostic(
            "stale-export",
            f"`{os.path.relpath(path)}` was exported earlier and is no layer of the stack any more",
            hint="remove it when nothing uses it",
            severity="warning",
        )
        for manifest in manifests
        for path in manifest.stale
        if path.name not in current
    ]
