"""What is published about a layer, in venvstacks' words, and the hashes that those words stand for.

Pure but for the store that module hashes read. It knows no destination: which build of an archive this is comes from
what is there already, and is decided in `publish`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from strata_engine.digest import DigestWriter
from strata_engine.tree import Artifact, File, Node, Store, Tree
from strata_rules.layout import is_windows

Kind: TypeAlias = Literal["runtime", "framework", "application"]

CATEGORIES: Mapping[Kind, str] = {"runtime": "runtimes", "framework": "frameworks", "application": "applications"}


class LockFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the metadata of a layer's lock says of it. None of this is in a key or in an archive."""

    requirements_hash: str
    lock_version: int
    locked_at: str


class PublishedModule(msgspec.Struct, frozen=True):
    """A launch or support module: by which name it is imported, and venvstacks' hash of it."""

    name: str
    hash: str


class PublishLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer to publish."""

    layer: str
    """The environment name."""
    kind: Kind
    install_target: str
    platform: str
    format: str
    """`tar.xz`, `tar.zst`, `tar.gz`, `zip` or `dir`."""
    artifact: Artifact | None
    """The archive, or the tree for `dir`; None in a dry run that has not made it."""
    lock: LockFacts
    runtime_layer: str
    """The install target of its runtime; its own for a runtime."""
    python_implementation: str
    """`cpython@3.12.9`."""
    required_layers: tuple[str, ...] = ()
    """The install targets of the frameworks below it, in the order of `sys.path`."""
    launch_module: PublishedModule | None = None
    support_modules: tuple[PublishedModule, ...] = ()


def lock_facts(recorded: Mapping[str, Any]) -> LockFacts:
    """Read a lock's recorded metadata, which anyone may have edited."""
    version = recorded.get("lock_version")
    return LockFacts(
        requirements_hash=str(recorded.get("requirements_hash", "")),
        lock_version=version if isinstance(version, int) and version > 0 else 1,
        locked_at=str(recorded.get("locked_at", "")),
    )


def layer_fields(layer: PublishLayer) -> dict[str, Any]:
    """Give the fields that archives and exports have."""
    fields: dict[str, Any] = {
        "layer_name": layer.layer,
        "install_target": layer.install_target,
        "requirements_hash": layer.lock.requirements_hash,
        "lock_version": layer.lock.lock_version,
        "locked_at": layer.lock.locked_at,
        "runtime_layer": layer.runtime_layer,
        "python_implementation": layer.python_implementation,
        # Such a layer has copies of the runtime's files in it: on Windows, the interpreter's launcher.
        "bound_to_implementation": layer.kind == "runtime" or is_windows(layer.platform),
    }
    if layer.kind != "runtime":
        fields["required_layers"] = list(layer.required_layers)
    if layer.launch_module is not None:
        fields["app_launch_module"] = layer.launch_module.name
        fields["app_launch_module_hash"] = layer.launch_module.hash
    if layer.support_modules:
        fields["app_support_modules"] = [{"name": module.name, "hash": module.hash} for module in layer.support_modules]
    return fields


def archive_fields(layer: PublishLayer, name: str, build: int) -> dict[str, Any]:
    """Give all fields of an archive called `name`; size and hash only where it has been made."""
    fields = layer_fields(layer) | {
        "archive_build": build,
        "archive_name": name,
        "target_platform": layer.platform,
    }
    if isinstance(layer.artifact, File):
        fields["archive_size"] = layer.artifact.digest.size
        fields["archive_hashes"] = {"sha256": layer.artifact.digest.hash}
    return fields


def manifest(published: Iterable[tuple[Kind, Mapping[str, Any]]]) -> dict[str, Any]:
    """Give the manifest of layers, each with its fields, in their order."""
    layers: dict[str, list[Mapping[str, Any]]] = {category: [] for category in CATEGORIES.values()}
    for kind, fields in published:
        layers[CATEGORIES[kind]].append(fields)
    return {"layers": layers}


def text(document: object) -> bytes:
    """Write a document as venvstacks does."""
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def module_hash(store: Store, file_name: str, node: Node) -> str:
    """Hash a launch or support module: `sha256:` for a file with its name, `sha256/` for a folder."""
    writer = DigestWriter()
    if isinstance(node, Tree):
        _hash_folder(store, file_name, node, writer)
        return f"sha256/{writer.digest().hash}"
    assert isinstance(node, File)
    writer.update(f"{file_name}sha256:{node.digest.hash}".encode())
    return f"sha256:{writer.digest().hash}"


def _hash_folder(store: Store, name: str, tree: Tree, writer: DigestWriter) -> None:
    """Hash names and content hashes, top down."""
    directory = store.load(tree.root)
    writer.update(name.encode())
    for file in sorted(directory.files, key=lambda file: file.name):
        writer.update(f"{file.name}sha256:{file.digest.hash}".encode())
    for folder in sorted(directory.directories, key=lambda folder: folder.name):
        _hash_folder(store, folder.name, Tree(folder.digest), writer)
