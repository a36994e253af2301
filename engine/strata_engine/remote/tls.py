"""Client certificates, and whose servers are believed: files that OpenSSL reads, for one cache.

It connects to nothing. Files are read when a cache is opened, so that a wrong path is said before anything is asked;
what is in them is never shown, and nobody is asked for a passphrase.
"""

from __future__ import annotations

import os
import ssl
from typing import NamedTuple

from strata_engine.errors import SpecError

_LARGEST = 4 << 20
"""Bytes of a file of certificates: all that a system trusts are 250 kB."""


class Tls(NamedTuple):
    """Files in PEM; an empty path is none."""

    certificate: str = ""
    """The client's certificate, and those between it and an authority."""
    key: str = ""
    """Its private key; where this is empty, it stands in the certificate's file."""
    authority: str = ""
    """Authorities that a server's certificate may come from, in place of the system's."""


NO_TLS = Tls()
"""No certificate of ours, and the system's authorities."""


class Pem(NamedTuple):
    """The same as bytes, as gRPC takes them; None is none."""

    certificate: bytes | None = None
    key: bytes | None = None
    authority: bytes | None = None

    def __repr__(self) -> str:
        return "Pem(…)"


def configure(context: ssl.SSLContext, tls: Tls) -> None:
    """Have connections show the client's certificate. Raises SpecError."""
    checked(tls)
    if not tls.certificate:
        return
    try:
        # OpenSSL would ask for a passphrase on the terminal.
        context.load_cert_chain(_path(tls.certificate), _path(tls.key or tls.certificate), _no_passphrase)
    except _PassphraseError:
        raise _bad(tls.key or tls.certificate, "the private key has a passphrase", "use one without") from None
    except (ssl.SSLError, ValueError):
        pair = "`--client-certificate` and `--client-key` must be PEM, and belong together"
        raise _bad(tls.certificate, "no certificate with its private key", pair) from None
    except OSError as error:
        raise _unreadable(tls.key or tls.certificate, error) from None


def context(tls: Tls) -> ssl.SSLContext:
    """Make the context of a client that believes `authority` alone. Raises SpecError."""
    try:
        made = ssl.create_default_context(cafile=_path(tls.authority))
    except (ssl.SSLError, ValueError):
        raise _bad(tls.authority, "no certificates of authorities", "`--remote-ca` must be PEM") from None
    except OSError as error:
        raise _unreadable(tls.authority, error) from None
    configure(made, tls)
    return made


def read(tls: Tls) -> Pem:
    """Read the files, if any. Raises SpecError where one cannot be, or where they are not what they should be."""
    if tls == Tls():
        return Pem()
    made = context(tls) if tls.authority else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    configure(made, tls)
    key = tls.key or tls.certificate
    return Pem(*(_bytes(path) if path else None for path in (tls.certificate, key, tls.authority)))


def checked(tls: Tls) -> Tls:
    """Give it back. Raises SpecError where a key is named without the certificate that it belongs to."""
    if tls.key and not tls.certificate:
        hint = "name it with `--client-certificate` or `STRATA_CLIENT_CERTIFICATE`"
        raise _bad(tls.key, "a key without a certificate", hint)
    return tls


class _PassphraseError(Exception):
    """The key is encrypted."""


def _no_passphrase() -> str:
    raise _PassphraseError


def _bytes(path: str) -> bytes:
    try:
        with open(_path(path), "rb") as file:  # noqa: PTH123 - it is a word of the command line
            return file.read(_LARGEST)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _path(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 - it is a word of the command line


def _unreadable(path: str, error: OSError | ValueError) -> SpecError:
    said = (error.strerror if isinstance(error, OSError) else None) or "not a path"
    return _bad(path, f"it cannot be read: {said}", "check the path and who may read it")


def _bad(path: str, what: str, hint: str) -> SpecError:
    return SpecError.of("bad-client-certificate", f"`{path}`: {what}", hint=hint)
