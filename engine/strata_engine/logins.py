"""Which server a login is for, where people keep theirs, and URLs as they may be shown.

It sends nothing and remembers nothing. A login belongs to a scheme, host and port, and is given to no other.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from strata_engine.errors import HostError

Pair = tuple[str, str]
"""User name and password."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


def split_url(url: str) -> SplitResult:
    """Take a URL apart; a malformed one as far as it goes, for messages that must not show its login."""
    try:
        return urlsplit(url)
    except ValueError:
        scheme, _, rest = url.partition("://")
        netloc, slash, path = rest.partition("/")
        return SplitResult(scheme.lower(), netloc, slash + path, "", "")


def is_url(url: str) -> bool:
    """Tell whether a URL is well-formed as far as its host and port."""
    try:
        parts = urlsplit(url)
        return parts.port is None or bool(parts.hostname)
    except ValueError:
        return False


def origin(url: str) -> tuple[str, str, int | None]:
    """Give scheme, host and port: what a login belongs to."""
    parts = split_url(url)
    try:
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:  # not a number: such a URL has an origin of its own
        port = -1
    return parts.scheme, parts.hostname or "", port


def userinfo(url: str) -> Pair | None:
    """Give the user and password that are written in `url`."""
    parts = split_url(url)
    if parts.username is None and parts.password is None:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def without_userinfo(url: str) -> str:
    """Give `url` without user and password."""
    parts = split_url(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def public_url(url: str) -> str:
    """Give `url` as it may be shown: without user, password and query, which may be a signature."""
    parts = split_url(without_userinfo(url))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def redirected(url: str, target: str) -> str:
    """Give the URL that `url` redirects to, with the login written in `url` only where the origin is the same.

    Raises ValueError for a target that is malformed.
    """
    there = urljoin(without_userinfo(url), target)
    if origin(there) != origin(url):
        return without_userinfo(there)
    parts, login = urlsplit(without_userinfo(there)), urlsplit(url).netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}" if login else parts.netloc))


def read_netrc(environ: Mapping[str, str]) -> netrc.netrc:
    """Read the user's netrc: `NETRC`, `~/.netrc` or `~/_netrc`; nothing is in it where there is none.

    Raises HostError where it is not valid.
    """
    named = environ.get("NETRC")
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or "")
    places = [Path(named)] if named else [home / ".netrc", home / "_netrc"]
    for place in places:
        try:
            return netrc.netrc(str(place))
        except OSError:  # most people have none
            continue
        except netrc.NetrcParseError as error:
            # The error's own text quotes the token it stumbled over, which may be a password.
            raise HostError.of("bad-netrc", f"cannot read `{place}`: not valid at line {error.lineno}") from None
    return netrc.netrc(os.devnull)
