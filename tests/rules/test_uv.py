"""uv: which variables are settings and which are secrets, and what its failures mean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from strata_engine.errors import ActionError, HostError, SpecError, StrataError
from strata_rules import uv

ENVIRON = {
    "UV_DEFAULT_INDEX": "https://user:hunter2@host.invalid/simple",
    "UV_INDEX": "own=https://token@one.invalid/simple https://two.invalid/simple",
    "UV_FIND_LINKS": "/some/wheels,https://user:hunter2@host.invalid/links",
    "UV_INDEX_OWN_USERNAME": "lonely-token",
    "UV_INDEX_TWO_USERNAME": "two",
    "UV_INDEX_TWO_PASSWORD": "second2",
    "UV_PRERELEASE": "allow",
    "UV_CONFIG_FILE": "/etc/uv.toml",
    "UV_EXCLUDE_NEWER": "2024-01-01",
    "PIP_INDEX_URL": "https://pip.invalid",
    "HTTPS_PROXY": "http://proxy:secret3@proxy.invalid",
    "https_proxy": "http://lower.invalid",
    "HOME": "/home/user",
    "VIRTUAL_ENV": "/venv",
    "AWS_SECRET_ACCESS_KEY": "nope",
}


def test_settings_are_for_the_key_and_have_no_logins_and_no_folders() -> None:
    assert uv.settings(ENVIRON) == {
        "UV_DEFAULT_INDEX": "https://host.invalid/simple",
        "UV_INDEX": "own=https://one.invalid/simple https://two.invalid/simple",
        "UV_FIND_LINKS": "https://host.invalid/links",
        "UV_PRERELEASE": "allow",
    }
    assert uv.find_links_folders(ENVIRON) == ("/some/wheels",)


def test_access_is_a_chosen_few() -> None:
    found = uv.access(ENVIRON)
    assert found["UV_DEFAULT_INDEX"] == ENVIRON["UV_DEFAULT_INDEX"]
    assert found["https_proxy"] == "http://lower.invalid"
    assert found["UV_INDEX_TWO_PASSWORD"] == "second2"
    assert not found.keys() & {"UV_CONFIG_FILE", "PIP_INDEX_URL", "VIRTUAL_ENV", "AWS_SECRET_ACCESS_KEY"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep certificates where no variable points")
def test_uv_trusts_what_the_system_trusts_where_nobody_said_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "certificates.pem"
    # What OpenSSL takes for the system's store; a test cannot change what it was compiled with.
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert "UV_SYSTEM_CERTS" not in uv.access({"HOME": "/home/user"})
    store.touch()
    assert uv.access({"HOME": "/home/user"})["UV_SYSTEM_CERTS"] == "true"
    assert uv.access({"UV_SYSTEM_CERTS": "0"})["UV_SYSTEM_CERTS"] == "0"
    assert uv.access({"SSL_CERT_FILE": "/mine.pem"}) == {"SSL_CERT_FILE": "/mine.pem"}
    assert uv.access({"SSL_CERT_FILE": ""}) == {"UV_SYSTEM_CERTS": "true"}


def test_secrets_are_known_and_cleaned_away() -> None:
    hidden = uv.secrets(ENVIRON, ["https://user:p%40ss@three.invalid/"])
    assert {"hunter2", "token", "lonely-token", "second2", "secret3", "p@ss", "p%40ss"} <= hidden
    assert "two" not in hidden
    text = "error: https://x:hunter2@host.invalid/ with second2 and https://someone@else.invalid/"
    assert uv.clean(text, hidden) == "error: https://host.invalid/ with **** and https://else.invalid/"


def test_cleaned_output_is_for_people(tmp_path: Path) -> None:
    text = f"""Using CPython 3.11.2 interpreter at: /usr/bin/python3
warning: `nice==1.0` is yanked
error: Failed to parse: `{tmp_path}/project/uv.toml`

hint: While the active Python version is 3.11, the resolution failed
"""
    output = uv.clean(text, folder=tmp_path / "project")
    assert output == "warning: `nice==1.0` is yanked\nerror: Failed to parse: `uv.toml`"
    assert uv.warnings(output) == ["`nice==1.0` is yanked"]
    assert len(uv.clean("\n".join(map(str, range(1000)))).splitlines()) == 60


@pytest.mark.parametrize(
    ("output", "kind", "name"),
    [
        ("error: No solution found when resolving dependencies", SpecError, "no-solution"),
        ("error: No solution found\nhint: an index (https://h/) ... (401 Unauthorized)", HostError, "index-login"),
        ("error: No solution found\nhint: unavailable because the network was disabled", HostError, "offline"),
        ("error: Failed to fetch: `https://h/simple/x/`\n  cause: dns error", HostError, "unreachable"),
        ("error: Failed to parse: `uv.toml`\n  cause: TOML parse error", SpecError, "bad-uv-settings"),
        ("error: failed to write\n  cause: No space left on device (os error 28)", HostError, "uv-cannot-write"),
        ("thread 'main' panicked", ActionError, "uv-failed"),
    ],
)
def test_each_failure_says_who_is_to_act(output: str, kind: type[StrataError], name: str) -> None:
    error = uv.failure("app-x", output, None)
    assert type(error) is kind
    assert error.diagnostics[0].id == name
    assert "`app-x`" in error.diagnostics[0].message


@pytest.mark.parametrize(
    "url", ["https://u:hunter2@host:99999/", "https://u:hun/ter2@host/", "https://u:hunter2@[h/", "u:hunter2@host/"]
)
def test_a_login_in_an_unreadable_url_is_refused_unshown(url: str) -> None:
    for environ, indexes in (({"UV_INDEX": f"own={url}"}, []), ({}, [url])):
        with pytest.raises(SpecError) as caught:
            uv.check_urls(environ, indexes)
        assert caught.value.diagnostics[0].id == "bad-index-url"
        assert "ter2" not in str(caught.value.diagnostics)


@pytest.mark.parametrize("url", ["https://[::1/simple", "https://on].invalid/", "https://host:port/simple"])
def test_a_malformed_url_is_refused(url: str) -> None:
    for environ, indexes in (({"UV_INDEX": f"own={url}"}, []), ({"UV_FIND_LINKS": url}, []), ({}, [url])):
        with pytest.raises(SpecError, match="whose host or port cannot be read") as caught:
            uv.check_urls(environ, indexes)
        assert f"`{url}`" in caught.value.diagnostics[0].message


def test_sound_urls_pass() -> None:
    uv.check_urls(ENVIRON, ["https://user:p%40ss@host.invalid:8080/simple", "file:///wheels", "https://host.invalid"])


def test_the_program_and_its_version_belong_together() -> None:
    said = subprocess.run([uv.find(), "--version"], capture_output=True, text=True, check=True).stdout
    assert said.split()[1] == uv.version()
