"""What a build is told of remote caches: which, in which zone, and what may be written.

Frozen, and plain data: a detached process is handed all of it over a pipe. No `repr` shows what lets us in.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from strata_engine.logins import Pair
from strata_engine.remote.address import Address, GrpcAddress, HttpAddress, parse
from strata_engine.remote.tls import Tls


class Upload(StrEnum):
    """What becomes of results that were made here."""

    WAIT = "wait"
    """They are sent while the build goes on, and its end waits for the last of them."""
    DETACH = "detach"
    """What is not sent by the end of the build is sent by a process that stays behind."""
    OFF = "off"
    """They stay here."""


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """One remote cache, and what lets us in."""

    url: str
    """Without a login; `{zone}` may stand in it."""
    login: Pair | None = None
    headers: tuple[tuple[str, str], ...] = ()
    helper: str = ""
    """A credential helper, as Bazel has them."""
    tls: Tls = Tls()
    """Client certificate and authorities."""

    def __repr__(self) -> str:
        return f"Access({self.url!r})"

    @property
    def address(self) -> Address:
        """Where it is."""
        address = parse(self.url)
        return address._replace(login=self.login) if isinstance(address, HttpAddress | GrpcAddress) else address

    @property
    def has_credential(self) -> bool:
        """Tell whether something that was given for it lets us in: then we are expected to write."""
        return bool(self.login or self.headers or self.helper or self.tls.certificate)


class RemoteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The remote caches of a build; none by default."""

    caches: tuple[Access, ...] = ()
    """They are asked in this order, and results are sent to all of them."""
    zone: str = "main"
    """The zone that is read first, and the only one that is written."""
    trusted: tuple[str, ...] = ("main",)
    """The zones that are read after it."""
    upload: Upload = Upload.OFF
    signing_key: str = ""
    """What results are signed with, as PEM; empty for nothing."""
    public_keys: tuple[str, ...] = ()
    """Whose signatures are accepted, as `ed25519:BASE64`; where there are any, a result must have one."""
    timeout: float = 0.0
    """Seconds without progress after which a call has stalled; 0 for the usual."""
    required: bool = False
    """Whether a cache that does not answer is an error: for tests of caches."""

    def __repr__(self) -> str:
        return f"RemoteSettings({', '.join(access.url for access in self.caches)})"

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones that are read, in order."""
        return tuple(dict.fromkeys((self.zone, *self.trusted)))
