"""What a user is told of libraries that no layer offers: who needs them, and who would provide them.

Pure: it reads what lower layers say of themselves, and decides nothing about what is linked. One warning per layer,
however many libraries it misses.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from strata_engine.errors import Diagnostic
from strata_rules.link.distributions import that_bring
from strata_rules.link.offers import Offers

SHOWN = 8
"""Libraries of which one warning tells more than the number."""

_STEM = re.compile(r"(?:\.[0-9]+)*\.(?:so|dylib)\b.*$")


def unresolved(
    layer: str, needed_by: Mapping[str, set[str]], lower: Sequence[Offers], system: str
) -> Diagnostic | None:
    """Warn of the needs that nobody meets: library → the files of the layer that need it."""
    if not needed_by:
        return None
    names = sorted(needed_by)
    notes: list[str] = []
    hints: dict[str, None] = {}
    for name in names[:SHOWN]:
        notes.append(f"`{name}` is needed by `{min(needed_by[name])}`{_more(len(needed_by[name]) - 1)}")
        for note, hint in _advice(name, lower):
            notes.append(note)
            hints[hint] = None
    hints = hints or {"require a distribution that brings them": None}
    return Diagnostic(
        "unresolved-library",
        f"`{layer}` needs {listed(names)}, which no layer offers and {system} lacks",
        notes=tuple(notes),
        hint="; ".join([*hints, "or see to it that the target systems have them"]),
        severity="warning",
    )


def _more(count: int) -> str:
    return f" and {count} more" if count else ""


def listed(names: Sequence[str]) -> str:
    """Name some libraries."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"`{name}`" for name in names[:SHOWN]) + more


def _advice(name: str, lower: Sequence[Offers]) -> Iterator[tuple[str, str]]:
    """Give what is known about one library: a note, and what can be done."""
    found = [*_withheld(name, lower)] or [*_alike(name, lower)]
    yield from found
    bring = that_bring(name)
    if bring:
        which = " or ".join(f"`{distribution}`" for distribution in bring)
        yield f"`{name}` is in the distribution {which}", f"require {which}"


def _withheld(name: str, lower: Sequence[Offers]) -> Iterator[tuple[str, str]]:
    """Find layers that have the library and do not offer it."""
    for layer in lower:
        for library in layer.withheld.get(name, ()):
            has = f"`{layer.layer}` has it as `{library.path}`"
            if library.pattern:
                yield (
                    f"{has}, and leaves it out: `dynlib_exclude` has `{library.pattern}`",
                    f"let `{layer.layer}` offer it: take `{library.pattern}` out of its `dynlib_exclude`",
                )
            else:
                yield (
                    f"{has}, for another machine type: `{library.machine}`",
                    f"give `{layer.layer}` a build of it for the target platform",
                )


def _alike(name: str, lower: Sequence[Offers]) -> Iterator[tuple[str, str]]:
    """Find layers that have the library under another name or in another version."""
    file = posixpath.basename(name)
    for layer in lower:
        for other, path in _libraries(layer):
            if posixpath.basename(path) == file:
                yield (
                    f"`{layer.layer}` has `{path}`, but it calls itself `{other}`, and the loader goes by that",
                    'set `[tool.strata] dynlib = "launcher"`, with which the loader finds it by its file name',
                )
            elif _stem(other) == _stem(name):
                yield (
                    f"`{layer.layer}` has another version of it, `{other}`, as `{path}`",
                    f"require versions that agree on `{_stem(name)}`",
                )


def _libraries(layer: Offers) -> Iterable[tuple[str, str]]:
    """List the libraries of a layer, each name once: what it is called, and its path."""
    names: dict[str, str] = {other: offers[0].path for other, offers in layer.libraries.items()}
    for other, withheld in layer.withheld.items():
        names.setdefault(other, withheld[0].path)
    return sorted(names.items())


def _stem(name: str) -> str:
    """Give a library's name without versions: `libfoo` for `libfoo.so.1` and `@rpath/libfoo.1.2.dylib`."""
    return _STEM.sub("", posixpath.basename(name))
