"""Which remote caches a build uses: of the command line, the environment and the stack file, as one value.

It connects to nothing. What a stack file says can be changed by whoever may propose a change to it, so it names places
and whom to trust, and nothing that is run or that lets anybody in: programs come from the command line and the
environment alone, and headers that these give are sent only where these say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from strata_engine.errors import Place, SpecError
from strata_engine.remote.address import GrpcAddress, HttpAddress, checked_zone, parse
from strata_engine.remote.credentials import Headers, headers_of
from strata_engine.remote.settings import Access, RemoteSettings, Upload
from strata_engine.remote.signing import KEY_VARIABLE, public_key, signing_key
from strata_engine.remote.tls import Tls, checked, read
from strata_rules.spec.declared import RemoteSource

CACHE = "STRATA_REMOTE_CACHE"
ZONE = "STRATA_REMOTE_ZONE"
UPLOAD = "STRATA_REMOTE_UPLOAD"
HEADER = "STRATA_REMOTE_HEADER"
HELPER = "STRATA_CREDENTIAL_HELPER"
CERTIFICATE = "STRATA_CLIENT_CERTIFICATE"
CERTIFICATE_KEY = "STRATA_CLIENT_KEY"
AUTHORITY = "STRATA_REMOTE_CA"

NONE = "none"
"""What is said instead of a URL where no remote cache is to be used, whatever is configured."""
MAIN = "main"
"""The zone of who says nothing else."""


class RemoteWishes(NamedTuple):
    """What a command line says of remote caches."""

    caches: tuple[str, ...] = ()
    zone: str = ""
    upload: Upload | None = None
    required: bool = False
    timeout: float = 0.0
    """Seconds; 0 for the usual."""
    attended: bool = False
    """Whether a person waits for the build to end."""


Places: TypeAlias = Callable[[str], Place | None]
"""Where a stack file says something of remote caches, by the field that says it."""


def remote_settings(
    wishes: RemoteWishes, source: RemoteSource, environ: Mapping[str, str], places: Places = lambda _: None
) -> RemoteSettings:
    """Give what a build is told of remote caches. Raises SpecError, at its place where the stack file says it."""
    named = wishes.caches or tuple(re.split(r"[\s,]+", environ.get(CACHE, "").strip()))
    named = tuple(text for text in named if text)
    if NONE in named:
        return RemoteSettings()
    let_in = _LetIn(
        headers_of(environ.get(HEADER, "")) if named else (),
        _program(environ.get(HELPER, "")),
        checked(Tls(*(_file(environ.get(name, "")) for name in (CERTIFICATE, CERTIFICATE_KEY, AUTHORITY)))),
    )
    texts = named or source.caches
    caches = tuple(_access(text, let_in, None if named else places("cache")) for text in texts)
    if not caches:
        return RemoteSettings()
    if any(isinstance(access.address, HttpAddress | GrpcAddress) for access in caches):
        # What is wrong with these files is said before anything is asked.
        read(let_in.tls)
    asked = wishes.zone or environ.get(ZONE, "")
    zone = asked or source.zone or zone_of_ci(environ)
    return RemoteSettings(
        caches=caches,
        zone=_zone(zone, None if asked else places("zone")),
        trusted=tuple(_zone(each, places("trusted")) for each in source.trusted),
        upload=_upload(wishes, environ, caches),
        signing_key=_signing_key(environ),
        public_keys=tuple(public_key(text, places("public_keys")).text for text in source.public_keys),
        required=wishes.required,
        timeout=wishes.timeout,
    )


def zone_of_ci(environ: Mapping[str, str]) -> str:
    """Give the zone of a build that nobody has given one: on a CI service that of the change or branch that it builds.

    `main` is what is built elsewhere, of the default branch, or of a ref that the service protects. Whether somebody
    may write there is for the server to decide.
    """
    ref = environ.get("GITHUB_REF", "")
    found = re.fullmatch(r"refs/pull/(\d+)/\w+", ref)
    number = found[1] if found else environ.get("CI_MERGE_REQUEST_IID", "")
    if number.isascii() and number.isdigit():
        return f"pr/{number}"
    if environ.get("GITHUB_EVENT_NAME") == "pull_request_target":
        # It says that it builds the branch, and may build whatever somebody has proposed.
        return "pr/target"
    name = re.sub(r"^refs/(heads|tags)/", "", ref) or environ.get("CI_COMMIT_REF_NAME", "")
    usual = environ.get("CI_DEFAULT_BRANCH") or "main"
    protected = "true" in {environ.get("GITHUB_REF_PROTECTED"), environ.get("CI_COMMIT_REF_PROTECTED")}
    if not name or protected or name in {usual, "main", "master"}:
        return MAIN
    parts = (re.sub(r"[^A-Za-z0-9._-]|^[^A-Za-z0-9_]", "_", part) for part in name[:150].split("/"))
    return "/".join(("branch", *(part for part in parts if part)))


def _file(path: str) -> str:
    """Give an absolute path: what sends after the build works in another folder."""
    return os.path.abspath(os.path.expanduser(path)) if path else ""  # noqa: PTH100, PTH111 - absolute() keeps `..`


def _program(name: str) -> str:
    return _file(name) if os.sep in name else name


def joined(settings: Sequence[RemoteSettings]) -> RemoteSettings:
    """Give what a build of several stacks is told: the caches of all of them.

    Raises SpecError where they do not trust alike: none may be given what another believes and it does not.
    """
    having = [each for each in settings if each.caches]
    if not having:
        return RemoteSettings()
    first, *others = having
    for field in ("zone", "trusted", "public_keys"):
        if any(getattr(each, field) != getattr(first, field) for each in others):
            raise SpecError.of(
                "two-trusts",
                f"stacks that are built together must have one `{field}` in `[tool.strata.remote]`",
                hint=f"write the same `{field}` into each of them, or build them one after the other",
            )
    caches = dict.fromkeys(access for each in having for access in each.caches)
    return msgspec.structs.replace(first, caches=tuple(caches))


class _LetIn(NamedTuple):
    headers: Headers
    helper: str
    tls: Tls


def _access(text: str, let_in: _LetIn, place: Place | None) -> Access:
    address = parse(text, place)
    login = address.login if isinstance(address, HttpAddress | GrpcAddress) else None
    if login is not None and place is not None:
        raise SpecError.of(
            "login-in-stack-file",
            f"the URL of the remote cache `{address.shown}` has a login in it, which everybody can read here",
            # The line has the login in it.
            place._replace(text=None),
            hint=f"put it into your netrc, or the whole URL into `{CACHE}`",
        )
    if not isinstance(address, HttpAddress | GrpcAddress):
        # What lets us in is the machine's: permissions, or a cloud's own variables.
        return Access(url=address.shown)
    return Access(url=address.url, login=login, headers=let_in.headers, helper=let_in.helper, tls=let_in.tls)


def _zone(zone: str, place: Place | None) -> str:
    try:
        return checked_zone(zone)
    except ValueError:
        hint = "zones are named as `main`, `pr/17` or `dev/me`: letters, digits, `.`, `_`, `-`, and `/` between"
        raise SpecError.of("bad-zone", f"`{zone}` is not the name of a zone", place, hint=hint) from None


def _signing_key(environ: Mapping[str, str]) -> str:
    key = signing_key(environ)
    return key.private_pem().decode("ascii") if key is not None else ""


def _upload(wishes: RemoteWishes, environ: Mapping[str, str], caches: Sequence[Access]) -> Upload:
    """Tell what becomes of results: nothing is written unless something says so, a credential at least."""
    if wishes.upload is not None:
        return wishes.upload
    said = environ.get(UPLOAD, "")
    if said:
        try:
            return Upload(said)
        except ValueError:
            known = ", ".join(f"`{each}`" for each in Upload)
            raise SpecError.of("bad-upload", f"`{UPLOAD}` is `{said}`, not one of {known}") from None
    if not any(access.has_credential for access in caches) and not environ.get(KEY_VARIABLE):
        return Upload.OFF
    return Upload.DETACH if wishes.attended and not environ.get("CI") else Upload.WAIT
