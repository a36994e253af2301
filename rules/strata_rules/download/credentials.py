"""Who may log in where: credentials from URLs, uv's variables and netrc.

It sends nothing. A credential is given out only for the scheme, host and port that it belongs to.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping

from strata_engine.logins import Pair, origin, read_netrc, split_url, userinfo, without_userinfo


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
            self._netrc = read_netrc(self._environ)
        hosts = self._netrc.hosts
        entry = hosts.get(split_url(url).hostname or "") or (hosts.get("default") if first else None)
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
