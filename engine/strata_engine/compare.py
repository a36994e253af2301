"""Two states of a workspace compared, action by action: which keys differ, by what, and through which others.

The states may be of two builds here, or of two machines. What differs is told as a build would tell it that had found
the one and come to the other, so that causes are told from consequences in the same way (`why`). No action is run and
no stack is read for it: what an input or a parameter is called comes from the recorded graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from strata_engine.action import Action, Execution, Input, Literal, Ref, Source, SourceTree
from strata_engine.cas import BlobLost
from strata_engine.codec import Directory
from strata_engine.digest import Digest
from strata_engine.events import Outcome
from strata_engine.held import Held
from strata_engine.recorded_graph import RecordedAction
from strata_engine.run_record import ActionReport
from strata_engine.staleness import Reason, ReasonCode, explain
from strata_engine.tree import Artifact, Change, File, Reader, Tree, diff


class Either:
    """What is in one of several stores (`tree.Reader`)."""

    def __init__(self, *readers: Reader) -> None:
        self._readers = readers

    def load(self, digest: Digest) -> Directory:
        """Read one Directory. Raises `BlobLost`."""
        for reader in self._readers:
            try:
                return reader.load(digest)
            except BlobLost:
                continue
        raise BlobLost(digest)

    def get(self, digest: Digest) -> bytes:
        """Read a blob. Raises `BlobLost`."""
        for reader in self._readers:
            try:
                return reader.get(digest)
            except BlobLost:
                continue
        raise BlobLost(digest)


class Differences(NamedTuple):
    """How two states differ."""

    changed: tuple[ActionReport, ...]
    """The actions with another key, those that only the new state has among them, as if a build had run them."""
    gone: tuple[str, ...]
    """What only the old state has."""
    diverged: tuple[str, ...]
    """What has equal keys and different outputs."""
    same: int
    """How many actions have equal keys."""


def compare(
    reader: Reader,
    graph: Mapping[str, RecordedAction],
    old: Mapping[str, Held],
    new: Mapping[str, Held],
    labels: Collection[str] | None = None,
) -> Differences:
    """Compare two states, of all labels or of these."""
    asked = [label for label in sorted(new) if labels is None or label in labels]
    differing = {label for label in asked if label not in old or old[label].key != new[label].key}
    shared = [label for label in asked if label not in differing]
    gone = sorted(label for label in old if label not in new and (labels is None or label in labels))
    both = [(label, old[label].output, new[label].output) for label in shared]
    changed = []
    for label in sorted(differing):
        there, here, known = old.get(label), new[label], graph.get(label)
        changed.append(
            ActionReport(
                label=label,
                mnemonic=here.mnemonic or (known.mnemonic if known is not None else ""),
                key=here.key,
                outcome=Outcome.EXECUTED,
                reasons=_reasons(reader, label, there, here, known),
                previous=there.key if there is not None else "",
                output=here.output,
                former=there.output if there is not None else "",
                upstream=tuple(name for name in (known.needs if known is not None else ()) if name in differing),
                deciders=tuple(name for name in (known.deciders if known is not None else ()) if name in differing),
            )
        )
    diverged = tuple(label for label, one, other in both if one and other and one != other)
    return Differences(tuple(changed), tuple(gone), diverged, len(shared))


def closure(graph: Mapping[str, RecordedAction], labels: Collection[str]) -> set[str]:
    """List labels and all that they depend on."""
    found: set[str] = set()
    waiting = list(labels)
    while waiting:
        label = waiting.pop()
        if label not in found:
            found.add(label)
            waiting += graph[label].upstream if label in graph else ()
    return found


def action_of(label: str, known: RecordedAction) -> Action:
    """Give a recorded action as one that can be compared, and never run."""
    inputs: dict[str, Input] = {}
    for name, what in known.inputs.items():
        if what in known.needs:
            inputs[name] = Ref(what)
        elif what:
            inputs[name] = SourceTree(what.removesuffix("/")) if what.endswith("/") else Source(what)
        else:
            inputs[name] = Literal(b"")
    return Action(
        label=label,
        mnemonic=known.mnemonic,
        version=0,
        inputs=inputs,
        origins=known.origins,
        derived=known.derived,
        members=known.members,
        presence=known.presence,
        run=_never,
    )


def output_changes(reader: Reader, old: str, new: str) -> list[Change]:
    """List the files in which two outputs, each `HASH/SIZE`, differ. Raises `BlobLost`, ValueError."""
    sides = [_artifact(reader, Digest.parse(text)) for text in (old, new)]
    trees = [side for side in sides if isinstance(side, Tree)]
    if len(trees) < len(sides):
        return [Change("", *sides)]
    try:
        return list(diff(reader, *trees))
    except RecursionError:
        raise ValueError("folders are nested too deep to be compared") from None


def _artifact(reader: Reader, digest: Digest) -> Artifact:
    """Tell a tree from a file by what its digest names: a record does not say."""
    try:
        reader.load(digest)
    except BlobLost:
        reader.get(digest)
        return File(digest)
    return Tree(digest)


def _reasons(
    reader: Reader, label: str, old: Held | None, new: Held, known: RecordedAction | None
) -> tuple[Reason, ...]:
    if old is None:
        return (Reason(ReasonCode.FIRST_BUILD, label),)
    keys = [old.key, new.key]
    try:
        digests = [Digest.parse(key) for key in keys]
        action = action_of(label, known or RecordedAction(new.mnemonic))
        found = explain(reader, digests[0], digests[1], action, lambda path: path)
    except (BlobLost, ValueError, RecursionError):
        # An Action that is no longer kept, or an account of one from elsewhere that makes no sense.
        found = ()
    return found or (Reason(ReasonCode.EVICTED, label, *(key[:12] for key in keys)),)


def _never(_: Execution) -> Artifact:
    raise AssertionError("a recorded action is compared, not run")
