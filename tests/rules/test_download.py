"""Downloads against a real server on loopback: what arrives, what is kept, what is said, who is told a password."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import pytest

from strata_engine.digest import Digest
from strata_engine.errors import HostError
from strata_engine.logins import public_url
from strata_engine.tree import BlobWriter
from strata_rules.download.client import Network, download
from strata_rules.download.credentials import Credentials, credentials_of

DATA = bytes(range(256)) * 20_000  # 5 MB: several chunks
WANTED = Digest.of(DATA)


class Blobs:
    """The part of a Store that a download uses."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def writer(self) -> AbstractContextManager[BlobWriter]:
        blobs = self.blobs

        class Writer:
            def __init__(self) -> None:
                self.data = bytearray()

            def write(self, data: bytes | memoryview) -> int:
                self.data += data
                return len(data)

            def commit(self, expected_sha256: str | None = None) -> Digest:
                digest = Digest.of(bytes(self.data))
                if expected_sha256 not in {None, digest.hash}:
                    raise ValueError("another hash")
                blobs[digest.hash] = bytes(self.data)
                return digest

        @contextmanager
        def writing() -> Iterator[BlobWriter]:
            yield Writer()

        return writing()


class Server:
    """A server whose answers are a list of functions, one per request, the last one for all further requests."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = [whole]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.seen.append({k.lower(): v for k, v in self.headers.items()} | {"path": self.path})
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def url(self, path: str = "/a/file.tar.gz", host: str = "127.0.0.1", login: str = "") -> str:
        return f"http://{login}{host}:{self.http.server_address[1]}{path}"


def reply(status: int, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        with suppress(ConnectionError):  # the client may have heard enough
            handler.wfile.write(body)
            handler.wfile.flush()
        handler.close_connection = True

    return answer


def whole(handler: BaseHTTPRequestHandler) -> None:
    """Serve DATA, and ranges of it as long as If-Range names the present ETag."""
    wanted = handler.headers.get("Range", "")
    if wanted and handler.headers.get("If-Range", '"e1"') == '"e1"':
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(DATA):
            reply(416)(handler)
            return
        content_range = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        reply(206, DATA[start:], Content_Range=content_range, ETag='"e1"')(handler)
    else:
        reply(200, DATA, ETag='"e1"')(handler)


CUT = reply(200, DATA[:3_000_000], Content_Length=str(len(DATA)), ETag='"e1"')


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


class Fetcher:
    def __init__(self, parts: Path) -> None:
        self.store = Blobs()
        self.parts = parts
        self.progress: list[tuple[int, int | None]] = []

    def __call__(self, *urls: str, sha256: str = WANTED.hash, size: int | None = None, **network: object) -> Digest:
        async def run() -> Digest:
            client = Network(**({"pause": 0.01, "stall": 5.0, "attempts": 3} | network))  # type: ignore[arg-type] # any of its arguments
            try:
                return await download(
                    self.store,  # type: ignore[arg-type] # it has what a download uses
                    urls,
                    sha256,
                    network=client,
                    progress=lambda done, total: self.progress.append((done, total)),
                    folder_for_parts=self.parts,
                    size=size,
                )
            finally:
                await client.close()

        return anyio.run(run)


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetcher:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return Fetcher(tmp_path / "parts")


def said(error: pytest.ExceptionInfo[HostError]) -> str:
    (diagnostic,) = error.value.diagnostics
    return "\n".join([diagnostic.id, diagnostic.message, *diagnostic.notes])


def test_a_download_is_stored_and_its_bytes_are_told(server: Server, fetch: Fetcher) -> None:
    assert fetch(server.url()) == WANTED
    assert fetch.store.blobs[WANTED.hash] == DATA
    assert fetch.progress[-1] == (len(DATA), len(DATA))
    assert list(fetch.parts.iterdir()) == []


def test_a_cut_connection_is_resumed_where_it_stopped(server: Server, fetch: Fetcher) -> None:
    server.answers = [CUT, whole]
    assert fetch(server.url()) == WANTED
    assert [seen.get("range") for seen in server.seen] == [None, "bytes=3000000-"]
    assert server.seen[1]["if-range"] == '"e1"'


def test_the_next_build_goes_on_where_this_one_gave_up(server: Server, fetch: Fetcher) -> None:
    server.answers = [CUT, reply(404)]
    with pytest.raises(HostError):
        fetch(server.url())
    assert sorted(path.name for path in fetch.parts.iterdir()) == [f"{WANTED.hash}.etag", f"{WANTED.hash}.part"]
    server.answers = [whole]
    assert fetch(server.url()) == WANTED
    assert server.seen[-1]["range"] == "bytes=3000000-"


def test_a_file_that_changed_on_the_server_is_taken_from_its_start(server: Server, fetch: Fetcher) -> None:
    server.answers = [reply(200, b"x" * 3_000_000, Content_Length=str(len(DATA)), ETag='"old"'), whole]
    assert fetch(server.url()) == WANTED
    assert len(server.seen) == 2  # If-Range failed, so the whole came at once


def test_a_part_with_wrong_bytes_is_thrown_away_and_not_believed(server: Server, fetch: Fetcher) -> None:
    fetch.parts.mkdir()
    (fetch.parts / f"{WANTED.hash}.part").write_bytes(b"hostile" * 1000)
    assert fetch(server.url()) == WANTED
    assert [seen.get("range") for seen in server.seen] == ["bytes=7000-", None]


def test_a_part_that_was_complete_needs_no_body(server: Server, fetch: Fetcher) -> None:
    fetch.parts.mkdir()
    (fetch.parts / f"{WANTED.hash}.part").write_bytes(DATA)
    assert fetch(server.url(), size=len(DATA)) == WANTED


def test_a_busy_server_is_asked_again_as_late_as_it_says(server: Server, fetch: Fetcher) -> None:
    server.answers = [reply(503, Retry_After="0"), reply(429), whole]
    assert fetch(server.url()) == WANTED
    assert len(server.seen) == 3


def test_wrong_bytes_are_named_with_both_hashes_and_no_secret(server: Server, fetch: Fetcher) -> None:
    server.answers = [reply(200, b"something else")]
    with pytest.raises(HostError) as error:
        fetch(server.url("/a/file.tar.gz?signature=s3cret", login="me:s3cret@"))
    text = said(error)
    assert text.startswith("wrong-sha256\n`file.tar.gz` is not the expected file")
    assert WANTED.hash in text
    assert Digest.of(b"something else").hash in text
    assert "s3cret" not in text
    assert fetch.store.blobs == {}
    assert len(server.seen) == 1


def test_a_body_that_never_ends_stops_at_the_known_size(server: Server, fetch: Fetcher) -> None:
    server.answers = [reply(200, DATA * 3)]
    with pytest.raises(HostError) as error:
        fetch(server.url(), size=len(DATA))
    assert "got more than the expected 5120000 bytes" in said(error)
    assert max(done for done, _ in fetch.progress) < 2 * len(DATA)


def test_a_body_that_is_always_cut_is_said_to_be_truncated(server: Server, fetch: Fetcher) -> None:
    server.answers = [reply(200, DATA[:1000], Content_Length=str(len(DATA)))]
    with pytest.raises(HostError) as error:
        fetch(server.url())
    assert said(error).startswith("unreachable\ncannot download `file.tar.gz` from `127.0.0.1`")
    assert len(server.seen) == 3


def test_candidates_are_tried_in_order_and_all_are_named(server: Server, fetch: Fetcher, tmp_path: Path) -> None:
    server.answers = [reply(404), whole]
    assert fetch((tmp_path / "absent").as_uri(), server.url("/mirror/f"), server.url("/origin/f")) == WANTED
    server.answers = [reply(403)]
    with pytest.raises(HostError) as error:
        fetch(server.url("/one/f"), "http://127.0.0.1:1/two/f")
    text = said(error)
    assert text.startswith("download-refused\n`127.0.0.1` refuses `f`: HTTP 403 Forbidden")
    assert "/one/f: HTTP 403" in text
    assert "http://127.0.0.1:1/two/f: " in text


def test_nobody_there(fetch: Fetcher) -> None:
    with pytest.raises(HostError) as error:
        fetch("http://127.0.0.1:1/file")
    assert said(error).startswith("unreachable\ncannot download `file` from `127.0.0.1`")


def test_offline_asks_nobody_but_takes_local_files(server: Server, fetch: Fetcher, tmp_path: Path) -> None:
    with pytest.raises(HostError) as error:
        fetch(server.url(), offline=True)
    assert said(error).startswith("offline\n`file.tar.gz` is not in the store")
    assert server.seen == []
    (tmp_path / "a file").write_bytes(DATA)
    assert fetch((tmp_path / "a file").as_uri(), offline=True) == WANTED
    assert fetch(str(tmp_path / "a file"), offline=True) == WANTED
    (tmp_path / "a file").write_bytes(b"edited")
    with pytest.raises(HostError) as error:
        fetch((tmp_path / "a file").as_uri())
    assert said(error).startswith("wrong-sha256\n")


def guarded(handler: BaseHTTPRequestHandler) -> None:
    expected = "Basic " + base64.b64encode(b"me:s3cret").decode()
    (whole if handler.headers.get("Authorization") == expected else reply(401))(handler)


@pytest.mark.parametrize("where", ["netrc", "url", "variables", "caller"])
def test_a_login_is_used_wherever_it_is_written(server: Server, fetch: Fetcher, tmp_path: Path, where: str) -> None:
    server.answers = [guarded]
    with pytest.raises(HostError) as error:
        fetch(server.url())
    assert said(error).startswith("download-refused\n")
    url, credentials = server.url(), Credentials()
    if where == "netrc":
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    elif where == "url":
        url = server.url(login="me:s3cret@")
    elif where == "variables":
        environ = {"UV_INDEX_MY_INDEX_USERNAME": "me", "UV_INDEX_MY_INDEX_PASSWORD": "s3cret"}
        credentials = credentials_of({"my-index": server.url("/simple/")}, environ)
    else:
        credentials = Credentials({server.url("/a/"): ("me", "s3cret"), server.url("/"): ("other", "x")})
    assert "s3cret" not in repr(credentials)
    assert fetch(url, credentials=credentials) == WANTED


def test_a_redirect_to_another_host_takes_no_login_along(server: Server, fetch: Fetcher, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("default login me password s3cret\n")
    server.answers = [reply(302, Location=server.url("/elsewhere", host="localhost")), whole]
    assert fetch(server.url(login="me:s3cret@")) == WANTED
    assert "authorization" in server.seen[0]
    assert "authorization" not in server.seen[1]
    server.answers = [reply(302, Location="/here"), whole]
    assert fetch(server.url(login="me:s3cret@")) == WANTED
    assert "authorization" in server.seen[-1]
    server.answers = [reply(302, Location="file:///etc/hostname")]
    with pytest.raises(HostError) as error:
        fetch(server.url())
    assert "redirected to something that is not HTTP" in said(error)
    server.answers = [reply(302, Location="http://[::1/elsewhere")]
    with pytest.raises(HostError) as error:
        fetch(server.url())
    assert "redirected to what is no URL" in said(error)


def test_a_broken_netrc_is_said_without_what_is_in_it(server: Server, fetch: Fetcher, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine a login b s3cret\n")
    with pytest.raises(HostError) as error:
        fetch(server.url())
    assert said(error).startswith("bad-netrc\n")
    assert "s3cret" not in said(error)


def test_a_url_is_shown_without_what_lets_one_in() -> None:
    assert public_url("https://me:pw@host.example:8443/a/b?X-Signature=1#f") == "https://host.example:8443/a/b"
