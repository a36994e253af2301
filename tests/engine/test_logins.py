"""logins: every URL can be asked about, malformed ones too, and none is shown with its login."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strata_engine import logins

TEXT = st.text(st.sampled_from("ab:/@[]?#%.1\u2100\x00 "), max_size=20)


@given(st.sampled_from(["http://", "https://", "file://", ""]), TEXT)
@example("https://", "user:pass@on].invalid/x")
def test_all_functions_are_total(scheme: str, rest: str) -> None:
    url = scheme + rest
    logins.origin(url)
    logins.userinfo(url)
    logins.public_url(url)
    logins.is_url(url)
    assert logins.split_url(logins.without_userinfo(url)).username is None


@pytest.mark.parametrize(
    "url", ["https://me:hunter2@[::1/x?q", "https://me:hunter2@on].invalid/x", "https://me:hunter2@h/x"]
)
def test_a_login_is_not_shown(url: str) -> None:
    assert "hunter2" not in logins.public_url(url)
    assert logins.userinfo(url) == ("me", "hunter2")


def test_which_are_urls() -> None:
    for url in ("https://host/", "http://127.0.0.1:80/x", "file:///x", "https://[::1]:8080/"):
        assert logins.is_url(url)
    for url in ("https://[::1/", "https://on].x/", "https://h:port/", "https://h:99999/", "http://\u2100.com/"):
        assert not logins.is_url(url)
