"""Which shared libraries of lower layers must be loaded before which extension module, found out of ELF alone.

Pure: it opens no file and runs nothing. The loader's rules are followed as glibc has them, since whatever the loader
finds by itself must not be loaded by us: a library preloaded by its SONAME overrides the private one that a wheel
brought along. So only what is NEEDED, in no RPATH or RUNPATH, not in the layer itself and not the system's is taken.
"""

from __future__ import annotations

import posixpath
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from strata_engine.errors import ActionError, Diagnostic
from strata_rules.contents import Library

_SYSTEM = re.compile(
    r"""(?x) ^(?:
    # What a manylinux wheel may expect of every Linux system (PEP 600 and auditwheel's policies), glibc's parts first.
    ld-linux.*|ld64|libc|libm|libdl|librt|libpthread|libutil|libnsl|libresolv|libanl|libBrokenLocale|libcrypt
    |libgcc_s|libstdc\+\+|libatomic
    |libz|libexpat
    |libX11|libXext|libXrender|libICE|libSM|libGL|libgobject-2\.0|libgthread-2\.0|libglib-2\.0
    # What comes with the driver of a GPU and with nothing else.
    |libcuda|libnvidia-.*|libnvcuvid|libamdhip64_driver
    # What the interpreter has loaded, or is itself.
    |libpython[0-9.]*t?d?
    )\.so(?:\.[0-9]+)*$"""
)
"""Libraries that are never a layer's business: loading a second copy of one breaks more than it mends."""

_TAGGED = re.compile(r"\.(?:cpython-|pypy|abi3|graalpy)[^/]*\.so$")
_VERSIONED = re.compile(r"\.so(?:\.[0-9]+)+$")

_SHOWN = 8


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A shared library that upper layers may load."""

    path: str
    """Relative to the layer."""
    machine: str
    before: tuple[str, ...] = ()
    """What must be loaded before it, in order: `INSTALL_TARGET/path`."""


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """`libraries.json`: what a linked layer tells those above it."""

    layer: str
    """Its install target."""
    libraries: dict[str, tuple[Offer, ...]]
    """By SONAME (by file name where there is none). More than one is a conflict for whoever needs it."""
    modules: dict[str, tuple[str, ...]]
    """For each of its own extension modules that needs any, the libraries to load first, in order."""


class Linked(NamedTuple):
    """What the libraries of a layer come to."""

    offers: Offers
    needs: Mapping[str, Sequence[str]]
    """For the boot module: its own extension modules and those of the layers below."""
    links: Mapping[str, str]
    """File names in `share/venv/dynlib` → paths in the layer."""
    warnings: tuple[Diagnostic, ...]


class _Inner(NamedTuple):
    """A need met in the layer itself; `by_loader` where the loader finds it without help."""

    library: Library
    by_loader: bool


class _Outer(NamedTuple):
    """A need met by a lower layer."""

    layer: str
    offer: Offer


class _Problems(NamedTuple):
    unresolved: dict[str, set[str]]
    conflicts: dict[str, dict[str, set[str]]]
    """SONAME → what is offered → who needs it."""


def link_libraries(
    layer: str,
    installed: Sequence[Library],
    site: str,
    lower: Sequence[Offers],
    *,
    excluded: Callable[[str], bool],
    same: Callable[[str, str], bool],
) -> Linked:
    """Find what a layer needs of those below it, and what it offers.

    `lower` is in the order of `sys.path`; `excluded` tells what is not offered; `same` whether two paths of the layer
    have one content. Raises ActionError where a needed SONAME is offered twice, naming all such.
    """
    mine = sorted(installed, key=lambda found: found.path)
    offered, ambiguous = _offered([found for found in mine if is_library(found) and not excluded(found.path)], same)
    search = _Search(layer, mine, lower)
    problems = _Problems({}, {})
    modules: dict[str, tuple[str, ...]] = {}
    names: set[str] = set()
    for found in mine:
        name = module_name(found.path, site)
        if name is not None:
            names.add(name)
            loads = search.loads(found, problems, own=False)
            if loads:
                modules[name] = loads
    libraries = {
        soname: tuple(
            Offer(path=found.path, machine=found.machine, before=search.loads(found, problems, own=True))
            for found in candidates
        )
        for soname, candidates in sorted(offered.items())
    }
    if problems.conflicts:
        raise ActionError(*(_conflict(soname, offers) for soname, offers in sorted(problems.conflicts.items())))
    warnings = [*_ambiguous(ambiguous), *_unresolved(problems.unresolved)]
    return Linked(
        Offers(layer=layer, libraries=libraries, modules=modules),
        _needs(modules, names, lower),
        _links(offered, ambiguous),
        tuple(warnings),
    )


def is_library(found: Library) -> bool:
    """Tell a shared library from an extension module, by what is known of it without running it."""
    name = posixpath.basename(found.path)
    if _TAGGED.search(name):
        return False
    return bool(_VERSIONED.search(name)) or (name.endswith(".so") and bool(found.soname or name.startswith("lib")))


def module_name(path: str, site: str) -> str | None:
    """Give the full name by which Python would import a file, or None where it would not."""
    if not path.startswith(site + "/") or not path.endswith(".so"):
        return None
    *folders, name = path[len(site) + 1 :].split("/")
    tag = _TAGGED.search(name)
    parts = [*folders, name[: tag.start()] if tag else name.removesuffix(".so")]
    return ".".join(parts) if all(part.isidentifier() for part in parts) else None


def is_system(soname: str) -> bool:
    """Tell whether a library is expected of the system (or the interpreter) and of no layer."""
    return _SYSTEM.match(soname) is not None


class _Search:
    """Where needs of one layer's files can be met."""

    def __init__(self, layer: str, mine: Iterable[Library], lower: Sequence[Offers]) -> None:
        self._layer = layer
        self._lower = lower
        self._paths = {found.path: found for found in mine}
        self._sonames: dict[str, Library] = {}
        for found in self._paths.values():
            if is_library(found):
                self._sonames.setdefault(found.soname or posixpath.basename(found.path), found)

    def loads(self, start: Library, problems: _Problems, *, own: bool) -> tuple[str, ...]:
        """List what must be loaded before `start`, dependencies first.

        With `own` that includes libraries of the layer itself which the loader does not find: `start` is then loaded
        by us from above. A module's own package is left to load those, as it must in any virtual environment.
        """
        resolved = self._resolve(start, problems)
        loads: dict[str, None] = {}
        seen: set[str] = set()

        def visit(needed: Iterable[str]) -> None:
            for name in needed:
                if name in seen or name not in resolved:
                    continue
                seen.add(name)
                match resolved[name]:
                    case _Inner(library, by_loader):
                        visit(library.needed)
                        if own and not by_loader:
                            loads[f"{self._layer}/{library.path}"] = None
                    case _Outer(layer, offer):
                        loads.update(dict.fromkeys([*offer.before, f"{layer}/{offer.path}"]))

        visit(start.needed)
        return tuple(loads)

    def _resolve(self, start: Library, problems: _Problems) -> dict[str, _Inner | _Outer]:
        """Follow NEEDED as the loader does: breadth first, each SONAME once, by whom it meets first."""
        resolved: dict[str, _Inner | _Outer] = {}
        met = {start.soname}
        waiting: deque[tuple[Library, tuple[str, ...]]] = deque([(start, ())])
        while waiting:
            found, inherited = waiting.popleft()
            # A RUNPATH holds for its own object only and switches the RPATHs off; an RPATH holds for those below too.
            rpath = () if found.runpath else _folders(found, found.rpath)
            search = _folders(found, found.runpath) if found.runpath else (*rpath, *inherited)
            for name in found.needed:
                if name in met or "/" in name:
                    continue
                met.add(name)
                met_by = self._meet(name, found, search, start, problems)
                if met_by is not None:
                    resolved[name] = met_by
                if isinstance(met_by, _Inner):
                    waiting.append((met_by.library, (*rpath, *inherited)))
        return resolved

    def _meet(
        self, name: str, found: Library, search: Iterable[str], start: Library, problems: _Problems
    ) -> _Inner | _Outer | None:
        for folder in search:
            hit = self._paths.get(posixpath.join(folder, name))
            if hit is not None:
                return _Inner(hit, by_loader=True)
        if is_system(name):
            return None
        if name in self._sonames:
            return _Inner(self._sonames[name], by_loader=False)
        offers = [
            _Outer(below.layer, offer)
            for below in self._lower
            for offer in below.libraries.get(name, ())
            if offer.machine == found.machine
        ]
        if len(offers) > 1:
            needed_by = problems.conflicts.setdefault(name, {})
            for layer, offer in offers:
                needed_by.setdefault(f"{layer}/{offer.path}", set()).add(start.path)
        elif not offers:
            problems.unresolved.setdefault(name, set()).add(found.path)
        return offers[0] if offers else None


def _folders(found: Library, paths: Iterable[str]) -> tuple[str, ...]:
    """Give the folders of the layer that a search path names; others cannot hold what is in the layer."""
    origin = posixpath.dirname(found.path)
    folders = []
    for path in paths:
        for word in ("$ORIGIN", "${ORIGIN}"):
            if path == word or path.startswith(word + "/"):
                folder = posixpath.normpath(f"{origin}/.{path[len(word) :]}")
                if not folder.startswith(".."):
                    folders.append(folder)
    return tuple(folders)


def _offered(
    libraries: Iterable[Library], same: Callable[[str, str], bool]
) -> tuple[dict[str, list[Library]], dict[str, list[str]]]:
    """Sort libraries by SONAME, each content once, and find names that would mean two files in one folder of links."""
    offered: dict[str, list[Library]] = {}
    names: dict[str, list[str]] = {}
    for found in libraries:
        name = posixpath.basename(found.path)
        known = offered.setdefault(found.soname or name, [])
        if not any(same(found.path, other.path) for other in known):
            known.append(found)
        for link in {name, found.soname or name}:
            paths = names.setdefault(link, [])
            if not any(same(found.path, other) for other in paths):
                paths.append(found.path)
    return offered, {name: paths for name, paths in names.items() if len(paths) > 1}


def _links(offered: Mapping[str, Sequence[Library]], ambiguous: Mapping[str, object]) -> dict[str, str]:
    links: dict[str, str] = {}
    for soname, candidates in offered.items():
        for found in candidates:
            for name in (posixpath.basename(found.path), soname):
                if name not in ambiguous and "/" not in name and name not in (".", ".."):
                    links.setdefault(name, found.path)
    return links


def _needs(own: Mapping[str, tuple[str, ...]], names: set[str], lower: Sequence[Offers]) -> dict[str, tuple[str, ...]]:
    """Join the needs of all layers: for one name the first layer on `sys.path` that has it decides."""
    joined: dict[str, tuple[str, ...]] = {}
    for below in reversed(lower):
        joined.update(below.modules)
    return {**{name: loads for name, loads in joined.items() if name not in names}, **own}


def _conflict(soname: str, offers: Mapping[str, set[str]]) -> Diagnostic:
    needed_by = sorted(set().union(*offers.values()))
    return Diagnostic(
        "library-conflict",
        f"`{soname}` is needed and offered {len(offers)} times by the layers below",
        notes=(
            *(f"offered: `{path}`" for path in sorted(offers)),
            f"needed by `{needed_by[0]}`" + (f" and {len(needed_by) - 1} more" if len(needed_by) > 1 else ""),
        ),
        hint="leave all but one out with `dynlib_exclude` in the layers that offer it",
    )


def _ambiguous(ambiguous: Mapping[str, Sequence[str]]) -> list[Diagnostic]:
    if not ambiguous:
        return []
    names = sorted(ambiguous)
    return [
        Diagnostic(
            "ambiguous-library",
            f"{_listed(names)} not linked for upper layers: two files have the name and different content",
            notes=tuple(f"`{name}`: {', '.join(f'`{path}`' for path in ambiguous[name])}" for name in names[:_SHOWN]),
            hint="leave all but one out with `dynlib_exclude`",
            severity="warning",
        )
    ]


def _unresolved(unresolved: Mapping[str, set[str]]) -> list[Diagnostic]:
    if not unresolved:
        return []
    names = sorted(unresolved)
    return [
        Diagnostic(
            "unresolved-library",
            f"{_listed(names)} needed, in no layer, and not among the libraries that every Linux system has",
            notes=tuple(f"`{name}` is needed by `{min(unresolved[name])}`" for name in names[:_SHOWN]),
            hint="require a distribution that brings them, or see to it that the target systems have them",
            severity="warning",
        )
    ]


def _listed(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"`{names[0]}` is"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"`{name}`" for name in names[:_SHOWN]) + f"{more} are"
