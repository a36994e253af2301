"""Where glibc's loader looks for what an ELF file needs, and what it finds on every system. Pure.

It knows the files of one layer by their paths, and nothing of other layers.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from strata_rules.contents import Library

SYSTEM = "Linux in general"

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


def is_system(name: str) -> bool:
    """Tell whether a library is expected of the system (or the interpreter) and of no layer."""
    return _SYSTEM.match(name) is not None


def identity(_found: Library, name: str) -> str | None:
    """Give what a need is known by in a process: its SONAME. A need with a slash is a place, and never a layer's."""
    return None if "/" in name else name


def places(_found: Library, name: str, search: Iterable[str]) -> list[str]:
    """List the paths in the layer where the loader looks for `name`, when `search` are the folders that hold."""
    return [posixpath.join(folder, name) for folder in search]


def folders(found: Library, paths: Iterable[str]) -> tuple[str, ...]:
    """Give the folders of the layer that a search path names; others cannot hold what is in the layer."""
    origin = posixpath.dirname(found.path)
    inside = []
    for path in paths:
        for word in ("$ORIGIN", "${ORIGIN}"):
            if path == word or path.startswith(word + "/"):
                folder = posixpath.normpath(f"{origin}/.{path[len(word) :]}")
                if not folder.startswith(".."):
                    inside.append(folder)
    return tuple(inside)
