"""What GitHub Actions reads in a log: annotations and groups, and how all else is kept from being read as such.

The commands of that service begin a line with two colons; an older form, `##[…]`, counts anywhere in a line, so
what comes from outside (labels, messages, what a subprocess printed) must not have it at all. Reads nothing but the
environment, for where the checkout is.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping

from strata_engine.errors import Diagnostic

ROOT = "GITHUB_WORKSPACE"
"""The variable that names the checkout: annotations are shown at paths from there."""


def reads(environ: Mapping[str, str]) -> bool:
    """Tell whether GitHub Actions reads what is said."""
    return environ.get("GITHUB_ACTIONS") == "true"


def annotation(diagnostic: Diagnostic) -> str:
    """Give the command that makes an annotation of a diagnostic."""
    properties = [f"title={_property(diagnostic.id)}"]
    place = diagnostic.place
    if place is not None:
        properties.append(f"file={_property(_from_checkout(place.file))}")
        if place.line:
            end = place.column + max(1, place.length)
            properties += [f"line={place.line}", f"col={place.column}", f"endColumn={end}"]
    text = "\n".join([diagnostic.message, *diagnostic.notes, *([diagnostic.hint] if diagnostic.hint else [])])
    return defused(f"::{diagnostic.severity} {','.join(properties)}::{_escaped(text)}")


def group(title: str, lines: Iterable[str]) -> list[str]:
    """Give lines that are folded under a title."""
    return [f"::group::{_escaped(defused(title))}", *lines, "::endgroup::"]


def defused(line: str) -> str:
    """Give a line of ours without what would be a command in the middle of it."""
    return line.replace("##[", "## [")


def _from_checkout(file: str) -> str:
    """Give a path as it is named from the checkout, where it is in there."""
    root = os.environ.get(ROOT, "")
    path = os.path.relpath(file, root) if root else file
    return file if path.startswith("..") else path


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
