"""`graph why --against remote`: what differs from what others have sent, through real command lines and servers.

Transcripts are whole, as a person reads them, but for what no two runs have in common.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from caches import nginx
from runtimes import interpreters
from space import OWN, Ran, Space

from strata_engine.cas import Cas
from strata_engine.codec import ActionResult, encode_action_result
from strata_engine.digest import Digest
from strata_engine.index import Index
from strata_engine.remote.address import result_address
from strata_engine.remote.recent import Recent, encode_recent, recent_action
from strata_rules.cli.graph import documents

ALPHA = '["alpha", "beta"]'


@pytest.fixture
def shared() -> Iterator[Path]:
    """Give a folder with a short name: a transcript is cut at the width of a terminal."""
    folder = Path(tempfile.mkdtemp(prefix="strata-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def folder(shared: Path) -> str:
    return shared.as_uri()


@pytest.fixture(params=["nginx", "folder"])
def url(request: pytest.FixtureRequest, tmp_path: Path, folder: str) -> Iterator[str]:
    if request.param == "folder":
        yield folder
    else:
        with nginx(tmp_path / "server") as server:
            yield server.url


@pytest.fixture
def there(space: Space, tmp_path: Path) -> Space:
    """Give the same workspace on another machine, whose store is empty."""
    other = space.copy(tmp_path / "there" / "place")
    other.store = tmp_path / "there" / "store"
    return other


def fill(space: Space, url: str, *arguments: str, command: str = "publish", **more: Any) -> Ran:
    return space.ok(command, "--remote-cache", url, "--remote-upload", "wait", *arguments, **more)


def why(space: Space, url: str, *arguments: str, **more: Any) -> Ran:
    return space.strata("graph", "why", *arguments, "--against", "remote", "--remote-cache", url, **more)


def document(ran: Ran) -> Any:
    assert ran.code == 0, ran.stderr
    found = ran.json
    assert (found["schema"], found["version"]) == ("strata.why-remote", 1)
    fields = {name: value for name, value in found.items() if name not in ("schema", "version")}
    msgspec.convert(fields, documents.WhyRemoteDocument)
    return found


def roots(ran: Ran) -> list[tuple[str, str, str | None, str | None]]:
    return [(each["reason"], each["subject"], each["old"], each["new"]) for each in document(ran)["root_causes"]]


def normal(ran: Ran, url: str) -> str:
    text = ran.stdout.replace(url, "URL")
    text = re.sub(r"\b\d+ (?:s|min) ago", "AGO", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "DIGEST-12-HEX", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "DIGEST", text)
    return re.sub(r", on [\w.-]+$", ", on PLATFORM", text, flags=re.MULTILINE)


# -- three usual situations ------------------------------------------------------------------------------------------

WHAT_IS_THERE = """\
app-hello/install  is there in zone `main`: a build would take it
app-hello/link  is there in zone `main`: a build would take it
app-hello/lock  is never in a remote cache
asked    URL, zone `main`
"""

ALL_THAT_IS_THERE = """\
19 of 19 results would be taken
asked    URL, zone `main`
"""

AN_EDITED_MODULE = """\
app-hello/link  is not there
asked    URL, zone `main`

because  input-changed hello.py: DIGEST-12-HEX → DIGEST-12-HEX
         1 action
nearest  sent AGO in zone `main`, on PLATFORM
"""

ANOTHER_REQUIREMENT = """\
12 of 19 results would be taken, 6 wait for what would be executed
asked    URL, zone `main`

because  parameter-changed venvstacks.toml#frameworks.low.requirements
           alpha → alpha==0.9
           venvstacks.toml:9  alpha → alpha==0.9
         10 actions, from framework-low/lock
nearest  sent AGO in zone `main`, on PLATFORM
"""


def test_what_is_there_what_was_edited_and_what_was_locked_anew(space: Space, there: Space, url: str) -> None:
    fill(space, url)
    assert normal(why(there, url, "app-hello"), url) == WHAT_IS_THERE
    assert normal(why(there, url), url) == ALL_THAT_IS_THERE
    there.write("hello.py", "print(1)\n")
    assert normal(why(there, url, "app-hello"), url) == AN_EDITED_MODULE
    there.write("hello.py", space.read("hello.py"))
    there.replace("venvstacks.toml", ALPHA, '["alpha==0.9", "beta"]')
    there.ok("lock")
    assert normal(why(there, url), url) == ANOTHER_REQUIREMENT
    # Nothing was executed, and nothing was kept as a result of this workspace.
    assert not (there.root / "_build").exists()
    assert there.build().counts["cached"] == 0


def test_what_was_built_since_is_compared_with_what_was_sent(space: Space, there: Space, folder: str) -> None:
    fill(space, folder)
    there.replace("venvstacks.toml", ALPHA, '["alpha==0.9", "beta"]')
    there.ok("build", "--remote-cache", folder)
    # A link that needs the same facts is the same link, whatever it links.
    assert "is there in zone `main`: a build would take it" in why(there, folder, "app-hello/link").stdout
    ran = why(there, folder, "framework-low/install", "--json")
    requirement = ("parameter-changed", "venvstacks.toml#frameworks.low.requirements", "alpha", "alpha==0.9")
    assert roots(ran) == [requirement]
    found = document(ran)
    assert found["chain"][0]["label"] == "framework-low/install"
    [result] = found["remote"]["results"]
    assert (result["label"], result["standing"], result["cache"]) == ("framework-low/install", "missing", None)
    near = {each["label"]: each for each in found["remote"]["nearest"]}
    assert {"framework-low/install", "framework-low/lock"} <= near.keys()
    assert all(each["zone"] == "main" and each["platform"] for each in near.values())


# -- what may differ -------------------------------------------------------------------------------------------------


def test_a_variable_and_a_setting_of_uv_are_named(space: Space, there: Space, folder: str) -> None:
    fill(space, folder)
    ran = why(there, folder, "app-hello/link", "--json", env={"UV_RESOLUTION": "lowest"})
    assert ("env-changed", "UV_RESOLUTION", None, "lowest") in roots(ran)
    ran = why(there, folder, "framework-low/lock", "--json", env={"UV_EXCLUDE_NEWER": "2030-01-01T00:00:00Z"})
    [cause] = roots(ran)
    assert cause[0] == "parameter-changed"
    assert cause[1].endswith("exclude-newer")
    assert cause[2:] == (None, "2030-01-01T00:00:00Z")


def test_another_epoch_is_named(space: Space, there: Space, folder: str) -> None:
    fill(space, folder, command="build")
    there.replace("venvstacks.toml", "[tool.strata.archive]", '[tool.strata]\nepoch = "2"\n\n[tool.strata.archive]')
    ran = why(there, folder, "framework-low/install", "--json")
    assert ("salt-changed", "salt", "(none)", "2") in roots(ran) or ("salt-changed", "salt", "", "2") in roots(ran)


@pytest.mark.skipif(len({found.version for found in interpreters()}) < 2, reason="needs two versions of Python")
def test_another_python_is_named(space: Space, there: Space, folder: str) -> None:
    fill(space, folder, command="build")
    other = next(found for found in interpreters() if found.version != OWN)
    for path in there.root.glob("**/*pin*"):
        path.unlink()
    there.replace("venvstacks.toml", f"cpython@{OWN}", f"cpython@{other.version}")
    there.replace("venvstacks.toml", f'accept = "=={OWN}"', f'accept = "=={other.version}"')
    ran = why(there, folder, "python/capture", "--json")
    causes = roots(ran)
    assert ("parameter-changed", "version", OWN, other.version) in causes or any(
        cause[2:] == (OWN, other.version) for cause in causes
    )
    assert any(cause[0] == "platform-changed" and cause[1] == "interpreter" for cause in causes)


# -- what would not be taken -----------------------------------------------------------------------------------------


def test_another_zone_is_not_looked_into_and_one_that_is_asked_for_is(space: Space, there: Space, folder: str) -> None:
    fill(space, folder, "--remote-zone", "pr/1", command="build")
    ran = why(there, folder, "app-hello/link")
    assert ran.stdout.splitlines() == [
        "app-hello/link  has no key before something else is executed",
        f"asked    {folder}, zone `main`",
        "",
        "nothing of it was ever sent there",
    ]
    ran = why(there, folder, "app-hello/link", "--remote-zone", "pr/1")
    assert ran.stdout.splitlines() == [
        "app-hello/link  is there in zone `pr/1`: a build would take it",
        f"asked    {folder}, zone `pr/1`, `main`",
    ]


def test_what_is_not_signed_where_that_is_asked_for_says_so(
    space: Space, there: Space, folder: str, shared: Path, tmp_path: Path
) -> None:
    pem = tmp_path / "key.pem"
    key = space.ok("cache", "keygen", str(pem)).stdout
    public = re.search(r"ed25519:[\w+/=]+", key)
    assert public is not None
    fill(space, folder, command="build")
    there.write(
        "venvstacks.toml", there.read("venvstacks.toml") + f'\n[tool.strata.remote]\npublic_keys = ["{public[0]}"]\n'
    )
    ran = why(there, folder, "python/install", "--json")
    assert all(result["standing"] != "there" for result in document(ran)["remote"]["results"])
    # What is below is not believed either, so its key is known where the store has what it is made of.
    space.write("venvstacks.toml", there.read("venvstacks.toml"))
    ran = why(space, folder, "app-hello/link", "--json")
    [result] = document(ran)["remote"]["results"]
    assert (result["standing"], result["why"]) == ("not-taken", "not signed")
    assert ("cache-untrusted", folder, "not signed", None) in roots(ran)
    for path in shared.iterdir():
        shutil.rmtree(path)
    shutil.rmtree(space.root / ".strata")
    fill(space, folder, command="build", env={"STRATA_SIGNING_KEY": str(pem)})
    ran = why(there, folder, "app-hello/link", "--json")
    [result] = document(ran)["remote"]["results"]
    assert (result["standing"], result["signed_by"]) == ("there", public[0])


def test_a_result_whose_blobs_are_gone_says_so(space: Space, folder: str, shared: Path) -> None:
    fill(space, folder, command="build")
    for path in (shared / "cas").rglob("*"):
        if path.is_file():
            path.unlink()
    ran = why(space, folder, "app-hello/link")
    assert ran.stdout.startswith("app-hello/link  is there in zone `main`, and would not be taken\n")
    assert "because  cache-blob-lost app-hello/link: " in ran.stdout


def test_what_was_there_and_is_not_any_more_says_so(space: Space, folder: str, shared: Path) -> None:
    sent = fill(space, folder, "--json", command="build").keys
    [key] = [key for label, key in sent.items() if label == "app-hello/link"]
    action = Cas(space.store, Index(space.store, reading=True)).get(Digest.parse(key))
    address = result_address(action, "main").hash
    (shared / "ac" / address[:2] / address).unlink()
    ran = why(space, folder, "app-hello/link")
    assert "because  cache-entry-missing app-hello/link\n" in ran.stdout


# -- what may be wrong -----------------------------------------------------------------------------------------------


def test_without_a_cache_and_where_nobody_answers(space: Space) -> None:
    ran = space.strata("graph", "why", "app-hello", "--against", "remote")
    assert ran.code == 2
    assert ran.stderr.startswith("error[no-remote-cache]: no remote cache is configured to compare with\n")
    ran = why(space, "http://127.0.0.1:9", "app-hello")
    assert ran.code == 3
    assert ran.stderr.startswith("error[remote-unreachable]: cannot reach the remote cache `http://127.0.0.1:9`")
    assert why(space, "file:///nowhere", "app-helo").code == 2
    ran = why(space, "file:///nowhere", "app-hello")
    assert (ran.code, "not a folder" in ran.stderr or "No such file" in ran.stderr) == (3, True), ran.stderr
    assert why(space, "file:///nowhere", "--run", "last").code == 2


def test_whatever_somebody_wrote_where_notes_are_explains_nothing_and_does_no_harm(
    space: Space, there: Space, folder: str, shared: Path
) -> None:
    fill(space, folder)
    there.write("hello.py", "print(1)\n")
    address = result_address(recent_action("Link", "app-hello/link"), "main").hash
    place = shared / "ac" / address[:2] / address
    good = place.read_bytes()
    unknown = Recent(Digest.of(b"nothing"), None, 1, "", "\x1b[31m"[:0])
    for data, reason in (
        (b"", "first-build"),
        (b"\xff" * 100, "first-build"),
        (good[:-9], "first-build"),
        (encode_action_result(ActionResult(stdout_raw=b"not a note")), "first-build"),
        (encode_recent([]), "first-build"),
        (encode_recent([unknown]), "evicted"),
        (good, "input-changed"),
    ):
        place.chmod(0o644)
        place.write_bytes(data)
        ran = why(there, folder, "app-hello/link", "--json")
        assert [root[0] for root in roots(ran)] == [reason], data
        assert "\x1b" not in ran.stdout
    # The next one who sends something writes it anew.
    place.write_bytes(b"\xff" * 100)
    space.write("hello.py", "print(2)\n")
    fill(space, folder)
    assert [root[0] for root in roots(why(there, folder, "app-hello/link", "--json"))] == ["input-changed"]


def test_what_is_sent_is_noted_with_its_commit(space: Space, there: Space, folder: str) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    (space.root / ".git").mkdir()
    space.write(".git/HEAD", f"{commit}\n")
    fill(space, folder)
    space.write("hello.py", "print(2)\n")
    fill(space, folder)
    there.write("hello.py", "print(3)\n")
    ran = why(there, folder, "app-hello/archive[tar.gz]")
    assert f"of commit {commit[:12]}, on " in ran.stdout
    [near] = document(why(there, folder, "app-hello/link", "--json"))["remote"]["nearest"]
    assert near["revision"] == commit
    text = json.dumps(near)
    assert str(space.root) not in text
