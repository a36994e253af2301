"""A run record as a document of its own: what a build came to, and all that explains its keys, for another machine.

What is in it is content-addressed, each Action, Command and Directory under its digest, and is believed only where it
has that digest: who hands such a document over can leave things out, but cannot make a key mean something else. It
holds no file's content, and no secret, since none is in a key or a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from strata_engine import codec
from strata_engine.cas import BlobLost
from strata_engine.codec import Directory, DirectoryNode, FileNode, SymlinkNode
from strata_engine.digest import Digest
from strata_engine.errors import SpecError
from strata_engine.held import Held
from strata_engine.recorded_graph import RecordedAction
from strata_engine.run_record import RunRecord
from strata_engine.tree import Reader

SCHEMA = "strata.run"
VERSION = 1
LARGEST = 1 << 28
"""Bytes of a document that are read, at most."""

_Name: TypeAlias = str
"""A digest as `HASH/SIZE`."""


class ActionText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An Action, decoded."""

    command: _Name
    input_root: _Name
    salt: str = ""
    platform: dict[str, str] = {}


class CommandText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Command, decoded."""

    arguments: tuple[str, ...]
    environment: dict[str, str] = {}
    outputs: tuple[str, ...] = ("out",)


class FileText(msgspec.Struct, frozen=True, array_like=True):
    """A file in a folder."""

    name: str
    digest: _Name
    executable: bool = False


class FolderText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Directory, decoded."""

    files: tuple[FileText, ...] = ()
    folders: tuple[tuple[str, _Name], ...] = ()
    symlinks: tuple[tuple[str, str], ...] = ()


class HeldText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an action had come to."""

    mnemonic: str
    key: _Name
    output: str = ""


class Exported(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document."""

    schema: str = SCHEMA
    version: int = VERSION
    record: RunRecord
    held: dict[str, HeldText]
    """Every action of the workspace when that build had ended, by label."""
    graph: dict[str, RecordedAction] = {}
    """What each of them reads, and what its inputs and parameters are called."""
    actions: dict[_Name, ActionText] = {}
    commands: dict[_Name, CommandText] = {}
    folders: dict[_Name, FolderText] = {}
    """The Directories of inputs and outputs."""


def export(
    reader: Reader, record: RunRecord, held: Mapping[str, Held], graph: Mapping[str, RecordedAction]
) -> Exported:
    """Put together what is known of a build; what the store no longer has is left out."""
    actions: dict[_Name, ActionText] = {}
    commands: dict[_Name, CommandText] = {}
    roots: dict[Digest, None] = {}
    for each in held.values():
        try:
            action = codec.decode_action(reader.get(Digest.parse(each.key)))
            command = codec.decode_command(reader.get(action.command_digest))
        except (BlobLost, ValueError):
            continue
        roots[action.input_root_digest] = None
        if each.output:
            roots[Digest.parse(each.output)] = None
        actions[each.key] = ActionText(
            str(action.command_digest), str(action.input_root_digest), action.salt.decode(), dict(action.platform)
        )
        commands[str(action.command_digest)] = CommandText(
            command.arguments, dict(command.environment_variables), command.output_paths
        )
    return Exported(
        record=record,
        held={label: HeldText(each.mnemonic, each.key, each.output) for label, each in sorted(held.items())},
        graph={label: graph[label] for label in sorted(held) if label in graph},
        actions=actions,
        commands=commands,
        folders=_folders(reader, roots),
    )


def _folders(reader: Reader, roots: Iterable[Digest]) -> dict[_Name, FolderText]:
    found: dict[_Name, FolderText] = {}
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if str(digest) in found:
            continue
        try:
            directory = reader.load(digest)
        except BlobLost:
            # An output that is a file, or something that the store no longer has.
            continue
        found[str(digest)] = FolderText(
            tuple(FileText(file.name, str(file.digest), file.is_executable) for file in directory.files),
            tuple((folder.name, str(folder.digest)) for folder in directory.directories),
            tuple((link.name, link.target) for link in directory.symlinks),
        )
        waiting += [folder.digest for folder in directory.directories]
    return found


class Believed:
    """What a document holds, each thing under the digest that it has (`tree.Reader`)."""

    def __init__(self, document: Exported) -> None:
        """Check the whole document. Raises ValueError."""
        self._directories: dict[Digest, Directory] = {}
        self._blobs: dict[Digest, bytes] = {}
        for name, action in document.actions.items():
            self._keep(name, codec.encode_action(_action(action)))
        for name, command in document.commands.items():
            pairs = tuple(sorted(command.environment.items()))
            self._keep(name, codec.encode_command(codec.Command(command.arguments, pairs, command.outputs)))
        for name, folder in document.folders.items():
            directory = _directory(folder)
            self._directories[self._keep(name, codec.encode_directory(directory))] = directory

    def load(self, digest: Digest) -> Directory:
        """Read one Directory. Raises `BlobLost`."""
        if digest not in self._directories:
            raise BlobLost(digest)
        return self._directories[digest]

    def get(self, digest: Digest) -> bytes:
        """Read an Action, Command or Directory. Raises `BlobLost`."""
        if digest not in self._blobs:
            raise BlobLost(digest)
        return self._blobs[digest]

    def _keep(self, name: str, data: bytes) -> Digest:
        digest = Digest.parse(name)
        if Digest.of(data) != digest:
            raise ValueError(f"{name[:12]} is not the digest of what stands under it")
        self._blobs[digest] = data
        return digest


def read_exported(path: Path) -> tuple[Exported, Believed]:
    """Read a document that somebody else wrote. Raises SpecError, OSError."""
    with path.open("rb") as stream:
        data = stream.read(LARGEST + 1)
    try:
        if len(data) > LARGEST:
            raise ValueError("it is too large")  # noqa: TRY301 - all that is wrong with it ends alike
        document = msgspec.json.decode(data, type=Exported)
        if (document.schema, document.version) != (SCHEMA, VERSION):
            raise ValueError(f"it is `{document.schema}` {document.version}, not `{SCHEMA}` {VERSION}")  # noqa: TRY301 - as above
        believed = Believed(document)
        for held in document.held.values():
            Digest.parse(held.key)
    except (ValueError, RecursionError) as error:
        raise SpecError.of(
            "not-a-run",
            f"`{path}` is not the record of a build",
            notes=(str(error).partition("\n")[0][:200],),
            hint="`strata graph runs --export RUN > FILE` writes one",
        ) from error
    return document, believed


def _action(text: ActionText) -> codec.Action:
    digests = Digest.parse(text.command), Digest.parse(text.input_root)
    return codec.Action(*digests, text.salt.encode(), tuple(sorted(text.platform.items())))


def _directory(text: FolderText) -> Directory:
    return Directory(
        tuple(FileNode(file.name, Digest.parse(file.digest), file.executable) for file in text.files),
        tuple(DirectoryNode(name, Digest.parse(digest)) for name, digest in text.folders),
        tuple(SymlinkNode(name, target) for name, target in text.symlinks),
    )
