"""Who vouches for a result: ed25519 signatures that travel inside of it.

Pure: it asks no remote and keeps no keys; it is the only door to `cryptography`, which is imported when a key is used.

What is signed is everything that makes a result worth believing, each part with its length before it::

    "strata.remote.v1 result"  action key  zone  time  what the result says

The key is in it, so that a result cannot be moved to another action; the zone, so that what a pull request made does
not pass for main's. What the result *says* is its canonical encoding without what servers add, leave out or send along:
contents and logs are there by digest alone. A signature says who made a result, not that it is right.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from strata_engine.codec import (
    ActionResult,
    Attached,
    Signature,
    decode_action_result,
    decode_signature,
    encode_action_result,
    encode_digest,
    encode_signature,
)
from strata_engine.digest import Digest
from strata_engine.errors import HostError, Place, SpecError
from strata_engine.remote.address import checked_zone

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TYPE_URL = "type.googleapis.com/strata.remote.v1.Signature"
"""What a signature is called among the messages that are attached to a result."""

KEY_VARIABLE = "STRATA_SIGNING_KEY"
"""Where the key of a signer is named: as PEM, or as the path of a file that has it."""

PREFIX = "ed25519:"
"""What a public key begins with where it is written in one line."""

MOST_SIGNATURES = 8
"""Signatures of one result that are looked at: each takes time, and a result needs one."""

_DOMAIN = b"strata.remote.v1 result"
"""Keeps these signatures apart from whatever else a key may sign."""
_PUBLIC_BYTES = 32
_LARGEST_KEY = 16 << 10
_BEGIN = "-----BEGIN "


class PublicKey(NamedTuple):
    """Whose signatures are accepted."""

    raw: bytes
    """The 32 bytes of RFC 8032."""

    def __repr__(self) -> str:
        return f"PublicKey({self.text!r})"

    @property
    def text(self) -> str:
        """Give the key in one line, as a stack file has it."""
        return PREFIX + base64.b64encode(self.raw).decode("ascii")


class SigningKey:
    """What results are signed with. Nothing shows it but `private_pem`."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"SigningKey({self.public.text!r})"

    def sign(self, data: bytes) -> bytes:
        """Sign bytes."""
        return self._key.sign(data)

    def private_pem(self) -> bytes:
        """Give the secret as unencrypted PKCS #8, to be kept where nobody else reads."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an extra

        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class Signed(NamedTuple):
    """An accepted key vouches for the result."""

    by: PublicKey
    zone: str
    at: int
    """When it was signed, in seconds since 1970, by the signer's clock."""


class Unsigned(NamedTuple):
    """Nobody vouches for the result."""


class WrongSignature(NamedTuple):
    """Somebody may vouch for something, but not so that it counts here."""

    reason: str
    """May be shown: nothing in it comes from the result but a zone's name or a public key."""


Verdict: TypeAlias = Signed | Unsigned | WrongSignature


def sign(key: SigningKey, action_key: Digest, result: ActionResult, zone: str, at: int) -> ActionResult:
    """Attach a signature to a result, in the place of an earlier one by the same key.

    `action_key` is the plain key, not the address in a zone; `at` is in seconds since 1970. Raises ValueError where
    `zone` is none or the result is malformed.
    """
    signature = key.sign(_said(action_key, checked_zone(zone), at, result))
    made = Signature(zone, at, key.public.raw, signature)
    others = tuple(other for other in result.attached if not _is_by(other, key.public))
    return result._replace(attached=(*others, Attached(TYPE_URL, encode_signature(made))))


def verified(
    data: bytes | ActionResult, action_key: Digest, zones: Collection[str], accepted: Sequence[PublicKey]
) -> Verdict:
    """Tell who vouches for a result, as it came from a remote, for this action and for one of these zones.

    Raises ValueError where the result is malformed, HostError where `cryptography` is missing.
    """
    result = decode_action_result(data) if isinstance(data, bytes) else data
    attached = [other for other in result.attached if other.type_url == TYPE_URL]
    verdict: Verdict = Unsigned()
    for other in attached[:MOST_SIGNATURES]:
        verdict = _judged(other.value, result, action_key, zones, accepted)
        if isinstance(verdict, Signed):
            break
    return verdict


def _judged(
    value: bytes, result: ActionResult, action_key: Digest, zones: Collection[str], accepted: Sequence[PublicKey]
) -> Verdict:
    try:
        signature = decode_signature(value)
    except ValueError:
        return WrongSignature("a signature that makes no sense")
    by = PublicKey(signature.public_key)
    if by not in accepted:
        known = len(by.raw) == _PUBLIC_BYTES
        return WrongSignature(f"signed with `{by.text}`, which is not accepted" if known else "signed with no key")
    if signature.zone not in zones:
        return WrongSignature("signed for another zone")
    if not _holds(by, signature.signature, _said(action_key, signature.zone, signature.at, result)):
        return WrongSignature("the signature is not of this result")
    return Signed(by, signature.zone, signature.at)


def _said(action_key: Digest, zone: str, at: int, result: ActionResult) -> bytes:
    parts = (_DOMAIN, encode_digest(action_key), zone.encode(), at.to_bytes(8, "big"), _plain(result))
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _plain(result: ActionResult) -> bytes:
    """Encode what a result says: servers may inline what is there by digest, and the reverse."""
    return encode_action_result(
        result._replace(
            output_files=tuple(file._replace(contents=b"") for file in result.output_files),
            stdout_raw=b"",
            stderr_raw=b"",
            stdout_digest=_log(result.stdout_raw, result.stdout_digest),
            stderr_digest=_log(result.stderr_raw, result.stderr_digest),
            attached=(),
        )
    )


def _log(raw: bytes, digest: Digest | None) -> Digest | None:
    """Name a log as `results` reads it: what came along is what counts."""
    named = Digest.of(raw) if raw else digest
    return named if named is not None and named.size else None


def _is_by(other: Attached, public: PublicKey) -> bool:
    try:
        return other.type_url == TYPE_URL and decode_signature(other.value).public_key == public.raw
    except ValueError:
        return False


def _holds(by: PublicKey, signature: bytes, data: bytes) -> bool:
    _needs_cryptography()
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - an extra

    try:
        Ed25519PublicKey.from_public_bytes(by.raw).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def new_key() -> SigningKey:
    """Make a key. Raises HostError where `cryptography` is missing."""
    _needs_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - an extra

    return SigningKey(Ed25519PrivateKey.generate())


def public_key(text: str, place: Place | None = None) -> PublicKey:
    """Read a public key: `ed25519:BASE64`, or PEM (SubjectPublicKeyInfo).

    Raises SpecError at `place`, which does not show what was given: it may be the private key.
    """
    text = text.strip()
    if "PRIVATE KEY" in text:
        hint = "whoever could read it can sign: make a new one with `strata cache keygen`"
        raise SpecError.of("private-key-shown", "a private key stands where a public one belongs", place, hint=hint)
    raw = b""
    if text.startswith(PREFIX):
        try:
            raw = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            raw = b""
    elif text.startswith(_BEGIN):
        raw = _of_pem(text)
    if len(raw) != _PUBLIC_BYTES:
        hint = f"`{PREFIX}` and 44 characters, as `strata cache keygen` prints it, or PEM"
        raise SpecError.of("bad-public-key", "not an ed25519 public key", place, hint=hint)
    return PublicKey(raw)


def _of_pem(text: str) -> bytes:
    _needs_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415 - an extra

    try:
        found = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        return b""
    return found.public_bytes_raw() if isinstance(found, Ed25519PublicKey) else b""


def signing_key(environ: Mapping[str, str]) -> SigningKey | None:
    """Read the key that the environment names; None where it names none.

    Raises SpecError, HostError, which show nothing of it: whoever meant the key may have given anything.
    """
    given = environ.get(KEY_VARIABLE, "").strip()
    if not given:
        return None
    _needs_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - an extra

    data = given.encode() if given.startswith(_BEGIN) else _read(given)
    try:
        found = load_pem_private_key(data, None)
    except TypeError:
        raise _bad_key("an encrypted private key", "it must be one without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _bad_key("no private key that can be read") from None
    if not isinstance(found, Ed25519PrivateKey):
        raise _bad_key("a private key of another kind")
    return SigningKey(found)


def _read(path: str) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as file:  # noqa: PTH111, PTH123 - it may be anything but a path
            return file.read(_LARGEST_KEY)
    except (OSError, ValueError) as error:
        # Not shown: it may be the key itself, with its line ends lost.
        said = (error.strerror or "") if isinstance(error, OSError) else "not a path"
        raise _bad_key(f"neither PEM nor a file that can be read ({said})") from None


def _bad_key(what: str, hint: str = "") -> SpecError:
    hint = hint or "give an ed25519 key as PEM (PKCS #8), or its file: `strata cache keygen FILE` makes one"
    return SpecError.of("bad-signing-key", f"`{KEY_VARIABLE}` has {what}", hint=hint)


def _needs_cryptography() -> None:
    try:
        import cryptography  # noqa: F401, PLC0415 - an extra
    except ImportError:
        hint = "install `stratabuild[sign]`"
        raise HostError.of("signing-not-installed", "signatures need the library `cryptography`", hint=hint) from None
