"""Follows what a native file needs, through its own layer and those below, as the platform's loader would.

Pure. It knows files by what they say of themselves and the loader's rules by `Loader`, and decides nothing about what
a layer offers. Each need is met by the loader itself, by the layer, by a lower layer, by the system, or by nobody.
"""

from __future__ import annotations

import posixpath
import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from strata_rules.contents import Library
from strata_rules.link.offers import Offer, Offers

_TAGGED = re.compile(r"\.(?:cpython-|pypy|abi3|graalpy)[^/]*\.so$")
_VERSIONED = re.compile(r"\.so(?:\.[0-9]+)+$")


class Loader(Protocol):
    """What there is to know about the loader of a platform: the modules `glibc` and `dyld`."""

    SYSTEM: str
    """Where libraries are that no layer must bring, in words."""

    def is_system(self, name: str, /) -> bool:
        """Tell whether a library is expected of the system (or the interpreter) and of no layer."""

    def identity(self, found: Library, name: str, /) -> str | None:
        """Give what a need is known by in a process; None where no layer can meet it."""

    def places(self, found: Library, name: str, search: Iterable[str], /) -> Iterable[str]:
        """List the paths in the layer where the loader looks for `name`."""

    def folders(self, found: Library, paths: Iterable[str], /) -> tuple[str, ...]:
        """Give the folders of the layer that a search path names."""


class Problems(NamedTuple):
    """What the files of a layer need and is not to be had, or twice."""

    unresolved: dict[str, set[str]]
    """Library → who needs it."""
    conflicts: dict[str, dict[str, set[str]]]
    """Library → what is offered → who needs it."""


class _Inner(NamedTuple):
    """A need met in the layer itself; `by_loader` where the loader finds it without help."""

    library: Library
    by_loader: bool


class _Outer(NamedTuple):
    """A need met by a lower layer."""

    layer: str
    offer: Offer


def is_library(found: Library) -> bool:
    """Tell a shared library from an extension module, by what is known of it without running it."""
    name = posixpath.basename(found.path)
    if _TAGGED.search(name):
        return False
    if name.endswith(".dylib") or _VERSIONED.search(name):
        return True
    return name.endswith(".so") and bool(found.soname or name.startswith("lib"))


def name_of(found: Library) -> str:
    """Give the name by which a library is needed."""
    return found.soname or posixpath.basename(found.path)


class Search:
    """Where needs of one layer's files can be met."""

    def __init__(
        self, layer: str, mine: Iterable[Library], lower: Sequence[Offers], loader: Loader, linked: frozenset[str]
    ) -> None:
        """Search `mine`, then `lower`; the file names `linked` the loader finds in lower layers by itself."""
        self._layer = layer
        self._lower = lower
        self._loader = loader
        self._linked = linked
        self._paths = {found.path: found for found in mine}
        self._names: dict[str, Library] = {}
        for found in self._paths.values():
            if is_library(found):
                self._names.setdefault(name_of(found), found)

    def loads(self, start: Library, problems: Problems, *, own: bool) -> tuple[str, ...]:
        """List what must be loaded before `start`, dependencies first.

        With `own` that includes libraries of the layer itself which the loader does not find: `start` is then loaded
        by us from above. A module's own package is left to load those, as it must in any virtual environment.
        """
        resolved = self._resolve(start, problems)
        loads: dict[str, None] = {}
        seen: set[str] = set()

        def visit(found: Library) -> None:
            for name in (*found.needed, *found.weak):
                known = self._loader.identity(found, name)
                if known is None or known in seen or known not in resolved:
                    continue
                seen.add(known)
                match resolved[known]:
                    case _Inner(library, by_loader):
                        visit(library)
                        if own and not by_loader:
                            loads[f"{self._layer}/{library.path}"] = None
                    case _Outer(layer, offer):
                        loads.update(dict.fromkeys([*offer.before, f"{layer}/{offer.path}"]))

        visit(start)
        return tuple(loads)

    def _resolve(self, start: Library, problems: Problems) -> dict[str, _Inner | _Outer]:
        """Follow needs as the loader does: breadth first, each library once, by whom it meets first."""
        resolved: dict[str, _Inner | _Outer] = {}
        met = {start.soname}
        waiting: deque[tuple[Library, tuple[str, ...]]] = deque([(start, ())])
        while waiting:
            found, inherited = waiting.popleft()
            # A RUNPATH holds for its own object only and switches the RPATHs off; an RPATH holds for those below too.
            rpath = () if found.runpath else self._loader.folders(found, found.rpath)
            passed_on = (*rpath, *inherited)
            search = self._loader.folders(found, found.runpath) if found.runpath else passed_on
            for name in (*found.needed, *found.weak):
                known = self._loader.identity(found, name)
                if known is None or known in met:
                    continue
                met.add(known)
                met_by = self._by_loader(name, found, search) or self._by_name(name, start, problems)
                if met_by is not None:
                    resolved[known] = met_by
                elif name in found.needed and not self._is_elsewhere(name):
                    problems.unresolved.setdefault(name, set()).add(found.path)
                if isinstance(met_by, _Inner):
                    waiting.append((met_by.library, passed_on))
        return resolved

    def _is_elsewhere(self, name: str) -> bool:
        return self._loader.is_system(name) or posixpath.basename(name) in self._linked

    def _by_loader(self, name: str, found: Library, search: Iterable[str]) -> _Inner | None:
        hits = (self._paths.get(place) for place in self._loader.places(found, name, search))
        return next((_Inner(hit, by_loader=True) for hit in hits if hit is not None), None)

    def _by_name(self, name: str, start: Library, problems: Problems) -> _Inner | _Outer | None:
        if self._loader.is_system(name):
            return None
        if name in self._names:
            return _Inner(self._names[name], by_loader=False)
        offers = [_Outer(below.layer, offer) for below in self._lower for offer in below.libraries.get(name, ())]
        if len(offers) > 1:
            needed_by = problems.conflicts.setdefault(name, {})
            for layer, offer in offers:
                needed_by.setdefault(f"{layer}/{offer.path}", set()).add(start.path)
        return offers[0] if offers else None
