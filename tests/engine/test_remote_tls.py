"""Client certificates: what a real server and a strict one are shown, and what is said of files that are none."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from caches import make_certificate, nginx
from sinks import calm

from strata_engine.digest import Digest
from strata_engine.errors import SpecError
from strata_engine.remote.address import parse
from strata_engine.remote.backend import Fault, Trouble
from strata_engine.remote.opened import opened
from strata_engine.remote.tls import Pem, Tls, read

KEY = Digest.of(b"key")


def test_a_server_that_wants_a_certificate_is_shown_ours(tmp_path: Path) -> None:
    with nginx(tmp_path / "n", tls=True, clients=True) as server:
        authority = str(server.certificate)
        ours = opened(parse(server.url), tls=Tls(str(server.client), str(server.client_key), authority), environ={})
        ours.put_result(KEY, b"result", calm)
        assert ours.get_result(KEY, calm) == b"result"
        together = tmp_path / "together.pem"
        together.write_bytes(server.client.read_bytes() + server.client_key.read_bytes())
        one_file = opened(parse(server.url), tls=Tls(str(together), authority=authority), environ={})
        assert one_file.get_result(KEY, calm) == b"result"
        nobody = opened(parse(server.url), tls=Tls(authority=authority), environ={})
        with pytest.raises(Fault) as error:
            nobody.get_result(KEY, calm)
        assert error.value.text == "HTTP 400 Bad Request"
        stranger = opened(parse(server.url), tls=Tls(str(server.client), str(server.client_key)), environ={})
        with pytest.raises(Fault) as error:
            stranger.get_result(KEY, calm)
        assert error.value.trouble is Trouble.UNREACHABLE
        assert "certificate verify failed" in error.value.text
        for remote in (ours, one_file, nobody, stranger):
            remote.close()


@contextmanager
def strict(folder: Path) -> Iterator[tuple[str, Path]]:
    """A server that ends the connection, in TLS, of whoever shows no certificate."""
    certificate, key = folder / "server.pem", folder / "server-key.pem"
    make_certificate(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                accepted, _ = listening.accept()
                accepted.settimeout(10)
                with accepted, suppress(OSError):
                    # It refuses while it shakes hands, which a client of TLS 1.3 hears of when it reads.
                    context.wrap_socket(accepted, server_side=True).read()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listening.getsockname()[1]}", certificate
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)


@pytest.mark.parametrize("shown", [False, True])
def test_a_certificate_that_is_missing_or_not_liked_is_said(tmp_path: Path, shown: bool) -> None:
    make_certificate(tmp_path / "other.pem", tmp_path / "other-key.pem")
    files = (str(tmp_path / "other.pem"), str(tmp_path / "other-key.pem")) if shown else ("", "")
    with strict(tmp_path) as (url, authority):
        remote = opened(parse(url), tls=Tls(*files, str(authority)), environ={})
        with pytest.raises(Fault) as error:
            remote.get_result(KEY, calm)
        assert (error.value.trouble, error.value.text) == (
            Trouble.REFUSED,
            "it wants a client certificate that it accepts",
        )
        remote.close()


def test_files_are_read_as_grpc_takes_them(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make_certificate(certificate, key)
    found = read(Tls(str(certificate), str(key), str(certificate)))
    assert found == Pem(certificate.read_bytes(), key.read_bytes(), certificate.read_bytes())
    assert repr(found) == "Pem(…)"
    assert read(Tls()) == Pem()


def test_files_that_are_none_are_said_and_nobody_is_asked_for_a_passphrase(tmp_path: Path) -> None:
    certificate, key, other, locked = (str(tmp_path / name) for name in ("c.pem", "k.pem", "o.pem", "l.pem"))
    make_certificate(Path(certificate), Path(key))
    make_certificate(tmp_path / "o-c.pem", Path(other))
    command = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:s3cret", "-out", locked]
    subprocess.run(command, check=True)
    pair = "`--client-certificate` and `--client-key` must be PEM, and belong together"
    for tls, message, hint in (
        (Tls(certificate, other), f"`{certificate}`: no certificate with its private key", pair),
        (Tls(certificate), f"`{certificate}`: no certificate with its private key", pair),
        (Tls(key, key), f"`{key}`: no certificate with its private key", pair),
        (Tls(certificate, locked), f"`{locked}`: the private key has a passphrase", "use one without"),
        (
            Tls(key=key),
            f"`{key}`: a key without a certificate",
            "name it with `--client-certificate` or `STRATA_CLIENT_CERTIFICATE`",
        ),
        (
            Tls(authority=str(tmp_path / "none")),
            f"`{tmp_path / 'none'}`: it cannot be read: No such file or directory",
            "check the path and who may read it",
        ),
        (Tls(authority=key), f"`{key}`: no certificates of authorities", "`--remote-ca` must be PEM"),
    ):
        for use in (lambda tls=tls: read(tls), lambda tls=tls: opened(parse("https://h"), tls=tls, environ={})):
            with pytest.raises(SpecError) as error:
                use()  # type: ignore[no-untyped-call]
            (diagnostic,) = error.value.diagnostics
            assert (diagnostic.id, diagnostic.message, diagnostic.hint) == ("bad-client-certificate", message, hint)
