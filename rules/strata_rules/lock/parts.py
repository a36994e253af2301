"""What a lock was asked for, part by part, recorded small enough for git: so that a stale lock can say why.

Pure. What may be long or private is recorded by digest alone: a digest tells that a setting has changed, not what it
was. That a lock is valid is decided by the key; the parts only put the difference of two keys into words, so whatever
is in the key and has no part here (the wheels in local folders) is what is left when no part differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from strata_engine.action import Json
from strata_engine.digest import Digest
from strata_rules.lock.request import Request

ALWAYS = ("cache-keys", "no-build")
"""uv's settings that are the same for every stack."""

_UNKNOWN = "?"

_SHORT = 16
"""Hex digits of a digest: enough to tell two apart."""


class Given(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a command line says of where wheels come from."""

    local_wheels: tuple[str, ...] = ()
    """Folders, posix, relative to the stack file's."""
    no_index: bool = False


class Parts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The parts of a request, but for the requirements, which venvstacks' files have."""

    python: str
    """`cpython 3.11`."""
    platforms: tuple[str, ...] = ()
    linux_target: str = ""
    macosx_target: str = ""
    settings: dict[str, str] = {}
    """uv's settings: name → digest."""
    indexes: tuple[str, ...] = ()
    """The package indexes in the order in which uv asks them: name, or `#1` and so on, and digest."""
    sources: dict[str, str] = {}
    """Distribution → the index that it comes from."""
    variables: dict[str, str] = {}
    """uv's variables: name → digest."""
    below: tuple[str, ...] = ()
    """The layers below in their order: name, and digest of their pins."""


def parts_of(request: Request, variables: Mapping[str, str], below: Iterable[tuple[str, bytes | None]]) -> Parts:
    """Take a request apart; `below` are the names of the layers below, and their pins where these are known."""
    params = request.params()
    if not request.requirements:
        return Parts(python=f"{request.implementation} {request.python}")
    config = request.uv.canonical()
    settings, tables, sources = config["settings"], config["index"], config["sources"]
    assert isinstance(settings, dict)
    assert isinstance(tables, list)
    assert isinstance(sources, dict)
    names = [index.name or f"#{number}" for number, index in enumerate(request.uv.indexes, 1)]
    return Parts(
        python=f"{request.implementation} {request.python}",
        platforms=tuple(sorted(request.platforms)),
        linux_target=str(params.get("linux_target", "")),
        macosx_target=str(params.get("macosx_target", "")),
        settings={name: _digest(value) for name, value in settings.items() if name not in ALWAYS},
        indexes=tuple(f"{name} {_digest(table)}" for name, table in zip(names, tables, strict=True)),
        sources={name: str(index) for name, index in sources.items()},
        variables={name: _digest(value) for name, value in variables.items()},
        below=tuple(f"{layer} {_UNKNOWN if pins is None else Digest.of(pins).hash[:_SHORT]}" for layer, pins in below),
    )


def changes(then: Parts, now: Parts) -> list[str]:
    """Say part by part what is asked for now and was not then."""
    found = []
    if then.python != now.python:
        found.append(f"it was locked for {then.python}, and this is {now.python}")
    if then.platforms != now.platforms and (then.platforms or now.platforms):
        found.append(f"its platforms were {_listed(then.platforms)} and are {_listed(now.platforms)}")
    for field in ("linux_target", "macosx_target"):
        old, new = getattr(then, field), getattr(now, field)
        if old and new and old != new:
            found.append(f"its `{field}` was `{old}` and is `{new}`")
    found += _differing("uv's setting", then.settings, now.settings)
    found += _differing("the index", _named(then.indexes), _named(now.indexes))
    if sorted(then.indexes) == sorted(now.indexes) and then.indexes != now.indexes:
        found.append(f"the indexes are asked in another order: {_listed([*_named(now.indexes)])}")
    for name in sorted({*then.sources, *now.sources}):
        if then.sources.get(name) != now.sources.get(name):
            old, new = _from(then.sources.get(name)), _from(now.sources.get(name))
            found.append(f"`{name}` came from {old} and comes from {new}")
    found += _differing("the variable", then.variables, now.variables)
    return found + _below(then.below, now.below)


def _below(then: Sequence[str], now: Sequence[str]) -> list[str]:
    old, new = _named(then), _named(now)
    both = [layer for layer in new if layer in old and _UNKNOWN not in (old[layer], new[layer])]
    found = [f"`{layer}` below it has other packages now" for layer in both if old[layer] != new[layer]]
    found += [f"`{layer}` is below it now" for layer in new if layer not in old]
    found += [f"`{layer}` is no longer below it" for layer in old if layer not in new]
    if not found and [*old] != [*new]:
        found.append(f"the layers below it have another order: {_listed([*new])}")
    return found


def _differing(what: str, then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"{what} `{name}` {'is new' if name not in then else 'is gone' if name not in now else 'has changed'}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def _named(entries: Iterable[str]) -> dict[str, str]:
    """Read entries of a name and a digest; both are as a file from a repository has them."""
    return {name: digest for name, _, digest in (entry.rpartition(" ") for entry in entries)}


def _from(index: str | None) -> str:
    return "no index of its own" if index is None else f"the index `{index}`"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) if names else "none"


def _digest(value: Json) -> str:
    return Digest.of(json.dumps(value, sort_keys=True).encode()).hash[:_SHORT]
