"""Who vouches for a result, for what, and what is not believed."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reapi import PROTO, official

from strata_engine.action_cache import result_of
from strata_engine.codec import (
    ActionResult,
    Attached,
    OutputFile,
    Signature,
    decode_action_result,
    decode_signature,
    encode_action_result,
    encode_signature,
)
from strata_engine.digest import EMPTY, Digest
from strata_engine.errors import SpecError
from strata_engine.remote.signing import (
    MOST_SIGNATURES,
    TYPE_URL,
    PublicKey,
    Signed,
    SigningKey,
    Unsigned,
    WrongSignature,
    new_key,
    public_key,
    sign,
    signing_key,
    verified,
)
from strata_engine.tree import File

KEY, OTHER = new_key(), new_key()
ACTION, NOW = Digest.of(b"action"), 1_700_000_000
RESULT = result_of(File(Digest.of(b"wheel")), stdout=b"out")
ACCEPTED = (KEY.public,)


def signed(zone: str = "main", *, result: ActionResult = RESULT, key: SigningKey = KEY) -> bytes:
    return encode_action_result(sign(key, ACTION, result, zone, NOW))


def test_who_signed_what_is_known_to_whoever_has_the_public_key() -> None:
    assert verified(signed(), ACTION, ["main"], ACCEPTED) == Signed(KEY.public, "main", NOW)
    assert verified(signed("pr/1"), ACTION, ["pr/1", "main"], [OTHER.public, *ACCEPTED]).zone == "pr/1"  # type: ignore[union-attr]
    assert verified(encode_action_result(RESULT), ACTION, ["main"], ACCEPTED) == Unsigned()


def test_a_signed_result_is_an_ordinary_one_to_others() -> None:
    theirs = PROTO["ActionResult"]()
    theirs.ParseFromString(signed())
    (other,) = theirs.execution_metadata.auxiliary_metadata
    assert other.type_url == TYPE_URL
    signature = official("Signature")
    signature.ParseFromString(other.value)
    assert (signature.zone, signature.at, signature.public_key) == ("main", NOW, KEY.public.raw)
    assert decode_action_result(signed())._replace(attached=()) == RESULT


@pytest.mark.parametrize(
    ("data", "action", "zones", "accepted", "reason"),
    [
        (signed("pr/1"), ACTION, ["main"], ACCEPTED, "signed for another zone"),
        (signed(), Digest.of(b"other"), ["main"], ACCEPTED, "the signature is not of this result"),
        (signed(), ACTION, ["main"], [OTHER.public], "signed with `{key}`, which is not accepted"),
        (signed(), ACTION, ["main"], [], "signed with `{key}`, which is not accepted"),
        (signed(), ACTION, [], ACCEPTED, "signed for another zone"),
    ],
)
def test_a_signature_counts_for_its_own_action_zone_and_key_alone(
    data: bytes, action: Digest, zones: list[str], accepted: list[PublicKey], reason: str
) -> None:
    assert verified(data, action, zones, accepted) == WrongSignature(reason.format(key=KEY.public.text))


def forged(**changes: object) -> bytes:
    """Make the result in which one field of the signature says something else."""
    result = decode_action_result(signed("pr/1"))
    signature = decode_signature(result.attached[0].value)._replace(**changes)
    return encode_action_result(result._replace(attached=(Attached(TYPE_URL, encode_signature(signature)),)))


@pytest.mark.parametrize("changes", [{"zone": "main"}, {"at": NOW + 1}, {"signature": b"x" * 64}, {"signature": b""}])
def test_no_field_of_a_signature_can_be_changed(changes: dict[str, object]) -> None:
    found = verified(forged(**changes), ACTION, ["main", "pr/1"], ACCEPTED)
    assert found == WrongSignature("the signature is not of this result")


@pytest.mark.parametrize(
    "changes",
    [
        {"output_files": (OutputFile("out", Digest.of(b"evil")),)},
        {"output_files": (OutputFile("out", Digest.of(b"wheel"), is_executable=True),)},
        {"stdout_raw": b"other"},
        {"stderr_digest": Digest.of(b"other")},
        {"exit_code": 1},
        {"worker": "other"},
        {"completed_ns": 5},
    ],
)
def test_nothing_that_a_result_says_can_be_changed(changes: dict[str, object]) -> None:
    result = sign(KEY, ACTION, RESULT, "main", NOW)
    found = verified(encode_action_result(result._replace(**changes)), ACTION, ["main"], ACCEPTED)
    assert found == WrongSignature("the signature is not of this result")


def test_what_servers_do_with_a_result_leaves_it_signed() -> None:
    """They inline, or no longer, what is there by digest, and attach and set what is theirs."""
    result = sign(KEY, ACTION, RESULT, "main", NOW)
    (file,) = result.output_files
    changed = result._replace(
        output_files=(file._replace(contents=b"wheel"),),
        stdout_raw=b"",
        stdout_digest=Digest.of(b"out"),
        stderr_digest=EMPTY,
        attached=(Attached("type.googleapis.com/theirs", b"x"), *result.attached),
    )
    theirs = PROTO["ActionResult"]()
    theirs.ParseFromString(encode_action_result(changed))
    theirs.execution_metadata.queued_timestamp.seconds = 5
    assert isinstance(verified(theirs.SerializeToString(), ACTION, ["main"], ACCEPTED), Signed)


def test_a_key_signs_once_and_several_may_sign() -> None:
    theirs = Attached("type.googleapis.com/theirs", b"")
    again = sign(KEY, ACTION, sign(KEY, ACTION, RESULT._replace(attached=(theirs,)), "main", NOW), "main", NOW + 1)
    assert len(again.attached) == 2
    both = sign(OTHER, ACTION, again, "main", NOW)
    for key in (KEY, OTHER):
        assert isinstance(verified(both, ACTION, ["main"], [key.public]), Signed)


def test_a_result_with_countless_signatures_costs_a_few_checks() -> None:
    junk = Attached(TYPE_URL, encode_signature(Signature("main", 1, KEY.public.raw, bytes(64))))
    right = sign(KEY, ACTION, RESULT, "main", NOW).attached[0]
    few, many = ((junk,) * count + (right,) for count in (MOST_SIGNATURES - 1, MOST_SIGNATURES))
    assert isinstance(verified(RESULT._replace(attached=few), ACTION, ["main"], ACCEPTED), Signed)
    assert isinstance(verified(RESULT._replace(attached=many), ACTION, ["main"], ACCEPTED), WrongSignature)


@given(st.binary(max_size=120))
def test_whatever_is_attached_is_no_signature(value: bytes) -> None:
    found = verified(RESULT._replace(attached=(Attached(TYPE_URL, value),)), ACTION, ["main", ""], ACCEPTED)
    assert isinstance(found, WrongSignature)


@given(st.integers(0, 8 * 400), st.integers(0, 7))
def test_no_flipped_bit_is_believed(at: int, bit: int) -> None:
    data = bytearray(signed())
    data[at % len(data)] ^= 1 << bit
    try:
        found = verified(bytes(data), ACTION, ["main"], ACCEPTED)
        plain = decode_action_result(bytes(data))._replace(attached=())
    except ValueError:
        return
    assert not isinstance(found, Signed) or plain == RESULT


@pytest.mark.parametrize("zone", ["", "../main", "main/", "a b"])
def test_a_zone_that_is_none_is_not_signed_for(zone: str) -> None:
    with pytest.raises(ValueError, match="not the name of a zone"):
        sign(KEY, ACTION, RESULT, zone, NOW)


def test_keys_are_read_as_they_are_written(tmp_path: Path) -> None:
    pem = KEY.private_pem()
    (tmp_path / "key").write_bytes(pem)
    assert public_key(f" {KEY.public.text}\n") == KEY.public
    for text in (pem.decode(), str(tmp_path / "key"), f"\n{pem.decode()}\n"):
        found = signing_key({"STRATA_SIGNING_KEY": text})
        assert found is not None
        assert found.public == KEY.public
    assert signing_key({}) is None
    assert signing_key({"STRATA_SIGNING_KEY": " "}) is None


def openssl(*arguments: str) -> str:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes keys, is missing")
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True).stdout


def test_keys_of_openssl_are_read(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(openssl("genpkey", "-algorithm", "ed25519"))
    found = signing_key({"STRATA_SIGNING_KEY": str(path)})
    assert found is not None
    assert public_key(openssl("pkey", "-in", str(path), "-pubout")) == found.public


SECRET = "c2VjcmV0LXRoYXQtaXMtMzItYnl0ZXMtbG9uZyEhISE="


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("", "bad-public-key"),
        ("ed25519:", "bad-public-key"),
        ("ed25519:!!!", "bad-public-key"),
        (f"ed25519:{SECRET[:-8]}", "bad-public-key"),
        (f"ssh-ed25519 {SECRET}", "bad-public-key"),
        (f"-----BEGIN PUBLIC KEY-----\n{SECRET}\n-----END PUBLIC KEY-----", "bad-public-key"),
        pytest.param(KEY.private_pem().decode(), "private-key-shown", id="private"),
    ],
)
def test_a_public_key_that_is_none_is_refused_and_not_shown(text: str, id: str) -> None:
    with pytest.raises(SpecError) as error:
        public_key(text)
    assert error.value.diagnostics[0].id == id
    assert SECRET[:10] not in str(error.value.diagnostics)
    assert "MC4C" not in str(error.value.diagnostics)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (lambda: SECRET, "neither PEM nor a file that can be read (No such file or directory)"),
        (lambda: SECRET + "\0", "neither PEM nor a file that can be read (not a path)"),
        (lambda: "/", "neither PEM nor a file that can be read (Is a directory)"),
        (lambda: "/dev/null", "no private key that can be read"),
        (
            lambda: f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
            "no private key that can be read",
        ),
        (lambda: openssl("genpkey", "-algorithm", "x25519"), "a private key of another kind"),
        (
            lambda: openssl("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:s3cret"),
            "an encrypted private key",
        ),
    ],
)
def test_a_signing_key_that_is_none_is_refused_and_not_shown(given: object, what: str) -> None:
    with pytest.raises(SpecError) as error:
        signing_key({"STRATA_SIGNING_KEY": given()})  # type: ignore[operator]
    (diagnostic,) = error.value.diagnostics
    assert (diagnostic.id, diagnostic.message) == ("bad-signing-key", f"`STRATA_SIGNING_KEY` has {what}")
    assert SECRET[:10] not in str(diagnostic)


def test_nothing_shows_a_signing_key() -> None:
    secret = base64.b64encode(KEY._key.private_bytes_raw()).decode()
    assert repr(KEY) == str(KEY) == f"SigningKey('{KEY.public.text}')"
    assert secret not in repr(KEY)
    assert KEY.public.text.startswith("ed25519:")
