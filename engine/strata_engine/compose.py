"""Several action graphs as one: each under its prefix, and what several of them would do alike there once.

Pure: it knows labels, no workspace. Neither labels nor paths are in a key, so every action keeps the key that it has in
its own graph. The hard part is that the graphs are not known as a whole: what an expansion adds is translated as it
comes, and added to its own graph as well, whose rules look there what others have added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from strata_engine.action import Action, Expansion, Input, Ref, Source, SourceTree
from strata_engine.graph import ActionGraph, Item, same

Shares: TypeAlias = Callable[[str], bool]
"""Says of a label, as its own graph has it, whether equal actions of that name are one."""


class Member(NamedTuple):
    """A graph to be composed."""

    prefix: str
    """What its labels begin with in the whole."""
    graph: ActionGraph
    root: Path
    """Where the paths of its sources start."""
    folder: str = ""
    """That folder as people name it from the root of the whole, with a `/` at its end; empty for that root."""


class Composition:
    """One graph made of several."""

    def __init__(self, members: Iterable[Member], shares: Shares) -> None:
        self.members: Mapping[str, Member] = {member.prefix: member for member in members}
        """By prefix."""
        self.graph = ActionGraph()
        self._shares = shares
        self._full: dict[str, dict[str, str]] = {prefix: {} for prefix in self.members}
        """By prefix and local label: the label in the whole."""
        self._owners: dict[str, dict[str, str]] = {}
        """By label in the whole: the prefixes of the members that have it, and what they call it."""
        self._shared: dict[str, Item] = {}
        self.clashes = False
        """Whether different actions have one name: which of them has it alone depends on which came first."""
        for member in self.members.values():
            for item in list(member.graph):
                self.graph.add(self._translated(member, item))

    def label(self, prefix: str, local: str) -> str:
        """Give the label in the whole of what a member calls `local`."""
        known = self._full[prefix].get(local)
        if known is not None:
            return known
        full = prefix + local
        member = self.members[prefix]
        item = member.graph.item(local) if self._shares(local) else None
        if item is not None:
            as_shared = self._relabelled(member, item, local)
            if same(self._shared.setdefault(local, as_shared), as_shared):
                full = local
            else:
                self.clashes = True
        self._full[prefix][local] = full
        self._owners.setdefault(full, {})[prefix] = local
        return full

    def known(self, prefix: str, local: str) -> str | None:
        """Give the same where it is known by now that a member has such an action."""
        return self._full[prefix].get(local)

    def owners(self, label: str) -> Mapping[str, str]:
        """Give the prefixes of the members that have a label, and what they call it."""
        return self._owners.get(label, {})

    def local(self, prefix: str, label: str) -> str | None:
        """Give what a member calls a label of the whole; None where it has no such action."""
        return self._owners.get(label, {}).get(prefix)

    def locals(self, prefix: str, labels: Iterable[str]) -> list[str]:
        """Give those of some labels that a member has, as it calls them."""
        return [local for label in labels if (local := self.local(prefix, label)) is not None]

    def _translated(self, member: Member, item: Item) -> Item:
        return self._relabelled(member, item, self.label(member.prefix, item.label))

    def _relabelled(self, member: Member, item: Item, label: str) -> Item:
        if isinstance(item, Action):
            return self._action(member, item, label)
        return self._expansion(member, item, label)

    def _action(self, member: Member, action: Action, label: str) -> Action:
        def named(written: Mapping[str, str]) -> dict[str, str]:
            # Variables are the same everywhere; the rest is said from the root of the member.
            return {key: said if said.startswith("$") else f"{member.folder}{said}" for key, said in written.items()}

        return msgspec.structs.replace(
            action,
            label=label,
            inputs={name: self._input(member, source) for name, source in action.inputs.items()},
            origins=named(action.origins),
            members=named(action.members),
            derived={name: self.label(member.prefix, other) for name, other in action.derived.items()},
        )

    def _expansion(self, member: Member, expansion: Expansion, label: str) -> Expansion:
        def expand(read: Callable[[Ref], bytes]) -> Iterable[Item]:
            found = list(expansion.expand(lambda ref: read(self._ref(member, ref))))
            member.graph.grow(found, expansion.label)
            return [self._translated(member, item) for item in found]

        return msgspec.structs.replace(
            expansion,
            label=label,
            after=tuple(self._ref(member, ref) for ref in expansion.after),
            promises=tuple(self.label(member.prefix, promise) for promise in expansion.promises),
            expand=expand,
        )

    def _input(self, member: Member, source: Input) -> Input:
        match source:
            case Ref():
                return self._ref(member, source)
            case Source(path=path) | SourceTree(path=path):
                return msgspec.structs.replace(source, path=str(member.root / path))
            case _:
                return source

    def _ref(self, member: Member, ref: Ref) -> Ref:
        return Ref(self.label(member.prefix, ref.label), ref.path)
