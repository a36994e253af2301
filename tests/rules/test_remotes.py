"""Which remote caches a build is told of: who says what, who is believed over whom, and what is shown of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from caches import make_certificate
from hypothesis import given
from hypothesis import strategies as st

from strata_engine.errors import Place, SpecError
from strata_engine.remote.settings import Access, RemoteSettings, Upload
from strata_engine.remote.signing import KEY_VARIABLE, new_key
from strata_engine.remote.tls import Tls
from strata_engine.workspace import command_line
from strata_rules.null import request
from strata_rules.remotes import RemoteWishes, joined, remote_settings, zone_of_ci
from strata_rules.session import SessionOptions, open_session
from strata_rules.spec.declared import RemoteSource

CACHE, ZONE, UPLOAD = "STRATA_REMOTE_CACHE", "STRATA_REMOTE_ZONE", "STRATA_REMOTE_UPLOAD"
HEADER, HELPER = "STRATA_REMOTE_HEADER", "STRATA_CREDENTIAL_HELPER"
A, B, C = "https://a.example", "https://b.example", "file:///shared"
KEY = new_key()


def place(field: str) -> Place:
    return Place("venvstacks.toml", {"cache": 3, "zone": 4, "trusted": 5, "public_keys": 6}[field])


def told(environ: Mapping[str, str] | None = None, source: RemoteSource | None = None, **wishes: Any) -> RemoteSettings:
    return remote_settings(RemoteWishes(**wishes), source or RemoteSource(), environ or {}, place)


def urls(settings: RemoteSettings) -> list[str]:
    return [access.url for access in settings.caches]


def error(environ: Mapping[str, str] | None = None, source: RemoteSource | None = None, **wishes: Any) -> Any:
    with pytest.raises(SpecError) as raised:
        told(environ, source, **wishes)
    [diagnostic] = raised.value.diagnostics
    return diagnostic


# -- which -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "environ", "stack", "expected"),
    [
        ((), "", (), []),
        ((), "", A, [A]),
        ((), "", (A, C), [A, C]),
        ((), B, A, [B]),
        ((), f" {B}, {C}\n{A} ", A, [B, C, A]),
        ((C,), B, A, [C]),
        ((A, B), "", (), [A, B]),
        ((), "  ", A, [A]),
        ((), "none", A, []),
        (("none",), B, A, []),
        ((A,), "none", (), [A]),
        ((), f"none {B}", (), []),
        ((A + "/",), "", (), [A]),
    ],
)
def test_the_command_line_is_before_the_environment_and_that_before_the_stack_file(
    named: tuple[str, ...], environ: str, stack: str | tuple[str, ...], expected: list[str]
) -> None:
    assert urls(told({CACHE: environ}, RemoteSource(cache=stack), caches=named)) == expected


def test_with_no_cache_nothing_else_counts() -> None:
    assert told({ZONE: "..", UPLOAD: "yes"}, zone="..", upload=Upload.WAIT) == RemoteSettings()


@pytest.mark.parametrize(
    ("asked", "environ", "stack", "expected"),
    [
        ("", {}, "", "main"),
        ("", {}, "release", "release"),
        ("", {ZONE: "dev/me"}, "release", "dev/me"),
        ("pr/5", {ZONE: "dev/me"}, "release", "pr/5"),
        ("", {"GITHUB_REF": "refs/pull/17/merge"}, "", "pr/17"),
        ("", {"GITHUB_REF": "refs/pull/17/merge"}, "release", "release"),
        ("", {"GITHUB_REF": "refs/pull/17/merge", ZONE: "x"}, "", "x"),
    ],
)
def test_a_zone_likewise(asked: str, environ: dict[str, str], stack: str, expected: str) -> None:
    settings = told(environ, RemoteSource(cache=A, zone=stack), zone=asked)
    assert settings.zone == expected
    assert settings.zones == tuple(dict.fromkeys((expected, "main")))


@pytest.mark.parametrize(
    ("environ", "zone"),
    [
        ({}, "main"),
        ({"GITHUB_REF": "refs/heads/main"}, "main"),
        ({"GITHUB_REF": "refs/pull/3/head"}, "pr/3"),
        ({"CI_MERGE_REQUEST_IID": "42"}, "pr/42"),
        ({"CI_MERGE_REQUEST_IID": ""}, "main"),
        ({"CI_MERGE_REQUEST_IID": "4/../../main"}, "main"),
        ({"GITHUB_REF": "refs/heads/x", "CI_MERGE_REQUEST_IID": "42"}, "pr/42"),
    ],
)
def test_a_proposed_change_has_a_zone_of_its_own(environ: dict[str, str], zone: str) -> None:
    assert zone_of_ci(environ) == zone


@pytest.mark.parametrize(
    "ref", ["heads/refs/pull/3/merge", "tags/v1", "pull/3/merge\n", "pull/٣/merge", "pull/../merge"]
)
def test_what_is_no_proposal_has_not_the_zone_of_one(ref: str) -> None:
    assert not zone_of_ci({"GITHUB_REF": f"refs/{ref}"}).startswith("pr/")


@given(st.dictionaries(st.sampled_from(["GITHUB_REF", "CI_MERGE_REQUEST_IID"]), st.text(max_size=30)))
def test_what_ci_says_is_a_zone_whatever_it_is(environ: dict[str, str]) -> None:
    assert told({**environ, CACHE: C}).zone == zone_of_ci(environ)


def test_the_trusted_zones_and_keys_are_the_stack_files_alone() -> None:
    source = RemoteSource(cache=A, trusted=("main", "release"), public_keys=(KEY.public.text,))
    settings = told({}, source, zone="pr/1")
    assert settings.zones == ("pr/1", "main", "release")
    assert settings.public_keys == (KEY.public.text,)
    # They hold for caches of the environment, too.
    assert told({CACHE: B}, source).public_keys == (KEY.public.text,)
    assert told({}, RemoteSource(cache=A, trusted=())).zones == ("main",)


def test_the_rest_is_taken_as_it_is() -> None:
    settings = told({CACHE: A}, required=True, timeout=2.5)
    assert (settings.required, settings.timeout) == (True, 2.5)


# -- what lets us in -------------------------------------------------------------------------------------------------


def test_headers_are_for_the_caches_of_those_who_gave_them() -> None:
    environ = {HEADER: "X-Token: s3cret\n\nX-Other: b"}
    given_ = (("X-Token", "s3cret"), ("X-Other", "b"))
    assert [access.headers for access in told(environ, caches=(A, B)).caches] == [given_, given_]
    assert told({**environ, CACHE: A}).caches[0].headers == given_
    assert told(environ, RemoteSource(cache=A)).caches[0].headers == ()
    assert told(environ, caches=(C,)).caches[0] == Access(url=C)


def test_a_login_is_taken_out_of_a_url() -> None:
    [access] = told({CACHE: "https://me:s3cret@a.example/x"}).caches
    assert (access.url, access.login) == ("https://a.example/x", ("me", "s3cret"))


def test_a_helper_and_certificates_are_for_every_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for source, wishes in ((RemoteSource(cache=A), ()), (RemoteSource(), (A,))):
        [access] = told({HELPER: "helper"}, source, caches=wishes).caches
        assert access.helper == "helper"
    # Whoever sends after the build works in another folder.
    [access] = told({HELPER: "./bin/helper", CACHE: A}).caches
    assert access.helper == str(tmp_path / "bin" / "helper")


def test_certificates_are_read_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {CACHE: A, "STRATA_CLIENT_CERTIFICATE": "c.pem", "STRATA_CLIENT_KEY": "k.pem"}
    assert error(environ).id == "bad-client-certificate"
    make_certificate(tmp_path / "c.pem", tmp_path / "k.pem")
    [access] = told(environ).caches
    assert access.tls == Tls(str(tmp_path / "c.pem"), str(tmp_path / "k.pem"))
    assert error({CACHE: A, "STRATA_CLIENT_KEY": "k.pem"}).id == "bad-client-certificate"
    assert error({CACHE: A, "STRATA_REMOTE_CA": "none.pem"}).id == "bad-client-certificate"
    # A shared folder shows none to anybody.
    assert urls(told({CACHE: C, "STRATA_CLIENT_CERTIFICATE": "none.pem"})) == [C]


# -- what is written -------------------------------------------------------------------------------------------------

PEM = KEY.private_pem().decode()
LOGIN = {CACHE: "https://me:pw@a.example"}
HEADERS = {CACHE: A, HEADER: "X: y"}


@pytest.mark.parametrize(
    ("environ", "wishes", "upload"),
    [
        ({CACHE: A}, {}, Upload.OFF),
        ({CACHE: A}, {"attended": True}, Upload.OFF),
        ({CACHE: C}, {}, Upload.OFF),
        (LOGIN, {}, Upload.WAIT),
        (LOGIN, {"attended": True}, Upload.DETACH),
        ({**LOGIN, "CI": "true"}, {"attended": True}, Upload.WAIT),
        ({**LOGIN, "CI": "true"}, {}, Upload.WAIT),
        (HEADERS, {}, Upload.WAIT),
        ({CACHE: A, HELPER: "h"}, {"attended": True}, Upload.DETACH),
        ({CACHE: A, KEY_VARIABLE: PEM}, {}, Upload.WAIT),
        ({CACHE: C, KEY_VARIABLE: PEM}, {"attended": True}, Upload.DETACH),
        ({CACHE: A, UPLOAD: "wait"}, {"attended": True}, Upload.WAIT),
        ({**LOGIN, UPLOAD: "off"}, {}, Upload.OFF),
        ({CACHE: A, UPLOAD: "off"}, {"upload": Upload.DETACH}, Upload.DETACH),
        ({**LOGIN, UPLOAD: "wait"}, {"upload": Upload.OFF}, Upload.OFF),
        ({CACHE: A, UPLOAD: "yes"}, {"upload": Upload.WAIT}, Upload.WAIT),
        ({CACHE: f"{C} https://me:pw@a.example"}, {}, Upload.WAIT),
    ],
)
def test_nothing_is_written_unless_something_says_so(
    environ: dict[str, str], wishes: dict[str, Any], upload: Upload
) -> None:
    assert told(environ, **wishes).upload is upload


def test_a_signing_key_is_read_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(PEM)
    assert told({CACHE: A, KEY_VARIABLE: str(tmp_path / "key.pem")}).signing_key == PEM
    assert told({CACHE: A, KEY_VARIABLE: PEM}).signing_key == PEM
    assert told({CACHE: A}).signing_key == ""


# -- what is wrong is said where it stands ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "source", "wishes", "id_", "line"),
    [
        ({}, {"cache": "ftp://x"}, {}, "bad-remote-url", 3),
        ({}, {"cache": (A, "nonsense")}, {}, "bad-remote-url", 3),
        ({CACHE: "nonsense"}, {"cache": A}, {}, "bad-remote-url", None),
        ({}, {"cache": A}, {"caches": ("http://",)}, "bad-remote-url", None),
        ({}, {"cache": "https://me:s3cret@a.example"}, {}, "login-in-stack-file", 3),
        ({}, {"cache": A, "zone": "../x"}, {}, "bad-zone", 4),
        ({}, {"cache": A, "zone": "fine"}, {"zone": "a//b"}, "bad-zone", None),
        ({ZONE: "{zone}"}, {"cache": A, "zone": "fine"}, {}, "bad-zone", None),
        ({}, {"cache": A, "trusted": ("main", "a b")}, {}, "bad-zone", 5),
        ({}, {"cache": A, "public_keys": ("ed25519:AAAA",)}, {}, "bad-public-key", 6),
        ({}, {"cache": A, "public_keys": (PEM,)}, {}, "private-key-shown", 6),
        ({CACHE: A, UPLOAD: "yes"}, {}, {}, "bad-upload", None),
        ({CACHE: A, HEADER: "no colon s3cret"}, {}, {}, "bad-remote-header", None),
        ({CACHE: A, KEY_VARIABLE: "s3cret"}, {}, {}, "bad-signing-key", None),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(
    environ: dict[str, str], source: dict[str, Any], wishes: dict[str, Any], id_: str, line: int | None
) -> None:
    said = error(environ, RemoteSource(**source), **wishes)
    assert said.id == id_
    assert (said.place.line if said.place is not None else None) == line
    assert "s3cret" not in repr(said)
    assert PEM.splitlines()[1] not in repr(said)


# -- several stacks --------------------------------------------------------------------------------------------------


def test_stacks_that_are_built_together_have_all_their_caches() -> None:
    one = RemoteSettings(caches=(Access(url=A), Access(url=C)), upload=Upload.WAIT)
    other = RemoteSettings(caches=(Access(url=B), Access(url=A)), upload=Upload.WAIT)
    both = joined([RemoteSettings(), one, other])
    assert (urls(both), both.upload) == ([A, C, B], Upload.WAIT)
    assert joined([]) == joined([RemoteSettings(zone="dev")]) == RemoteSettings()
    assert joined([one]) == one


@pytest.mark.parametrize(
    ("field", "value"), [("zone", "dev"), ("trusted", ("main", "dev")), ("public_keys", (KEY.public.text,))]
)
def test_stacks_that_trust_differently_are_not_built_together(field: str, value: Any) -> None:
    one = RemoteSettings(caches=(Access(url=A),))
    for settings in ([one, other(field, value)], [other(field, value), one]):
        with pytest.raises(SpecError) as raised:
            joined(settings)
        [said] = raised.value.diagnostics
        assert (said.id, f"`{field}`" in said.message) == ("two-trusts", True)
    # One without a cache asks nobody, so it trusts nobody either.
    assert joined([RemoteSettings(), other(field, value)]) == other(field, value)


def other(field: str, value: Any) -> RemoteSettings:
    more: dict[str, Any] = {field: value}
    return RemoteSettings(caches=(Access(url=A),), **more)


# -- nothing that lets us in is kept ---------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["https://me:s3cret@a.example/x", "https://me:p@s3cret@a.example", "http://s3cret@h"])
def test_no_login_is_in_what_is_kept_of_a_command(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["build", "--remote-cache", url, f"--remote-cache={url}"]
    environ = {CACHE: f"{url},{url}", HEADER: "X: s3cret", KEY_VARIABLE: "s3cret", "STRATA_REMOTE_ZONE": "dev/me"}
    asked = request(argv, environ)
    assert b"s3cret" not in asked
    assert b"dev/me" in asked
    monkeypatch.setattr(sys, "argv", ["strata", *argv])
    assert "s3cret" not in " ".join(command_line())


def test_an_epoch_that_could_be_taken_for_one_with_a_zone_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRATA_CACHE_DIR", str(tmp_path / "store"))
    runtime = '[[runtimes]]\nname = "py"\npython_implementation = "cpython@3.12.9"\nrequirements = []\n'
    (tmp_path / "venvstacks.toml").write_text(f'{runtime}[tool.strata]\nepoch = "a\\u0000main"\n')
    with pytest.raises(SpecError) as raised, open_session(tmp_path / "venvstacks.toml", SessionOptions()):
        pass
    [said] = raised.value.diagnostics
    assert said.id == "bad-epoch"
    assert said.place is not None
    assert (said.place.line, said.place.column) == (6, 9)
