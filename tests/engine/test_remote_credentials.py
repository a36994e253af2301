"""Who is let in by what, and that nobody else is shown or sent it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from strata_engine.errors import HostError, SpecError
from strata_engine.remote.backend import Fault, Trouble
from strata_engine.remote.credentials import Credentials, header_of, headers_of, is_header

URL = "https://host:8443/cache"
BASIC = (("Authorization", "Basic bWU6czNjcmV0"),)


def helper(folder: Path, body: str) -> str:
    path = folder / "helper"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\nasked = json.load(sys.stdin)\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_login_is_for_its_own_server_alone(tmp_path: Path) -> None:
    found = Credentials(URL, login=("me", "s3cret"), environ={})
    assert found(URL + "/ac/x") == BASIC
    for other in ("https://host/cache", "http://host:8443/cache", "https://other:8443/", "https://host:8443.evil/"):
        assert found(other) == ()
    assert "s3cret" not in repr(found)


def test_netrc_is_read_for_the_server_and_not_by_default(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine host login me password s3cret\ndefault login you password other\n")
    environ = {"HOME": str(tmp_path)}
    assert Credentials(URL, environ=environ)(URL) == BASIC
    assert Credentials("https://else", environ=environ)("https://else/") == ()
    (tmp_path / ".netrc").write_text("machine a login b s3cret\n")
    with pytest.raises(HostError) as error:
        Credentials(URL, environ=environ)(URL)
    assert error.value.diagnostics[0].id == "bad-netrc"
    assert "s3cret" not in str(error.value)


def test_what_was_given_comes_before_all_else() -> None:
    given = (("X-Token", "abc"),)
    assert Credentials(URL, given=given, login=("me", "s3cret"), environ={})(URL) == given


def test_a_helper_is_asked_as_bazel_asks_it_and_once(tmp_path: Path) -> None:
    program = helper(
        tmp_path,
        f"open({str(tmp_path / 'asked')!r}, 'a').write(sys.argv[1] + ' ' + asked['uri'] + '\\n')\n"
        "print(json.dumps({'headers': {'Authorization': ['Bearer a'], 'X': ['1', '2']}}))",
    )
    found = Credentials(URL, helper=program, environ={})
    headers = (("Authorization", "Bearer a"), ("X", "1"), ("X", "2"))
    assert found(URL + "/ac/1") == found(URL + "/ac/2") == headers
    assert (tmp_path / "asked").read_text() == f"get {URL}/ac/1\n"
    assert found(URL + "/ac/3", fresh=True) == headers
    assert (tmp_path / "asked").read_text().count("\n") == 2


@pytest.mark.parametrize("expires", ["2001-01-01T00:00:00Z", "2001-01-01T00:00:00+02:00"])
def test_what_has_expired_is_asked_for_again(tmp_path: Path, expires: str) -> None:
    program = helper(
        tmp_path,
        f"open({str(tmp_path / 'asked')!r}, 'a').write('x')\n"
        f"print(json.dumps({{'headers': {{}}, 'expires': {expires!r}}}))",
    )
    found = Credentials(URL, helper=program, environ={})
    assert found(URL) == found(URL) == ()
    assert (tmp_path / "asked").read_text() == "xx"


NONSENSE, UNSENT = "printed something that is not of Bazel's protocol", "gave a header that cannot be sent"
BAD = {
    "fails": ("print('s3cret', file=sys.stderr); sys.exit(3)", "ended with 3"),
    "no JSON": ("print('s3cret')", NONSENSE),
    "another shape": ("print(json.dumps({'headers': {'A': 's3cret'}}))", NONSENSE),
    "a split header": ("print(json.dumps({'headers': {'A': ['s3cret\\r\\nB: c']}}))", UNSENT),
    "a bad name": ("print(json.dumps({'headers': {'A b': ['s3cret']}}))", UNSENT),
    "a bad time": ("print(json.dumps({'expires': 's3cret'}))", "printed a time that is none"),
    "hangs": ("time.sleep(60)", "took more than 0.3 s"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "said"), BAD.values(), ids=BAD)
def test_a_helper_that_fails_is_a_fault_that_shows_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    monkeypatch.setattr("strata_engine.remote.credentials.HELPER_SECONDS", 0.3 if "60" in body else 10.0)
    with pytest.raises(Fault) as error:
        Credentials(URL, helper=helper(tmp_path, body), environ={})(URL)
    assert error.value.trouble is Trouble.REFUSED
    assert error.value.text == f"the credential helper `helper` {said}"
    assert "s3cret" not in str(error.value)


def test_a_helper_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(Fault) as error:
        Credentials(URL, helper=str(tmp_path / "none"), environ={})(URL)
    assert error.value.text == "the credential helper `none` cannot be started: No such file or directory"


def test_a_header_is_read_and_one_that_is_none_not_shown() -> None:
    assert header_of("Authorization: Bearer a:b") == (("Authorization", "Bearer a:b"),)
    for bad in ("s3cret", ": s3cret", "A: s3cret\nB: c", "A b: s3cret", "Ä: s3cret", "A: s3crét"):
        with pytest.raises(SpecError) as error:
            header_of(bad)
        assert "s3cr" not in str(error.value)
    assert not is_header("", "x")


def test_headers_are_read_line_by_line() -> None:
    assert headers_of("Authorization: Bearer a b\r\n\n X-Token:c\n") == (
        ("Authorization", "Bearer a b"),
        ("X-Token", "c"),
    )
    assert headers_of("") == ()
    with pytest.raises(SpecError) as error:
        headers_of("X-A: b\ns3cret")
    assert "s3cret" not in str(error.value.diagnostics)
