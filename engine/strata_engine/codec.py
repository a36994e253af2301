"""REAPI messages, encoded canonically by hand (fields in tag order, defaults left out, names sorted).

Message and field names are those of `build.bazel.remote.execution.v2`; golden tests compare every encoding with the
protobuf runtime's. It knows messages, not stores or trees, and needs the standard library only.

What is decoded is hostile: every decoder raises ValueError, and nothing else, for bytes that it does not accept. The
messages that keys and trees are made of must be canonical to be accepted; an ActionResult may come from a server
of another make, so unknown fields in it are skipped.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import NamedTuple

from strata_engine.digest import Digest, is_sha256
from strata_engine.wireformat import (
    INT64_MAX,
    UINT64,
    as_bytes,
    as_number,
    as_signed,
    as_string,
    decode_pair,
    decode_timestamp,
    fields,
    message,
    pair,
    read_varint,
    text,
    timestamp,
    varint,
)

OUTPUT = "out"
"""The path of an action's one output."""


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
    output_paths: tuple[str, ...] = (OUTPUT,)


class Action(NamedTuple):
    """What the key is the digest of."""

    command_digest: Digest
    input_root_digest: Digest
    salt: bytes = b""
    platform: tuple[tuple[str, str], ...] = ()


class OutputFile(NamedTuple):
    """An output that is a file. `contents` are its bytes, or nothing where they are not sent along."""

    path: str
    digest: Digest
    is_executable: bool = False
    contents: bytes = b""


class OutputDirectory(NamedTuple):
    """An output that is a folder, by its root `Directory`, by a `Tree` message, or by both.

    On this machine it is the root; the `Tree` is made for remotes, and servers of another make give nothing else.
    """

    path: str
    root_directory_digest: Digest | None
    tree_digest: Digest | None = None
    is_topologically_sorted: bool = False


class Attached(NamedTuple):
    """A message of some other protocol that travels along in a result: REAPI's `google.protobuf.Any`."""

    type_url: str
    value: bytes


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
    stdout_digest: Digest | None = None
    stderr_digest: Digest | None = None
    output_symlinks: tuple[SymlinkNode, ...] = ()
    """Outputs that are symlinks; a path stands where a name does."""
    attached: tuple[Attached, ...] = ()
    """`execution_metadata.auxiliary_metadata`, in the order found: servers give it back as it was, and add theirs."""


class Signature(NamedTuple):
    """Who vouches for a result, as it stands in `Attached.value`; see `remote.signing`.

    A message of ours: `zone` 1, `at` 2, `public_key` 3, `signature` 4.
    """

    zone: str
    at: int
    """Seconds since 1970."""
    public_key: bytes
    signature: bytes


def encode_digest(digest: Digest) -> bytes:
    """Encode a `Digest`."""
    if not is_sha256(digest.hash) or not 0 <= digest.size <= INT64_MAX:
        raise ValueError(f"not a digest: {digest}")
    return _digest(digest)


def decode_digest(data: bytes) -> Digest:
    """Decode a `Digest`. Raises ValueError for anything that does not name content."""
    hash_, size = "", 0
    for number, value in fields(data):
        if number == 1:
            hash_ = as_string(value)
        elif number == 2:
            size = as_number(value)
    if not is_sha256(hash_) or size > INT64_MAX:
        raise ValueError("not a digest")
    return Digest(hash_, size)


def encode_directory(directory: Directory) -> bytes:
    """Encode a `Directory`, sorting its entries. Raises ValueError for a name that no folder can hold twice or once."""
    _check_names(directory)
    # Python compares strings by code point, which is the byte order of UTF-8.
    out = [
        message(0x0A, _entry(file) + b"\x20\x01" if file.is_executable else _entry(file))
        for file in sorted(directory.files)
    ]
    out += [message(0x12, _entry(folder)) for folder in sorted(directory.directories)]
    out += [pair(0x1A, *link) for link in sorted(directory.symlinks)]
    return b"".join(out)


def decode_directory(data: bytes) -> Directory:
    """Decode a `Directory`. Raises ValueError for any encoding but the canonical one.

    The canonical form has no unknown fields and no node properties: two blobs never mean the same folder.
    """
    files: list[FileNode] = []
    folders: list[DirectoryNode] = []
    links: list[SymlinkNode] = []
    at, last = 0, 0x0A
    try:
        while at < len(data):
            kind = data[at]
            size, at = _length(data, at + 1)
            if kind < last or at + size > len(data):
                raise ValueError("a Directory's fields are out of order or truncated")
            if kind == 0x0A:
                files.append(_decode_node(data, at, size))
            elif kind == 0x12:
                name, digest, executable = _decode_node(data, at, size)
                folders.append(DirectoryNode(name, digest))
                if executable:
                    raise ValueError("not a canonical DirectoryNode")
            elif kind == 0x1A:
                links.append(_decode_link(data, at, size))
            else:
                raise ValueError("a Directory with fields that it may not have")
            at, last = at + size, kind
    except IndexError:
        raise ValueError("a truncated Directory") from None
    for names in ([file.name for file in files], [folder.name for folder in folders], [link.name for link in links]):
        if any(map(operator.ge, names, names[1:])):
            raise ValueError("a Directory's names are not sorted, or not unique")
    directory = Directory(tuple(files), tuple(folders), tuple(links))
    _check_names(directory)
    return directory


def encode_command(command: Command) -> bytes:
    """Encode a `Command`: arguments in order, environment and outputs sorted."""
    out = [text(0x0A, argument, keep=True) for argument in command.arguments]
    out += [pair(0x12, *variable) for variable in _sorted_names(command.environment_variables)]
    out += [text(0x3A, path, keep=True) for path in sorted(set(command.output_paths))]
    return b"".join(out)


def decode_command(data: bytes) -> Command:
    """Decode a `Command` that this program wrote. Raises ValueError for any encoding but the canonical one."""
    arguments, variables, paths = [], [], []
    for number, value in fields(data):
        if number == 1:
            arguments.append(as_string(value))
        elif number == 2:
            variables.append(decode_pair(as_bytes(value)))
        elif number == 7:
            paths.append(as_string(value))
    command = Command(tuple(arguments), tuple(variables), tuple(paths))
    _canonical(data, encode_command(command), "Command")
    return command


def encode_action(action: Action) -> bytes:
    """Encode an `Action`: its digest is the action key."""
    platform = b"".join(pair(0x0A, *item) for item in _sorted_names(action.platform))
    return b"".join(
        (
            message(0x0A, encode_digest(action.command_digest)),
            message(0x12, encode_digest(action.input_root_digest)),
            message(0x4A, action.salt) if action.salt else b"",
            message(0x52, platform) if platform else b"",
        )
    )


def decode_action(data: bytes) -> Action:
    """Decode an `Action` that this program wrote. Raises ValueError for any encoding but the canonical one."""
    command = root = None
    salt, platform = b"", []
    for number, value in fields(data):
        body = as_bytes(value)
        if number == 1:
            command = decode_digest(body)
        elif number == 2:
            root = decode_digest(body)
        elif number == 9:
            salt = body
        elif number == 10:
            platform = [decode_pair(as_bytes(item)) for field, item in fields(body) if field == 1]
    if command is None or root is None:
        raise ValueError("an Action without a command or an input root")
    action = Action(command, root, salt, tuple(platform))
    _canonical(data, encode_action(action), "Action")
    return action


def encode_action_result(result: ActionResult) -> bytes:
    """Encode an `ActionResult`, outputs sorted by path."""
    out = []
    for file in sorted(result.output_files):
        body = text(0x0A, _checked_path(file.path)) + message(0x12, encode_digest(file.digest))
        body += b"\x20\x01" if file.is_executable else b""
        out.append(message(0x12, body + (message(0x2A, file.contents) if file.contents else b"")))
    for folder in sorted(result.output_directories, key=lambda item: item.path):
        body = text(0x0A, _checked_path(folder.path))
        if folder.tree_digest is not None:
            body += message(0x1A, encode_digest(folder.tree_digest))
        body += b"\x20\x01" if folder.is_topologically_sorted else b""
        if folder.root_directory_digest is not None:
            body += message(0x2A, encode_digest(folder.root_directory_digest))
        out.append(message(0x1A, body))
    if result.exit_code:
        out.append(b"\x20" + varint(result.exit_code & UINT64))
    if result.stdout_raw:
        out.append(message(0x2A, result.stdout_raw))
    if result.stdout_digest is not None:
        out.append(message(0x32, encode_digest(result.stdout_digest)))
    if result.stderr_raw:
        out.append(message(0x3A, result.stderr_raw))
    if result.stderr_digest is not None:
        out.append(message(0x42, encode_digest(result.stderr_digest)))
    metadata = text(0x0A, result.worker) + timestamp(0x3A, result.started_ns) + timestamp(0x42, result.completed_ns)
    metadata += b"".join(message(0x5A, _attached(other)) for other in result.attached)
    if metadata:
        out.append(message(0x4A, metadata))
    out += [pair(0x62, _checked_path(link.name), link.target) for link in sorted(result.output_symlinks)]
    return b"".join(out)


def decode_action_result(data: bytes) -> ActionResult:
    """Decode an `ActionResult`, skipping fields that servers add. Raises ValueError where it is malformed."""
    files, folders, links = [], [], []
    exit_code, stdout, stderr, metadata = 0, b"", b"", b""
    stdout_digest = stderr_digest = None
    for number, value in fields(data):
        match number:
            case 2:
                files.append(_decode_output_file(as_bytes(value)))
            case 3:
                folders.append(_decode_output_directory(as_bytes(value)))
            case 4:
                exit_code = as_signed(value, 32)
            case 5:
                stdout = as_bytes(value)
            case 6:
                stdout_digest = decode_digest(as_bytes(value))
            case 7:
                stderr = as_bytes(value)
            case 8:
                stderr_digest = decode_digest(as_bytes(value))
            case 9:
                metadata = as_bytes(value)
            case 10 | 11 | 12:  # the first two are what it was called before
                name, target = decode_pair(as_bytes(value))
                links.append(SymlinkNode(_checked_path(name), target))
            case _:
                pass
    worker, started, completed, attached = _decode_metadata(metadata)
    return ActionResult(
        tuple(files),
        tuple(folders),
        exit_code,
        stdout,
        stderr,
        worker,
        started,
        completed,
        stdout_digest,
        stderr_digest,
        tuple(links),
        attached,
    )


def encode_signature(signature: Signature) -> bytes:
    """Encode a `Signature`."""
    out = text(0x0A, signature.zone) + (b"\x10" + varint(signature.at) if signature.at else b"")
    parts = ((0x1A, signature.public_key), (0x22, signature.signature))
    return out + b"".join(message(tag, value) for tag, value in parts if value)


def decode_signature(data: bytes) -> Signature:
    """Decode a `Signature`, whatever it is worth. Raises ValueError for any encoding but the canonical one."""
    zone, at, key, signature = "", 0, b"", b""
    for number, value in fields(data):
        if number == 1:
            zone = as_string(value)
        elif number == 2:
            at = as_number(value)
        elif number == 3:
            key = as_bytes(value)
        elif number == 4:
            signature = as_bytes(value)
    if at > INT64_MAX:
        raise ValueError("a time out of range")
    decoded = Signature(zone, at, key, signature)
    _canonical(data, encode_signature(decoded), "Signature")
    return decoded


def encode_tree(root: Directory, children: Iterable[Directory]) -> bytes:
    """Encode a REAPI `Tree`: the root and every folder below it, in the order given."""
    parts = [message(0x0A, encode_directory(root))]
    parts += [message(0x12, encode_directory(child)) for child in children]
    return b"".join(parts)


def decode_tree(data: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Split a REAPI `Tree` into the encodings of its root and of the folders below, in the order found.

    They are given as they are, because their digests are what they are known by. Raises ValueError where the message
    is malformed or does not have exactly one root; what the encodings hold is for `decode_directory` to say.
    """
    roots, children = [], []
    for number, value in fields(data):
        if number == 1:
            roots.append(as_bytes(value))
        elif number == 2:
            children.append(as_bytes(value))
    if len(roots) != 1:
        raise ValueError(f"a Tree with {len(roots)} roots")
    return roots[0], tuple(children)


def _entry(node: FileNode | DirectoryNode) -> bytes:
    return text(0x0A, node.name) + message(0x12, _digest(node.digest))


def _attached(other: Attached) -> bytes:
    return text(0x0A, other.type_url) + (message(0x12, other.value) if other.value else b"")


def _digest(digest: Digest) -> bytes:
    head = b"\x0a\x40" + digest.hash.encode()
    return head + b"\x10" + varint(digest.size) if digest.size else head


def _decode_node(data: bytes, at: int, size: int) -> FileNode:
    """Decode an entry of a Directory, byte for byte as `_entry` writes it: trees of 10,000 files pass through here."""
    end = at + size
    name, at = _exactly(data, at, 0x0A)
    body, at = _exactly(data, at, 0x12)
    number = 0
    if len(body) > 66:
        number, stop = read_varint(body, 67)
        if body[66] != 0x10 or not number or stop != len(body):
            raise ValueError("not a canonical Digest")
    executable = data[at:end] == b"\x20\x01"
    if body[:2] != b"\x0a\x40" or len(body) < 66 or at + 2 * executable != end:
        raise ValueError("not a canonical entry of a Directory")
    return FileNode(name.decode(), Digest(body[2:66].decode(), number), executable)


def _decode_link(data: bytes, at: int, size: int) -> SymlinkNode:
    name, stop = _exactly(data, at, 0x0A)
    target, stop = _exactly(data, stop, 0x12)
    if stop != at + size:
        raise ValueError("not a canonical SymlinkNode")
    return SymlinkNode(name.decode(), target.decode())


def _exactly(data: bytes, at: int, tag: int) -> tuple[bytes, int]:
    """Read the field that must come next."""
    if data[at] != tag:
        raise ValueError("not the field that belongs here")
    size, at = _length(data, at + 1)
    return data[at : at + size], at + size


def _length(data: bytes, at: int) -> tuple[int, int]:
    return (data[at], at + 1) if data[at] < 0x80 else read_varint(data, at)


def _decode_output_file(data: bytes) -> OutputFile:
    path, digest, executable, contents = "", None, False, b""
    for number, value in fields(data):
        if number == 1:
            path = as_string(value)
        elif number == 2:
            digest = decode_digest(as_bytes(value))
        elif number == 4:
            executable = bool(as_number(value))
        elif number == 5:
            contents = as_bytes(value)
    if digest is None:
        raise ValueError("an output without a digest")
    return OutputFile(_checked_path(path), digest, executable, contents)


def _decode_output_directory(data: bytes) -> OutputDirectory:
    path, tree, root, ordered = "", None, None, False
    for number, value in fields(data):
        if number == 1:
            path = as_string(value)
        elif number == 3:
            tree = decode_digest(as_bytes(value))
        elif number == 4:
            ordered = bool(as_number(value))
        elif number == 5:
            root = decode_digest(as_bytes(value))
    if root is None and tree is None:
        raise ValueError("an output directory without a digest")
    return OutputDirectory(_checked_path(path), root, tree, ordered)


def _decode_metadata(data: bytes) -> tuple[str, int, int, tuple[Attached, ...]]:
    worker, started, completed = "", 0, 0
    attached = []
    for number, value in fields(data):
        if number == 1:
            worker = as_string(value)
        elif number == 7:
            started = decode_timestamp(as_bytes(value))
        elif number == 8:
            completed = decode_timestamp(as_bytes(value))
        elif number == 11:
            attached.append(_decode_attached(as_bytes(value)))
    return worker, started, completed, tuple(attached)


def _decode_attached(data: bytes) -> Attached:
    type_url, content = "", b""
    for number, value in fields(data):
        if number == 1:
            type_url = as_string(value)
        elif number == 2:
            content = as_bytes(value)
    return Attached(type_url, content)


def is_name(name: str) -> bool:
    """Tell whether `name` can stand in a folder: not empty, `.` or `..`, and without `/` and NUL."""
    return bool(name) and name not in {".", ".."} and "/" not in name and "\0" not in name


def _check_names(directory: Directory) -> None:
    names = [entry[0] for kind in directory for entry in kind]
    if len(set(names)) != len(names):
        raise ValueError("a folder with two entries of one name")
    for name in names:
        if not is_name(name):
            raise ValueError(f"not a file name: {name!r}")
    for digest in [entry[1] for entry in directory.files] + [entry[1] for entry in directory.directories]:
        if not is_sha256(digest.hash) or not 0 <= digest.size <= INT64_MAX:
            raise ValueError(f"not a digest: {digest}")
    for link in directory.symlinks:
        if not link.target or "\0" in link.target:
            raise ValueError(f"not a symlink's target: {link.target!r}")


def _checked_path(path: str) -> str:
    if not all(is_name(part) for part in path.split("/")):
        raise ValueError(f"not an output path: {path!r}")
    return path


def _sorted_names(pairs: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("one name is given twice")
    return sorted(pairs)


def _canonical(data: bytes, again: bytes, what: str) -> None:
    if data != again:
        raise ValueError(f"not a canonical {what}")
