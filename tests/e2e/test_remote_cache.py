"""One cache for several machines: what one has built the others do not, over real servers and whatever befalls them."""

from __future__ import annotations

import contextlib
import filecmp
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from caches import Hostile, Nginx, nginx
from grpc_servers import Casd, Relay, buildgrid_in, casd_in, kept
from object_servers import ObjectServer, azurite, ceph, moto
from space import Ran, Space

Server = Callable[[Path, pytest.Config], contextlib.AbstractContextManager[str]]

NOBODY = 65534
CAPABILITY = "+dac_read_search"
AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    # Another user, who may read this one's Python all the same.
    *(f"--inh-caps={CAPABILITY}", f"--ambient-caps={CAPABILITY}"),
)

LAYERS = {"python", "framework-low", "framework-up", "app-hello", "app-world"}


@contextlib.contextmanager
def an_nginx(folder: Path, _: pytest.Config) -> Iterator[str]:
    with nginx(folder) as server:
        yield server.url


@contextlib.contextmanager
def a_folder(folder: Path, _: pytest.Config | None = None) -> Iterator[str]:
    folder.mkdir()
    yield folder.as_uri()


@contextlib.contextmanager
def a_casd(folder: Path, config: pytest.Config) -> Iterator[str]:
    with casd_in(kept(config))(folder) as server:
        yield server.url


@contextlib.contextmanager
def a_buildgrid(folder: Path, config: pytest.Config) -> Iterator[str]:
    with buildgrid_in(kept(config))(folder) as server:
        yield server.url + "/{zone}"


SERVERS: list[Server] = [an_nginx, a_folder, a_casd, a_buildgrid]


@pytest.fixture
def casd(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Casd]:
    with casd_in(kept(pytestconfig))(tmp_path / "casd") as server:
        yield server


@pytest.fixture
def here(space: Space) -> Space:
    """Give a workspace that knows all of the stack in its store: the machine that fills the cache."""
    return space


@pytest.fixture
def there(space: Space, tmp_path: Path) -> Space:
    """Give another workspace, in another folder, with an empty store."""
    return elsewhere(space, tmp_path / "there")


def elsewhere(space: Space, folder: Path) -> Space:
    other = space.copy(folder / "other" / "place")
    other.store = folder / "store"
    return other


def fill(space: Space, url: str, *arguments: str, command: str = "build", **more: Any) -> Ran:
    return space.ok(command, "--json", "--remote-cache", url, "--remote-upload", "wait", *arguments, **more)


def take(space: Space, url: str, *arguments: str, command: str = "build", **more: Any) -> Ran:
    return space.ok(command, "--json", "--remote-cache", url, *arguments, **more)


def same_layers(one: Space, other: Space) -> bool:
    def same(compared: filecmp.dircmp[str]) -> bool:
        whole = not (compared.left_only or compared.right_only or compared.diff_files or compared.funny_files)
        return whole and all(map(same, compared.subdirs.values()))

    return {path.name for path in (other.root / "_build").iterdir()} == LAYERS and same(
        filecmp.dircmp(one.root / "_build", other.root / "_build")
    )


# -- what is shared --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_what_one_machine_has_built_another_does_not(
    here: Space, there: Space, tmp_path: Path, server: Server, pytestconfig: pytest.Config
) -> None:
    with server(tmp_path / "server", pytestconfig) as url:
        first = fill(here, url, command="publish")
        assert first.json["remote"]["sent"] > 20
        second = take(there, url, "--locked", command="publish")
        assert second.counts["executed"] == 0
        assert second.counts["remote"] > 20
        assert second.keys == first.keys
        archives = sorted(path.name for path in (here.root / "_artifacts").glob("*.tar.gz"))
        assert len(archives) == len(LAYERS)
        for name in archives:
            assert (there.root / "_artifacts" / name).read_bytes() == (here.root / "_artifacts" / name).read_bytes()
        # What nobody read has not come: layers were archived where they were made.
        assert second.json["remote"]["read"] < first.json["remote"]["written"]
        here.ok("build")
        placed = take(there, url)
        assert placed.counts["executed"] == 0
        assert same_layers(here, there)
        there.ok("run", "hello")


@pytest.mark.parametrize("server", [moto, azurite, ceph])
def test_a_bucket_is_shared_as_a_server_is(
    here: Space, there: Space, tmp_path: Path, server: Callable[[Path], contextlib.AbstractContextManager[ObjectServer]]
) -> None:
    with server(tmp_path / "server") as bucket:
        here.environ |= bucket.environ
        there.environ |= bucket.environ
        url = f"{bucket.url}/strata/{{zone}}"
        fill(here, url)
        ran = take(there, url, "--locked", "--remote-cache-required")
        assert (ran.counts["executed"], ran.counts["remote"] > 15) == (0, True)
        here.ok("build")
        assert same_layers(here, there)
        # Keys that are only there do not make a build write.
        there.write("hello.py", "print(2)\n")
        assert take(there, url).json["remote"]["sent"] == 0


def test_another_user_takes_what_this_one_has_made(here: Space, tmp_path: Path) -> None:
    with nginx(tmp_path / "server") as server, shared_folder() as folder:
        fill(here, server.url)
        other = elsewhere(here, folder)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        command = ("build", "--json", "--locked", "--remote-cache", server.url)
        done = subprocess.run(
            [*AS_NOBODY, *other.command(), *command],
            cwd=other.root,
            env=other.variables({"HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        ran = Ran(done.returncode, done.stdout, done.stderr)
        assert (ran.counts["executed"], ran.counts["remote"] > 15) == (0, True)
        assert (other.root / "_build" / "app-hello" / "pyvenv.cfg").stat().st_uid == NOBODY
        here.ok("build")
        assert same_layers(here, other)


@contextlib.contextmanager
def shared_folder() -> Iterator[Path]:
    """Make a folder where others may look: pytest's own are private."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user")
    folder = Path(tempfile.mkdtemp(prefix="strata-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


def test_a_change_costs_what_it_changes_with_an_empty_store(here: Space, there: Space, tmp_path: Path) -> None:
    with nginx(tmp_path / "server") as server:
        fill(here, server.url, command="publish")
        there.write("hello.py", "print('changed')\n")
        ran = take(there, server.url, command="publish")
        assert ran.executed == {"app-hello/link", "app-hello/archive[tar.gz]"}
        # The frameworks' files were not needed for it, and did not come.
        asked = [line for line in server.asked(1) if line.startswith("GET 200")]
        assert len(asked) < 60


def test_the_end_of_a_build_tells_what_remote_caches_did(here: Space, there: Space, tmp_path: Path) -> None:
    with a_folder(tmp_path / "server") as url:
        said = here.ok("build", "--remote-cache", url, "--remote-upload", "wait").stderr.splitlines()
        assert said[-2].startswith("remote: 0 B read, 0 hits, ")
        assert said[-2].endswith(" written")
        said = there.ok("build", "--remote-cache", url).stderr.splitlines()
        assert said[-2].startswith("remote: ")
        assert re.search(r"^remote: \d+\.\d MB read, \d\d hits", said[-2])
        assert said[-1].split(" in ")[0].endswith(" remote")
        assert len(said) == 2
        # With nothing to do nobody is asked, and nothing is said.
        assert there.ok("build", "--remote-cache", url).stderr.count("remote: ") == 0
        there.forget_snapshots()
        assert there.ok("build", "--remote-cache", url).stderr.count("remote: ") == 0


def test_each_way_of_naming_a_cache(here: Space, there: Space, tmp_path: Path) -> None:
    with a_folder(tmp_path / "server") as url:
        fill(here, url)
        other = tmp_path / "nothing"
        other.mkdir()
        for number, (arguments, environ, spec) in enumerate(
            (
                ((), {"STRATA_REMOTE_CACHE": url}, ""),
                ((), {}, f'\n[tool.strata.remote]\ncache = "{url}"\n'),
                ((), {}, f'\n[tool.strata.remote]\ncache = ["{other.as_uri()}", "{url}"]\n'),
                (("--remote-cache", other.as_uri(), "--remote-cache", url), {"STRATA_REMOTE_CACHE": "none"}, ""),
                ((), {"STRATA_REMOTE_CACHE": f"{other.as_uri()}, {url}"}, ""),
            )
        ):
            space = elsewhere(there, tmp_path / f"s{number}")
            space.write("venvstacks.toml", space.read("venvstacks.toml") + spec)
            ran = space.build(*arguments, env=environ)
            assert (ran.counts["executed"], ran.counts["remote"] > 15) == (0, True), (arguments, environ, spec)
        for arguments in (("--remote-cache", "none"), ("--offline",)):
            space = elsewhere(there, tmp_path / f"none-{arguments[0]}")
            ran = space.build(*arguments, env={"STRATA_REMOTE_CACHE": url})
            assert ran.counts["remote"] == 0
            assert ran.json["remote"] is None


def test_a_wrong_url_is_a_wrong_command_line_or_stack_file(built: Space) -> None:
    ran = built.strata("build", "--force", "app-hello", "--remote-cache", "ftp://u:s3cret@cache.example")
    assert ran.code == 2
    assert ran.stderr.startswith("error[bad-remote-url]: not the URL of a remote cache: it begins with none of ")
    assert "s3cret" not in ran.stderr
    spec = built.read("venvstacks.toml")
    built.write("venvstacks.toml", spec + '\n[tool.strata.remote]\ncache = "https://u:s3cret@cache.example"\n')
    ran = built.strata("build")
    line = spec.count("\n") + 3
    assert ran.code == 2
    assert ran.stderr.splitlines() == [
        "error[login-in-stack-file]: the URL of the remote cache `https://cache.example` has a login in it, which "
        "everybody can read here",
        f"   --> venvstacks.toml:{line}:9",
        "hint: put it into your netrc, or the whole URL into `STRATA_REMOTE_CACHE`",
    ]
    assert "s3cret" not in ran.stderr
    built.write("venvstacks.toml", spec + '\n[tool.strata.remote]\nzone = "../x"\ncache = "file:///tmp"\n')
    ran = built.strata("build")
    assert ran.stderr.startswith(
        f"error[bad-zone]: `../x` is not the name of a zone\n   --> venvstacks.toml:{line}:8\n"
    )
    ran = built.strata(
        "build", "--force", "app-hello", env={"STRATA_REMOTE_CACHE": "file:///x", "STRATA_REMOTE_UPLOAD": "yes"}
    )
    assert ran.code == 2


# -- whom to believe -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "/{zone}"])
def test_main_believes_nothing_that_a_pull_request_has_built(
    here: Space, there: Space, tmp_path: Path, suffix: str
) -> None:
    with nginx(tmp_path / "server") as server:
        url = server.url + suffix
        fill(here, url, "--remote-zone", "prone" if suffix else "pr/1")
        ran = take(there, url)
        taken = ran.labels("remote")
        if suffix:
            assert taken == set()
        else:
            # What proves itself is everybody's.
            assert taken
            assert all(label.startswith("fetch/") for label in taken)
        assert ran.counts["executed"] > 10
        # A pull request believes main.
        shutil.rmtree(here.root / ".strata")
        fill(here, url)
        third = elsewhere(there, tmp_path / "third")
        assert take(third, url, "--remote-zone", "prtwo" if suffix else "pr/2").counts["executed"] == 0


def test_a_pull_request_on_ci_has_a_zone_of_its_own(here: Space, there: Space, tmp_path: Path) -> None:
    with a_folder(tmp_path / "server") as url:
        fill(here, url, env={"GITHUB_REF": "refs/pull/17/merge"})
        assert all(label.startswith("fetch/") for label in take(there, url).labels("remote"))
        third = elsewhere(there, tmp_path / "third")
        assert take(third, url, "--remote-zone", "pr/17").counts["executed"] == 0


def test_another_epoch_disowns_all_that_does_not_prove_itself(here: Space, there: Space, tmp_path: Path) -> None:
    with a_folder(tmp_path / "server") as url:
        fill(here, url)
        assert take(there, url).counts["executed"] == 0
        there.write(
            "venvstacks.toml",
            there.read("venvstacks.toml").replace(
                "[tool.strata.archive]", '[tool.strata]\nepoch = "2"\n\n[tool.strata.archive]'
            ),
        )
        ran = take(there, url, "--locked")
        assert ran.counts["remote"] == 0
        assert "app-hello/link" in ran.executed
        assert not any(label.endswith("/lock") or label.startswith("fetch/") for label in ran.executed)
        assert ("salt-changed", "salt") in ran.reasons("app-hello/link")


def test_nothing_is_written_without_a_credential_or_a_word(here: Space, tmp_path: Path) -> None:
    with nginx(tmp_path / "server", login="ci:s3cret") as server:
        assert here.build("--remote-cache", server.url).json["remote"]["sent"] == 0
        shutil.rmtree(here.root / ".strata")
        url = server.url.replace("//", "//ci:s3cret@")
        ran = here.ok("build", "--json", env={"STRATA_REMOTE_CACHE": url})
        assert ran.json["remote"]["sent"] > 15
        kept = [
            path
            for folder in (here.root / ".strata", here.store / "spool", here.store / "remote")
            for path in folder.rglob("*")
        ]
        assert not [path for path in kept if path.is_file() and b"s3cret" in path.read_bytes()]
        # A login that the stack file's cache does not get: it was given for another.
        here.write(
            "venvstacks.toml", here.read("venvstacks.toml") + f'\n[tool.strata.remote]\ncache = "{server.url}"\n'
        )
        header = {"STRATA_REMOTE_HEADER": "Authorization: Basic Y2k6czNjcmV0"}
        ran = here.build("--force", "app-hello", env=header)
        assert ran.json["remote"]["sent"] == 0
        ran = here.build("--force", "app-hello", "--remote-cache", server.url, env=header)
        assert ran.json["remote"]["sent"] == 1


# -- whatever befalls them -------------------------------------------------------------------------------------------


def right(here: Space, there: Space, ran: Ran) -> bool:
    here.ok("build")
    return ran.code == 0 and same_layers(here, there)


def test_a_cache_that_is_not_there_costs_a_warning_and_then_nothing(here: Space, there: Space) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    ran = there.strata("build", "--remote-cache", url)
    assert ran.code == 0
    assert ran.stderr.count("warning[remote-unreachable]: cannot reach the remote cache") == 1
    assert "\nremote DEGRADED: " in ran.stderr
    assert ran.stderr.splitlines()[-2].endswith(" failed connections, local only")
    assert right(here, there, ran)
    # For a minute nobody tries again.
    ran = there.strata("build", "--force", "app-hello", "--force", "*/install", "--remote-cache", url)
    assert "warning[" not in ran.stderr
    third = elsewhere(there, there.root.parent / "third")
    third.store = there.store
    third.write("hello.py", "print(3)\n")
    ran = third.strata("build", "--remote-cache", url)
    assert "warning[" not in ran.stderr
    assert ran.stderr.splitlines()[-2] == "remote DEGRADED: unreachable, local only"
    ran = third.strata("build", "--force", "app-hello", "--remote-cache", url, "--remote-cache-required")
    assert ran.code in {0, 3}


def test_a_required_cache_that_is_not_there_is_an_error_of_the_machine(there: Space) -> None:
    ran = there.strata("build", "--remote-cache", "http://127.0.0.1:9", "--remote-cache-required")
    assert ran.code == 3
    assert "error[remote-unreachable]: cannot reach the remote cache `http://127.0.0.1:9`" in ran.stderr


@pytest.mark.parametrize(
    "manner", ["500", "403", "wrong", "shorter", "longer", "cut", "garbage", "hang up", "elsewhere", "silent", "stall"]
)
def test_a_server_that_misbehaves_makes_nothing_wrong(here: Space, there: Space, manner: str) -> None:
    with Hostile() as server:
        fill(here, server.url)
        whole = len(server.seen)
        server.manner = lambda number, method, path: manner
        ran = there.strata("build", "--json", "--remote-cache", server.url, "--remote-timeout", "0.5")
        assert right(here, there, ran)
        assert ran.counts["failed"] == 0
        # Three faults are enough to leave it alone; each call that was under way by then has made a few requests.
        assert len(server.seen) - whole < 16 * 4


def test_results_whose_blobs_are_gone_are_made_again_and_healed(here: Space, there: Space, tmp_path: Path) -> None:
    with nginx(tmp_path / "server") as server:
        fill(here, server.url)
        blobs = sorted((server.data / "cas").iterdir())
        for path in random.Random(3).sample(blobs, len(blobs) // 2):
            path.unlink()
        ran = take(there, server.url, "--remote-upload", "wait")
        assert right(here, there, ran)
        assert ran.counts["executed"] > 0
        # What was made again is there again.
        third = elsewhere(there, tmp_path / "third")
        again = take(third, server.url)
        assert again.counts["executed"] == 0, again.executed


def test_blobs_that_became_others_are_never_taken(here: Space, there: Space, tmp_path: Path) -> None:
    with nginx(tmp_path / "server") as server:
        fill(here, server.url)
        chosen = random.Random(4)
        for path in (server.data / "cas").iterdir():
            data = path.read_bytes()
            if data and chosen.random() < 0.3:
                path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        ran = there.strata("build", "--json", "--remote-cache", server.url)
        assert right(here, there, ran)


def test_a_server_that_is_killed_or_paused_in_the_middle_is_left_alone(
    here: Space, there: Space, tmp_path: Path
) -> None:
    for number, ending in enumerate((signal.SIGKILL, signal.SIGSTOP)):
        with nginx(tmp_path / f"server{number}") as server:
            fill(here, server.url)
            with after(server, 12, ending):
                space = elsewhere(there, tmp_path / f"s{number}")
                ran = space.strata("build", "--json", "--remote-cache", server.url, "--remote-timeout", "1")
            assert right(here, space, ran)
            assert ran.json["remote"]["degraded"] in {"unreachable", "stalled", ""}
        shutil.rmtree(here.root / ".strata")


@contextlib.contextmanager
def after(server: Nginx, requests: int, ending: signal.Signals) -> Iterator[None]:
    """Send a signal to nginx and its workers once it has answered so many requests."""
    stop = threading.Event()
    log = server.folder / "access.log"
    before = len(log.read_text().splitlines())

    def watch() -> None:
        while not stop.wait(0.005):
            if len(log.read_text().splitlines()) >= before + requests:
                for pid in server.processes():
                    os.kill(pid, ending)
                return

    thread = threading.Thread(target=watch)
    pids = server.processes()
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_a_cache_that_takes_nothing_is_still_read(here: Space, there: Space, tmp_path: Path) -> None:
    with nginx(tmp_path / "server", login="ci:pw") as server:
        fill(here, server.url.replace("//", "//ci:pw@"))
        there.write("hello.py", "print(2)\n")
        ran = there.ok("build", "--remote-cache", server.url, "--remote-upload", "wait")
        assert "warning[remote-refused]: not let in by the remote cache" in ran.stderr
        assert " hits, " in ran.stderr.splitlines()[-2]
        assert ran.stderr.splitlines()[-2].startswith("remote: ")


def test_a_cache_that_is_full_takes_what_fits(here: Space, tmp_path: Path) -> None:
    with nginx(tmp_path / "server", largest="20k") as server:
        ran = here.ok("build", "--remote-cache", server.url, "--remote-upload", "wait")
        assert "warning[remote-full]: no room in the remote cache" in ran.stderr
        assert "refusal for lack of room" in ran.stderr.splitlines()[-2]


# -- the same over gRPC ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [Casd.kill, Casd.pause])
def test_a_grpc_server_that_is_killed_or_paused_in_the_middle_is_left_alone(
    here: Space, there: Space, casd: Casd, ending: Callable[[Casd], None]
) -> None:
    fill(here, casd.url)
    with Relay(casd.port, 100_000, lambda: ending(casd)) as relay:
        ran = there.strata("build", "--json", "--remote-cache", relay.url, "--remote-timeout", "1")
    assert right(here, there, ran)
    assert ran.counts["failed"] == 0
    assert ran.json["remote"]["read"] > 0
    assert "warning[remote-" in ran.stderr


def test_results_whose_blobs_a_grpc_server_has_dropped_are_made_again_and_healed(
    here: Space, there: Space, tmp_path: Path, casd: Casd
) -> None:
    fill(here, casd.url)
    blobs = objects(casd)
    for path in random.Random(3).sample(blobs, len(blobs) // 2):
        path.unlink()
    ran = take(there, casd.url, "--remote-upload", "wait")
    assert right(here, there, ran)
    assert ran.counts["executed"] > 0
    third = elsewhere(there, tmp_path / "third")
    again = take(third, casd.url)
    assert again.counts["executed"] == 0, again.executed


def test_blobs_that_became_others_on_a_grpc_server_are_never_taken(here: Space, there: Space, casd: Casd) -> None:
    fill(here, casd.url)
    chosen = random.Random(4)
    for path in objects(casd):
        data = path.read_bytes()
        if data and chosen.random() < 0.3:
            path.unlink()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    ran = there.strata("build", "--json", "--remote-cache", casd.url)
    assert right(here, there, ran)
    assert ran.counts["failed"] == 0


def objects(casd: Casd) -> list[Path]:
    """List the files of a casd's blobs."""
    return sorted(path for path in (casd.blobs / "cas" / "objects").rglob("*") if path.is_file())


def test_a_grpc_server_that_takes_no_results_is_told_once_and_one_that_does_is_still_read(
    here: Space, there: Space, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    with buildgrid_in(kept(pytestconfig))(tmp_path / "server") as server:
        said = here.ok("build", "--remote-cache", f"{server.url}/read-only", "--remote-upload", "wait").stderr
        refused = (
            f"warning[remote-refused]: not let in by the remote cache `{server.url}/read-only`: it takes no results"
        )
        assert said.count("warning[remote-") == 1
        assert refused in said
        # Main's instance has nothing of it, and is another for a pull request.
        shutil.rmtree(here.root / ".strata")
        fill(here, server.url + "/{zone}")
        assert take(there, server.url + "/{zone}").counts["executed"] == 0
        third = elsewhere(there, tmp_path / "third")
        assert (
            take(third, server.url + "/{zone}", "--remote-zone", "pr", "--remote-cache-required").counts["remote"] > 15
        )


# -- off the critical path -------------------------------------------------------------------------------------------


def test_what_a_build_did_not_send_the_next_one_sends(here: Space, there: Space, tmp_path: Path) -> None:
    with nginx(tmp_path / "server") as server:
        port, url = server.port, server.url
    ran = here.ok("build", "--json", "--remote-cache", url, "--remote-upload", "wait")
    assert ran.json["remote"]["sent"] == 0
    assert list((here.store / "spool").rglob("*-*"))
    shutil.rmtree(here.store / "remote")
    with nginx(tmp_path / "again", port=port) as server:
        here.write("hello.py", "import alpha\n")
        ran = here.ok("build", "--json", "--remote-cache", url, "--remote-upload", "wait")
        assert ran.json["remote"]["sent"] > 15
        assert not list((here.store / "spool").rglob("*-*"))
        there.write("hello.py", "import alpha\n")
        assert take(there, url).counts["executed"] == 0


def test_a_detached_process_sends_what_is_left(here: Space, there: Space, tmp_path: Path) -> None:
    with nginx(tmp_path / "server") as server:
        ran = here.ok("build", "--json", "--remote-cache", server.url, "--remote-upload", "detach")
        assert ran.json["remote"]["sent"] + ran.json["remote"]["waiting"] > 15
        until = time.monotonic() + 60
        while list((here.store / "spool").rglob("*-*")):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert take(there, server.url).counts["executed"] == 0


def test_what_names_this_machine_stays_here(here: Space, tmp_path: Path) -> None:
    with a_folder(tmp_path / "server") as url:
        here.write("hello.py", f"print({str(here.root)!r} + '/x')\nprint('{here.root}/y')\n")
        ran = here.ok("build", "--remote-cache", url, "--remote-upload", "wait")
        assert (
            "warning[result-not-shared]: a result stays on this machine: a file of it names a place of this machine"
            in ran.stderr
        )
        sent = [path for path in (tmp_path / "server").rglob("*") if path.is_file()]
        assert sent
        assert not [path for path in sent if str(here.root).encode() in path.read_bytes()]
