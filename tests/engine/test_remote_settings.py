"""What a build is told of remote caches: plain data that shows nothing of what lets us in."""

from __future__ import annotations

import msgspec
import pytest

from strata_engine.detached import Charge
from strata_engine.remote.address import FolderAddress, HttpAddress
from strata_engine.remote.settings import Access, RemoteSettings, Upload
from strata_engine.remote.tls import Tls

SECRET = "s3cret"
FULL = Access(
    url="https://host/{zone}",
    login=("me", SECRET),
    headers=(("X-Token", SECRET),),
    helper="/bin/helper",
    tls=Tls("/c.pem", "/k.pem", "/ca.pem"),
)
SETTINGS = RemoteSettings(
    caches=(FULL, Access(url="file:///x")),
    zone="dev/me",
    trusted=("main", "dev/me", "release"),
    upload=Upload.DETACH,
    signing_key=f"-----BEGIN {SECRET}",
    public_keys=("ed25519:abc",),
    timeout=1.5,
    required=True,
)


def test_nothing_shows_what_lets_us_in() -> None:
    charge = Charge(store=b"/store", settings=SETTINGS, private=(b"/home/me/",))
    for value in (FULL, SETTINGS, charge):
        for text in (repr(value), str(value), f"{value}", repr([value]), f"{(value,)!s}"):
            assert SECRET not in text
    assert repr(FULL) == "Access('https://host/{zone}')"
    assert repr(SETTINGS) == "RemoteSettings(https://host/{zone}, file:///x)"
    assert SECRET not in repr(FULL.address)


def test_a_detached_process_is_told_all_of_it() -> None:
    charge = Charge(store=b"/st\xffore", settings=SETTINGS, private=(b"/h\xff/",))
    there = msgspec.json.decode(msgspec.json.encode(charge), type=Charge)
    assert there == charge
    assert there.settings.caches[0].login == ("me", SECRET)


def test_the_own_zone_is_read_first_and_each_zone_once() -> None:
    assert SETTINGS.zones == ("dev/me", "main", "release")
    assert RemoteSettings().zones == ("main",)
    assert RemoteSettings(zone="pr/1", trusted=()).zones == ("pr/1",)


@pytest.mark.parametrize(
    ("access", "credential"),
    [
        (Access(url="https://host"), False),
        (Access(url="https://host", tls=Tls(authority="/ca.pem")), False),
        (Access(url="https://host", login=("me", "")), True),
        (Access(url="https://host", headers=(("A", "b"),)), True),
        (Access(url="https://host", helper="h"), True),
        (Access(url="https://host", tls=Tls("/c.pem")), True),
        (Access(url="file:///x"), False),
    ],
)
def test_a_credential_is_what_was_given_to_be_let_in(access: Access, credential: bool) -> None:
    assert access.has_credential == credential


def test_an_address_has_the_login_that_its_url_does_not() -> None:
    assert FULL.address == HttpAddress("https://host/{zone}", ("me", SECRET))
    assert Access(url="file:///a%20b").address == FolderAddress("/a b")
