"""Chooses the runtime of one layer for one platform: from its pin if that fits, else by the spec's providers in order.

It runs at the rim, before analysis, and downloads nothing. A pin that fits the spec always wins over a newer table and
over whatever this machine has. What is chosen is said in one sentence, and every path that could change the choice is
in the answer. Only `local` may choose another version than `python_implementation` names, within `accept`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from strata_engine.digest import Digest, is_sha256
from strata_engine.errors import Diagnostic, HostError, Place, SpecError
from strata_engine.logins import public_url
from strata_rules.runtime import pin as pins
from strata_rules.runtime import table
from strata_rules.runtime.capture import identity
from strata_rules.runtime.local import Found, Probe, discover, probe

PROVIDERS = ("pbs", "archive", "local")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the spec says of a runtime layer, for one platform."""

    layer: str
    python_implementation: str
    """`cpython@3.12.9`."""
    platform: str
    providers: tuple[str, ...] = ("pbs",)
    url: str = ""
    sha256: str = ""
    accept: str = ""
    pin_path: Path
    """`requirements/ENV/runtime.ENV.json`."""
    pin_shown: str = "the pin file"
    """The same as messages name it."""
    place: Place | None = None

    @property
    def implementation(self) -> str:
        """The name before `@`."""
        return self.python_implementation.partition("@")[0]

    @property
    def version(self) -> str:
        """What stands after `@`."""
        return self.python_implementation.partition("@")[2]


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What the choice may look at: every look goes through here, so that it can be stamped."""

    platform: str
    environ: Mapping[str, str]
    read: Callable[[Path], bytes | None]
    """Gives a file's content, None where there is none."""
    probe: Probe = probe


class PbsChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A build of python-build-standalone."""

    version: str
    url: str
    urls: tuple[str, ...]
    """Where to get it: a mirror first."""
    sha256: str


class ArchiveChoice(msgspec.Struct, frozen=True, kw_only=True):
    """An archive that the spec names."""

    version: str
    url: str
    """As the spec has it, perhaps with credentials: for the download alone."""
    sha256: str


class LocalChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A Python of this machine."""

    version: str
    identity: str
    """What the key calls it; no path."""
    tree: Digest | None
    """The tree it must give, where it is pinned."""
    find: Callable[[], Found]
    """Looks for it, when it must be captured."""


Chosen: TypeAlias = PbsChoice | ArchiveChoice | LocalChoice


class Choice(NamedTuple):
    """A choice, what to say of it, and what it depends on."""

    chosen: Chosen
    sentence: str
    observed: tuple[Path, ...]
    """Every path that was read or probed, absent ones included."""
    pin: pins.Pin | None
    """What to pin now. None where the pin is there already, or comes with the capture (`local`)."""
    warning: Diagnostic | None = None


class _Unavailable(Exception):  # noqa: N818 - one provider does not work; the next one may
    def __init__(self, why: str, notes: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.why = why
        self.notes = notes


def choose(wanted: Wanted, host: Host, *, upgrade: bool = False, locked: bool = False) -> Choice:
    """Choose a runtime. Raises SpecError, HostError.

    `upgrade` leaves the pin out of account; `locked` refuses to choose where neither a pin nor the spec says what. A
    stack that has never been pinned, as one of venvstacks', goes on with what that tool would take, and a warning.
    """
    _check(wanted)
    observed: list[Path] = [wanted.pin_path]
    data = host.read(wanted.pin_path)
    pinned = pins.parse(data, wanted.pin_shown).get(wanted.platform) if data is not None else None
    if pinned is not None and not upgrade and not (misfit := _misfit(wanted, pinned)):
        chosen = _of_pin(wanted, host, pinned)
        return Choice(chosen, _say(wanted, chosen, "as pinned"), tuple(observed), None)
    if locked and pinned is None and wanted.providers[0] == "archive" and wanted.sha256:
        # The stack file itself is the pin.
        return _fresh(wanted, host, observed)._replace(pin=None)
    if locked and data is None and wanted.providers[0] == "pbs":
        table_alone = msgspec.structs.replace(wanted, providers=("pbs",))
        return _fresh(table_alone, host, observed)._replace(pin=None, warning=_unpinned(wanted))
    if locked:
        why = f"its pin is for {misfit}" if pinned is not None and not upgrade else "it is not pinned"
        raise SpecError.of(
            "runtime-not-pinned",
            f"`{wanted.layer}` has no fitting runtime pin for `{wanted.platform}`, which `--locked` needs",
            wanted.place,
            notes=[why],
            hint=f"run without `--locked` and commit `{wanted.pin_path.name}`",
        )
    return _fresh(wanted, host, observed)


def _unpinned(wanted: Wanted) -> Diagnostic:
    """Say that what is built hangs on the table at hand: the same for all platforms, so that it is said once."""
    return Diagnostic(
        "runtime-not-pinned",
        f"`{wanted.layer}` has no runtime pin: it is the build of {wanted.python_implementation} that this Strata "
        "knows, and another Strata may know another",
        wanted.place,
        hint=f"`strata lock` pins it; commit `{wanted.pin_shown}`",
        severity="warning",
    )


def _fresh(wanted: Wanted, host: Host, observed: list[Path]) -> Choice:
    """Try the providers in order."""
    reasons: list[str] = []
    notes: list[str] = []
    for provider in wanted.providers:
        try:
            chosen = _TRY[provider](wanted, host, observed)
        except _Unavailable as error:
            reasons.append(f"`{provider}`: {error.why}")
            notes += error.notes
            continue
        why = f"since {'; '.join(reasons)}" if reasons else "newly pinned"
        return Choice(chosen, _say(wanted, chosen, why), tuple(observed), _pin_of(chosen))
    single = reasons[0].partition(": ")[2] if len(reasons) == 1 else "no provider works"
    diagnostic = Diagnostic(
        "no-runtime",
        f"no runtime for `{wanted.layer}` on `{wanted.platform}`: {single}",
        wanted.place,
        (*(reasons if len(reasons) > 1 else ()), *notes),
        _hint(wanted, host),
    )
    # Another Python on this machine could help, but never for another platform.
    raise (HostError if _may_be_local(wanted, host) else SpecError)(diagnostic)


def _may_be_local(wanted: Wanted, host: Host) -> bool:
    return "local" in wanted.providers and wanted.platform == host.platform


def _hint(wanted: Wanted, host: Host) -> str:
    if _may_be_local(wanted, host):
        return 'widen `accept`, name an interpreter in `STRATA_PYTHON`, or add `"pbs"` to the providers'
    if "pbs" not in wanted.providers:
        return (
            f'name providers for other platforms too, such as `provider = ["{wanted.providers[0]}", "pbs"]`, or an '
            f'`archive` with `url = {{ {wanted.platform} = "…" }}` and its `sha256`'
        )
    return 'choose a version that python-build-standalone has, or set `url` and `sha256` with `provider = "archive"`'


def _check(wanted: Wanted) -> None:
    """Refuse what no provider can make sense of."""
    implementation, version = wanted.implementation, wanted.version
    parts = version.split(".")
    if (
        implementation not in {"cpython", "pypy"}
        or len(parts) != 3
        or not all(p.isascii() and p.isdigit() for p in parts)
    ):
        message = f"`{wanted.python_implementation}` is not a Python that can be a runtime"
        notes = ["expected `cpython@X.Y.Z` or `pypy@X.Y.Z`"]
        if version.endswith("t") or "freethreaded" in version:
            notes.append("free-threaded builds are not supported")
        raise SpecError.of("bad-python", message, wanted.place, notes=notes)
    for provider in wanted.providers:
        if provider not in PROVIDERS:
            known = ", ".join(f"`{name}`" for name in PROVIDERS)
            raise SpecError.of("unknown-provider", f"no provider is called `{provider}`, only {known}", wanted.place)
    if wanted.sha256 and not is_sha256(wanted.sha256):
        raise SpecError.of("bad-sha256", f"`{wanted.sha256}` is not a SHA-256 in lower-case hexadecimal", wanted.place)
    try:
        SpecifierSet(wanted.accept)
    except InvalidSpecifier:
        hint = 'such as `accept = ">=3.11,<3.15"`'
        raise SpecError.of("bad-accept", f"`{wanted.accept}` is not a version range", wanted.place, hint=hint) from None


def _accept(wanted: Wanted) -> str:
    return wanted.accept or f"=={wanted.version}"


def _misfit(wanted: Wanted, pinned: pins.Pin) -> str:
    """Say what a pin is for, where it does not fit the spec any more."""
    match pinned:
        case pins.LocalPin(python=version):
            fits = "local" in wanted.providers and SpecifierSet(_accept(wanted)).contains(version)
            return "" if fits else f"a local Python {version}"
        case pins.ArchivePin(python=version, url=url, sha256=sha256):
            same = url == public_url(wanted.url) or sha256 == wanted.sha256
            fits = "archive" in wanted.providers and same and version == wanted.version
            return "" if fits and wanted.sha256 in {"", sha256} else f"Python {version} from `{url}`"
        case pins.PbsPin(python=version, url=url, sha256=sha256):
            fits = "pbs" in wanted.providers and version == wanted.version
            return "" if fits and wanted.sha256 in {"", sha256} else f"Python {version} from `{url}`"


def _of_pin(wanted: Wanted, host: Host, pinned: pins.Pin) -> Chosen:
    match pinned:
        case pins.LocalPin(python=version, interpreter=known, tree=tree):
            return LocalChoice(
                version=version, identity=known, tree=Digest.parse(tree), find=lambda: _discover(wanted, host)
            )
        case pins.ArchivePin(python=version, sha256=sha256):
            return ArchiveChoice(version=version, url=wanted.url, sha256=sha256)
        case pins.PbsPin(python=version, url=url, sha256=sha256):
            return PbsChoice(version=version, url=url, urls=table.candidates(url, host.environ), sha256=sha256)


def _pin_of(chosen: Chosen) -> pins.Pin | None:
    match chosen:
        case PbsChoice(version=version, url=url, sha256=sha256):
            return pins.PbsPin(version, public_url(url), sha256)
        case ArchiveChoice(version=version, url=url, sha256=sha256):
            return pins.ArchivePin(version, public_url(url), sha256)
        case LocalChoice():
            return None


def _say(wanted: Wanted, chosen: Chosen, why: str) -> str:
    return f"`{wanted.layer}` on `{wanted.platform}` uses {_name(wanted, chosen)}, {why}"


def _name(wanted: Wanted, chosen: Chosen) -> str:
    match chosen:
        case PbsChoice(version=version):
            return f"{wanted.implementation} {version} of python-build-standalone"
        case ArchiveChoice(version=version, url=url):
            return f"{wanted.implementation} {version} from `{public_url(url)}`"
        case LocalChoice(version=version):
            return f"the CPython {version} of this machine"


def _try_pbs(wanted: Wanted, host: Host, observed: list[Path]) -> PbsChoice:
    def read(path: Path) -> bytes | None:
        observed.append(path)
        return host.read(path)

    build = table.find(wanted.implementation, wanted.version, wanted.platform, host.environ, read)
    if build is None:
        why = f"the table of python-build-standalone has no {wanted.python_implementation} for this platform"
        others = table.versions(wanted.implementation, wanted.version, wanted.platform, host.environ)[:8]
        raise _Unavailable(why, (f"it has {', '.join(others)} for `{wanted.platform}`",) if others else ())
    # The spec's sha256 belongs to its url where it names one; `archive` is the provider for that.
    sha256 = build.sha256 or ("" if wanted.url else wanted.sha256)
    if not sha256:
        raise _Unavailable(f"the table has no sha256 for `{build.url}`: set `sha256` in the stack file")
    if wanted.sha256 and not wanted.url and wanted.sha256 != sha256:
        raise _Unavailable(f"the table's sha256 is {sha256}, the stack file's {wanted.sha256}")
    return PbsChoice(
        version=wanted.version, url=build.url, urls=table.candidates(build.url, host.environ), sha256=sha256
    )


def _try_archive(wanted: Wanted, host: Host, observed: list[Path]) -> ArchiveChoice:  # noqa: ARG001 (as the others)
    if not wanted.url or not wanted.sha256:
        raise _Unavailable(f"it needs `url` and `sha256` for `{wanted.platform}`")
    return ArchiveChoice(version=wanted.version, url=wanted.url, sha256=wanted.sha256)


def _try_local(wanted: Wanted, host: Host, observed: list[Path]) -> LocalChoice:
    if wanted.platform != host.platform:
        raise _Unavailable(f"it takes a Python of this machine, which is `{host.platform}`")
    if wanted.implementation != "cpython":
        raise _Unavailable("only CPython can be captured")
    found = _discover(wanted, host)
    observed += found.observed
    if found.refused is not None:
        version = f"{found.refused.version} " if found.refused.version else ""
        raise _Unavailable(f"`STRATA_PYTHON` names `{found.refused.executable}`: {version}{found.refused.why}")
    if not found.interpreters:
        others = tuple(f"{r.version} at `{r.executable}`: {r.why}" for r in found.rejected[:6])
        raise _Unavailable(f"no CPython here fits `{_accept(wanted)}`", others)
    best = found.interpreters[0]
    observed += [Path(best.executable), Path(best.stdlib), Path(best.dynload)]
    return LocalChoice(version=best.version, identity=identity(best), tree=None, find=lambda: found)


def _discover(wanted: Wanted, host: Host) -> Found:
    if wanted.platform != host.platform:
        return Found((), (), ())  # pinned on another machine, and never captured on this one
    return discover(_accept(wanted), wanted.version, environ=host.environ, probe=host.probe)


_TRY: dict[str, Callable[[Wanted, Host, list[Path]], Chosen]] = {
    "pbs": _try_pbs,
    "archive": _try_archive,
    "local": _try_local,
}
