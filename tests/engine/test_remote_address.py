"""URLs of remote caches: what is meant, what is shown, what is refused; where a result lies."""

from __future__ import annotations

import pytest

from strata_engine.codec import Action, encode_action
from strata_engine.digest import EMPTY, Digest
from strata_engine.errors import Place, SpecError, render
from strata_engine.remote.address import (
    FolderAddress,
    GrpcAddress,
    HttpAddress,
    ObjectAddress,
    checked_zone,
    parse,
    result_address,
)

PARSED = {
    "http://host": HttpAddress("http://host"),
    " https://host:8443/a/b/ ": HttpAddress("https://host:8443/a/b"),
    "https://me:p%40ss@host/a": HttpAddress("https://host/a", ("me", "p@ss")),
    "https://token@host": HttpAddress("https://host", ("token", "")),
    "https://host/{zone}/x": HttpAddress("https://host/{zone}/x"),
    "http://[::1]:80/a": HttpAddress("http://[::1]:80/a"),
    "grpc://me:s3cret@host:50051/main": GrpcAddress("grpc://host:50051/main", ("me", "s3cret")),
    "grpcs://host/": GrpcAddress("grpcs://host"),
    "file:///srv/cache/": FolderAddress("/srv/cache"),
    "file://localhost/srv/a%20b": FolderAddress("/srv/a b"),
    "file:///srv/{zone}": FolderAddress("/srv/{zone}"),
    "s3://bucket": ObjectAddress("s3", "bucket"),
    " s3://my.bucket-1/a/b/ ": ObjectAddress("s3", "my.bucket-1", "a/b"),
    "gs://my_bucket/strata/{zone}": ObjectAddress("gs", "my_bucket", "strata/{zone}"),
    "az://container/{zone}/v=1": ObjectAddress("az", "container", "{zone}/v=1"),
}


@pytest.mark.parametrize(("text", "address"), PARSED.items(), ids=PARSED)
def test_a_url_is_read(text: str, address: object) -> None:
    assert parse(text) == address


BEGINS = "it begins with none of `http://`, `https://`, `grpc://`, `grpcs://`, `s3://`, `gs://`, `az://`, `file://`"

REFUSED = {
    "grpc://host/main/blobs/x": (
        "bad-remote-url",
        "not the URL of a remote cache: the path of `grpc://host/main/blobs/x` cannot be the name of an instance",
    ),
    "grpcs://me:s3cret@/x": ("bad-remote-url", "not the URL of a remote cache: `grpcs:/x` names no server"),
    "s3://KEY:s3cret@bucket/a": (
        "bad-remote-url",
        "not the URL of a remote cache: `s3://bucket/a` is not `s3://BUCKET/PREFIX`",
    ),
    "gs://bucket:80": ("bad-remote-url", "not the URL of a remote cache: `gs://bucket:80` is not `gs://BUCKET/PREFIX`"),
    "az://c/a": ("bad-remote-url", "not the URL of a remote cache: `az://c/a` is not `az://BUCKET/PREFIX`"),
    "s3://bucket/a?versionId=1": (
        "bad-remote-url",
        "not the URL of a remote cache: `s3://bucket/a` has a query or a fragment, which a cache's paths cannot be "
        "put behind",
    ),
    "s3://bucket/a/../b": (
        "bad-remote-url",
        "not the URL of a remote cache: the path of `s3://bucket/a/../b` is not plain; `{zone}` may stand in it once",
    ),
    "s3://bucket/a//b": (
        "bad-remote-url",
        "not the URL of a remote cache: `s3://bucket/a//b` has a prefix that not everything which serves objects "
        "writes the same way",
    ),
    "s3://bucket/a%20b": (
        "bad-remote-url",
        "not the URL of a remote cache: `s3://bucket/a%20b` has a prefix that not everything which serves objects "
        "writes the same way",
    ),
    "ftp://me:s3cret@host": (
        "bad-remote-url",
        "not the URL of a remote cache: " + BEGINS,
    ),
    "me:s3cret@host/a": (
        "bad-remote-url",
        "not the URL of a remote cache: " + BEGINS,
    ),
    "": (
        "bad-remote-url",
        "not the URL of a remote cache: " + BEGINS,
    ),
    "https://me:s3cret@": ("bad-remote-url", "not the URL of a remote cache: `https://` names no server"),
    "https://me:s3cret@host:port": ("bad-remote-url", "not the URL of a remote cache: it cannot be read"),
    "https://me:s3cret@[::1": ("bad-remote-url", "not the URL of a remote cache: it cannot be read"),
    "https://host/a?token=s3cret": (
        "bad-remote-url",
        "not the URL of a remote cache: `https://host/a` has a query or a fragment, which a cache's paths cannot be "
        "put behind",
    ),
    "https://host/a/../b": (
        "bad-remote-url",
        "not the URL of a remote cache: the path of `https://host/a/../b` is not plain; `{zone}` may stand in it once",
    ),
    "https://host/{user}": (
        "bad-remote-url",
        "not the URL of a remote cache: the path of `https://host/{user}` is not plain; `{zone}` may stand in it once",
    ),
    "file:///srv/a%00b": (
        "bad-remote-url",
        "not the URL of a remote cache: the path of `file:///srv/a%00b` is not plain; `{zone}` may stand in it once",
    ),
    "file://server/srv": (
        "bad-remote-url",
        "not the URL of a remote cache: a shared folder is written `file:///PATH`",
    ),
    "file:///": ("bad-remote-url", "not the URL of a remote cache: a shared folder is written `file:///PATH`"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items(), ids=REFUSED)
def test_what_is_no_url_of_a_cache_is_refused_without_its_login(text: str, said: tuple[str, str]) -> None:
    place = Place("a.toml", 3)
    with pytest.raises(SpecError) as error:
        parse(text, place)
    (diagnostic,) = error.value.diagnostics
    assert (diagnostic.id, diagnostic.message) == said
    assert diagnostic.place == place
    assert "s3cret" not in render(diagnostic)


def test_a_login_is_in_nothing_that_is_shown() -> None:
    for scheme in ("https", "grpcs"):
        address = parse(f"{scheme}://me:s3cret@host/{{zone}}")
        assert isinstance(address, (HttpAddress, GrpcAddress))
        assert "s3cret" not in repr(address) + str(address) + address.shown + f"{[address]}"
        assert address.in_zone("main").login == ("me", "s3cret")


def test_the_path_of_a_grpc_address_is_an_instance_and_its_port_is_http_s_where_none_is_given() -> None:
    found = [
        parse(url) for url in ("grpc://h", "grpcs://h/a", "grpc://h:9/a/b%20c/", "grpcs://[::1]", "grpc://[::1]:9")
    ]
    assert [(address.target, address.instance, address.tls) for address in found] == [  # type: ignore[union-attr]
        ("h:80", "", False),
        ("h:443", "a", True),
        ("h:9", "a/b c", False),
        ("[::1]:443", "", True),
        ("[::1]:9", "", False),
    ]
    address = parse("grpc://h/cache/{zone}")
    assert isinstance(address, GrpcAddress)
    assert address.has_zones
    assert address.in_zone("pr/12").instance == "cache/pr/12"
    with pytest.raises(ValueError, match="instance"):
        address.in_zone("blobs")


def test_a_zone_is_a_prefix_where_the_url_has_a_place_for_it() -> None:
    address = parse("https://host/{zone}/cache")
    assert address.has_zones
    assert address.in_zone("pr/12").shown == "https://host/pr/12/cache"
    folder = parse("file:///srv/{zone}")
    assert folder.in_zone("main") == FolderAddress("/srv/main")
    assert not parse("https://host").has_zones
    bucket = parse("s3://bucket/{zone}")
    assert bucket.in_zone("pr/12").shown == "s3://bucket/pr/12"
    assert not parse("s3://bucket/a").has_zones


@pytest.mark.parametrize(
    "zone", ["", ".", "..", "a/../b", "/a", "a/", "a//b", "a b", "ä", "a\0", "a%2f", "-a", "a" * 201]
)
def test_a_zone_that_would_lead_elsewhere_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="not the name of a zone"):
        checked_zone(zone)


def test_the_remote_address_of_a_result_never_changes() -> None:
    """Results lie at these in every remote cache without prefixes."""
    action = encode_action(Action(EMPTY, EMPTY, b"epoch", (("os", "linux"),)))
    assert result_address(action) == Digest.of(action)
    zoned = encode_action(Action(EMPTY, EMPTY, b"epoch\0main", (("os", "linux"),)))
    assert result_address(action, "main") == Digest.of(zoned)
    assert result_address(action, "main").hash == "7ade21c28c56fd60c18cfee422d993d5fed74c90cfa5460b3e92498696c476b9"


def test_no_two_pairs_of_epoch_and_zone_share_an_address() -> None:
    pairs = [(b"", ""), (b"", "ab"), (b"a", "b"), (b"ab", ""), (b"a", "bc"), (b"ab", "c"), (b"main", ""), (b"", "main")]
    found = {result_address(encode_action(Action(EMPTY, EMPTY, epoch)), zone) for epoch, zone in pairs}
    assert len(found) == len(pairs)
    for zone in ("", "main"):
        with pytest.raises(ValueError, match="NUL"):
            result_address(encode_action(Action(EMPTY, EMPTY, b"\0main")), zone)
    with pytest.raises(ValueError, match="Action"):
        result_address(b"", "main")
