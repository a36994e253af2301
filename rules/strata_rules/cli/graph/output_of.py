"""Which action made a file: a question about a place in the workspace, answered from the store.

A place belongs to an action where a build has put its output there. What lies elsewhere (an archive, a lock) is known
by its content: some action gave just that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from strata_engine.cas import BlobLost
from strata_engine.digest import Digest, digest_file
from strata_engine.errors import HostError, SpecError
from strata_engine.made_by import Made, made_by
from strata_engine.tree import File, Node, Reader, Symlink, Tree, listing
from strata_rules.cli.graph.asked import Kept, in_workspace
from strata_rules.cli.graph.documents import VERSION, OutputDocument, Passed, fields
from strata_rules.cli.graph.told import listed, page
from strata_rules.cli.output import emit, emit_document
from strata_rules.spec.near import did_you_mean


class _Place(NamedTuple):
    label: str
    path: str
    """Where in the label's output."""


def tell_output(kept: Kept, path: str, *, full: bool, as_json: bool) -> None:
    """Say who made what is at a path. Raises SpecError, HostError."""
    name = in_workspace(kept.workspace, path)
    with kept.content() as reader:
        if reader is None:
            raise HostError.of("no-store", "there is no store to look into", hint="`strata build` makes one")
        try:
            place = _placed(kept, reader, name) or _same_content(kept, reader, name)
            made = made_by(reader, kept.graph, kept.past, place.label, place.path) if place is not None else None
        except BlobLost as lost:
            raise _evicted(name) from lost
        if place is None:
            raise _unknown(kept, name)
        if made is None:
            within = f"`{place.label}` has put nothing there"
            raise SpecError.of("unknown-output", f"no build has put `{name}` there", notes=(within,))
        intact = _intact(reader, made.node, kept.workspace.root / name)
    if as_json:
        way = tuple(Passed(each.label, each.path) for each in made.way)
        document = OutputDocument(name, way, made.source or None, made.parts, intact)
        emit_document("strata.output", VERSION, fields(document))
    else:
        emit("\n".join(page(_lines(name, made, kept.workspace.root / name, intact=intact, full=full), full=full)))


def _placed(kept: Kept, reader: Reader, name: str) -> _Place | None:
    """Find the action whose output was put at a path, or at a folder that it is in."""
    for label, known in kept.graph.items():
        for place in known.places:
            if name == place or name.startswith(f"{place}/"):
                inner = name[len(place) + 1 :]
                there = kept.history.placed(kept.workspace.root / place)
                base = _part(kept, reader, label, there.output) if there is not None else ""
                return _Place(label, "/".join(filter(None, (base, inner))))
    return None


def _part(kept: Kept, reader: Reader, label: str, digest: Digest) -> str:
    """Tell which part of an output was put at a place: it need not be all of it."""
    past = kept.past.get(label)
    artifact = past.artifact if past is not None else None
    if not isinstance(artifact, Tree) or artifact.root == digest:
        return ""
    inner = (name for name, node in listing(reader, artifact) if _digest(node) == digest)
    return next(inner, "")


def _digest(node: Node) -> Digest | None:
    match node:
        case Tree(root=digest) | File(digest=digest):
            return digest
        case _:
            return None


def _same_content(kept: Kept, reader: Reader, name: str) -> _Place | None:
    """Find the action that gave the content of a file, as all of its output or as a file of it."""
    path = kept.workspace.root / name
    if not path.is_file():
        return None
    digest = digest_file(path)
    for label, past in kept.past.items():
        match past.artifact:
            case File(digest=found) if found == digest:
                return _Place(label, "")
            case Tree() as tree if label in kept.graph:
                try:
                    members = listing(reader, tree)
                except BlobLost:
                    continue
                inner = next((member for member, node in members if _digest(node) == digest), None)
                if inner is not None:
                    return _Place(label, inner)
            case _:
                pass
    return None


def _intact(reader: Reader, node: Node, path: Path) -> bool:
    """Tell whether what stands at a path is what was put there."""
    try:
        match node:
            case File(digest=digest):
                return not path.is_symlink() and path.is_file() and digest_file(path) == digest
            case Symlink(target=target):
                return path.is_symlink() and str(path.readlink()) == target
            case Tree():
                members = dict(listing(reader, node))
                if path.is_symlink() or {each.name for each in path.iterdir()} != members.keys():
                    return False
                return all(_intact(reader, member, path / name) for name, member in members.items())
    except (OSError, BlobLost):
        return False


def _lines(name: str, made: Made, path: Path, *, intact: bool, full: bool) -> list[str]:
    lines = [name]
    for number, each in enumerate(made.way):
        last = number == len(made.way) - 1 and not made.source
        word = "made by" if last else ("from" if number else "put there by")
        lines.append(f"{word:<13}{each.label}  {each.path}".rstrip())
    if made.source:
        lines.append(f"{'copied from':<13}{made.source}")
    if made.parts:
        lines.append(f"{'out of':<13}{listed(made.parts, full=full)}")
    if not intact:
        gone = not os.path.lexists(path)
        lines.append("it is there no more" if gone else "it is not as it was put there: somebody has changed it")
    return lines


def _evicted(name: str) -> SpecError:
    error = SpecError.of(
        "no-history", f"the store no longer knows what `{name}` was made of", hint="build it again: then it does"
    )
    assert isinstance(error, SpecError)
    return error


def _unknown(kept: Kept, name: str) -> SpecError:
    places = [place for known in kept.graph.values() for place in known.places]
    hint = did_you_mean(name, places)
    if hint is None:
        hint = f"builds put things at {listed(f'`{place}`' for place in sorted(places))}" if places else None
    error = SpecError.of("unknown-output", f"no recorded build has put anything at `{name}`", hint=hint)
    assert isinstance(error, SpecError)
    return error
