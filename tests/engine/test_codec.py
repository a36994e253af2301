from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reapi import official, proto_digest, proto_directory, proto_pairs, proto_result
from reapi_values import ACTIONS, COMMANDS, DIGESTS, RESULTS, SIGNATURES, directories

from strata_engine.codec import (
    Action,
    ActionResult,
    Command,
    Directory,
    DirectoryNode,
    FileNode,
    OutputFile,
    Signature,
    SymlinkNode,
    decode_action,
    decode_action_result,
    decode_command,
    decode_digest,
    decode_directory,
    decode_signature,
    decode_tree,
    encode_action,
    encode_action_result,
    encode_command,
    encode_digest,
    encode_directory,
    encode_signature,
    encode_tree,
)
from strata_engine.digest import EMPTY, Digest


def same(ours: bytes, theirs: Any) -> None:
    assert ours.hex() == theirs.SerializeToString(deterministic=True).hex()


@given(directories())
def test_a_directory_is_encoded_as_the_official_runtime_does_and_comes_back(directory: Directory) -> None:
    data = encode_directory(directory)
    same(data, proto_directory(directory))
    assert decode_directory(data) == directory
    mixed = Directory(*(tuple(reversed(kind)) for kind in directory))
    assert encode_directory(mixed) == data


@given(COMMANDS)
def test_a_command_is_encoded_as_the_official_runtime_does_and_comes_back(command: Command) -> None:
    data = encode_command(command)
    same(
        data,
        official(
            "Command",
            arguments=command.arguments,
            environment_variables=proto_pairs(command.environment_variables),
            output_paths=sorted(command.output_paths),
        ),
    )
    assert decode_command(data) == command
    assert encode_command(command._replace(environment_variables=command.environment_variables[::-1])) == data


@given(ACTIONS)
def test_an_action_is_encoded_as_the_official_runtime_does_and_comes_back(action: Action) -> None:
    data = encode_action(action)
    platform = official("Platform", properties=proto_pairs(action.platform)) if action.platform else None
    same(
        data,
        official(
            "Action",
            command_digest=proto_digest(action.command_digest),
            input_root_digest=proto_digest(action.input_root_digest),
            salt=action.salt,
            platform=platform,
        ),
    )
    assert decode_action(data) == action
    assert encode_action(action._replace(platform=action.platform[::-1])) == data


@given(RESULTS)
def test_a_result_is_encoded_as_the_official_runtime_does_and_comes_back(result: ActionResult) -> None:
    data = encode_action_result(result)
    same(data, proto_result(result))
    assert decode_action_result(data) == result


@given(SIGNATURES)
def test_a_signature_is_a_message_that_any_protobuf_runtime_reads(signature: Signature) -> None:
    data = encode_signature(signature)
    same(data, official("Signature", **signature._asdict()))
    assert decode_signature(data) == signature


@given(DIGESTS)
def test_a_digest_is_encoded_as_the_official_runtime_does_and_comes_back(digest: Digest) -> None:
    same(encode_digest(digest), proto_digest(digest))
    assert decode_digest(encode_digest(digest)) == digest


@given(directories(), st.lists(directories(), max_size=3))
def test_a_tree_is_encoded_as_the_official_runtime_does(root: Directory, children: list[Directory]) -> None:
    theirs = official("Tree", root=proto_directory(root), children=[proto_directory(child) for child in children])
    same(encode_tree(root, children), theirs)
    whole = (encode_directory(root), tuple(map(encode_directory, children)))
    assert decode_tree(encode_tree(root, children)) == whole


@pytest.mark.parametrize("data", [b"", b"\x12\x00", b"\x0a\x00\x0a\x00", b"\x0a\x01", b"\x08\x00"])
def test_a_tree_without_exactly_one_root_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_tree(data)


@pytest.mark.parametrize("field", ["output_symlinks", "output_file_symlinks", "output_directory_symlinks"])
def test_outputs_that_are_symlinks_are_seen_under_every_name_they_had(field: str) -> None:
    theirs = official("ActionResult", **{field: [{"path": "out", "target": "/etc/passwd"}]})
    found = decode_action_result(theirs.SerializeToString())
    assert found.output_symlinks == (SymlinkNode("out", "/etc/passwd"),)


def test_names_are_sorted_by_their_bytes_and_not_by_utf16() -> None:
    directory = Directory(files=(FileNode("\U0001f40d", EMPTY), FileNode("￿", EMPTY)))
    assert [file.name for file in decode_directory(encode_directory(directory)).files] == ["￿", "\U0001f40d"]


def test_a_key_never_changes() -> None:
    """The digests of these are in every store and every remote cache."""
    root = Digest.of(encode_directory(Directory(files=(FileNode("a", Digest.of(b"1"), is_executable=True),))))
    command = Digest.of(encode_command(Command(("strata", "X", "v1", "{}"))))
    assert root.hash == "3ba361d980ca49897c086738607df4ceb1c91e05908c924d0f620220b8dcac1d"
    assert (
        Digest.of(encode_action(Action(command, root, b"epoch", (("os", "linux"),)))).hash
        == "09ab463c909894241cc3ce94e19cec5514533622c3c991c01aba3b48886ea5bd"
    )


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\0b"])
def test_a_name_that_is_none_is_refused_both_ways(name: str) -> None:
    for directory, theirs in (
        (Directory(files=(FileNode(name, EMPTY),)), {"files": [{"name": name}]}),
        (Directory(directories=(DirectoryNode(name, EMPTY),)), {"directories": [{"name": name}]}),
        (Directory(symlinks=(SymlinkNode(name, "x"),)), {"symlinks": [{"name": name, "target": "x"}]}),
    ):
        with pytest.raises(ValueError, match="not a file name"):
            encode_directory(directory)
        message = official("Directory", **theirs)
        for node in (*message.files, *message.directories):
            node.digest.CopyFrom(proto_digest(EMPTY))
        with pytest.raises(ValueError):
            decode_directory(message.SerializeToString())


def _file(name: str, **more: Any) -> Any:
    return official("FileNode", name=name, digest=proto_digest(EMPTY), **more)


HOSTILE_DIRECTORIES = {
    "unsorted": official("Directory", files=[_file("b"), _file("a")]).SerializeToString(),
    "twice": official("Directory", files=[_file("a"), _file("a")]).SerializeToString(),
    "twice over kinds": official(
        "Directory", files=[_file("a")], symlinks=[{"name": "a", "target": "b"}]
    ).SerializeToString(),
    "kinds out of order": official("Directory", symlinks=[{"name": "a", "target": "b"}]).SerializeToString()
    + official("Directory", files=[_file("b")]).SerializeToString(),
    "no digest": official("Directory", files=[{"name": "a"}]).SerializeToString(),
    "no target": official("Directory", symlinks=[{"name": "a"}]).SerializeToString(),
    "a target with NUL": official("Directory", symlinks=[{"name": "a", "target": "b\0"}]).SerializeToString(),
    "upper case": official(
        "Directory", files=[{"name": "a", "digest": {"hash": "A" * 64}}]
    ).SerializeToString(),
    "a path for a hash": official(
        "Directory", files=[{"name": "a", "digest": {"hash": "../" * 21 + "x"}}]
    ).SerializeToString(),
    "a negative size": official(
        "Directory", files=[{"name": "a", "digest": {"hash": EMPTY.hash, "size_bytes": -1}}]
    ).SerializeToString(),
    "node properties": official("Directory", files=[_file("a")]).SerializeToString() + b"\x2a\x00",
    "an explicit default": bytes.fromhex("0a49") + _file("a").SerializeToString() + b"\x20\x00",
    "an executable folder": bytes.fromhex("1249") + _file("a", is_executable=True).SerializeToString(),
    "not UTF-8": official("Directory", files=[_file("a")]).SerializeToString().replace(b"\x0a\x01a", b"\x0a\x01\xff"),
    "an overlong length": b"\x0a\xc9\x80\x00",
    "a length beyond the end": b"\x0a\x7f",
    "a wrong wire type": b"\x08\x01",
    "a number for a tag": b"\x00",
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE_DIRECTORIES.values(), ids=HOSTILE_DIRECTORIES.keys())
def test_a_directory_that_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_directory(data)


def test_the_hostile_directories_are_refused_for_the_right_reason() -> None:
    assert decode_directory(bytes.fromhex("0a49") + _file("a", is_executable=True).SerializeToString())
    assert decode_directory(official("Directory", files=[_file("a"), _file("b")]).SerializeToString())


def test_a_result_of_another_server_is_read_without_what_we_do_not_know() -> None:
    theirs = official(
        "ActionResult",
        output_files=[{"path": "out", "digest": {"hash": EMPTY.hash}, "contents": b"inline"}],
        stdout_digest=proto_digest(EMPTY),
        exit_code=-9,
        execution_metadata=official("Metadata", worker="w", queued_timestamp=official("Timestamp", seconds=5)),
    )
    unknown = b"\xf8\x07\x01" + b"\xfd\x07abcd" + b"\xf9\x07abcdefgh"
    assert decode_action_result(theirs.SerializeToString() + unknown) == ActionResult(
        (OutputFile("out", EMPTY, contents=b"inline"),), exit_code=-9, worker="w", stdout_digest=EMPTY
    )


def test_an_empty_blob_is_a_result_without_a_worker() -> None:
    assert decode_action_result(b"").worker == ""


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../out", "a//b", "a/./b", "a\0"])
def test_an_output_path_that_leaves_its_place_is_refused(path: str) -> None:
    theirs = official("ActionResult", output_files=[{"path": path, "digest": {"hash": EMPTY.hash}}])
    with pytest.raises(ValueError, match="not an output path"):
        decode_action_result(theirs.SerializeToString())
    with pytest.raises(ValueError, match="not an output path"):
        encode_action_result(ActionResult((OutputFile(path, EMPTY),)))


DECODERS: list[Callable[[bytes], object]] = [
    decode_digest, decode_directory, decode_command, decode_action, decode_action_result, decode_tree, decode_signature
]  # fmt: skip
ENCODERS: dict[Callable[[bytes], Any], Callable[[Any], bytes]] = {
    decode_directory: encode_directory,
    decode_command: encode_command,
    decode_action: encode_action,
    decode_signature: encode_signature,
}


@pytest.mark.parametrize("decode", DECODERS)
@given(data=st.binary(max_size=100))
def test_no_bytes_raise_anything_but_valueerror(decode: Callable[[bytes], object], data: bytes) -> None:
    check_decoder(decode, data)


ENCODED = st.one_of(
    directories().map(encode_directory),
    COMMANDS.map(encode_command),
    ACTIONS.map(encode_action),
    RESULTS.map(encode_action_result),
    SIGNATURES.map(encode_signature),
)


@given(ENCODED, st.randoms(use_true_random=False))
def test_damaged_messages_raise_nothing_but_valueerror(data: bytes, chance: random.Random) -> None:
    for _ in range(6):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(damaged) + 1)
            match chance.randint(0, 3):
                case 0:
                    damaged[at : at + 1] = bytes([chance.randrange(256)])
                case 1:
                    del damaged[at : at + chance.randint(1, 4)]
                case 2:
                    damaged[at:at] = chance.randbytes(2)
                case _:
                    damaged[at : at + 1] = bytes([damaged[at] ^ 1 << chance.randrange(8)]) if at < len(damaged) else b""
        for decode in DECODERS:
            check_decoder(decode, bytes(damaged))


def check_decoder(decode: Callable[[bytes], object], data: bytes) -> None:
    """What is accepted must be the only encoding of what it means."""
    try:
        message = decode(data)
    except ValueError:
        return
    if decode in ENCODERS:
        assert ENCODERS[decode](message) == data
