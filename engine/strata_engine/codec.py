"""REAPI messages, encoded canonically by hand (fields in tag order, defaults left out, names sorted).

Message and field names are those of `build.bazel.remote.execution.v2`; golden tests compare every encoding with the
protobuf runtime's. Standard library only.
"""

from __future__ import annotations

from typing import NamedTuple

from strata_engine.digest import Digest


class FileNode(NamedTuple):
    """A file in a Directory."""

    name: str
    digest: Digest
    is_executable: bool = False


class DirectoryNode(NamedTuple):
    """A folder in a Directory."""

    name: str
    digest: Digest


class SymlinkNode(NamedTuple):
    """A symlink in a Directory."""

    name: str
    target: str


class Directory(NamedTuple):
    """One folder: its entries, each kind sorted by name in byte order of UTF-8. No times, owners or modes."""

    files: tuple[FileNode, ...] = ()
    directories: tuple[DirectoryNode, ...] = ()
    symlinks: tuple[SymlinkNode, ...] = ()


class Command(NamedTuple):
    """What is run."""

    arguments: tuple[str, ...]
    environment_variables: tuple[tuple[str, str], ...] = ()
    output_paths: tuple[str, ...] = ("out",)


class Action(NamedTuple):
    """What the key is the digest of."""

    command_digest: Digest
    input_root_digest: Digest
    salt: bytes = b""
    platform: tuple[tuple[str, str], ...] = ()


class OutputFile(NamedTuple):
    """An output that is a file."""

    path: str
    digest: Digest
    is_executable: bool = False


class OutputDirectory(NamedTuple):
    """An output that is a folder. `tree_digest` (the REAPI `Tree` message) is made when a remote wants it."""

    path: str
    root_directory_digest: Digest
    tree_digest: Digest | None = None


class ActionResult(NamedTuple):
    """What an action came to. `worker` is non-default in every result, so that an empty blob is not a valid one."""

    output_files: tuple[OutputFile, ...] = ()
    output_directories: tuple[OutputDirectory, ...] = ()
    exit_code: int = 0
    stdout_raw: bytes = b""
    stderr_raw: bytes = b""
    worker: str = "local"
    started_ns: int = 0
    completed_ns: int = 0
