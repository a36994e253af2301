"""The two Actions that a report names, decoded out of the store, and what a reason means in their input roots.

It knows no file's format. The hard part is that an Action names inputs and not labels: the input that a reason is about
is the one whose content was and is what the reason says, by the short names that reasons have.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from strata_engine.codec import decode_action
from strata_engine.digest import Digest
from strata_engine.run_record import ActionReport
from strata_engine.staleness import Reason, short_name
from strata_engine.tree import Node, Reader, Tree, listing

FOLDERS = 400
"""Folders that are read in search of one input."""

_NUMBER = re.compile(r"^\d{4}-")


class Found(NamedTuple):
    """An input, or a file in one, as it was and as it is; None where it was not or is not."""

    name: str
    old: Node | None
    new: Node | None


class Sides(NamedTuple):
    """The input roots of two Actions."""

    cas: Reader
    old: Tree
    new: Tree

    def find(self, reason: Reason) -> Found | None:
        """Find what a reason is about; what is called as its subject is rather than anything else."""
        matching = [
            found
            for found in self.differing()
            if (short_name(found.old), short_name(found.new)) == (reason.old, reason.new)
        ]
        last = reason.subject.rpartition("/")[2]
        named = [found for found in matching if found.name.rpartition("/")[2] == last]
        return next(iter(named or matching), None)

    def differing(self) -> Iterator[Found]:
        """Walk what differs, inputs before what is in them; the numbers of numbered ones do not count."""
        waiting = deque([Found("", self.old, self.new)])
        for _ in range(FOLDERS):
            if not waiting:
                return
            folder = waiting.popleft()
            before, after = (_members(self.cas, side) for side in (folder.old, folder.new))
            for name in sorted(before.keys() | after.keys()):
                found = Found(f"{folder.name}/{name}".lstrip("/"), before.get(name), after.get(name))
                if found.old != found.new:
                    yield found
                    waiting.append(found)


def both_sides(cas: Reader, report: ActionReport) -> Sides:
    """Decode the Actions of a report. Raises ValueError, `BlobLost`."""
    old, new = (decode_action(cas.get(Digest.parse(key))) for key in (report.previous, report.key))
    return Sides(cas, Tree(old.input_root_digest), Tree(new.input_root_digest))


def _members(cas: Reader, node: Node | None) -> dict[str, Node]:
    if not isinstance(node, Tree):
        return {}
    return {_NUMBER.sub("", name): each for name, each in listing(cas, node)}
