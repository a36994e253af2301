"""Servers of the Bazel HTTP cache protocol on loopback: a real nginx, and one of ours that misbehaves as it is told."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import pytest

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

_CONFIG = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
{user}
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access.log; client_max_body_size {largest}; tcp_nodelay on; keepalive_requests 100000;
  client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/t1; fastcgi_temp_path {folder}/t2;
  uwsgi_temp_path {folder}/t3; scgi_temp_path {folder}/t4;
  server {{ listen 127.0.0.1:{port}{tls};
    location ~ "^/(?:[a-z]+/)?(ac|cas)/[0-9a-f]{{64}}$" {{
      root {folder}/data; dav_methods PUT; create_full_put_path on; dav_access user:rw group:r all:r;
      set $bad '$request_method:$content_length'; if ($bad = 'PUT:') {{ return 411; }}
      limit_except {readers} {{ {writers} }} }} }} }}
"""


class Nginx:
    """A running nginx; its blobs are files that a test may look at, and spoil."""

    def __init__(
        self, folder: Path, *, login: str = "", largest: str = "0", tls: bool = False, client: Path | None = None
    ) -> None:
        self.folder = folder
        self.certificate = folder / "certificate.pem"
        self._tls = tls
        self._client = f" ssl_client_certificate {client}; ssl_verify_client on;" if client else ""
        self._login = login
        self._largest = largest
        self.data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        for name in ("data", "tmp"):
            (self.folder / name).mkdir(parents=True)
        if self._tls:
            make_certificate(self.certificate, self.folder / "key.pem")
        if self._login:
            name, password = self._login.split(":")
            (self.folder / "users").write_text(f"{name}:{{PLAIN}}{password}\n")
        # A port that is free now may be taken by another test in a moment.
        for _ in range(5):
            self.port = _free_port()
            if self._started():
                return self
        raise AssertionError((self.folder / "error.log").read_text())

    def _started(self) -> bool:
        config = self.folder / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                folder=self.folder,
                port=self.port,
                tls=f" ssl;{self._client} ssl_certificate {self.certificate}; ssl_certificate_key {self.folder}/key.pem"
                if self._tls
                else "",
                user="user root;" if os.geteuid() == 0 else "",
                largest=self._largest,
                readers="GET HEAD" if self._login else "GET HEAD PUT",
                writers=f"auth_basic cache; auth_basic_user_file {self.folder}/users;" if self._login else "deny all;",
            )
        )
        assert NGINX is not None
        command = [NGINX, "-p", str(self.folder), "-c", str(config), "-e", str(self.folder / "error.log")]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return True
        return False

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def path(self, kind: str, hash_: str) -> Path:
        return self.data / kind / hash_

    def asked(self, count: int) -> list[str]:
        """Give the requests so far, `METHOD STATUS`; nginx writes them down after it has answered."""
        lines: list[str] = []
        while len(lines) < count:
            lines = (self.folder / "access.log").read_text().splitlines()
        return [f"{line.split(chr(34))[1].split()[0]} {line.split(chr(34))[2].split()[0]}" for line in lines]


@contextmanager
def nginx(
    folder: Path, *, login: str = "", largest: str = "0", tls: bool = False, client: Path | None = None
) -> Iterator[Nginx]:
    """Run nginx; where there is none and one may not install it, the test is skipped."""
    if NGINX is None:
        if os.geteuid() == 0 and shutil.which("apt-get"):
            pytest.fail("nginx is missing: `apt-get install nginx`, as .ci/run does")
        pytest.skip("nginx is missing, and only root could install it")
    with Nginx(folder, login=login, largest=largest, tls=tls, client=client) as server:
        yield server


def make_certificate(certificate: Path, key: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes certificates, is missing")
    arguments = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=cache",
        "-addext",
    ]
    command = ["openssl", "req", "-x509", *arguments, "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, stderr=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Hostile:
    """A cache in memory. `manner(number, method, path)` says how each request is answered; see `_Handler`."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manner: Callable[[int, str, str], str] = lambda number, method, path: "well"
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.connections = 0
        self.login = ""
        self.released = threading.Event()
        self.lock = threading.Lock()
        cache = self

        class Handler(_Handler):
            cache_ = cache

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # clients hang up

            def process_request(self, *given: object) -> None:
                cache.connections += 1
                super().process_request(*given)  # type: ignore[arg-type]

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def script(self, *manners: str) -> None:
        """Answer the next requests in these manners, and those after in the last."""
        start = len(self.seen)
        self.manner = lambda number, method, path: manners[min(number - start, len(manners) - 1)]

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.seen]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cache_: Hostile
    timeout = 20

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        cache = self.cache_
        with cache.lock:
            number = len(cache.seen)
            cache.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        manner = cache.manner(number, self.command, self.path)
        if cache.login and self.headers.get("Authorization") != (
            "Basic " + base64.b64encode(cache.login.encode()).decode()
        ):
            manner = "401"
        if self.command == "PUT":
            self._put(manner)
            return
        data = cache.blobs.get(self.path)
        known = {
            "wrong": lambda: self._send(200, data[:-1] + bytes([data[-1] ^ 1]) if data else b"x"),
            "longer": lambda: self._send(200, (data or b"") + b"x"),
            "shorter": lambda: self._send(200, (data or b"")[:-1]),
            "endless": lambda: self._endless(b"x" * 65536, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
            "cut": lambda: self._cut(data or b"x"),
            "half": lambda: self._send(206, (data or b"")[: len(data or b"") // 2]),
            "unended": lambda: self._raw(b"HTTP/1.1 200 OK\r\n\r\n" + (data or b"")[:-1]),
            "chunked": lambda: self._chunked(data or b""),
            "no range": lambda: self._send(200, data) if data is not None else self._send(404),
            "other range": lambda: self._send(206, data or b"", {"Content-Range": "bytes 1-9/10"}),
            "stall": lambda: self._stall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
            "silent": lambda: self._stall(b""),
            "drip": lambda: self._drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
            "drip body": lambda: self._drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
            "interim": lambda: self._endless(b"HTTP/1.1 102 Processing\r\n\r\n" * 100),
            "huge headers": lambda: self._raw(b"HTTP/1.1 200 OK\r\n" + b"X-Y: " + b"z" * 300_000 + b"\r\n\r\n"),
            "garbage": lambda: self._raw(b"\x00\xff hello\r\n\r\n"),
            "hang up": lambda: self._raw(b""),
            "elsewhere": lambda: self._send(302, b"", {"Location": f"http://localhost:{cache.port}/stolen"}),
            "echo": lambda: self._raw(
                f"HTTP/1.1 403 {self.headers.get('Authorization')}\r\nContent-Length: 0\r\n\r\n".encode()
            ),
            "slow down": lambda: self._send(503, b"", {"Retry-After": "0"}),
            "come tomorrow": lambda: self._send(503, b"", {"Retry-After": "86400"}),
        }
        if manner in known:
            known[manner]()
        elif manner.isdigit():
            self._send(int(manner), b"text" if self.command != "HEAD" else b"")
        elif data is None:
            self._send(404)
        else:
            self._give(data)

    def _put(self, manner: str) -> None:
        length = int(self.headers["Content-Length"])
        if manner == "cut":
            self.rfile.read(length // 2)
            self._raw(b"")
            return
        if manner == "stall":
            self._stall(b"")
            return
        data = self.rfile.read(length)
        if manner.isdigit():
            self._send(int(manner))
        elif manner in {"hang up", "garbage"}:
            self._raw(b"" if manner == "hang up" else b"\x00\xff\r\n\r\n")
        elif manner == "elsewhere":
            self._send(307, b"", {"Location": f"http://localhost:{self.cache_.port}/stolen"})
        elif len(data) == length:
            self.cache_.blobs[self.path] = data
            self._send(201)

    def _give(self, data: bytes) -> None:
        unit, _, start = self.headers.get("Range", "").partition("=")
        if unit == "bytes" and int(start[:-1]) < len(data):
            at = int(start[:-1])
            self._send(206, data[at:], {"Content-Range": f"bytes {at}-{len(data) - 1}/{len(data)}"})
        elif unit:
            self._send(416)
        else:
            self._send(200, data)

    def _send(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _raw(self, data: bytes) -> None:
        self.wfile.write(data)
        self.close_connection = True

    def _cut(self, data: bytes) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        rest = data[start:]
        status = "206 Partial Content" if start else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(rest)}\r\n"
        head += f"Content-Range: bytes {start}-{len(data) - 1}/{len(data)}\r\n" if start else ""
        self._raw(head.encode() + b"\r\n" + (rest[: len(rest) // 2] if self.command != "HEAD" else b""))

    def _chunked(self, data: bytes) -> None:
        self._raw(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (f"{len(data):x}\r\n".encode() + data + b"\r\n" if data else b"")
            + b"0\r\n\r\n"
        )

    def _endless(self, data: bytes, head: bytes = b"") -> None:
        self.wfile.write(head)
        while not self.cache_.released.is_set():
            self.wfile.write(data)

    def _stall(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()
        self.cache_.released.wait(20)
        self.close_connection = True

    def _drip(self, head: bytes, drop: bytes) -> None:
        self.wfile.write(head)
        while not self.cache_.released.wait(0.02):
            self.wfile.write(drop)
        self.close_connection = True
