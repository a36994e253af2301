"""A package index on this machine that behaves well towards uv and as a test wants towards everybody else."""

from __future__ import annotations

import base64
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, Self

Manner = Literal["well", "gone", "broken", "changed", "cut"]


class Loopback:
    """Serves the wheels of a folder; `manner` is how it gives files to the fetching of strata."""

    def __init__(self, folder: Path, *, login: str = "") -> None:
        self.folder = folder
        self.login = login
        self.manner: Manner = "well"
        self.files_given = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self)

            def do_HEAD(self) -> None:
                outer._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        given = request.headers.get("Authorization", "")
        if self.login and given != "Basic " + base64.b64encode(self.login.encode()).decode():
            _send(request, 401, b"", {"WWW-Authenticate": "Basic"})
            return
        kind, name = request.path.strip("/").split("/")[:2]
        if kind == "simple":
            wheels = sorted(self.folder.glob(f"{name}-*.whl"))
            links = [f'<a href="/files/{w.name}#sha256={_sha256(w.read_bytes())}">{w.name}</a>' for w in wheels]
            _send(request, 200 if wheels else 404, "\n".join(links).encode(), {"Content-Type": "text/html"})
            return
        data = (self.folder / name).read_bytes()
        # uv reads a wheel's metadata from the wheel itself.
        manner = "well" if request.headers.get("User-Agent", "").startswith("uv/") else self.manner
        self.files_given += manner == self.manner
        match manner:
            case "gone":
                _send(request, 404, b"")
            case "broken":
                _send(request, 503, b"")
            case "changed":
                _send(request, 200, data[:-1] + bytes([data[-1] ^ 1]))
            case "cut":
                _send(request, 200, data[:100], {"Content-Length": str(len(data))})
            case _:
                _send(request, 200, data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _send(request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
    request.send_response(status)
    for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(data)
    request.close_connection = True
