"""Choosing a runtime: pins win, lists fall through, what is chosen is said, and nothing secret is pinned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runtimes import interpreters

from strata_engine.digest import Digest
from strata_engine.errors import HostError, SpecError, StrataError
from strata_rules.platforms import PLATFORMS
from strata_rules.runtime import table
from strata_rules.runtime.choose import ArchiveChoice, Choice, Host, LocalChoice, PbsChoice, Wanted, choose
from strata_rules.runtime.local import probe
from strata_rules.runtime.pin import ArchivePin, LocalPin, PbsPin, Pin, dump, keep, parse, pin_name

SHA = "ab" * 32
OTHER = "cd" * 32


class Rim:
    def __init__(self, folder: Path) -> None:
        self.pin_path = folder / "requirements" / pin_name("rt")
        self.environ: dict[str, str] = {"HOME": str(folder), "PATH": ""}
        self.host = "linux_x86_64"
        self.python = True

    def choose(self, *, upgrade: bool = False, locked: bool = False, **fields: Any) -> Choice:
        given = {"layer": "rt", "platform": "linux_x86_64", "python_implementation": "cpython@3.12.9"} | fields
        wanted = Wanted(pin_path=self.pin_path, pin_shown=self.pin_path.name, **given)
        host = Host(
            platform=self.host,
            environ=self.environ,
            read=lambda path: path.read_bytes() if path.is_file() else None,
            probe=probe if self.python else lambda path: None,
        )
        return choose(wanted, host, upgrade=upgrade, locked=locked)

    def pin(self, pin: Pin, platform: str = "linux_x86_64") -> None:
        keep(self.pin_path, platform, pin)


@pytest.fixture
def rim(tmp_path: Path) -> Rim:
    return Rim(tmp_path)


def error_of(rim: Rim, **fields: Any) -> tuple[type[StrataError], str, str]:
    with pytest.raises(StrataError) as error:
        rim.choose(**fields)
    (diagnostic,) = error.value.diagnostics
    return type(error.value), diagnostic.id, "\n".join([diagnostic.message, *diagnostic.notes])


@pytest.mark.parametrize("platform", [name for name in PLATFORMS if name != "win_arm64"])
def test_python_build_standalone_is_chosen_and_pinned(rim: Rim, platform: str) -> None:
    choice = rim.choose(platform=platform)
    assert isinstance(choice.chosen, PbsChoice)
    parts = {"linux": "unknown-linux-gnu", "macosx": "apple-darwin", "win": "pc-windows-msvc"}
    assert parts[platform.partition("_")[0]] in choice.chosen.url
    assert ("aarch64" in choice.chosen.url) == platform.endswith(("aarch64", "arm64"))
    assert choice.chosen.url.endswith("-install_only_stripped.tar.gz")
    assert choice.pin == PbsPin("3.12.9", choice.chosen.url, choice.chosen.sha256)
    assert choice.sentence == f"`rt` on `{platform}` uses cpython 3.12.9 of python-build-standalone, newly pinned"
    assert choice.observed == (rim.pin_path,)


def test_a_pin_wins_over_a_new_table(rim: Rim) -> None:
    rim.pin(PbsPin("3.12.9", f"{table.RELEASES[0]}/2025/x.tar.gz", SHA))
    choice = rim.choose()
    assert isinstance(choice.chosen, PbsChoice)
    assert (choice.chosen.sha256, choice.pin) == (SHA, None)
    assert choice.sentence.endswith("as pinned")
    assert rim.choose(locked=True).chosen == choice.chosen
    fresh = rim.choose(upgrade=True)
    assert isinstance(fresh.chosen, PbsChoice)
    assert fresh.chosen.sha256 != SHA
    assert fresh.pin is not None


def test_a_pin_for_something_else_is_replaced_and_never_under_locked(rim: Rim) -> None:
    rim.pin(PbsPin("3.12.8", "https://host.example/x", SHA))
    assert rim.choose().chosen.version == "3.12.9"
    kind, id_, text = error_of(rim, locked=True)
    assert (kind, id_) == (SpecError, "runtime-not-pinned")
    assert "its pin is for Python 3.12.8 from `https://host.example/x`" in text
    assert error_of(rim, locked=True, platform="win_amd64")[2].endswith("it is not pinned")


def test_a_stack_that_was_never_pinned_takes_the_build_of_the_table_under_locked_and_says_so(rim: Rim) -> None:
    choice = rim.choose(locked=True, providers=("pbs", "local"))
    assert isinstance(choice.chosen, PbsChoice)
    assert (choice.chosen, choice.pin) == (rim.choose().chosen, None), "nothing is written under --locked"
    assert choice.warning is not None
    assert (choice.warning.id, choice.warning.severity) == ("runtime-not-pinned", "warning")
    assert choice.warning.hint == f"`strata lock` pins it; commit `{rim.pin_path.name}`"
    assert choice.warning == rim.choose(locked=True, platform="win_amd64").warning, "said once for all platforms"
    assert rim.choose().warning is None

    # What the table does not have is no reason to take whatever Python this machine has.
    assert error_of(rim, locked=True, providers=("pbs", "local"), python_implementation="cpython@3.11.99")[1] == (
        "no-runtime"
    )
    assert error_of(rim, locked=True, providers=("local", "pbs"))[1] == "runtime-not-pinned"


def test_an_archive_that_the_spec_names_with_its_sha256_needs_no_pin_under_locked(rim: Rim) -> None:
    archive = {"providers": ("archive",), "url": "https://host.example/python.tar.gz", "sha256": SHA}
    choice = rim.choose(locked=True, **archive)
    assert isinstance(choice.chosen, ArchiveChoice)
    assert (choice.chosen.sha256, choice.pin) == (SHA, None), "nothing is written under --locked"
    rim.pin(PbsPin("3.12.8", "https://host.example/x", SHA))
    assert error_of(rim, locked=True, **archive)[1] == "runtime-not-pinned"


def test_a_mirror_is_tried_first_and_never_pinned(rim: Rim) -> None:
    plain = rim.choose()
    rim.environ["UV_PYTHON_INSTALL_MIRROR"] = "file:///mirror/"
    choice = rim.choose()
    assert isinstance(choice.chosen, PbsChoice)
    assert isinstance(plain.chosen, PbsChoice)
    assert choice.chosen.urls == (
        choice.chosen.url.replace(f"{table.RELEASES[0]}/", "file:///mirror/"),
        choice.chosen.url,
    )
    assert choice.pin == plain.pin


def test_a_table_of_uv_on_this_machine_is_read_and_watched(rim: Rim, tmp_path: Path) -> None:
    entry = {
        "name": "cpython",
        "arch": {"family": "x86_64", "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": 3,
        "minor": 12,
        "patch": 9,
        "prerelease": "",
        "variant": None,
        "url": f"{table.RELEASES[0]}/2030/x.tar.gz",
        "sha256": SHA,
    }
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"a": entry | {"variant": "freethreaded", "sha256": OTHER}, "b": entry}))
    rim.environ["UV_PYTHON_DOWNLOADS_JSON_URL"] = path.as_uri()
    choice = rim.choose()
    assert isinstance(choice.chosen, PbsChoice)
    assert choice.chosen.sha256 == SHA
    assert path in choice.observed
    path.write_text(json.dumps({"b": entry | {"sha256": None}}))
    assert "the table has no sha256" in error_of(rim)[2]
    assert isinstance(rim.choose(sha256=OTHER).chosen, PbsChoice)
    path.write_text("[")
    assert error_of(rim)[1] == "bad-table"
    rim.environ["UV_PYTHON_DOWNLOADS_JSON_URL"] = "https://host.example/table.json"
    assert error_of(rim)[1] == "unsupported-table"


def test_an_archive_is_what_the_spec_names_and_its_login_stays_out_of_the_pin(rim: Rim) -> None:
    url = "https://me:s3cret@host.example/py.tar.zst?token=s3cret"
    choice = rim.choose(providers=("archive",), url=url, sha256=SHA)
    assert choice.chosen == ArchiveChoice(version="3.12.9", url=url, sha256=SHA)
    assert choice.pin == ArchivePin("3.12.9", "https://host.example/py.tar.zst", SHA)
    assert "s3cret" not in choice.sentence
    rim.pin(choice.pin)
    assert rim.choose(providers=("archive",), url=url, sha256=SHA).pin is None
    assert rim.choose(providers=("archive",), url=url, sha256=OTHER).pin is not None
    said = error_of(rim, upgrade=True, providers=("archive",), url=url)[2]
    assert said.endswith("it needs `url` and `sha256` for `linux_x86_64`")


def test_a_list_gives_the_first_that_works_and_says_why(rim: Rim) -> None:
    rim.python = False
    choice = rim.choose(providers=("local", "pbs"), accept=">=3.11")
    assert isinstance(choice.chosen, PbsChoice)
    assert choice.sentence.endswith("since `local`: no CPython here fits `>=3.11`")
    rim.python = True
    choice = rim.choose(providers=("local", "pbs"), accept=">=3.11", platform="win_amd64")
    assert isinstance(choice.chosen, PbsChoice)
    assert choice.sentence.endswith("since `local`: it takes a Python of this machine, which is `linux_x86_64`")
    rim.python = False
    kind, id_, text = error_of(rim, providers=("local", "pbs"), python_implementation="cpython@3.12.999")
    assert (kind, id_) == (HostError, "no-runtime")
    assert text.splitlines() == [
        "no runtime for `rt` on `linux_x86_64`: no provider works",
        "`local`: no CPython here fits `==3.12.999`",
        "`pbs`: the table of python-build-standalone has no cpython@3.12.999 for this platform",
        text.splitlines()[-1],
    ]
    assert "3.12.9" in text.splitlines()[-1].split(" for ")[0]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"providers": ("local",), "accept": ">=3.11"},
            ["it takes a Python of this machine", '`provider = ["local", "pbs"]`', "`url = { win_amd64 ="],
        ),
        ({"providers": ("local", "archive")}, ["`archive`: it needs `url` and `sha256` for `win_amd64`"]),
        (
            {"platform": "win_arm64", "python_implementation": "cpython@3.11.4"},
            ["has no cpython@3.11.4 for this platform", "it has 3.11."],
        ),
        ({"platform": "win_arm64", "python_implementation": "pypy@3.11.13"}, ["has no pypy@3.11.13 for this platform"]),
    ],
)
def test_a_runtime_that_cannot_be_had_here_for_another_platform(
    rim: Rim, fields: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(SpecError) as error:
        rim.choose(**{"platform": "win_amd64"} | fields)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.id == "no-runtime"
    text = "\n".join([diagnostic.message, *diagnostic.notes, diagnostic.hint or ""])
    assert [part for part in said if part not in text] == [], text
    assert "STRATA_PYTHON" not in text


@pytest.mark.parametrize("platform", ["macosx_arm64", "macosx_x86_64", "win_amd64"])
def test_pypy_is_found_for_other_platforms(rim: Rim, platform: str) -> None:
    choice = rim.choose(platform=platform, python_implementation="pypy@3.11.13").chosen
    assert isinstance(choice, PbsChoice)
    assert choice.url.endswith({"win_amd64": "-win64.zip"}.get(platform, f"-{platform.replace('sx', 's', 1)}.tar.bz2"))


def test_each_platform_has_a_pin_of_its_own_in_one_file(rim: Rim) -> None:
    for platform in PLATFORMS[2:]:
        choice = rim.choose(platform=platform)
        assert choice.pin is not None
        rim.pin(choice.pin, platform)
    rim.pin(ArchivePin("3.12.9", "https://host.example/mac", SHA), "macosx_arm64")
    assert len({pin.sha256 for pin in parse(rim.pin_path.read_bytes(), "x").values() if isinstance(pin, PbsPin)}) == 3
    assert all(rim.choose(platform=platform, locked=True).pin is None for platform in PLATFORMS[2:4])
    # Its provider is not asked for any more: chosen anew, and the others keep theirs.
    assert isinstance(rim.choose(platform="macosx_arm64").chosen, PbsChoice)


def test_what_another_machine_captured_is_never_looked_for_on_this_one(rim: Rim) -> None:
    rim.pin(LocalPin("3.12.9", "cpython-3.12.9-x", f"{OTHER}/1"), "macosx_arm64")
    choice = rim.choose(platform="macosx_arm64", providers=("local",), locked=True)
    assert isinstance(choice.chosen, LocalChoice)
    assert choice.chosen.find().interpreters == ()


@pytest.mark.skipif(not interpreters(), reason="no CPython here can be a runtime")
def test_a_local_python_is_chosen_within_accept_and_its_pin_asks_nobody(rim: Rim) -> None:
    choice = rim.choose(providers=("local", "pbs"), accept=">=3.11")
    assert isinstance(choice.chosen, LocalChoice)
    assert choice.chosen.version == interpreters()[0].version
    assert choice.chosen.identity.startswith(f"cpython-{choice.chosen.version}-")
    assert choice.pin is None  # it comes with the capture
    assert Path(interpreters()[0].executable) in choice.observed
    tree = Digest.of(b"tree")
    rim.pin(LocalPin(choice.chosen.version, choice.chosen.identity, str(tree)))
    rim.python = False
    pinned = rim.choose(providers=("local", "pbs"), accept=">=3.11", locked=True)
    assert isinstance(pinned.chosen, LocalChoice)
    assert (pinned.chosen.identity, pinned.chosen.tree) == (choice.chosen.identity, tree)
    assert pinned.observed == (rim.pin_path,)
    assert pinned.chosen.find().interpreters == ()
    # A narrower range, and the pin does not fit any more.
    assert isinstance(rim.choose(providers=("local", "pbs"), accept="==3.12.9").chosen, PbsChoice)


@pytest.mark.parametrize(
    ("fields", "id_", "said"),
    [
        ({"python_implementation": "cpython"}, "bad-python", "expected `cpython@X.Y.Z`"),
        ({"python_implementation": "cpython@3.12"}, "bad-python", "expected `cpython@X.Y.Z`"),
        ({"python_implementation": "cpython@3.13.0t"}, "bad-python", "free-threaded builds are not supported"),
        ({"python_implementation": "jython@2.7.0"}, "bad-python", "`jython@2.7.0` is not a Python"),
        ({"python_implementation": "cpython@3.12.999"}, "no-runtime", "has no cpython@3.12.999"),
        ({"providers": ("conda",)}, "unknown-provider", "only `pbs`, `archive`, `local`"),
        ({"sha256": "AB"}, "bad-sha256", "`AB` is not a SHA-256"),
        ({"accept": "3.11 or so"}, "bad-accept", "is not a version range"),
        ({"sha256": OTHER}, "no-runtime", f"the stack file's {OTHER}"),
    ],
)
def test_a_wrong_spec_is_said(rim: Rim, fields: dict[str, Any], id_: str, said: str) -> None:
    kind, found, text = error_of(rim, **fields)
    assert (kind, found) == (SpecError, id_)
    assert said in text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"version": 2, "platforms": {}}',
        b'{"version": 1, "platforms": {"x": {"provider": "conda", "python": "1"}}}',
        b'{"version": 1, "platforms": {"x": {"provider": "pbs", "python": "1", "url": "u", "sha256": "../x"}}}',
        b'{"version": 1, "platforms": {"x": {"provider": "local", "python": "1", "interpreter": "i", "tree": "x"}}}',
        b'{"version": 1, "platforms": {}, "more": 1}',
    ],
)
def test_a_pin_that_is_no_pin_is_refused_by_name(rim: Rim, data: bytes) -> None:
    rim.pin_path.parent.mkdir()
    rim.pin_path.write_bytes(data)
    kind, id_, text = error_of(rim)
    assert (kind, id_) == (SpecError, "bad-runtime-pin")
    assert text.startswith("this runtime pin cannot be read: ")


def test_pins_of_other_platforms_are_kept_and_the_file_is_stable(rim: Rim) -> None:
    first, second = PbsPin("3.12.9", "u", SHA), LocalPin("3.11.2", "cpython-3.11.2-x", f"{OTHER}/1")
    assert keep(rim.pin_path, "win_amd64", first)
    assert keep(rim.pin_path, "linux_x86_64", second)
    assert not keep(rim.pin_path, "win_amd64", first)
    data = rim.pin_path.read_bytes()
    assert parse(data, "x") == {"win_amd64": first, "linux_x86_64": second}
    assert data == dump({"win_amd64": first, "linux_x86_64": second})
    assert [path.name for path in rim.pin_path.parent.iterdir()] == ["runtime.rt.json"]
