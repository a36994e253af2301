"""An address made into a backend: which one speaks for which kind of address, in which zone, let in by what.

It asks nothing yet: what is wrong with a remote shows when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping

from strata_engine.remote.address import Address, FolderAddress, HttpAddress
from strata_engine.remote.backend import Backend
from strata_engine.remote.credentials import Credentials, Headers
from strata_engine.remote.folder import FolderCache
from strata_engine.remote.http import HttpCache
from strata_engine.remote.tls import Tls
from strata_engine.remote.wire import LIMITS, NO_TLS, Limits


def opened(
    address: Address,
    zone: str = "",
    *,
    given: Headers = (),
    helper: str = "",
    tls: Tls = NO_TLS,
    environ: Mapping[str, str] | None = None,
    limits: Limits = LIMITS,
) -> Backend:
    """Open a remote cache, in a zone where the address has a place for one. Raises Fault, SpecError, ValueError."""
    place = address.in_zone(zone) if address.has_zones else address
    match place:
        case HttpAddress(url, login):
            headers = Credentials(url, given=given, login=login, helper=helper, environ=environ)
            return HttpCache(url, headers=headers, tls=tls, limits=limits)
        case FolderAddress(folder):
            return FolderCache(folder, place.shown)
