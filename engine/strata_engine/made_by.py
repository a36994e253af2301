"""Which action made a file: the way of a placed output back through the actions that only passed its content on.

An action's inputs are named in its key, and their content is in the store, so where a file came from need not have been
recorded: it came from the input that has the same content under a like name. What no input has, the action made itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from strata_engine import codec
from strata_engine.cas import BlobLost
from strata_engine.history import Past
from strata_engine.recorded_graph import RecordedAction
from strata_engine.tree import Artifact, File, Node, Reader, Tree, entries, listing, lookup

_LONGEST = 100
"""Actions on one way, at most: what a store answers cannot make us walk for ever."""


class Passed(NamedTuple):
    """An action that had the content in its output."""

    label: str
    path: str
    """Where in its output; empty for the whole of it."""
    mnemonic: str = ""


class Made(NamedTuple):
    """Where content comes from."""

    way: tuple[Passed, ...]
    """The actions that had it, the last one first."""
    source: str
    """The workspace's file or folder that it is a copy of; empty where the last of `way` made it."""
    parts: tuple[str, ...]
    """What the maker made it of: the labels and sources among its inputs that it can come from."""
    node: Node


class _Input(NamedTuple):
    name: str
    what: str
    """A label, a source, or nothing that has a name."""
    node: Node


def made_by(
    reader: Reader, graph: Mapping[str, RecordedAction], past: Mapping[str, Past], label: str, path: str
) -> Made | None:
    """Follow what is at `path` in the output of `label`; None where nothing is there. Raises `BlobLost`."""
    output = _output(past, label)
    found = _lookup(reader, output, path) if output is not None else None
    if found is None:
        return None
    way: list[Passed] = []
    while True:
        way.append(Passed(label, path, graph[label].mnemonic if label in graph else ""))
        inputs = list(_inputs(reader, graph, past, label))
        given = _giver(reader, inputs, found, path)
        if given is None or len(way) > _LONGEST:
            return Made(tuple(way), "", _parts(reader, inputs, found, path), found)
        giver, inner = given
        below = _output(past, giver.what)
        if below is None:
            return Made(tuple(way), "/".join(filter(None, (giver.what.removesuffix("/"), inner))), (), found)
        label, path = giver.what, _within(reader, below, giver.node, inner)


def _output(past: Mapping[str, Past], label: str) -> Artifact | None:
    there = past.get(label)
    return there.artifact if there is not None else None


def _lookup(reader: Reader, artifact: Node, path: str) -> Node | None:
    if not path:
        return artifact
    return lookup(reader, artifact, path) if isinstance(artifact, Tree) else None


def _inputs(
    reader: Reader, graph: Mapping[str, RecordedAction], past: Mapping[str, Past], label: str
) -> Iterator[_Input]:
    """List an action's inputs as its key has them."""
    known, last = graph.get(label), past.get(label)
    if known is None or last is None:
        return
    try:
        root = Tree(codec.decode_action(reader.get(last.key)).input_root_digest)
    except (BlobLost, ValueError):
        return
    for name, what in known.inputs.items():
        node = lookup(reader, root, name)
        if node is not None and what:
            yield _Input(name, what, node)


def _giver(reader: Reader, inputs: list[_Input], node: Node, path: str) -> tuple[_Input, str] | None:
    """Find the input that has the content, and where in it: under the name that is most like the one it has here."""
    telling = not isinstance(node, File) or node.digest.size > 0
    whole = next((each for each in inputs if each.node == node), None)
    if whole is not None and telling:
        return whole, ""
    parts = path.split("/") if path else []
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        for each in inputs:
            for base in ("", *_folders(reader, each.node)) if isinstance(each.node, Tree) else ():
                inner = "/".join(filter(None, (base, tail)))
                if _lookup(reader, each.node, inner) == node:
                    return each, inner
    if isinstance(node, File) and telling:
        # Under another name altogether: any content but none at all is as good as a name.
        for each in inputs:
            if isinstance(each.node, Tree):
                same = (entry.path for entry in entries(reader, each.node) if entry.node == node)
                inner_ = next(same, None)
                if inner_ is not None:
                    return each, inner_
    return None


def _folders(reader: Reader, tree: Tree) -> list[str]:
    """List the folders at the top of a tree: wheels and links keep what they give below one."""
    return [name for name, node in listing(reader, tree) if isinstance(node, Tree)]


def _within(reader: Reader, output: Artifact, part: Node, path: str) -> str:
    """Give a path in a part of an output as one in the whole output."""
    if part == output or not isinstance(output, Tree):
        return path
    base = next((name for name, node in listing(reader, output) if node == part), "")
    return "/".join(filter(None, (base, path)))


def _parts(reader: Reader, inputs: list[_Input], node: Node, path: str) -> tuple[str, ...]:
    """List what something was made of: for a folder, the inputs that have such a one; else all there are."""
    if isinstance(node, Tree) and path:
        name = path.rpartition("/")[2]
        having = [
            each.what
            for each in inputs
            if isinstance(each.node, Tree)
            and any(
                isinstance(entry.node, Tree) and entry.path.rpartition("/")[2] == name
                for entry in entries(reader, each.node)
            )
        ]
        if having:
            return tuple(dict.fromkeys(having))
    return tuple(dict.fromkeys(each.what for each in inputs))
