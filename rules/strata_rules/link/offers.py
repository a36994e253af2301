"""What a linked layer tells those above it of its shared libraries: the nouns of its `libraries.json`.

It knows no rule. A changed file here re-runs the Link of every layer above, so it holds names and places and no
content: a library that was merely rebuilt changes nothing.
"""

from __future__ import annotations

import msgspec


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A shared library that upper layers may load."""

    path: str
    """Relative to the layer."""
    before: tuple[str, ...] = ()
    """What must be loaded before it, in order: `INSTALL_TARGET/path`."""


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """A shared library that is in the layer and not offered; told so that whoever misses it can be told why."""

    path: str
    pattern: str = ""
    """The one of `dynlib_exclude` that leaves it out; empty where it is for another machine type."""
    machine: str = ""


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """`libraries.json`: what a linked layer tells those above it."""

    layer: str
    """Its install target."""
    libraries: dict[str, tuple[Offer, ...]]
    """By SONAME or install name (by file name where there is none). More than one is a conflict for who needs it."""
    withheld: dict[str, tuple[Withheld, ...]]
    modules: dict[str, tuple[str, ...]]
    """For each of its own extension modules that needs any, the libraries to load first, in order."""
