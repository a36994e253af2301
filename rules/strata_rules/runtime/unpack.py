"""The `Unpack` action: a runtime archive becomes a normalised runtime tree and its facts, without touching a disk tree.

It does not know who published the archive. Normalised means: the runtime's own folder is the root; pip, setuptools and
wheel are gone as if uninstalled (venvstacks does so), and so is bytecode, which would be of another machine; there is
a `bin/python` that can be executed, or a `python.exe`. Nothing is added or rewritten beyond that, so what the
publisher tested is what is used.
"""

from __future__ import annotations

import csv
import io
import posixpath
import re

import msgspec

from strata_engine.action import Action, Execution, Ref
from strata_engine.errors import Diagnostic, Place, SpecError
from strata_engine.tree import File, Node, Store, Symlink, Tree, assemble
from strata_rules.layout import Layout, is_windows, layout
from strata_rules.runtime.extract import check_case, check_links, read_archive
from strata_rules.runtime.facts import facts_of, version_of

VERSION = 2

_REMOVED = frozenset({"pip", "setuptools", "wheel"})
_REMOVED_MODULES = {
    "pip": ("pip",),
    "setuptools": ("setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth"),
    "wheel": ("wheel",),
}
_REMOVED_SCRIPTS = {
    "pip": re.compile(r"pip[\d.]*(\.exe)?"),
    "setuptools": re.compile(r"easy_install(-[\d.]+)?(\.exe)?"),
    "wheel": re.compile(r"wheel[\d.]*(\.exe)?"),
}
_DIST_INFO = re.compile(r"([A-Za-z0-9]+)-[^/]+\.(?:dist|egg)-info")
_TERMINFO = "share/terminfo/"
"""ncurses' database has names that differ in case; python-build-standalone ships it for Linux and macOS."""


class Unpacking(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be unpacked."""

    label: str
    archive: Ref
    implementation: str
    version: str
    platform: str
    place: Place | None = None


def unpack_action(wanted: Unpacking) -> Action:
    """Make the action: `out/tree` is the runtime, `out/facts.json` describes it."""
    params = {"implementation": wanted.implementation, "platform": wanted.platform, "version": wanted.version}
    return Action(
        label=wanted.label,
        mnemonic="Unpack",
        version=VERSION,
        params=params,
        inputs={"archive": wanted.archive},
        run=_run,
        description=f"unpack {wanted.implementation} {wanted.version} for {wanted.platform}",
        place=wanted.place,
    )


def _run(execution: Execution) -> Tree:
    archive = execution.node("archive")
    assert isinstance(archive, File)
    implementation, version, platform = (
        str(execution.params[key]) for key in ("implementation", "version", "platform")
    )

    def progress(done: int) -> None:
        execution.check_cancelled()
        execution.progress(done, archive.digest.size)

    store = execution.store
    nodes = read_archive(store, archive.digest, progress)
    tree = assemble(store, normalise(store, nodes, implementation=implementation, version=version, platform=platform))
    facts = facts_of(store, tree, implementation=implementation, version=version, platform=platform)
    return assemble(store, {"tree": tree, "facts.json": File(store.put(facts))})


def normalise(
    store: Store, nodes: dict[str, Node], *, implementation: str, version: str, platform: str
) -> dict[str, Node]:
    """Turn an archive's content into a runtime's.

    Raises SpecError `not-a-runtime`, `wrong-python`, `unsafe-archive`.
    """
    python = ".".join(version.split(".")[:2])
    interpreters = _interpreters(python, platform)
    nodes = _from_root(nodes, interpreters)
    check_links(nodes)
    check_case(nodes, "" if is_windows(platform) else _TERMINFO)
    nodes = {path: node for path, node in nodes.items() if not _is_bytecode(path)}
    _check_version(store, nodes, implementation, version, platform)
    for path in _installed(store, nodes, layout(platform, python, implementation)):
        nodes.pop(path, None)
    there = next(path for path in interpreters if path in nodes)
    if there != interpreters[0]:
        # Windows unpacks no symlinks without privileges.
        nodes[interpreters[0]] = nodes[there] if is_windows(platform) else Symlink(posixpath.basename(there))
    if not is_windows(platform):
        nodes |= {
            path: File(node.digest, executable=True)
            for path in interpreters
            if isinstance(node := nodes.get(path), File)
        }
    return nodes


def _interpreters(python: str, platform: str) -> tuple[str, ...]:
    """List where an interpreter may stand in a runtime; the first is where it is looked for."""
    if is_windows(platform):
        return "python.exe", "pypy3.exe", "pypy.exe"
    return "bin/python", f"bin/python{python}", "bin/python3", "bin/pypy3", "bin/pypy"


def _from_root(nodes: dict[str, Node], interpreters: tuple[str, ...]) -> dict[str, Node]:
    """Find the runtime's own folder: the root, the only folder (`python`), or `install` in it, as full builds have."""
    tops = {path.partition("/")[0] for path in nodes}
    roots = [""]
    if len(tops) == 1:
        top = next(iter(tops))
        roots += [f"{top}/", f"{top}/install/"]
    for root in roots:
        if any(root + path in nodes for path in interpreters):
            return {path[len(root) :]: node for path, node in nodes.items() if path.startswith(root)}
    message = f"the archive has no Python for this platform: no `{interpreters[0]}`"
    hint = "name an archive for this platform, such as python-build-standalone publishes"
    raise SpecError(Diagnostic("not-a-runtime", message, hint=hint))


def _is_bytecode(path: str) -> bool:
    return "__pycache__" in path.split("/") or path.endswith((".pyc", ".pyo"))


def _check_version(store: Store, nodes: dict[str, Node], implementation: str, version: str, platform: str) -> None:
    if implementation != "cpython":
        return  # PyPy's files name its own version first
    found = version_of(store, nodes, platform)
    if found is None:
        hint = "name an archive of a whole runtime"
        message = "the archive has an interpreter but no standard library"
        raise SpecError(Diagnostic("not-a-runtime", message, hint=hint))
    claimed, exact = found
    if claimed != (version if exact else ".".join(version.split(".")[:2])):
        message = f"the archive has {implementation} {claimed}, not {version}"
        hint = "set `python_implementation` to what the archive has, or name another archive"
        raise SpecError(Diagnostic("wrong-python", message, hint=hint))


def _installed(store: Store, nodes: dict[str, Node], places: Layout) -> set[str]:
    """List the files of pip, setuptools and wheel: by their RECORDs, and by name, as some archives thin RECORDs out."""
    site = places.site_packages + "/"
    scripts = ("Scripts" if places.python.endswith(".exe") else "bin") + "/"
    names: dict[str, set[str]] = {}
    for path in nodes:
        match = _DIST_INFO.match(path[len(site) :]) if path.startswith(site) else None
        if match is not None and match[1].lower() in _REMOVED:
            names.setdefault(match[1].lower(), set()).add(site + match[0])
    gone: set[str] = set()
    for name, infos in names.items():
        for info in infos:
            record = nodes.get(f"{info}/RECORD")
            if isinstance(record, File):
                gone |= _recorded(store.get(record.digest), site)
        roots = (*infos, *(site + module for module in _REMOVED_MODULES[name]))
        gone |= {path for path in nodes if any(path == root or path.startswith(root + "/") for root in roots)}
        gone |= {
            path
            for path in nodes
            if path.startswith(scripts) and _REMOVED_SCRIPTS[name].fullmatch(path[len(scripts) :])
        }
    return gone


def _recorded(record: bytes, site: str) -> set[str]:
    """Read the paths of a RECORD, relative to the runtime; those that lead out of it simply match nothing."""
    rows = csv.reader(io.StringIO(record.decode("utf-8", "replace")))
    return {posixpath.normpath(site + row[0]) for row in rows if row and not row[0].startswith("/")}
