"""Put archives (or trees) and what describes them into the output folder, so that no reader is ever misled.

It makes no archive: it is given what the store has. The order is the hard part. All archives are first copied beside
their places; only when every one of them is there are they renamed, then each layer's metadata is replaced, and the
manifest last: whatever stops this, a manifest never names a file that is missing or half there.

Nothing is deleted. A file that the last manifest named and the new one does not is reported as stale, and left.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from strata_engine.digest import Digest, digest_file
from strata_engine.errors import Diagnostic, InternalError, SpecError, host_error
from strata_engine.files import sweep
from strata_engine.place import place
from strata_engine.tree import Artifact, File, Store, Tree
from strata_engine.workspace import write_atomically
from strata_rules.layout import METADATA_FOLDER
from strata_rules.metadata import PublishLayer, archive_fields, layer_fields, manifest, text

LAYERS_FOLDER = "env_metadata"

_TEMPORARY = ".strata-tmp-"
_STALE_SECONDS = 3600.0


class Published(NamedTuple):
    """One layer at its destination."""

    layer: PublishLayer
    path: Path
    fields: Mapping[str, Any]
    changed: bool
    """Whether anything was, or in a dry run would be, written there."""


class Manifest(NamedTuple):
    """What was published for the platforms of one manifest file."""

    path: Path
    document: dict[str, Any]
    layers: tuple[Published, ...]
    stale: tuple[Path, ...]
    """Files that the last manifest named and this one does not."""


def publish(
    store: Store,
    destination: Path,
    layers: Sequence[PublishLayer],
    *,
    tag_outputs: bool = False,
    dry_run: bool = False,
    place_trees: bool = True,
    is_there: Callable[[Path, Artifact], bool] = lambda *_: False,
    check: Callable[[], None] = lambda: None,
) -> tuple[Manifest, ...]:
    """Publish layers in their order; one manifest, or with `tag_outputs` one for each platform.

    `place_trees=False` leaves the trees of `dir` to whoever has placed them, and `is_there` tells which are at their
    places. `check` may raise to stop.
    Raises SpecError where two layers would have one name, HostError, BlobLost.
    """
    planned = [_plan(destination, layer, is_there, tag_outputs=tag_outputs) for layer in layers]
    _refuse_equal_names(planned, tag_outputs=tag_outputs)
    manifests = tuple(
        _manifest(
            destination, [item for item in planned if _suffix(item.layer, tag_outputs=tag_outputs) == suffix], suffix
        )
        for suffix in dict.fromkeys(_suffix(item.layer, tag_outputs=tag_outputs) for item in planned)
    )
    if not dry_run:
        _refuse_taken_places(destination, planned)
        try:
            _write(
                store, destination, planned, manifests, place_trees=place_trees, tag_outputs=tag_outputs, check=check
            )
        except OSError as error:
            raise host_error(error, str(destination)) from error
    return manifests


def tree_path(destination: Path, install_target: str, platform: str, *, tag_outputs: bool) -> Path:
    """Give the folder of a layer that is published as a tree: layers find each other by name, so that has no tag."""
    return (destination / platform if tag_outputs else destination) / install_target


def _suffix(layer: PublishLayer, *, tag_outputs: bool) -> str:
    return f"-{layer.platform}" if tag_outputs else ""


def _metadata_path(destination: Path, layer: PublishLayer, *, tag_outputs: bool) -> Path:
    name = f"{layer.layer}{_suffix(layer, tag_outputs=tag_outputs)}.json"
    return destination / METADATA_FOLDER / LAYERS_FOLDER / name


def _plan(
    destination: Path, layer: PublishLayer, is_there: Callable[[Path, Artifact], bool], *, tag_outputs: bool
) -> Published:
    if layer.format == "dir":
        path = tree_path(destination, layer.install_target, layer.platform, tag_outputs=tag_outputs)
        changed = layer.artifact is None or not is_there(path, layer.artifact)
        return Published(layer, path, layer_fields(layer), changed)
    previous = read_document(_metadata_path(destination, layer, tag_outputs=tag_outputs))
    build = _build(layer, previous)
    tag = f"-{layer.platform}-{build}" if tag_outputs else ""
    name = f"{layer.install_target}{tag}.{layer.format}"
    path = destination / name
    changed = not isinstance(layer.artifact, File) or not _holds(path, layer.artifact.digest)
    return Published(layer, path, archive_fields(layer, name, build), changed)


def _build(layer: PublishLayer, previous: Mapping[str, Any]) -> int:
    """Count the archives of one lock version that differ; a new lock version, or another platform, starts anew."""
    build = previous.get("archive_build")
    same = (previous.get("lock_version"), previous.get("target_platform"), previous.get("install_target"))
    if not isinstance(build, int) or same != (layer.lock.lock_version, layer.platform, layer.install_target):
        return 1
    if not isinstance(layer.artifact, File):
        return build  # a dry run that did not make the archive does not know whether it would differ
    hashes = previous.get("archive_hashes")
    before = hashes.get("sha256") if isinstance(hashes, dict) else None
    return build if before == layer.artifact.digest.hash else build + 1


def read_document(path: Path) -> dict[str, Any]:
    """Read what was published before; whatever cannot be read was not."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _holds(path: Path, digest: Digest) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_size == digest.size and digest_file(path) == digest
    except OSError:
        return False


def _refuse_equal_names(planned: Sequence[Published], *, tag_outputs: bool) -> None:
    by_path: dict[Path, list[PublishLayer]] = {}
    for item in planned:
        by_path.setdefault(item.path, []).append(item.layer)
    diagnostics = [
        Diagnostic(
            "same-archive-name",
            f"`{path.name}` would be the name of {len(layers)} layers",
            notes=tuple(f"`{layer.layer}` for {layer.platform}" for layer in layers),
            hint="publish one platform at a time, into a folder each"
            if tag_outputs
            else "use `--tag-outputs`, which puts the platform into the names of archives",
        )
        for path, layers in by_path.items()
        if len(layers) > 1
    ]
    if diagnostics:
        raise SpecError(*diagnostics)


def _refuse_taken_places(destination: Path, planned: Sequence[Published]) -> None:
    """Refuse files where folders are needed and folders where archives are, before anything is written."""
    metadata = destination / METADATA_FOLDER
    for folder in (destination, metadata, metadata / LAYERS_FOLDER):
        if folder.is_file():
            raise host_error(NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)), str(folder))
    for item in planned:
        if item.layer.format != "dir" and item.path.is_dir() and not item.path.is_symlink():
            raise host_error(IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)), str(item.path))


def _manifest(destination: Path, planned: Sequence[Published], suffix: str) -> Manifest:
    path = destination / METADATA_FOLDER / f"venvstacks{suffix}.json"
    document = manifest((item.layer.kind, item.fields) for item in planned)
    named = {item.path for item in planned}
    before = (destination / name for name in _named(read_document(path)))
    stale = sorted({old for old in before if old not in named and old.parent == destination and old.exists()})
    return Manifest(path, document, tuple(planned), tuple(stale))


def _named(document: Mapping[str, Any]) -> Iterator[str]:
    """List the archives and folders that a manifest, possibly somebody else's, names."""
    layers = document.get("layers")
    for category in layers.values() if isinstance(layers, dict) else ():
        for entry in category if isinstance(category, list) else ():
            name = entry.get("archive_name", entry.get("install_target")) if isinstance(entry, dict) else None
            if isinstance(name, str) and name not in ("", ".", ".."):
                yield name


def _write(
    store: Store,
    destination: Path,
    planned: Sequence[Published],
    manifests: Sequence[Manifest],
    *,
    place_trees: bool,
    tag_outputs: bool,
    check: Callable[[], None],
) -> None:
    (destination / METADATA_FOLDER / LAYERS_FOLDER).mkdir(parents=True, exist_ok=True)
    sweep(destination, _STALE_SECONDS, prefix=_TEMPORARY)
    with _staged() as staged:
        for number, item in enumerate(planned):
            check()
            match item.layer.artifact:
                case File(digest) if item.changed:
                    temporary = destination / f"{_TEMPORARY}{os.getpid()}-{number}-{item.path.name}"
                    staged.append((temporary, item.path))
                    store.export(digest, temporary)
                case Tree() as tree if place_trees:
                    place(store, tree, item.path)
                case None:
                    raise InternalError.of("nothing-to-publish", f"`{item.layer.layer}` has no archive")
                case _:
                    pass
        check()
        for temporary, path in staged:
            temporary.replace(path)
    for item in planned:
        _replace(_metadata_path(destination, item.layer, tag_outputs=tag_outputs), text(item.fields))
    for made in manifests:
        _replace(made.path, text(made.document))


@contextmanager
def _staged() -> Iterator[list[tuple[Path, Path]]]:
    """Remove what was copied and not renamed, whatever happened."""
    staged: list[tuple[Path, Path]] = []
    try:
        yield staged
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)


def _replace(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        write_atomically(path, data)
