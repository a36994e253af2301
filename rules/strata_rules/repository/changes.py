"""Which actions of a stack are made from something that has changed: files, tables of the stack file, what git keeps.

It is given what has changed and runs no git. Of a changed stack file the tables of each layer are compared, so that
one layer's requirement concerns that layer; what stands above it is for `rdeps` to find.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from strata_engine.action import Action, Source, SourceTree
from strata_rules.lock.committed import CommittedLock
from strata_rules.planning import Plan
from strata_rules.spec.declared import CATEGORIES
from strata_rules.spec.load import Layer, Stack
from strata_rules.spec.uvconfig import UV_FILE
from strata_rules.stack import pin_path

PINNED = ("Capture", "Download", "Unpack")
"""What a pin of a runtime decides on."""

_FOLDER, _FILE = True, False
"""What `accept` of a folder's source is asked about."""


def touched(plan: Plan, changed: frozenset[Path], old: Callable[[Path], bytes | None]) -> set[str]:
    """List the labels, as the stack has them, of what changed files concern directly.

    `old` gives what a file was before; None where there was none.
    """
    stack, graph = plan.stack, plan.analysis.graph
    layers = touched_layers(stack, old(stack.path)) if stack.path in changed else set()
    if stack.root / UV_FILE in changed:
        layers |= {layer.env_name for layer in stack.layers}
    found = {label for label in graph.labels() if label.partition("/")[0] in layers}
    pinned = {layer.env_name for layer in stack.of("runtime") if pin_path(stack.root, layer) in changed}
    for action in graph.actions():
        lock = action.committed
        kept = isinstance(lock, CommittedLock) and not changed.isdisjoint(lock.paths)
        chosen = action.mnemonic in PINNED and action.label.partition("/")[0] in pinned
        if kept or chosen or any(reads(source, stack.root, changed) for source in _sources(action)):
            found.add(action.label)
    return found


def _sources(action: Action) -> Iterator[Source | SourceTree]:
    return (source for source in action.inputs.values() if isinstance(source, (Source, SourceTree)))


def reads(source: Source | SourceTree, root: Path, changed: Iterable[Path]) -> bool:
    """Tell whether a source is made of any of some files, those that are gone included."""
    place = root / source.path
    if isinstance(source, Source):
        return any(path in (place, Path(os.path.realpath(place))) for path in changed)
    return any(_takes(source, place, path) for path in changed)


def _takes(source: SourceTree, folder: Path, path: Path) -> bool:
    if path.is_relative_to(folder):
        inner = PurePosixPath(path.relative_to(folder).as_posix())
        accept = source.accept
        # Folders first: so filters of ignore files ask to be asked.
        above = [str(parent) for parent in reversed(inner.parents) if str(parent) != "."]
        return accept is None or (all(accept(each, _FOLDER) for each in above) and accept(str(inner), _FILE))
    return source.follow and any(path.is_relative_to(target) for target in _targets(folder))


def _targets(folder: Path) -> Iterator[Path]:
    """List what symlinks in a folder lead to."""
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(where, name)
            if path.is_symlink():
                yield Path(os.path.realpath(path))


def files_of(source: Source | SourceTree, root: Path) -> Iterator[Path]:
    """List the files that a source is made of now, and its folder."""
    place = root / source.path
    yield place
    if isinstance(source, SourceTree):
        accept = source.accept or (lambda _path, _is_folder: True)
        for where, folders, files in os.walk(place, followlinks=False):
            inner = Path(where).relative_to(place)
            folders[:] = [name for name in sorted(folders) if accept((inner / name).as_posix(), _FOLDER)]
            yield from (Path(where, name) for name in sorted(files) if accept((inner / name).as_posix(), _FILE))


# -- stack files -------------------------------------------------------------------------------------------------------


def touched_layers(stack: Stack, old: bytes | None) -> set[str]:
    """Name the layers whose tables are not what they were in an old stack file, or that its settings may reach."""
    everything = {layer.env_name for layer in stack.layers}
    try:
        before = tomllib.loads((old or b"").decode("utf-8"))
    except (ValueError, RecursionError):
        return everything
    now = stack.document.values
    if _section(before, "uv") != _section(now, "uv"):
        return everything
    strata, old_strata = _section(now, "strata"), _section(before, "strata")
    runtimes, old_runtimes = strata.pop("runtimes", {}), old_strata.pop("runtimes", {})
    if strata != old_strata:
        return everything
    return {
        layer.env_name
        for layer in stack.layers
        if _table(now, layer) != _table(before, layer)
        or _entry(runtimes, layer.runtime.name) != _entry(old_runtimes, layer.runtime.name)
    }


def _section(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = _entry(_entry(document, "tool"), name)
    return dict(found) if isinstance(found, dict) else {}


def _entry(table: object, name: str) -> Any:
    return table.get(name) if isinstance(table, dict) else None


def _table(document: Mapping[str, Any], layer: Layer) -> object:
    key = next(category.key for category in CATEGORIES if category.kind == layer.kind)
    tables = document.get(key)
    found = [table for table in tables if _entry(table, "name") == layer.name] if isinstance(tables, list) else []
    return found[0] if found else None
