"""Which remote cache is meant, and where in it the result of an action lies.

It connects to nothing. A URL is read once, its login is taken out, and what is left may be shown.

Zones, which say who may believe whose results, are never part of a key. `{zone}` in a URL puts each zone under a prefix
or into an instance of its own, which a server can guard; a URL without it has one namespace, where the address of a
result is the digest of its Action with the zone added to the salt. Results of `fixed-output` actions prove themselves,
as blobs do: no zone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias
from urllib.parse import SplitResult, quote, unquote, urlsplit

from strata_engine.codec import decode_action, encode_action
from strata_engine.digest import Digest
from strata_engine.errors import Place, SpecError
from strata_engine.logins import Pair, public_url, userinfo, without_userinfo

ZONE = "{zone}"
"""What stands in a URL for the zone."""

_BUCKETS = {"s3", "gs", "az"}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_PREFIX = re.compile(r"[A-Za-z0-9._=-]*(/[A-Za-z0-9._=-]+)*")
_SCHEMES = ("http", "https", "grpc", "grpcs", "s3", "gs", "az", "file")
_ZONE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_LONGEST_ZONE = 200
_RESERVED = {"actionResults", "actions", "blobs", "capabilities", "compressed-blobs", "operations", "uploads"}


class _ServerAddress(NamedTuple):
    """A server, and a place on it. No `repr` shows the login."""

    url: str
    """Without login and without a `/` at its end; it may have `{zone}` in its path."""
    login: Pair | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}{', login=…' if self.login else ''})"

    @property
    def shown(self) -> str:
        """Give the address as a person may see it."""
        return self.url

    @property
    def has_zones(self) -> bool:
        """Tell whether each zone has a place of its own."""
        return ZONE in self.url

    def in_zone(self, zone: str) -> Self:
        """Give the address of one zone."""
        return self._replace(url=self.url.replace(ZONE, quote(checked_zone(zone))))


class HttpAddress(_ServerAddress):
    """A cache that speaks the Bazel HTTP protocol."""

    __slots__ = ()


class GrpcAddress(_ServerAddress):
    """One instance of a server of the Remote Execution API: the path of its URL is the instance's name."""

    __slots__ = ()

    def in_zone(self, zone: str) -> Self:
        """Give the address of one zone. Raises ValueError where an instance cannot be called so."""
        made = super().in_zone(zone)
        if not is_instance(made.instance):
            raise ValueError(f"not the name of a zone that an instance can have: {zone!r}")
        return made

    @property
    def tls(self) -> bool:
        """Whether it is spoken to over TLS."""
        return self.url.startswith("grpcs:")

    @property
    def target(self) -> str:
        """Give host and port; without a port they are HTTP's, as in Bazel."""
        parts = urlsplit(self.url)
        return parts.netloc if parts.port else f"{parts.netloc.rstrip(':')}:{443 if self.tls else 80}"

    @property
    def instance(self) -> str:
        """Give the name of the instance; many servers have one without a name."""
        return unquote(urlsplit(self.url).path).strip("/")


class FolderAddress(NamedTuple):
    """A folder that several machines share."""

    folder: str
    """Absolute; it may have `{zone}` in it."""

    @property
    def shown(self) -> str:
        """Give the address as a person may see it."""
        return "file://" + quote(self.folder, safe="/{}")

    @property
    def has_zones(self) -> bool:
        """Tell whether each zone has a place of its own."""
        return ZONE in self.folder

    def in_zone(self, zone: str) -> FolderAddress:
        """Give the address of one zone."""
        return FolderAddress(self.folder.replace(ZONE, checked_zone(zone)))


class ObjectAddress(NamedTuple):
    """A bucket of an object store, or a container of Azure's. What lets us in is in the environment."""

    scheme: str
    """`s3`, `gs` or `az`."""
    bucket: str
    prefix: str = ""
    """Without a `/` at either end; it may have `{zone}` in it."""

    @property
    def shown(self) -> str:
        """Give the address as a person may see it."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def has_zones(self) -> bool:
        """Tell whether each zone has a place of its own."""
        return ZONE in self.prefix

    def in_zone(self, zone: str) -> ObjectAddress:
        """Give the address of one zone."""
        return self._replace(prefix=self.prefix.replace(ZONE, checked_zone(zone)))


Address: TypeAlias = HttpAddress | FolderAddress | ObjectAddress | GrpcAddress
"""Where a remote cache is."""


def parse(text: str, place: Place | None = None) -> Address:
    """Read the URL of a remote cache. Raises SpecError, which shows no login, at `place` where it was written."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        # What is not a URL cannot be searched for a login, so it is not shown.
        raise _not_a_url("it cannot be read", place) from None
    shown = public_url(text.strip())
    if parts.scheme not in _SCHEMES:
        raise _not_a_url(f"it begins with none of {', '.join(f'`{scheme}://`' for scheme in _SCHEMES)}", place)
    if parts.query or parts.fragment:
        raise _not_a_url(f"`{shown}` has a query or a fragment, which a cache's paths cannot be put behind", place)
    if _is_hostile(parts.path) or parts.path.count(ZONE) > 1 or "{" in parts.path.replace(ZONE, ""):
        raise _not_a_url(f"the path of `{shown}` is not plain; `{ZONE}` may stand in it once", place)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/") or not parts.path.strip("/"):
            raise _not_a_url("a shared folder is written `file:///PATH`", place)
        return FolderAddress(str(Path(unquote(parts.path))))
    if parts.scheme in _BUCKETS:
        return _bucket(parts, shown, place)
    if not parts.hostname or port == 0 or "{" in parts.netloc:
        raise _not_a_url(f"`{shown}` names no server", place)
    plain, login = without_userinfo(text.strip()).rstrip("/"), userinfo(text.strip())
    if parts.scheme in {"http", "https"}:
        return HttpAddress(plain, login)
    address = GrpcAddress(plain, login)
    if not is_instance(address.instance.replace(ZONE, "zone")):
        raise _not_a_url(f"the path of `{shown}` cannot be the name of an instance", place)
    return address


def _bucket(parts: SplitResult, shown: str, place: Place | None) -> ObjectAddress:
    if not _BUCKET.fullmatch(parts.netloc):
        # A login has no place in it, either: clouds have their variables.
        raise _not_a_url(f"`{shown}` is not `{parts.scheme}://BUCKET/PREFIX`", place)
    prefix = parts.path.strip("/")
    if not _PREFIX.fullmatch(prefix.replace(ZONE, "zone")) or "." in prefix.split("/"):
        raise _not_a_url(f"`{shown}` has a prefix that not everything which serves objects writes the same way", place)
    return ObjectAddress(parts.scheme, parts.netloc, prefix)


def result_address(action: bytes, zone: str = "") -> Digest:
    """Give the remote address of the result of an encoded Action, in a namespace that all zones share.

    `zone` is empty where the backend keeps zones apart, and for `fixed-output` actions: then it is the plain key.
    A NUL between epoch and zone makes every pair of them a salt of its own.
    """
    decoded = decode_action(action)
    if b"\0" in decoded.salt:
        raise ValueError("a salt with a NUL in it could be taken for one with a zone")
    if not zone:
        return Digest.of(action)
    salt = decoded.salt + b"\0" + checked_zone(zone).encode()
    return Digest.of(encode_action(decoded._replace(salt=salt)))


def is_instance(name: str) -> bool:
    """Tell whether an instance may be called so: the words that follow a name in the protocol must not be in it."""
    return name == "" or all(part and part not in _RESERVED for part in name.split("/"))


def checked_zone(zone: str) -> str:
    """Give the name of a zone back. Raises ValueError where it is none: names of it become parts of paths."""
    if len(zone) > _LONGEST_ZONE or not _ZONE_NAME.fullmatch(zone):
        raise ValueError(f"not the name of a zone: {zone!r}")
    return zone


def _is_hostile(path: str) -> bool:
    plain = unquote(path)
    return any(ord(c) < 32 or ord(c) == 127 for c in plain) or ".." in plain.split("/")


def _not_a_url(why: str, place: Place | None) -> SpecError:
    hint = "for example `https://cache.example/strata`, `grpcs://HOST/INSTANCE`, or `file:///PATH` for a shared folder"
    return SpecError.of("bad-remote-url", f"not the URL of a remote cache: {why}", place, hint=hint)
