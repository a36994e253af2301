"""REAPI messages by the official protobuf runtime, which our own encodings are compared with."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from strata_engine.codec import ActionResult, Directory
from strata_engine.digest import Digest

# What REAPI says of the messages that are encoded here: field name, number, type, `*` for a repeated one.
MESSAGES = {
    "Digest": "hash=1:string size_bytes=2:int64",
    "Action": "command_digest=1:Digest input_root_digest=2:Digest salt=9:bytes platform=10:Platform",
    "Variable": "name=1:string value=2:string",
    "Command": "arguments=1:string* environment_variables=2:Variable* output_paths=7:string*",
    "Platform": "properties=1:Variable*",
    "Directory": "files=1:FileNode* directories=2:DirectoryNode* symlinks=3:SymlinkNode*",
    "FileNode": "name=1:string digest=2:Digest is_executable=4:bool",
    "DirectoryNode": "name=1:string digest=2:Digest",
    "SymlinkNode": "name=1:string target=2:string",
    "Tree": "root=1:Directory children=2:Directory*",
    "Timestamp": "seconds=1:int64 nanos=2:int32",
    "Metadata": "worker=1:string queued_timestamp=2:Timestamp execution_start_timestamp=7:Timestamp "
    "execution_completed_timestamp=8:Timestamp auxiliary_metadata=11:Any*",
    "Any": "type_url=1:string value=2:bytes",
    "Signature": "zone=1:string at=2:int64 public_key=3:bytes signature=4:bytes",
    "OutputFile": "path=1:string digest=2:Digest is_executable=4:bool contents=5:bytes",
    "OutputDirectory": "path=1:string tree_digest=3:Digest is_topologically_sorted=4:bool "
    "root_directory_digest=5:Digest",
    "OutputSymlink": "path=1:string target=2:string",
    "ActionResult": "output_files=2:OutputFile* output_directories=3:OutputDirectory* exit_code=4:int32 "
    "stdout_raw=5:bytes stdout_digest=6:Digest stderr_raw=7:bytes stderr_digest=8:Digest "
    "execution_metadata=9:Metadata output_file_symlinks=10:OutputSymlink* "
    "output_directory_symlinks=11:OutputSymlink* output_symlinks=12:OutputSymlink*",
}


def _classes() -> dict[str, type[Message]]:
    kinds = descriptor_pb2.FieldDescriptorProto
    scalars = {
        "string": kinds.TYPE_STRING, "bytes": kinds.TYPE_BYTES, "bool": kinds.TYPE_BOOL,
        "int32": kinds.TYPE_INT32, "int64": kinds.TYPE_INT64,
    }  # fmt: skip
    file = descriptor_pb2.FileDescriptorProto(name="reapi.proto", package="t", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields.split():
            field, _, kind = text.partition(":")
            field, _, number = field.partition("=")
            label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            made = message.field.add(name=field, number=int(number), label=label)
            if kind in scalars:
                made.type = scalars[kind]
            else:
                made.type, made.type_name = kinds.TYPE_MESSAGE, f".t.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}")) for name in MESSAGES}


PROTO: dict[str, Any] = _classes()


def official(message: str, /, **fields: Any) -> Any:
    return PROTO[message](**fields)


def proto_digest(digest: Digest) -> Any:
    return official("Digest", hash=digest.hash, size_bytes=digest.size)


def proto_pairs(pairs: tuple[tuple[str, str], ...]) -> list[Any]:
    return [official("Variable", name=name, value=value) for name, value in sorted(pairs)]


def proto_directory(directory: Directory) -> Any:
    return official(
        "Directory",
        files=[
            official("FileNode", name=name, digest=proto_digest(digest), is_executable=executable)
            for name, digest, executable in sorted(directory.files, key=lambda file: file.name.encode())
        ],
        directories=[
            official("DirectoryNode", name=name, digest=proto_digest(digest))
            for name, digest in sorted(directory.directories, key=lambda folder: folder.name.encode())
        ],
        symlinks=[
            official("SymlinkNode", name=name, target=target)
            for name, target in sorted(directory.symlinks, key=lambda link: link.name.encode())
        ],
    )


def proto_time(nanoseconds: int) -> Any:
    seconds, nanos = divmod(nanoseconds, 10**9)
    return official("Timestamp", seconds=seconds, nanos=nanos) if nanoseconds else None


def proto_result(result: ActionResult) -> Any:
    start, end = proto_time(result.started_ns), proto_time(result.completed_ns)
    return official(
        "ActionResult",
        output_files=[
            official("OutputFile", path=path, digest=proto_digest(digest), is_executable=executable, contents=contents)
            for path, digest, executable, contents in sorted(result.output_files)
        ],
        output_directories=[
            official(
                "OutputDirectory",
                path=path,
                tree_digest=tree and proto_digest(tree),
                is_topologically_sorted=ordered,
                root_directory_digest=root and proto_digest(root),
            )
            for path, root, tree, ordered in sorted(result.output_directories, key=lambda folder: folder.path)
        ],
        exit_code=result.exit_code,
        stdout_raw=result.stdout_raw,
        stdout_digest=result.stdout_digest and proto_digest(result.stdout_digest),
        stderr_raw=result.stderr_raw,
        stderr_digest=result.stderr_digest and proto_digest(result.stderr_digest),
        output_symlinks=[
            official("OutputSymlink", path=path, target=target) for path, target in sorted(result.output_symlinks)
        ],
        execution_metadata=official(
            "Metadata",
            worker=result.worker,
            execution_start_timestamp=start,
            execution_completed_timestamp=end,
            auxiliary_metadata=[official("Any", type_url=url, value=value) for url, value in result.attached],
        )
        if result.worker or start or end or result.attached
        else None,
    )
