"""An address made into a backend: which one speaks for which kind of address, in which zone, let in by what.

It asks nothing yet: what is wrong with a remote shows when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import metadata

from strata_engine.remote.address import Address, FolderAddress, GrpcAddress, HttpAddress, ObjectAddress
from strata_engine.remote.backend import Backend, Fault, Trouble
from strata_engine.remote.clouds import settings_of
from strata_engine.remote.credentials import Credentials, Headers, HeaderSource
from strata_engine.remote.folder import FolderCache
from strata_engine.remote.http import HttpCache
from strata_engine.remote.patience import LIMITS, Limits
from strata_engine.remote.tls import NO_TLS, Tls


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
    """Open a remote cache, in a zone where the address has a place for one. Raises Fault, SpecError, ValueError.

    `given`, `helper` and `tls` are for servers that ask who we are; `environ` has what lets us into buckets.
    """
    place = address.in_zone(zone) if address.has_zones else address
    match place:
        case HttpAddress(url, login):
            headers = Credentials(url, given=given, login=login, helper=helper, environ=environ)
            return HttpCache(url, headers=headers, tls=tls, limits=limits)
        case FolderAddress(folder):
            return FolderCache(folder, place.shown)
        case ObjectAddress():
            return _in_bucket(place, os.environ if environ is None else environ, limits)
        case GrpcAddress():
            # Credential helpers know servers by the address that Bazel gives them for gRPC.
            url = f"https://{place.target.removesuffix(':443')}"
            headers = Credentials(url, given=given, login=place.login, helper=helper, environ=environ)
            return _reapi(place, url, headers, tls, limits)


def _in_bucket(place: ObjectAddress, environ: Mapping[str, str], limits: Limits) -> Backend:
    """Open a cache in a bucket, with what is an extra: most never need it, and it has 15 MB of machine code."""
    try:
        from strata_engine.remote import objects  # noqa: PLC0415 - see above
    except ImportError:
        raise _lacking(place, "obstore, which speaks with object stores, is not installed", "objects") from None
    try:
        settings = settings_of(place.scheme, environ)
    except ValueError as error:
        raise Fault(Trouble.UNSUPPORTED, place.shown, str(error), hint="see README, Remote caches") from None
    bucket = objects.bucket_of(place.scheme, place.bucket, place.prefix, settings, limits)
    return objects.ObjectCache(bucket, place.shown, limits=limits)


def _reapi(place: GrpcAddress, url: str, headers: HeaderSource, tls: Tls, limits: Limits) -> Backend:
    """Open a cache over gRPC, likewise: its libraries have 40 MB."""
    try:
        from strata_engine.remote.calls import Server  # noqa: PLC0415 - see above
        from strata_engine.remote.reapi import ReapiCache  # noqa: PLC0415 - see above
    except ImportError:
        raise _lacking(place, "grpcio and protobuf are not installed, or not for this Python", "grpc") from None
    server = Server(place.target, place.shown, place.tls, place.instance, url)
    return ReapiCache(server, version=_version(), headers=headers, tls=tls, limits=limits)


def _lacking(place: Address, text: str, extra: str) -> Fault:
    return Fault(Trouble.UNSUPPORTED, place.shown, text, hint=f'`pip install "stratabuild[{extra}]"`')


def _version() -> str:
    try:
        return metadata.version("stratabuild")
    except metadata.PackageNotFoundError:
        return ""
