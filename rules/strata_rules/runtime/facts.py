"""What other rules and people want to know of a runtime tree, as `facts.json`: read from the tree alone.

It knows nothing of where the tree came from: the same tree has the same facts whoever provided it.
"""

from __future__ import annotations

import json
import re
from typing import Any

from strata_engine.tree import File, Store, Symlink, Tree, entries
from strata_rules import elf
from strata_rules.layout import is_windows, layout

SCHEMA = 1

_GLIBC = re.compile(rb"\0GLIBC_(\d{1,3})\.(\d{1,3})(?:\.\d{1,3})?(?=\0)")
_PATCHLEVEL = re.compile(rb'^#define\s+PY_VERSION\s+"([^"]+)"', re.MULTILINE)
_STDLIB = re.compile(r"lib(?:64)?/((?:python|pypy)(\d+\.\d+))/os\.py")
_WINDOWS_DLL = re.compile(r"python(\d)(\d+)\.dll", re.IGNORECASE)


def facts_of(store: Store, tree: Tree, *, implementation: str, version: str, platform: str) -> bytes:
    """Describe a runtime tree as canonical JSON."""
    python = ".".join(version.split(".")[:2])
    nodes = dict(entries(store, tree))
    places = layout(platform, python, implementation)
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "implementation": implementation,
        "version": version,
        "python": python,
        "platform": platform,
        "interpreter": places.runtime_python,
        "interpreters": sorted(path for path in nodes if _is_interpreter(path, platform)),
        "site_packages": places.site_packages,
    }
    if platform.startswith("linux_"):
        facts |= _linux(store, {path: node for path, node in nodes.items() if isinstance(node, File)})
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def _is_interpreter(path: str, platform: str) -> bool:
    if is_windows(platform):
        return re.fullmatch(r"(python|pypy)w?(\d[\d.]*)?\.exe", path) is not None
    return re.fullmatch(r"bin/(python|pypy)(\d[\d.]*)?", path) is not None


def _linux(store: Store, files: dict[str, File]) -> dict[str, Any]:
    """Find the libraries that the system must have, and the oldest glibc that will do."""
    needed: set[str] = set()
    offered: set[str] = set()
    glibc = (0, 0)
    for path, file in files.items():
        name = path.rpartition("/")[2]
        if not (file.executable or ".so" in name):
            continue
        with store.open(file.digest) as stream:
            found = elf.read(stream)
            if found is None:
                continue
            stream.seek(0)
            versions = _GLIBC.findall(stream.read())
        needed.update(found.needed)
        offered.update(filter(None, (found.soname, name)))
        glibc = max([glibc, *((int(major), int(minor)) for major, minor in versions)])
    facts: dict[str, Any] = {"system_libraries": sorted(needed - offered)}
    return facts | ({"glibc": f"{glibc[0]}.{glibc[1]}"} if glibc != (0, 0) else {})


def version_of(store: Store, nodes: dict[str, File | Symlink | Tree], platform: str) -> tuple[str, bool] | None:
    """Read the version that a tree itself claims: (`X.Y.Z`, True) from its header, else (`X.Y`, False)."""
    for path, node in nodes.items():
        if path.endswith("/patchlevel.h") and path.startswith(("include/", "Include/")) and isinstance(node, File):
            found = _PATCHLEVEL.search(store.get(node.digest)[:65536])
            if found is not None:
                return found[1].decode("ascii", "replace"), True
    for path in nodes:
        pattern = _WINDOWS_DLL if is_windows(platform) else _STDLIB
        match = pattern.fullmatch(path)
        if match is not None:
            return (f"{match[1]}.{match[2]}" if is_windows(platform) else match[2]), False
    return None
