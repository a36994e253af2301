"""A runtime that is downloaded: from a mirror of python-build-standalone, pinned, and from an archive of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from runtimes import OWN, interpreters, pbs_archive
from space import Space

from strata_engine.digest import digest_file
from strata_engine.store import open_store
from strata_rules.platforms import host_platform

STACK = f"""\
[[runtimes]]
name = "python"
python_implementation = "cpython@{OWN}"
requirements = []
platforms = ["{host_platform()}"]

[[applications]]
name = "hello"
runtime = "python"
launch_module = "hello.py"
requirements = []
"""


class Mirror:
    """A folder of runtime archives, served on loopback, and the requests that came."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                asked.append(self.path)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    store = open_store(folder / "store", lambda diagnostic: pytest.fail(diagnostic.message))
    path, _ = pbs_archive(store.cas, interpreters()[0], folder)
    store.close()
    return path


@pytest.fixture
def mirror(archive: Path) -> Iterator[Mirror]:
    made = Mirror(archive.parent)
    yield made
    made.stop()


@pytest.fixture
def bare(tmp_path: Path) -> Space:
    """Give a workspace with a stack, and an empty store."""
    space = Space(tmp_path / "workspace", tmp_path / "store")
    space.write("venvstacks.toml", STACK)
    space.write("hello.py", "import ssl, sys\nprint('hello from', sys.base_prefix)\n")
    return space


def table(url: str, sha256: str) -> str:
    """Write a table of builds as uv's is, with one entry for this machine."""
    system, _, arch = host_platform().partition("_")
    major, minor, patch = (int(part) for part in OWN.split("."))
    entry = {
        "name": "cpython",
        "arch": {"family": arch, "variant": None},
        "os": system,
        "libc": "gnu",
        "major": major,
        "minor": minor,
        "patch": patch,
        "prerelease": "",
        "url": url,
        "sha256": sha256,
        "variant": None,
    }
    return json.dumps({"one": entry})


def pin(space: Space) -> dict[str, str]:
    document = json.loads(space.read("requirements/python/runtime.python.json"))
    found: dict[str, str] = document["platforms"][host_platform()]
    return found


def test_a_build_is_found_in_the_table_downloaded_pinned_and_used(bare: Space, mirror: Mirror, archive: Path) -> None:
    url = f"{mirror.url}/{archive.name}"
    sha256 = digest_file(archive).hash
    listed = bare.write("table.json", table(url, sha256))
    bare.environ["UV_PYTHON_DOWNLOADS_JSON_URL"] = str(listed)
    first = bare.build()
    assert {"python/download", "python/unpack"} <= first.executed
    assert pin(bare) == {"provider": "pbs", "python": OWN, "url": url, "sha256": sha256}
    assert str(bare.layer("python")) in bare.ok("run", "hello").stdout
    assert len(mirror.asked) == 1

    # A new table moves nothing: the pin does.
    listed.write_text(table(f"{mirror.url}/other.tar.gz", "0" * 64))
    assert bare.build("--locked").executed == set()

    # Another machine: no table, an empty store, the pin from git.
    del bare.environ["UV_PYTHON_DOWNLOADS_JSON_URL"]
    other = bare.copy(bare.root.parent / "elsewhere", bare.root.parent / "store-elsewhere")
    other.store = bare.root.parent / "empty-store"
    again = other.build("--locked")
    assert {label: again.keys[label] for label in first.keys} == first.keys
    assert "python/download" in again.executed


def test_a_mirror_serves_what_is_published_elsewhere(bare: Space, mirror: Mirror, archive: Path) -> None:
    base = "https://github.com/astral-sh/python-build-standalone/releases/download"
    sha256 = digest_file(archive).hash
    listed = bare.write("table.json", table(f"{base}/{archive.name}", sha256))
    bare.environ |= {"UV_PYTHON_DOWNLOADS_JSON_URL": str(listed), "UV_PYTHON_INSTALL_MIRROR": mirror.url}
    assert "python/download" in bare.build().executed
    assert pin(bare)["url"] == f"{base}/{archive.name}"
    assert len(mirror.asked) == 1


@pytest.mark.parametrize("option", ["--locked", "--no-lock"])
def test_a_stack_that_was_never_pinned_builds_from_the_table_under_locked(
    bare: Space, mirror: Mirror, archive: Path, option: str
) -> None:
    """So does a project that comes from venvstacks, which pins no runtimes."""
    listed = bare.write("table.json", table(f"{mirror.url}/{archive.name}", digest_file(archive).hash))
    bare.environ["UV_PYTHON_DOWNLOADS_JSON_URL"] = str(listed)
    bare.ok("lock")
    pinned = bare.root / "requirements/python/runtime.python.json"
    kept = pinned.read_bytes()
    pinned.unlink()
    first = bare.ok("build", option)
    for said in (first.stderr, bare.ok("build", option).stderr):  # the second is answered by a snapshot
        assert said.count("warning[runtime-not-pinned]: `python` has no runtime pin") == 1
        assert "hint: `strata lock` pins it; commit `requirements/python/runtime.python.json`\n" in said
    assert not pinned.exists()
    assert bare.ok("run", "hello").stdout.startswith("hello from")

    # A file that pins other platforms alone has been committed by someone who pins: that is an error.
    pinned.write_bytes(kept.replace(host_platform().encode(), b"win_arm64"))
    refused = bare.strata("build", option)
    assert (refused.code, refused.stderr.count("error[runtime-not-pinned]")) == (2, 1)
    bare.ok("lock")
    assert host_platform().encode() in pinned.read_bytes()
    assert "runtime-not-pinned" not in bare.ok("build", option).stderr


@pytest.mark.parametrize("provider", ["archive", ["local", "archive"]])
def test_an_archive_of_ones_own(bare: Space, archive: Path, provider: str | list[str]) -> None:
    source = {"provider": provider, "url": archive.as_uri(), "sha256": digest_file(archive).hash, "accept": "==3.0.*"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in source.items()]
    bare.write("venvstacks.toml", "\n".join([STACK, '[tool.strata.runtimes."python"]', *lines, ""]))
    assert "python/unpack" in bare.build().executed
    assert bare.ok("run", "hello").stdout.startswith("hello from")
    assert pin(bare)["provider"] == "archive"


def test_a_server_that_is_gone_is_said_and_nothing_is_pinned(bare: Space, mirror: Mirror, archive: Path) -> None:
    url = f"{mirror.url}/{archive.name}"
    bare.environ["UV_PYTHON_DOWNLOADS_JSON_URL"] = str(bare.write("table.json", table(url, digest_file(archive).hash)))
    mirror.stop()
    ran = bare.strata("build", "-j1")
    assert ran.code == 3
    assert "error[unreachable]" in ran.stderr
    assert "127.0.0.1" in ran.stderr
    assert not (bare.root / "requirements/python/runtime.python.json").exists()
