"""An address made into a backend: which one speaks for which kind of address, in which zone, let in by what.

It asks nothing yet: what is wrong with a remote shows when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from strata_engine.remote.address import Address, FolderAddress, GrpcAddress, HttpAddress
from strata_engine.remote.backend import Backend, Fault, Trouble
from strata_engine.remote.credentials import Credentials, Headers, HeaderSource, Identity
from strata_engine.remote.folder import FolderCache
from strata_engine.remote.http import HttpCache
from strata_engine.remote.patience import LIMITS, Limits


def opened(
    address: Address,
    zone: str = "",
    *,
    given: Headers = (),
    helper: str = "",
    environ: Mapping[str, str] | None = None,
    identity: Identity | None = None,
    limits: Limits = LIMITS,
) -> Backend:
    """Open a remote cache, in a zone where the address has a place for one. Raises Fault, ValueError.

    `given` and `helper` are for servers that ask who we are; `identity` for those that ask over TLS.
    """
    place = address.in_zone(zone) if address.has_zones else address
    match place:
        case HttpAddress(url, login):
            headers = Credentials(url, given=given, login=login, helper=helper, environ=environ)
            return HttpCache(url, headers=headers, identity=identity, limits=limits)
        case FolderAddress(folder):
            return FolderCache(folder, place.shown)
        case GrpcAddress():
            # Credential helpers know servers by the address that Bazel gives them for gRPC.
            url = f"https://{place.target.removesuffix(':443')}"
            headers = Credentials(url, given=given, login=place.login, helper=helper, environ=environ)
            return _reapi(place, url, headers, identity, limits)


def _reapi(place: GrpcAddress, url: str, headers: HeaderSource, identity: Identity | None, limits: Limits) -> Backend:
    try:
        # Their libraries are an extra, and cost those who ask no such server nothing.
        from strata_engine.remote.calls import Server  # noqa: PLC0415
        from strata_engine.remote.reapi import ReapiCache  # noqa: PLC0415
    except ImportError:
        hint = 'pip install "stratabuild[grpc]"'
        text = "grpcio and protobuf are not installed, or not for this Python"
        raise Fault(Trouble.UNSUPPORTED, place.shown, text, hint=hint) from None
    server = Server(place.target, place.shown, place.tls, place.instance, url)
    return ReapiCache(server, version=_version(), headers=headers, identity=identity, limits=limits)


def _version() -> str:
    try:
        return metadata.version("stratabuild")
    except metadata.PackageNotFoundError:
        return ""
