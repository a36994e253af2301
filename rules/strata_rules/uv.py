"""The only module that knows uv: its command line, the variables it reads, and what its failures mean.

It does not know layers or locks. The hard part is telling settings from secrets: of uv's variables, those that choose
what is resolved belong in an action's environment and so in its key (`settings`), without logins; those that only say
how an index is reached travel beside it (`access`); all others are withheld, and so is every configuration file of the
machine, since `--config-file` makes uv read that one file and no other.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias

from strata_engine.errors import ActionError, Diagnostic, HostError, Place, SpecError, StrataError
from strata_engine.logins import is_url, userinfo, without_userinfo
from strata_rules.spec.near import did_you_mean
from strata_rules.spec.uvconfig import WRITE_LOGIN, is_readable

CONFIG_FILE = "uv.toml"
PROJECT_FILE = "pyproject.toml"
LOCK_FILE = "uv.lock"

WORKSPACE_SETTINGS = frozenset(
    {
        "build-constraint-dependencies",
        "build-backend",
        "cache-keys",
        "conflicts",
        "constraint-dependencies",
        "default-groups",
        "dependency-groups",
        "dev-dependencies",
        "environments",
        "exclude-dependencies",
        "managed",
        "minimum-libc-version",
        "override-dependencies",
        "package",
        "required-environments",
        "sources",
        "workspace",
    }
)
"""Settings that uv reads from the project alone; all others it takes from the configuration file."""

Locate: TypeAlias = 'Callable[[str, Literal["key", "value"]], Place | None]'
"""Finds where one of uv's settings is written."""

_URL_VARIABLES = ("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX", "UV_INDEX_URL")
# UV_EXCLUDE_NEWER is missing on purpose: it is one of the stack's own settings by the time that uv runs.
_PLAIN_VARIABLES = (
    "UV_FORK_STRATEGY",
    "UV_INDEX_STRATEGY",
    "UV_NO_INDEX",
    "UV_PRERELEASE",
    "UV_RESOLUTION",
)
_ACCESS_VARIABLES = frozenset(
    {
        "ALL_PROXY",
        "APPDATA",
        "HOME",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "LOCALAPPDATA",
        "NETRC",
        "NO_PROXY",
        "PATH",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "SSL_CLIENT_CERT",
        "SYSTEMROOT",
        "TEMP",
        "TMP",
        "TMPDIR",
        "USERPROFILE",
        "UV_CONCURRENT_DOWNLOADS",
        "UV_CREDENTIALS_DIR",
        "UV_HTTP_CONNECT_TIMEOUT",
        "UV_HTTP_RETRIES",
        "UV_HTTP_TIMEOUT",
        "UV_INSECURE_HOST",
        "UV_KEYRING_PROVIDER",
        "UV_NATIVE_TLS",
        "UV_SYSTEM_CERTS",
    }
)
_TRUST_VARIABLES = ("SSL_CERT_DIR", "SSL_CERT_FILE", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS")
_LOGIN = re.compile(r"UV_INDEX_.+_(USERNAME|PASSWORD)")
_USERINFO = re.compile(r"(?<=://)[^/\s@`\"']*@")

_NETWORK = re.compile(
    r"error sending request|Connection refused|dns error|timed out|Failed to fetch|Failed to download|Request failed"
    r"|Could not connect|status (?:server|client) error",
    re.IGNORECASE,
)
_NO_LOGIN = re.compile(r"\b(401 Unauthorized|403 Forbidden)\b")
_SETTINGS = re.compile(r"Failed to parse|undeclared index|invalid value|unknown field|TOML parse error", re.IGNORECASE)
_QUOTED_KEY = re.compile(r"^\s*\d+ \| \s*\"?([\w-]+)\"?\s*=", re.MULTILINE)
_QUOTING = re.compile(r"Failed to parse|TOML parse error|\||\d+ \||[\s^]+$")
"""The lines of uv's message that quote a file of ours."""
_BACKTICKED = re.compile(r"`([^`]+)`")
_SPLIT = re.compile(r" for split \(markers: .*\)$")
"""Which of the environments has no solution, at length; for a layer there is most often one, all its platforms."""
_URL = re.compile(r"\bhttps?://[^\s`'\"),]+")

_CHATTER = ("Using CPython", "Using Python", "Using PyPy", "Resolved ", "Added ", "Removed ", "Updated ")
# Which interpreter runs uv says nothing about the layer: we bound the Python version ourselves.
_MISLEADING = (
    "hint: While the active Python version is",
    "hint: The resolution failed for an environment that is not the current one",
)
_MAX_LINES = 60


def find() -> str:
    """Give the path of uv's program. Raises HostError (`missing-tool`)."""
    import uv  # noqa: PLC0415 - only a build that locks needs it

    try:
        return uv.find_uv_bin()
    except FileNotFoundError:
        raise HostError.of(
            "missing-tool", "the program `uv` is not where its package says", hint="install `uv` again with pip"
        ) from None


def version() -> str:
    """Give uv's version, which the answer of a resolution may depend on."""
    return metadata.version("uv")


def check_urls(environ: Mapping[str, str], indexes: Iterable[str]) -> None:
    """Refuse URLs with a login that uv could not read: it would quote them, and the login with them.

    Raises SpecError (`bad-index-url`), which shows nothing of the URL.
    """
    given = [
        (f"the variable `{name}`", value) for name in _URL_VARIABLES for value in _split(name, environ.get(name, ""))
    ]
    for where, text in [("`index` of `[tool.uv]`", url) for url in indexes] + given:
        url = _url_of(text)
        if not is_readable(url):
            raise SpecError.of(
                "bad-index-url",
                f"{where} has a URL with a login that cannot be read",
                notes=["it is not shown here because of the login"],
                hint=WRITE_LOGIN,
            )
        if "://" in url and not is_url(url):
            raise SpecError.of("bad-index-url", f"{where} has a URL whose host or port cannot be read: `{url}`")


def settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Choose the variables that decide what is resolved: for the key, so without any login.

    `UV_FIND_LINKS` keeps only its URLs here: folders are inputs, by content (`find_links_folders`).
    """
    found = {name: environ[name] for name in _PLAIN_VARIABLES if environ.get(name)}
    for name in _URL_VARIABLES:
        values = [value for value in _split(name, environ.get(name, "")) if not _is_folder(name, value)]
        if values:
            found[name] = (_separator(name)).join(without_login(value) for value in values)
    return found


def find_links_folders(environ: Mapping[str, str]) -> tuple[str, ...]:
    """List the folders that `UV_FIND_LINKS` names."""
    name = "UV_FIND_LINKS"
    return tuple(value for value in _split(name, environ.get(name, "")) if _is_folder(name, value))


def access(environ: Mapping[str, str]) -> dict[str, str]:
    """Choose the variables that say how indexes are reached, logins among them: never in a key, never shown.

    uv trusts the certificates that it brings along. pip and our own downloads trust the system's too, so uv is told to
    where the system has any and nobody said otherwise: a lock must reach whatever the rest of a build reaches.
    """
    found = {
        name: value
        for name, value in environ.items()
        # An empty variable is no setting, but uv would take an empty SSL_CERT_FILE for one.
        if value and (name.upper() in _ACCESS_VARIABLES or _LOGIN.match(name))
    }
    for name in _URL_VARIABLES:
        values = [value for value in _split(name, environ.get(name, "")) if not _is_folder(name, value)]
        if values:
            found[name] = _separator(name).join(values)
    if not any(environ.get(name) for name in _TRUST_VARIABLES) and _has_certificates():
        found["UV_SYSTEM_CERTS"] = "true"
    return found


def _has_certificates() -> bool:
    import ssl  # noqa: PLC0415 - only a build that locks needs it

    paths = ssl.get_default_verify_paths()
    return (
        sys.platform != "linux"
        or paths.cafile is not None
        or (paths.capath is not None and any(Path(paths.capath).iterdir()))
    )


def secrets(environ: Mapping[str, str], urls: Iterable[str] = ()) -> frozenset[str]:
    """Collect what must not be shown: passwords in variables and in URLs, as written and as meant."""
    found = {value for name, value in environ.items() if _LOGIN.match(name) and name.endswith("_PASSWORD")}
    # A user name that stands alone is a token.
    lone = (name for name in environ if _LOGIN.match(name) and name.endswith("_USERNAME"))
    found |= {environ[name] for name in lone if not environ.get(f"{name.removesuffix('USERNAME')}PASSWORD")}
    given = [value for name in _URL_VARIABLES for value in _split(name, environ.get(name, ""))]
    given += [value for name, value in environ.items() if name.upper().endswith("_PROXY")]
    for url in (*urls, *given):
        pair = userinfo(_url_of(url))
        if pair is not None:
            found |= {pair[1] or pair[0], url.partition("://")[2].rpartition("@")[0].partition(":")[2]}
    return frozenset(value for value in found if value)


def without_login(text: str) -> str:
    """Give an index as written, `URL` or `NAME=URL`, without user and password."""
    url = _url_of(text)
    return f"{text.removesuffix(url)}{without_userinfo(url)}"


def lock_command(folder: Path, *, python: str, cache: Path, upgrade: bool = False, offline: bool = False) -> list[str]:
    """Resolve the project in `folder` into its `uv.lock`; the versions that stand there are kept where they can be.

    `python` is any CPython: the project's own settings bound the Python version that is resolved for.
    """
    arguments = [find(), "lock", "--project", str(folder), "--python", python, "--no-build", *_common(folder, cache)]
    arguments += ["--upgrade"] if upgrade else []
    return arguments + (["--offline"] if offline else [])


def export_command(folder: Path, output: Path, *, cache: Path) -> list[str]:
    """Write the `uv.lock` in `folder` as a `pylock.toml`, without resolving anything and without an interpreter."""
    what = [
        "--format",
        "pylock.toml",
        "--no-emit-project",
        "--no-header",
        "--no-annotate",
        "--output-file",
        str(output),
    ]
    return [find(), "export", "--project", str(folder), "--frozen", "--quiet", *what, *_common(folder, cache)]


def clean(text: str, hidden: Iterable[str] = (), folder: Path | None = None) -> str:
    """Make uv's messages fit to be shown: no logins, no temporary paths, nothing that misleads, not endless."""
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, "****")
    text = _USERINFO.sub("", text)
    if folder is not None:
        text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), ".")
    blocks = [block for block in text.strip().split("\n\n") if not block.lstrip().startswith(_MISLEADING)]
    lines = [line.rstrip() for line in "\n".join(blocks).splitlines()]
    lines = [line for line in lines if line and not line.startswith(_CHATTER)]
    if len(lines) > _MAX_LINES:
        lines = [*lines[: _MAX_LINES - 1], f"... and {len(lines) - _MAX_LINES + 1} more lines"]
    return "\n".join(lines)


def warnings(text: str) -> list[str]:
    """List the warnings in cleaned output."""
    return [line.removeprefix("warning: ") for line in text.splitlines() if line.startswith("warning: ")]


def failure(
    layer: str,
    output: str,
    place: Place | None,
    *,
    offline: bool = False,
    locate: Locate = lambda _name, _of: None,
) -> StrataError:
    """Turn the cleaned output of a failed resolution into the error that says who is to act.

    `place` is that of the requirements; `locate` gives that of one of uv's settings.
    """
    subject = f"cannot lock `{layer}`"
    notes = tuple(_explanation(output))
    if "network was disabled" in output or (offline and "No solution found" in output):
        text = f"{subject} offline: uv's cache does not hold what is needed"
        return HostError(Diagnostic("offline", text, place, notes, "try again without `--offline`"))
    if refused := _NO_LOGIN.search(output):
        text = f"{subject}: an index wants a login ({refused[1]})"
        hint = "set `UV_INDEX_<NAME>_USERNAME` and `UV_INDEX_<NAME>_PASSWORD`, or use a netrc file"
        return HostError(Diagnostic("index-login", text, place, notes, hint))
    if "No solution found" in output:
        text = f"{subject}: its requirements cannot be met together"
        hint = "relax a requirement here, or a pin of a layer below (`strata lock --upgrade` moves pins)"
        if "has no usable wheels" in output or "have no usable wheels" in output:
            hint = "nothing is built from source: make the wheel yourself, and name its folder with `--local-wheels`"
        elif "invalid package format" in output:
            hint = "take another build or version of the wheel that cannot be read"
        return SpecError(Diagnostic("no-solution", text, place, notes, hint))
    if _SETTINGS.search(output):
        return SpecError(_bad_setting(subject, output, notes, locate))
    if _NETWORK.search(output):
        url = _URL.search(output)
        text = f"{subject}: {f'`{url[0]}`' if url else 'an index'} cannot be reached"
        notes = notes[-1:]  # the last cause is the first
        hint = "check the network and the index settings; a proxy is taken from `HTTPS_PROXY`"
        return HostError(Diagnostic("unreachable", text, place, notes, hint))
    if "No space left" in output or "Permission denied" in output or "Read-only file system" in output:
        return HostError(Diagnostic("uv-cannot-write", f"{subject}: uv cannot write", place, notes))
    return ActionError(Diagnostic("uv-failed", f"{subject}: uv failed", place, notes), output=output)


def _bad_setting(subject: str, output: str, notes: tuple[str, ...], locate: Locate) -> Diagnostic:
    """Name the setting that uv does not accept, of which it quotes a line of a file of ours."""
    quoted = _QUOTED_KEY.search(output)
    why = [note for note in notes if not _QUOTING.match(note)]
    if quoted is None or not why:
        text = f"{subject}: uv does not accept its settings"
        return Diagnostic("bad-uv-settings", text, None, notes, "mend `[tool.uv]`")
    name = quoted[1]
    what, _, expected = why[0].partition(", expected ")
    known = _BACKTICKED.findall(expected)
    if what.startswith("unknown field"):
        text, hint = f"uv has no setting `{name}`", did_you_mean(name, known)
        return Diagnostic("bad-uv-settings", text, locate(name, "key"), (), hint or "uv's documentation lists them all")
    wrong = next(iter(_BACKTICKED.findall(what)), "")
    hint = did_you_mean(wrong, known) or (f"expected {expected}" if expected else None)
    return Diagnostic("bad-uv-settings", f"uv does not accept `{name}`: {what}", locate(name, "value"), (), hint)


def _common(folder: Path, cache: Path) -> list[str]:
    quiet = ["--no-python-downloads", "--no-progress", "--color", "never"]
    return ["--config-file", str(folder / CONFIG_FILE), "--cache-dir", str(cache), *quiet]


def _explanation(output: str) -> Iterable[str]:
    for line in output.splitlines():
        text = line.strip().removeprefix("error: ").removeprefix("cause: ").removeprefix("hint: ")
        text = _SPLIT.sub("", text)
        if text and not text.startswith(("warning: ", "No solution found when resolving dependencies")):
            yield text.replace("your project's", "the layer's").replace("your project", "the layer")


def _url_of(text: str) -> str:
    """Give the URL of an index, which may be written `NAME=URL`."""
    return text.partition("=")[2] if "=" in text.partition("://")[0] else text


def _separator(name: str) -> str:
    return "," if name == "UV_FIND_LINKS" else " "


def _split(name: str, value: str) -> list[str]:
    return [part for part in re.split(r"[,\s]+" if name == "UV_FIND_LINKS" else r"\s+", value) if part]


def _is_folder(name: str, value: str) -> bool:
    return name == "UV_FIND_LINKS" and "://" not in value
