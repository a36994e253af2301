"""Who may log in where: credentials from URLs, uv's variables and netrc, and URLs as they may be shown.

It sends nothing. A credential is given out only for the scheme, host and port that it belongs to.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from strata_engine.errors import HostError

Pair = tuple[str, str]
"""User name and password."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Credentials:
    """User names and passwords, which no `repr` shows: by URL prefix as the caller gives them, else from netrc."""

    def __init__(self, by_prefix: Mapping[str, Pair] | None = None, environ: Mapping[str, str] | None = None) -> None:
        # The longest prefix is the closest one.
        self._by_prefix = sorted((by_prefix or {}).items(), key=lambda item: -len(item[0]))
        self._environ = os.environ if environ is None else environ
        self._netrc: netrc.netrc | None = None

    def __repr__(self) -> str:
        return f"Credentials(<{len(self._by_prefix)}>)"

    def find(self, url: str, *, first: bool = True) -> Pair | None:
        """Give the login for `url`; `first` is false where a server redirected to it.

        An index often serves its files beside itself, so a login also holds for other paths of its origin, as in uv.
        netrc's `default` is for hosts that the user names, not for whatever a server redirects to.
        """
        pair = userinfo(url)
        if pair is not None:
            return pair
        near = [(prefix, given) for prefix, given in self._by_prefix if origin(prefix) == origin(url)]
        for prefix, given in near:
            if without_userinfo(url).startswith(prefix):
                return given
        if near:
            return near[0][1]
        if self._netrc is None:
            self._netrc = _read_netrc(self._environ)
        hosts = self._netrc.hosts
        entry = hosts.get(urlsplit(url).hostname or "") or (hosts.get("default") if first else None)
        return (entry[0], entry[2] or "") if entry else None


def credentials_of(indexes: Mapping[str, str], environ: Mapping[str, str]) -> Credentials:
    """Collect the logins of named index URLs: `UV_INDEX_<NAME>_USERNAME`/`_PASSWORD`, else what the URL has."""
    found: dict[str, Pair] = {}
    for name, url in indexes.items():
        variable = "".join(c if c.isascii() and c.isalnum() else "_" for c in name).upper()
        user, password = (environ.get(f"UV_INDEX_{variable}_{what}", "") for what in ("USERNAME", "PASSWORD"))
        pair = (user, password) if user or password else userinfo(url)
        if pair is not None:
            found[without_userinfo(url)] = pair
    return Credentials(found, environ)


def origin(url: str) -> tuple[str, str, int | None]:
    """Give scheme, host and port: what a login belongs to."""
    parts = urlsplit(url)
    try:
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:  # not a number: such a URL has an origin of its own
        port = -1
    return parts.scheme, parts.hostname or "", port


def userinfo(url: str) -> Pair | None:
    """Give the user and password that are written in `url`."""
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def without_userinfo(url: str) -> str:
    """Give `url` without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def public_url(url: str) -> str:
    """Give `url` as it may be shown: without user, password and query, which may be a signature."""
    parts = urlsplit(without_userinfo(url))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def redirected(url: str, target: str) -> str:
    """Give the URL that `url` redirects to, with the login written in `url` only where the origin is the same."""
    there = urljoin(without_userinfo(url), target)
    if origin(there) != origin(url):
        return without_userinfo(there)
    parts, login = urlsplit(without_userinfo(there)), urlsplit(url).netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}" if login else parts.netloc))


def _read_netrc(environ: Mapping[str, str]) -> netrc.netrc:
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
