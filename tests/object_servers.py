"""Object stores on loopback: moto and azurite stand in for S3 and Azure; a real Ceph; and one that misbehaves."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from caches import Hostile, _Handler

BUCKET = "strata-cache"
FULL = os.environ.get("STRATA_FULL", "") not in {"", "0"}
AZURITE = Path(__file__).parents[1] / ".venv/azurite/node_modules/.bin/azurite-blob"
_QUOTA = 256 << 20
_CEPH = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")


class ObjectServer(NamedTuple):
    """A running store with an empty bucket of whoever has the environment."""

    url: str
    environ: dict[str, str]
    http: str
    """Where everybody would read the bucket, if they may."""
    processes: tuple[subprocess.Popen[bytes], ...]
    headers: tuple[tuple[str, str], ...] = ()
    """What they have to say."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(*command: str | Path, port: int = 0, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the `with`; where it has a port, it is there when this is entered."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **more}
    process = subprocess.Popen(list(map(str, command)), **quiet)  # type: ignore[call-overload]
    try:
        end = time.monotonic() + 120
        while port:
            assert process.poll() is None, f"{command[0]} has ended with {process.returncode}"
            assert time.monotonic() < end, f"{command[0]} does not answer"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def s3_environ(port: int) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "strata-test-key",
        "AWS_SECRET_ACCESS_KEY": "s3cret/s3cret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }


@contextmanager
def moto(folder: Path) -> Iterator[ObjectServer]:
    """Run moto, which keeps everything in memory and checks no signature."""
    port = free_port()
    server = Path(sys.executable).with_name("moto_server")
    with started(server, "-H", "127.0.0.1", "-p", str(port), port=port) as process:
        http = f"http://127.0.0.1:{port}/{BUCKET}"
        urllib.request.urlopen(urllib.request.Request(http, method="PUT"), timeout=20).close()
        # It takes any signature, and nothing unsigned.
        anybody = (("Authorization", "AWS anybody:"),)
        yield ObjectServer(f"s3://{BUCKET}", s3_environ(port), http, (process,), anybody)


@contextmanager
def azurite(folder: Path) -> Iterator[ObjectServer]:
    """Run azurite, which checks signatures as Azure does; its account and key are in every copy of it."""
    if not AZURITE.exists():
        pytest.skip("azurite is missing: `npm install --prefix .venv/azurite azurite`, as .ci/run does where npm is")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    where = ("--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder)
    with started(AZURITE, *where, "--skipApiVersionCheck", "--silent", port=port) as process:
        endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
        key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
        string = f"AccountName=devstoreaccount1;AccountKey={key};BlobEndpoint={endpoint}"
        environ = {"AZURE_STORAGE_CONNECTION_STRING": string}
        _make_container(port, key)
        yield ObjectServer(f"az://{BUCKET}", environ, f"{endpoint}/{BUCKET}", (process,))


def _make_container(port: int, key: str) -> None:
    """Make a container that everybody may read; obstore makes none."""
    headers = {"x-ms-blob-public-access": "blob", "x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    named = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    path = f"/devstoreaccount1/{BUCKET}"
    text = "PUT" + "\n" * 12 + named + f"/devstoreaccount1{path}\nrestype:container"
    signed = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
    headers |= {"Authorization": f"SharedKey devstoreaccount1:{signed}", "Content-Length": "0"}
    url = f"http://127.0.0.1:{port}{path}?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers), timeout=20).close()


@contextmanager
def ceph(folder: Path, quota: int = _QUOTA) -> Iterator[ObjectServer]:
    """Run a Ceph of one monitor, one OSD in memory and one RADOS Gateway: S3 as it runs in data centres."""
    if not FULL:
        pytest.skip("a test of the full tier: STRATA_FULL=1")
    if not all(shutil.which(name, path=_path()) for name in _CEPH):
        pytest.fail("Ceph is missing: `apt-get install ceph-mon ceph-osd ceph-common radosgw`")
    (folder / "osd").mkdir(parents=True)
    mon, port, one = free_port(), free_port(), str(uuid.uuid4())
    config = folder / "ceph.conf"
    config.write_text(_CEPH_CONF.format(folder=folder, mon=mon, fsid=uuid.uuid4()))

    def run(name: str, *arguments: str | Path) -> str:
        command = [name, "-c", str(config), *map(str, arguments)]
        done = subprocess.run(command, env=_environ(), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr[:2000]
        return done.stdout

    def serve(*command: str, port: int = 0) -> subprocess.Popen[bytes]:
        with (folder / f"{command[0]}.log").open("wb") as log:
            given = (command[0], "-c", config, "-f", *command[1:])
            return stack.enter_context(started(*given, port=port, env=_environ(), stderr=log))

    with ExitStack() as stack:
        fsid = re.search("fsid = (.*)", config.read_text())
        assert fsid is not None
        run("monmaptool", "--create", "--addv", "a", f"[v1:127.0.0.1:{mon}]", "--fsid", fsid[1], folder / "map")
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", folder / "map")
        processes = [serve("ceph-mon", "-i", "a", port=mon)]
        assert run("ceph", "osd", "new", one).strip() == "0"
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", one)
        # Now and then one is told of a wrong fsid, and ends; the next one is not.
        for _ in range(5):
            osd = serve("ceph-osd", "-i", "0")
            while osd.poll() is None and '"num_up_osds":1' not in run("ceph", "osd", "stat", "--format=json"):
                time.sleep(0.1)
            if osd.poll() is None:
                break
        processes.append(osd)
        # Without tcp_nodelay every request of a connection takes 45 ms.
        frontend = f"--rgw_frontends=beast endpoint=127.0.0.1:{port} tcp_nodelay=1"
        processes.append(serve("radosgw", "-n", "client.rgw", frontend, port=port))
        environ = s3_environ(port)
        login = f"--access-key={environ['AWS_ACCESS_KEY_ID']}", f"--secret-key={environ['AWS_SECRET_ACCESS_KEY']}"
        run("radosgw-admin", "user", "create", "--uid=strata", "--display-name=strata", *login)
        _make_bucket(environ)
        whose = ("--uid=strata", "--quota-scope=user")
        run("radosgw-admin", "quota", "set", *whose, f"--max-size={quota}")
        run("radosgw-admin", "quota", "enable", *whose)
        yield ObjectServer(f"s3://{BUCKET}", environ, f"http://127.0.0.1:{port}/{BUCKET}", tuple(processes))


def _make_bucket(environ: dict[str, str]) -> None:
    """Make a bucket that everybody may read; boto3, which is Amazon's own client, comes with moto."""
    import boto3  # noqa: PLC0415

    client = boto3.client(
        "s3",
        endpoint_url=environ["AWS_ENDPOINT_URL"],
        region_name=environ["AWS_REGION"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)
    everybody = {"Effect": "Allow", "Principal": "*"}
    may = [
        everybody | {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"},
        everybody | {"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"},
    ]
    client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": may}))
    client.close()


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin"


def _environ() -> dict[str, str]:
    # Its tools are Python of the system.
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}


_CEPH_CONF = """
[global]
fsid = {fsid}
mon_host = v1:127.0.0.1:{mon}
public_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_bind_msgr2 = false
ms_cluster_mode = crc
ms_service_mode = crc
ms_client_mode = crc
ms_mon_cluster_mode = crc
ms_mon_service_mode = crc
ms_mon_client_mode = crc
mon_data = {folder}/mon
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
mon_data_avail_warn = 1
mon_warn_on_pool_no_redundancy = false
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
rgw_data = {folder}/rgw
rgw_dns_name = localhost
rgw_gc_obj_min_wait = 1
rgw_gc_processor_period = 2
rgw_gc_processor_max_time = 2
run_dir = {folder}
pid_file = {folder}/$type.$id.pid
admin_socket = {folder}/$type.$id.asok
log_file = {folder}/$type.$id.log
"""


class _S3Handler(_Handler):
    """Multipart uploads, and what S3 answers to a PUT."""

    def do_POST(self) -> None:  # noqa: N802 - http.server calls it so
        path, query = self._split()
        self.path = path
        cache = self.cache_
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with cache.lock:
            number = len(cache.seen)
            cache.seen.append(("POST", path, {k.lower(): v for k, v in self.headers.items()}))
        manner = cache.manner(number, "POST", path)
        if manner.isdigit():
            self._send(int(manner), b"")
        elif manner == "silent":
            self._stall(b"")
        elif "uploads" in query:
            self._send(200, _xml("InitiateMultipartUploadResult", f"<UploadId>{number}</UploadId>"))
        else:
            upload = query["uploadId"][0]
            parts = sorted((int(key.split(" ")[2]), key) for key in cache.blobs if key.startswith(f"part {upload} "))
            cache.blobs[path] = b"".join(cache.blobs.pop(key) for _, key in parts)
            self._send(200, _xml("CompleteMultipartUploadResult", "<ETag>x</ETag>"))

    def do_DELETE(self) -> None:  # noqa: N802 - http.server calls it so
        path, query = self._split()
        with self.cache_.lock:
            self.cache_.seen.append(("DELETE", path, {}))
            for key in [key for key in self.cache_.blobs if key.startswith(f"part {query['uploadId'][0]} ")]:
                del self.cache_.blobs[key]
        self._send(204)

    def do_PUT(self) -> None:  # noqa: N802 - http.server calls it so
        path, query = self._split()
        # A part is a blob of its own until all are there.
        self.path = f"part {query['uploadId'][0]} {query['partNumber'][0]}" if query else path
        self._answer()

    def _split(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return parts.path, parse_qs(parts.query, keep_blank_values=True)

    def _send(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        super()._send(status, data, {"ETag": '"e"', **(headers or {})})


def _xml(name: str, text: str) -> bytes:
    return f'<?xml version="1.0"?><{name}><Bucket>b</Bucket><Key>k</Key>{text}</{name}>'.encode()


class HostileStore(Hostile):
    """S3 that is as bad as it is told to be."""

    handler = _S3Handler

    @property
    def environ(self) -> dict[str, str]:
        return s3_environ(self.port) | {"AWS_SESSION_TOKEN": "t0ken"}

    def path(self, kind: str, hash_: str) -> str:
        return f"/{BUCKET}/{kind}/{hash_}"
