"""Which shared libraries of lower layers must be loaded before which extension module, found out of the files alone.

Pure: it opens no file and runs nothing. The loader's rules are followed (`glibc` and `dyld` know them), since whatever
the loader finds by itself must not be loaded by us: a library preloaded by its name overrides the private one that a
wheel brought along. So only what is needed, not found by the loader, not in the layer itself and not the system's is
taken.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from strata_engine.errors import ActionError, Diagnostic
from strata_rules.contents import Library
from strata_rules.link import dyld, glibc
from strata_rules.link.advice import SHOWN, listed, unresolved
from strata_rules.link.offers import Offer, Offers, Withheld
from strata_rules.link.search import Loader, Problems, Search, is_library, name_of

_MODULE = re.compile(r"\.(?:cpython-|pypy|abi3|graalpy)[^/]*\.so$|\.so$")


class Target(NamedTuple):
    """For what a layer is linked."""

    loader: Loader
    machine: str
    """The files that the platform can load, as `Library.machine` says it."""


_TARGETS: Mapping[str, Target] = {
    "linux_x86_64": Target(glibc, "EM_X86_64"),
    "linux_aarch64": Target(glibc, "EM_AARCH64"),
    "macosx_arm64": Target(dyld, "CPU_TYPE_ARM64"),
    "macosx_x86_64": Target(dyld, "CPU_TYPE_X86_64"),
}


class Linked(NamedTuple):
    """What the libraries of a layer come to."""

    offers: Offers
    needs: Mapping[str, Sequence[str]]
    """For the boot module: its own extension modules and those of the layers below."""
    links: Mapping[str, str]
    """File names in `share/venv/dynlib` → paths in the layer."""
    warnings: tuple[Diagnostic, ...]


def target_of(platform: str) -> Target | None:
    """Give what a platform loads and how; None for Windows, whose libraries are found in other ways."""
    return _TARGETS.get(platform)


def link_libraries(
    layer: str,
    installed: Sequence[Library],
    site: str,
    lower: Sequence[Offers],
    target: Target,
    *,
    launcher: bool = False,
    excluded: Callable[[str], str | None],
    same: Callable[[str, str], bool],
) -> Linked:
    """Find what a layer needs of those below it, and what it offers.

    `lower` is in the order of `sys.path`; `launcher` says that the loader searches the links of those layers too;
    `excluded` gives the pattern by which a path is not offered; `same` tells whether two paths of the layer have one
    content. Raises ActionError where a needed library is offered twice, naming all such.
    """
    files = sorted(installed, key=lambda found: found.path)
    mine = [found for found in files if found.machine == target.machine]
    offers = [found for found in mine if is_library(found) and excluded(found.path) is None]
    offered, ambiguous = _offered(offers, same)
    search = Search(layer, mine, lower, target.loader, _linked_names(lower) if launcher else frozenset())
    problems = Problems({}, {})
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
        name: tuple(Offer(path=found.path, before=search.loads(found, problems, own=True)) for found in candidates)
        for name, candidates in sorted(offered.items())
    }
    if problems.conflicts:
        raise ActionError(*(_conflict(layer, name, both) for name, both in sorted(problems.conflicts.items())))
    warnings = (_ambiguous(layer, ambiguous), unresolved(layer, problems.unresolved, lower, target.loader.SYSTEM))
    return Linked(
        Offers(layer=layer, libraries=libraries, withheld=_withheld(files, mine, excluded), modules=modules),
        _needs(modules, names, lower),
        _links(offered, ambiguous),
        tuple(warning for warning in warnings if warning is not None),
    )


def module_name(path: str, site: str) -> str | None:
    """Give the full name by which Python would import a file, or None where it would not."""
    if not path.startswith(site + "/") or not path.endswith(".so"):
        return None
    *folders, name = path[len(site) + 1 :].split("/")
    parts = [*folders, _MODULE.sub("", name, count=1)]
    return ".".join(parts) if all(part.isidentifier() for part in parts) else None


def _offered(
    libraries: Iterable[Library], same: Callable[[str, str], bool]
) -> tuple[dict[str, list[Library]], dict[str, list[str]]]:
    """Sort libraries by name, each content once, and find names that would mean two files in one folder of links."""
    offered: dict[str, list[Library]] = {}
    names: dict[str, list[str]] = {}
    for found in libraries:
        known = offered.setdefault(name_of(found), [])
        if not any(same(found.path, other.path) for other in known):
            known.append(found)
        for link in _link_names(found):
            paths = names.setdefault(link, [])
            if not any(same(found.path, other) for other in paths):
                paths.append(found.path)
    return offered, {name: paths for name, paths in names.items() if len(paths) > 1}


def _link_names(found: Library) -> set[str]:
    """Give the names of a library in the folder of links: that of its file, and that by which it is needed."""
    names = {posixpath.basename(found.path), posixpath.basename(name_of(found))}
    return names - {"", ".", ".."}


def _links(offered: Mapping[str, Sequence[Library]], ambiguous: Mapping[str, object]) -> dict[str, str]:
    links: dict[str, str] = {}
    for candidates in offered.values():
        for found in candidates:
            for name in sorted(_link_names(found) - ambiguous.keys()):
                links.setdefault(name, found.path)
    return links


def _linked_names(lower: Iterable[Offers]) -> frozenset[str]:
    """Give the file names in the lower layers' folders of links."""
    return frozenset(
        posixpath.basename(name)
        for below in lower
        for called, offers in below.libraries.items()
        for name in (called, *(offer.path for offer in offers))
    )


def _withheld(
    files: Iterable[Library], mine: Sequence[Library], excluded: Callable[[str], str | None]
) -> dict[str, tuple[Withheld, ...]]:
    """List the libraries that are there and not offered, by name; a file with an architecture that fits is no such."""
    loadable = {found.path for found in mine}
    withheld: dict[str, list[Withheld]] = {}
    for found in files:
        pattern = excluded(found.path) or ""
        other = found.path not in loadable
        if is_library(found) and (pattern or other):
            entry = Withheld(path=found.path, pattern=pattern, machine=found.machine if other else "")
            known = withheld.setdefault(name_of(found), [])
            if entry not in known:
                known.append(entry)
    return {name: tuple(entries) for name, entries in sorted(withheld.items())}


def _needs(own: Mapping[str, tuple[str, ...]], names: set[str], lower: Sequence[Offers]) -> dict[str, tuple[str, ...]]:
    """Join the needs of all layers: for one name the first layer on `sys.path` that has it decides."""
    joined: dict[str, tuple[str, ...]] = {}
    for below in reversed(lower):
        joined.update(below.modules)
    return {**{name: loads for name, loads in joined.items() if name not in names}, **own}


def _conflict(layer: str, name: str, offers: Mapping[str, set[str]]) -> Diagnostic:
    needed_by = sorted(set().union(*offers.values()))
    return Diagnostic(
        "library-conflict",
        f"`{layer}` needs `{name}`, which the layers below offer {len(offers)} times",
        notes=(
            *(f"offered: `{path}`" for path in sorted(offers)),
            f"needed by `{needed_by[0]}`" + (f" and {len(needed_by) - 1} more" if len(needed_by) > 1 else ""),
        ),
        hint="leave all but one out with `dynlib_exclude` in the layers that offer it",
    )


def _ambiguous(layer: str, ambiguous: Mapping[str, Sequence[str]]) -> Diagnostic | None:
    if not ambiguous:
        return None
    names = sorted(ambiguous)
    return Diagnostic(
        "ambiguous-library",
        f"`{layer}` does not link {listed(names)} for upper layers: two files have the name and different content",
        notes=tuple(f"`{name}`: {', '.join(f'`{path}`' for path in ambiguous[name])}" for name in names[:SHOWN]),
        hint="leave all but one out with `dynlib_exclude`",
        severity="warning",
    )
