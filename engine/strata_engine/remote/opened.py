"""An address made into a backend: which one speaks for which kind of address, in which zone, let in by what.

It asks nothing yet: what is wrong with a remote shows when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from strata_engine.remote.address import Address, FolderAddress, HttpAddress, ObjectAddress
from strata_engine.remote.backend import Backend, Fault, Trouble
from strata_engine.remote.clouds import settings_of
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
        case ObjectAddress():
            return _in_bucket(place, os.environ if environ is None else environ, limits)


def _in_bucket(place: ObjectAddress, environ: Mapping[str, str], limits: Limits) -> Backend:
    """Open a cache in a bucket, with what is an extra: most never need it, and it has 15 MB of machine code."""
    try:
        from strata_engine.remote import objects  # noqa: PLC0415 - see above
    except ImportError:
        text, hint = (
            "obstore, which speaks with object stores, is not installed",
            '`pip install "stratabuild[objects]"`',
        )
        raise Fault(Trouble.UNSUPPORTED, place.shown, text, hint=hint) from None
    try:
        settings = settings_of(place.scheme, environ)
    except ValueError as error:
        raise Fault(Trouble.UNSUPPORTED, place.shown, str(error), hint="see README, Remote caches") from None
    bucket = objects.bucket_of(place.scheme, place.bucket, place.prefix, settings, limits)
    return objects.ObjectCache(bucket, place.shown, limits=limits)
