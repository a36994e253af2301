"""`strata cache doctor`: try a remote cache out, and say what it can do and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import click
import msgspec

from strata_engine.errors import HostError, SpecError
from strata_engine.words import size
from strata_rules.cli.options import StrataCommand, json_option
from strata_rules.cli.output import emit, emit_document

if TYPE_CHECKING:
    from strata_engine.remote.address import Address
    from strata_engine.remote.credentials import Headers
    from strata_engine.remote.doctor import Examined, Setting
    from strata_engine.remote.patience import Limits
    from strata_engine.remote.tls import Tls

_SPOKEN = {
    "http": "over HTTP",
    "https": "over HTTPS",
    "file": "as a folder",
    "grpc": "over gRPC",
    "grpcs": "over gRPC with TLS",
    "s3": "as a bucket of S3",
    "gs": "as a bucket of Google Cloud Storage",
    "az": "as a container of Azure",
}
_SERVED = {"http", "https", "grpc", "grpcs"}
"""Schemes of servers that may let in whoever reaches them."""
_IN_CLEAR = {"http", "grpc"}
_STATES = {"skipped": "-"}


class Access(NamedTuple):
    """What lets us in."""

    headers: Headers
    helper: str
    tls: Tls
    limits: Limits

    def __repr__(self) -> str:
        return "Access(…)"


def _zone(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    from strata_engine.remote.address import checked_zone  # noqa: PLC0415 - help does without

    try:
        return checked_zone(value)
    except ValueError:
        message = f"`{value}` is not the name of a zone, as `main`, `pr/17` or `dev/ada`"
        raise click.BadParameter(message, ctx, parameter) from None


@click.command("doctor", cls=StrataCommand, short_help="Try out remote caches.")
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option("--write/--no-write", default=True, help="Whether to write to it; on by default. What is written stays.")
@click.option("--remote-zone", metavar="ZONE", envvar="STRATA_REMOTE_ZONE", default="main", callback=_zone,
              help="The zone to try, where the URL has a place for one; `main` by default.")  # fmt: skip
@click.option("--credential-helper", metavar="PROGRAM", envvar="STRATA_CREDENTIAL_HELPER", default="",
              help="A program that prints headers, as for Bazel.")  # fmt: skip
@click.option("--client-certificate", metavar="FILE", envvar="STRATA_CLIENT_CERTIFICATE", default="",
              help="The certificate to show to the server.")  # fmt: skip
@click.option("--client-key", metavar="FILE", envvar="STRATA_CLIENT_KEY", default="", help="Its private key.")
@click.option("--remote-ca", metavar="FILE", envvar="STRATA_REMOTE_CA", default="",
              help="The authorities that the server's certificate may come from.")  # fmt: skip
@click.option("--remote-timeout", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True), default=10.0,
              help="How long a call may make no progress; 10 by default.")  # fmt: skip
@json_option
def doctor(
    urls: tuple[str, ...],
    remote_zone: str,
    credential_helper: str,
    client_certificate: str,
    client_key: str,
    remote_ca: str,
    remote_timeout: float,
    *,
    write: bool,
    as_json: bool,
) -> int:
    """Try out remote caches: whether they answer, let us in, keep what is written, how fast, and how much.

    Without a URL, those of STRATA_REMOTE_CACHE. Headers, one `NAME: VALUE` per line, are read from
    STRATA_REMOTE_HEADER. Exits with 3 where one cannot be used.
    """
    from strata_engine.remote.address import parse  # noqa: PLC0415 - help does without
    from strata_engine.remote.credentials import headers_of  # noqa: PLC0415 - help does without
    from strata_engine.remote.patience import Limits  # noqa: PLC0415 - help does without
    from strata_engine.remote.tls import Tls, checked  # noqa: PLC0415 - help does without

    addresses = [parse(url) for url in urls or _configured(os.environ)]
    access = Access(
        headers_of(os.environ.get("STRATA_REMOTE_HEADER", "")),
        credential_helper,
        checked(Tls(client_certificate, client_key, remote_ca)),
        Limits(stall=remote_timeout),
    )
    found = [_examined(address, remote_zone, access, write=write) for address in addresses]
    usable = all(examined.usable for examined in found)
    if as_json:
        fields = {"usable": usable, "zone": remote_zone, "caches": msgspec.to_builtins(found)}
        emit_document("strata.cache-doctor", 1, fields)
    else:
        emit("\n\n".join(map(_text, found)))
    return 0 if usable else HostError.exit_code


def _configured(environ: Mapping[str, str]) -> list[str]:
    urls = environ.get("STRATA_REMOTE_CACHE", "").replace(",", " ").split()
    if not urls:
        hint = "as in `strata cache doctor https://cache.example/strata`"
        raise SpecError.of("no-remote-cache", "no URL is given, and `STRATA_REMOTE_CACHE` has none", hint=hint)
    return urls


def _examined(address: Address, zone: str, access: Access, *, write: bool) -> Examined:
    from strata_engine.remote.backend import Fault  # noqa: PLC0415 - help does without
    from strata_engine.remote.doctor import examine, failed  # noqa: PLC0415 - help does without
    from strata_engine.remote.opened import opened  # noqa: PLC0415 - help does without

    headers, helper, tls, limits = access
    try:
        remote = opened(address, zone, given=headers, helper=helper, tls=tls, limits=limits)
    except Fault as fault:
        return failed(address.shown, fault)
    try:
        return examine(remote, _setting(address, zone, access), _nothing, write=write)
    finally:
        remote.close()


def _nothing() -> None:
    """Nobody cancels it: an interrupt ends the call itself."""


def _setting(address: Address, zone: str, access: Access) -> Setting:
    from strata_engine.remote.doctor import Setting  # noqa: PLC0415 - help does without

    parts = urlsplit(address.shown)
    return Setting(
        kind=_SPOKEN.get(parts.scheme, f"over {parts.scheme}"),
        zones=address.has_zones,
        zone=zone,
        credential=_credential(address, access),
        open_to_all=parts.scheme in _SERVED,
        in_clear=parts.scheme in _IN_CLEAR and parts.hostname not in {"localhost", "127.0.0.1", "::1"},
    )


def _credential(address: Address, access: Access) -> str:
    """Say what lets us in, in the order in which it is looked for."""
    from strata_engine.logins import read_netrc  # noqa: PLC0415 - help does without

    parts = urlsplit(address.shown)
    if parts.scheme not in _SERVED:
        return "the permissions of the folder" if parts.scheme == "file" else "the keys of this account"
    if access.headers:
        found = ["`STRATA_REMOTE_HEADER`"]
    elif getattr(address, "login", None):
        found = ["the login of its URL"]
    elif access.helper:
        found = [f"the credential helper `{PurePath(access.helper).name}`"]
    elif parts.hostname in read_netrc(os.environ).hosts:
        found = ["the login of netrc"]
    else:
        found = []
    if access.tls.certificate and parts.scheme not in _IN_CLEAR:
        found.append("the client certificate")
    return " and ".join(found)


def _text(found: Examined) -> str:
    lines = [f"{found.url}  {_verdict(found)}"]
    for finding in found.findings:
        lines.append(f"  {_STATES.get(finding.state, finding.state):<5} {finding.check:<12} {finding.text}")
        if finding.hint:
            lines.append(f"        {'':<12} hint: {finding.hint}")
    if found.left:
        lines.append(f"  left  {size(found.left)} of random bytes stay there, under names that nothing else uses")
    return "\n".join(lines)


def _verdict(found: Examined) -> str:
    if not found.usable:
        return "not usable"
    if found.writable is None:
        return "usable, reads"
    return "usable, reads and writes" if found.writable else "usable, reads only"
