"""Wheels and indexes that cannot be trusted: refused, named with layer and place, with nothing lost."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from loopback import Loopback, Manner
from refusals import refused
from space import Space

from strata_engine.digest import digest_file

UP = """\
   --> venvstacks.toml:14:16
    |
 14 | requirements = ["gamma", "delta"]
    |                ^^^^^^^^^^^^^^^^^^
"""
WHEEL = "delta-1.0-py3-none-any.whl"
BECAUSE = f"note: `wheel/{WHEEL}` ran because of "
UNSAFE = "hint: nothing of it was installed; report it to where it came from and take another build or version\n"
BROKEN = "hint: the wheel is damaged or was changed after it was built: take another build or version of it\n"


def want_delta(space: Space) -> None:
    space.replace("venvstacks.toml", '["gamma"]', '["gamma", "delta"]')


BAD: list[tuple[Mapping[str, bytes], Mapping[str, bytes | None] | None, str]] = [
    (
        {"delta.py": b"", "../../outside.py": b"evil"},
        None,
        f"error[unsafe-wheel]: `{WHEEL}` has the member `../../outside.py`, which leaves its place with `..` or is"
        f" not a plain path\n{UP}{UNSAFE}",
    ),
    (
        {"delta.py": b"", "Delta.py": b""},
        None,
        f"error[unsafe-wheel]: `{WHEEL}` has `Delta.py` and `delta.py`, one file where case does not count\n"
        f"{UP}{UNSAFE}",
    ),
    (
        {"delta.py": b"x = 1\n"},
        {
            "RECORD": b"delta.py,sha256=AAAA,6\ndelta-1.0.dist-info/METADATA,,\n"
            b"delta-1.0.dist-info/WHEEL,,\ndelta-1.0.dist-info/RECORD,,\n"
        },
        f"error[bad-record]: `{WHEEL}`: RECORD gives no hash of `delta-1.0.dist-info/METADATA`\n{UP}{BROKEN}"
        f"error[bad-record]: `{WHEEL}`: RECORD gives no hash of `delta-1.0.dist-info/WHEEL`\n{UP}{BROKEN}"
        f"error[bad-record]: `{WHEEL}`: `delta.py` is not what RECORD says: its hash or size differs\n{UP}{BROKEN}",
    ),
]


def test_bad_wheels(built: Space) -> None:
    want_delta(built)
    for files, replace, said in BAD:
        built.wheel("delta", files, replace=replace)
        built.ok("lock", "-q")
        told = refused(built, "build", "-q", code=2)
        assert told.startswith(said)
        assert all(line.startswith(BECAUSE) for line in told.removeprefix(said).splitlines())
    # The lower layer is whole, and a better build of the wheel mends the upper one.
    assert built.build("framework-low").counts["executed"] == 0
    built.wheel("delta")
    built.build()
    assert (built.site("framework-up") / "delta.py").exists()


@pytest.fixture
def index(built: Space, tmp_path: Path) -> Iterator[Loopback]:
    """Serve `delta` alone, with a login; all else comes from the folder as before."""
    want_delta(built)
    (tmp_path / "index").mkdir()
    (built.wheel("delta", {"delta.py": b"#" * 20_000})).rename(tmp_path / "index" / WHEEL)
    with Loopback(tmp_path / "index", login="me:sosecret") as served:
        built.replace("venvstacks.toml", "no-index = true\n", "")
        built.write(
            "venvstacks.toml",
            built.read("venvstacks.toml")
            + f'\n[[tool.uv.index]]\nname = "loop"\nurl = "http://me:sosecret@{served.host}/simple"\nexplicit = true\n',
        )
        built.replace(
            "venvstacks.toml", '["gamma", "delta"]\n', '["gamma", "delta"]\npackage_indexes = { delta = "loop" }\n'
        )
        # Local wheels for all else: uv asks no other index for what the folder has.
        built.environ |= {"UV_HTTP_RETRIES": "0", "UV_DEFAULT_INDEX": f"http://me:sosecret@{served.host}/simple"}
        yield served


def leaks(space: Space) -> list[str]:
    """List the files that hold the password, apart from the stack file in which the user wrote it."""
    places = [str(space.root), str(space.store)]
    found = subprocess.run(["grep", "-rlF", "sosecret", *places], capture_output=True, text=True, check=False)
    return [path for path in found.stdout.splitlines() if path != str(space.root / "venvstacks.toml")]


MANNERS: dict[Manner, str] = {
    "gone": (
        "error[download-gone]: `127.0.0.1` does not have `{wheel}`: HTTP 404 Not Found\n{place}note: from {url}\n"
        "hint: if it was taken from the index since it was locked, lock anew: `strata lock --upgrade`\n"
    ),
    "broken": (
        "error[unreachable]: cannot download `{wheel}` from `127.0.0.1`: HTTP 503 Service Unavailable\n{place}"
        "note: from {url}\nhint: check the network, `HTTPS_PROXY` and `SSL_CERT_FILE`;"
        " what has arrived is kept for the next build\n"
    ),
    "cut": (
        "error[unreachable]: cannot download `{wheel}` from `127.0.0.1`: peer closed connection without sending"
        " complete message body (received 100 bytes, expected {size})\n{place}"
        "note: from {url}\nhint: check the network, `HTTPS_PROXY` and `SSL_CERT_FILE`;"
        " what has arrived is kept for the next build\n"
    ),
    "changed": (
        "error[wrong-sha256]: `{wheel}` is not the expected file: expected sha256 {sha256}, got sha256 {other}\n"
        "{place}note: from {url}\nhint: something between here and the server changed the file, or the lock is"
        " wrong: compare both hashes\n"
    ),
}


def test_a_bad_index(built: Space, index: Loopback) -> None:
    built.ok("lock", "-q")
    wheel = index.folder / WHEEL
    data = wheel.read_bytes()
    known = {
        "wheel": WHEEL,
        "place": UP,
        "url": f"http://{index.host}/files/{WHEEL}",
        "size": len(data),
        "sha256": digest_file(wheel).hash,
        "other": hashlib.sha256(data[:-1] + bytes([data[-1] ^ 1])).hexdigest(),
    }
    because = "first-build"
    for manner, said in MANNERS.items():
        index.manner = manner
        told = refused(built, "build", "-q", code=3)
        assert told == f"{said.format(**known)}note: `fetch/{WHEEL}` ran because of {because}\n"
        because = "previous-failed"
    assert leaks(built) == []
    index.manner = "well"
    built.build()
    assert (built.site("framework-up") / "delta.py").stat().st_size == 20_000
    built.ok("publish", "--include", "framework-up")
    assert leaks(built) == []


def test_an_index_that_cannot_be_reached_or_wants_another_login(built: Space, index: Loopback) -> None:
    built.ok("lock", "-q")
    built.replace("venvstacks.toml", '"delta"]', '"delta>=1"]')
    place = UP.replace('"delta"', '"delta>=1"').replace("^^\n", "^^^^^\n")
    index.login = "you:else"
    said = refused(built, "lock", "-q", code=3)
    assert said.startswith(
        f"error[index-login]: cannot lock `framework-up`: an index wants a login (401 Unauthorized)\n{place}"
    )
    assert "hint: set `UV_INDEX_<NAME>_USERNAME` and `UV_INDEX_<NAME>_PASSWORD`, or use a netrc file\n" in said
    index.server.server_close()
    said = refused(built, "lock", "-q", code=3)
    # uv asks for all packages at once, so any of them may be the first that it does not get.
    said = re.sub("/simple/[a-z]+/", "/simple/…/", said)
    url = f"http://{index.host}/simple/…/"
    assert said.startswith(f"error[unreachable]: cannot lock `framework-up`: `{url}` cannot be reached\n{place}")
    assert "hint: check the network and the index settings; a proxy is taken from `HTTPS_PROXY`\n" in said
    # uv still knows what there was; the wheel itself never came.
    offline = built.strata("build", "-q", "--offline")
    assert (offline.code, offline.stderr) == (
        3,
        f"error[offline]: `{WHEEL}` is not in the store and may not be downloaded in an offline build\n{place}"
        f"note: from http://{index.host}/files/{WHEEL}\nhint: build once without `--offline`\n"
        f"note: `fetch/{WHEEL}` ran because of first-build\n",
    )
    assert "sosecret" not in said
    assert leaks(built) == []
