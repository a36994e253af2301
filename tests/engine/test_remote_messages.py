"""Our declaration of the Remote Execution API: compiled anew, and what our own encodings are in the official runtime.

After a change of `protos/`: `STRATA_UPDATE_REAPI=1 python -m pytest tests/engine/test_remote_messages.py`.
"""

from __future__ import annotations

import contextlib
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st
from reapi_values import ACTIONS, COMMANDS, RESULTS, directories

from strata_engine.codec import (
    Action,
    ActionResult,
    Attached,
    Command,
    Directory,
    DirectoryNode,
    FileNode,
    OutputDirectory,
    OutputFile,
    SymlinkNode,
    decode_action_result,
    encode_action,
    encode_action_result,
    encode_command,
    encode_directory,
    encode_tree,
)
from strata_engine.digest import EMPTY, Digest
from strata_engine.remote import messages

PROTOS = Path(str(files("strata_engine.remote"))) / "protos"
SHIPPED = PROTOS.parent / messages.SET


def compiled(target: Path) -> bytes:
    well_known = files("grpc_tools") / "_proto"
    sources = sorted(path.name for path in PROTOS.glob("*.proto"))
    arguments = [f"-I{PROTOS}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={target}", *sources]
    assert protoc.main(["protoc", *arguments]) == 0
    return target.read_bytes()


def test_what_is_shipped_is_what_is_declared(tmp_path: Path) -> None:
    made = compiled(tmp_path / "made")
    if os.environ.get("STRATA_UPDATE_REAPI"):
        SHIPPED.write_bytes(made)
    ours, anew = (descriptor_pb2.FileDescriptorSet.FromString(data) for data in (SHIPPED.read_bytes(), made))
    # Another compiler may order files otherwise, or have a newer `google/protobuf`.
    declared = [{file.name: file for file in each.file if not file.name.startswith("google/")} for each in (ours, anew)]
    assert set(declared[0]) == {path.name for path in PROTOS.glob("*.proto")}
    assert declared[0] == declared[1]


def pair(digest: Digest | None) -> tuple[str, int] | None:
    return None if digest is None else (digest.hash, digest.size)


def named(message: Any, field: str) -> tuple[str, int] | None:
    """Give a Digest of a message; None where it has none."""
    found = getattr(message, field)
    return (found.hash, found.size_bytes) if message.HasField(field) else None


def same(kind: str, data: bytes) -> Any:
    """Have the official runtime read what we wrote, and write it again."""
    message = messages.parsed(kind, data)
    again = messages.encoded(message)
    assert again.hex() == data.hex()
    assert Digest.of(again) == Digest.of(data)
    return message


def directory_fields(message: Any) -> Directory:
    return Directory(
        tuple(FileNode(file.name, Digest(*named(file, "digest")), file.is_executable) for file in message.files),  # type: ignore[misc]
        tuple(DirectoryNode(folder.name, Digest(*named(folder, "digest"))) for folder in message.directories),  # type: ignore[misc]
        tuple(SymlinkNode(link.name, link.target) for link in message.symlinks),
    )


@given(directories())
def test_a_directory_of_ours_is_an_official_one(directory: Directory) -> None:
    assert directory_fields(same("Directory", encode_directory(directory))) == directory


@given(directories(), st.lists(directories(), max_size=3))
def test_a_tree_of_ours_is_an_official_one(root: Directory, children: list[Directory]) -> None:
    message = same("Tree", encode_tree(root, children))
    assert directory_fields(message.root) == root
    assert list(map(directory_fields, message.children)) == children


@given(COMMANDS)
def test_a_command_of_ours_is_an_official_one(command: Command) -> None:
    message = same("Command", encode_command(command))
    assert tuple(message.arguments) == command.arguments
    assert tuple((item.name, item.value) for item in message.environment_variables) == command.environment_variables
    assert tuple(message.output_paths) == command.output_paths


@given(ACTIONS)
def test_an_action_of_ours_is_an_official_one(action: Action) -> None:
    message = same("Action", encode_action(action))
    assert named(message, "command_digest") == pair(action.command_digest)
    assert named(message, "input_root_digest") == pair(action.input_root_digest)
    assert message.salt == action.salt
    assert tuple((item.name, item.value) for item in message.platform.properties) == action.platform


@given(RESULTS)
def test_a_result_of_ours_is_an_official_one(result: ActionResult) -> None:
    message = same("ActionResult", encode_action_result(result))
    files = tuple(
        (file.path, named(file, "digest"), file.is_executable, file.contents) for file in message.output_files
    )
    assert files == tuple((path, pair(digest), *rest) for path, digest, *rest in result.output_files)
    folders = tuple(
        (
            folder.path,
            named(folder, "root_directory_digest"),
            named(folder, "tree_digest"),
            folder.is_topologically_sorted,
        )
        for folder in message.output_directories
    )
    assert folders == tuple(
        (path, pair(root), pair(tree), flag) for path, root, tree, flag in result.output_directories
    )
    assert tuple((link.path, link.target) for link in message.output_symlinks) == result.output_symlinks
    assert (message.exit_code, message.stdout_raw, message.stderr_raw, message.execution_metadata.worker) == (
        result.exit_code,
        result.stdout_raw,
        result.stderr_raw,
        result.worker,
    )
    assert named(message, "stdout_digest") == pair(result.stdout_digest)
    assert named(message, "stderr_digest") == pair(result.stderr_digest)
    for field, nanoseconds in {
        "execution_start_timestamp": result.started_ns,
        "execution_completed_timestamp": result.completed_ns,
    }.items():
        time = getattr(message.execution_metadata, field)
        assert time.seconds * 10**9 + time.nanos == nanoseconds


ONE = Digest("1" * 64, 1)
FOLDER = Directory(
    (FileNode("a", ONE), FileNode("b", ONE, is_executable=True)),
    (DirectoryNode("c", ONE),),
    (SymlinkNode("d", "../e"),),
)
VECTORS = {
    "Directory": (encode_directory(FOLDER), "79eaca35435a32d6d255696c6767e12dffef5b04da72d954ab6fb3e09af78d58"),
    "Tree": (encode_tree(FOLDER, [Directory()]), "e6ca9e250cff92b828dcd9dde20877094d6e31d99ae9a58f79b850df8ae2a09f"),
    "Command": (
        encode_command(Command(("strata", "Install", "v1", "{}"), (("A", "b"),), ("out",))),
        "5d1ebecc1efdb640e8b087d8f54068d432807fb2581c6a07c653329a5593b4f5",
    ),
    "Action": (
        encode_action(Action(ONE, EMPTY, b"epoch", (("uv", "0.11"),))),
        "779ce559df4810e616873fd33a3cf353c69a7f739ca7a480a84c49e52e379ce4",
    ),
    "ActionResult": (
        encode_action_result(
            ActionResult(
                (OutputFile("out", ONE, is_executable=True, contents=b"x"),),
                (OutputDirectory("dir", ONE, ONE, is_topologically_sorted=True),),
                stdout_raw=b"said",
                stderr_digest=ONE,
                started_ns=1_700_000_000_000_000_001,
                completed_ns=1_700_000_001_000_000_000,
            )
        ),
        "366069bf667418e31273890c018432ac134c540ba4c1b4d8a4865beb6b92a8e8",
    ),
}


@pytest.mark.parametrize(("kind", "vector"), VECTORS.items(), ids=VECTORS)
def test_what_is_in_remotes_is_encoded_as_it_ever_was(kind: str, vector: tuple[bytes, str]) -> None:
    data, digest = vector
    same(kind, data)
    assert Digest.of(data).hash == digest


@given(RESULTS, st.binary(max_size=20), st.integers(0, 2**31))
def test_a_result_with_what_other_servers_add_is_read(result: ActionResult, added: bytes, mode: int) -> None:
    message = messages.parsed("ActionResult", encode_action_result(result))
    message.execution_metadata.auxiliary_metadata.add(type_url="type.googleapis.com/x.Y", value=added)
    message.execution_metadata.input_fetch_start_timestamp.seconds = mode
    message.execution_metadata.virtual_execution_duration.nanos = 5
    for file in message.output_files:
        file.node_properties.unix_mode.value = mode
        file.node_properties.properties.add(name="p", value="q")
    attached = (*result.attached, Attached("type.googleapis.com/x.Y", added))
    assert decode_action_result(messages.encoded(message)) == result._replace(attached=attached)


@given(
    st.binary(max_size=40), st.sampled_from(["ActionResult", "ServerCapabilities", "BatchReadBlobsResponse", "Tree"])
)
def test_what_is_no_message_is_a_value_error(data: bytes, kind: str) -> None:
    with contextlib.suppress(ValueError):
        messages.encoded(messages.parsed(kind, data))


def test_another_declaration_of_the_same_messages_may_be_in_the_process() -> None:
    """A process has one pool of declarations for all, and whoever else speaks this protocol fills it."""
    for file in descriptor_pb2.FileDescriptorSet.FromString(SHIPPED.read_bytes()).file:
        if not file.name.startswith("google/"):
            with pytest.raises(KeyError):
                descriptor_pool.Default().FindFileByName(file.name)
    assert messages.path("ByteStream.Read") == "/google.bytestream.ByteStream/Read"
    assert messages.to_digest(messages.of_digest(EMPTY)) == EMPTY
    assert messages.to_digest(messages.new("Digest", hash="x", size_bytes=1)) is None
    assert messages.to_digest(messages.new("Digest", hash="1" * 64, size_bytes=-1)) is None
