"""Where macOS's loader looks for what a Mach-O file needs, and what is the system's. Pure.

It knows the files of one layer by their paths, and nothing of other layers. None of it has been run on macOS.

dyld takes an image that is loaded already for a need that reads exactly as the image's install name, `@rpath/…` and
absolute names alike, and only then searches. So preloading by full path serves where the two are equal, as glibc
serves an equal SONAME; for a need that starts with `@loader_path` nothing but that file will do.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from strata_rules.contents import Library

SYSTEM = "macOS"

_SYSTEM = re.compile(
    r"""(?x) ^/usr/lib/ | ^/System/
    # Swift's libraries are the system's, though needed by `@rpath`.
    | /libswift[^/]*\.dylib$
    # What the interpreter has loaded, or is itself.
    | (?:^|/)libpython[0-9.]*t?d?\.dylib$ | /Python\.framework/.*/Python[T]?$
    """
)


def is_system(name: str) -> bool:
    """Tell whether a library is expected of the system (or the interpreter) and of no layer."""
    return _SYSTEM.search(name) is not None


def identity(found: Library, name: str) -> str | None:
    """Give what a need is known by in a process: its text, but for what is relative to the file that needs it."""
    place = _beside(found, name)
    return name if place is None else f"@loader_path={place}"


def places(found: Library, name: str, search: Iterable[str]) -> list[str]:
    """List the paths in the layer where the loader looks for `name`, when `search` are the folders that hold.

    What `@executable_path` means is not known: a layer's interpreter is a link to another layer's.
    """
    if name.startswith("@rpath/"):
        return [posixpath.normpath(posixpath.join(folder, name[len("@rpath/") :])) for folder in search]
    place = _beside(found, name)
    return [] if place is None else [place]


def folders(found: Library, paths: Iterable[str]) -> tuple[str, ...]:
    """Give the folders of the layer that a search path names; others cannot hold what is in the layer."""
    inside = (_beside(found, path.rstrip("/") + "/.") for path in paths)
    return tuple(folder for folder in inside if folder is not None and not folder.startswith(".."))


def _beside(found: Library, path: str) -> str | None:
    if not path.startswith("@loader_path/"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(found.path), path[len("@loader_path/") :]))
