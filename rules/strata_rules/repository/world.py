"""What can be asked of one stack, or of all stacks of a repository: the world that the query language speaks about.

It executes nothing. The hard part is that a graph is known only as far as locks are: what a lock selects that does not
fit is unknown, and `unknown` says of which layers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from strata_engine.action import Action, Placement, Source, SourceTree
from strata_engine.build import Build
from strata_engine.compose import Composition
from strata_engine.errors import SpecError
from strata_engine.events import Outcome
from strata_engine.graph import Relations
from strata_engine.query import Labels
from strata_engine.results import Finished
from strata_rules.lock.committed import CommittedLock
from strata_rules.planning import Plan
from strata_rules.platforms import PLATFORMS
from strata_rules.repository import changes, git
from strata_rules.repository.labels import BELOW, MARK, Pattern, StackFile, is_wheel, parse
from strata_rules.repository.runs import Runs
from strata_rules.repository.which import stack_file
from strata_rules.spec.near import did_you_mean

_PLATFORM = re.compile(r"\[([^\]]*)\]$")
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_LOCK = "/lock"


class Asked(NamedTuple):
    """A stack that is asked about."""

    prefix: str
    """What its labels begin with; empty where no other stack is."""
    plan: Plan
    shown: str
    """The stack file as it is called here."""
    file: StackFile | None = None
    """Where it is one of a repository's."""

    @property
    def layers(self) -> dict[str, str]:
        """Give the names of its layers with what their labels begin with."""
        return {layer.env_name: f"{layer.env_name}/" for layer in self.plan.stack.layers}


class StackWorld:
    """The actions of stacks that make up one graph."""

    def __init__(
        self,
        stacks: Sequence[Asked],
        composition: Composition,
        build: Build,
        placements: Sequence[Placement],
        runs: Callable[[], Runs],
        *,
        root: Path,
    ) -> None:
        self.stacks = stacks
        self._composition = composition
        self._graph = composition.graph
        self._build = build
        self._placements = placements
        self._runs = runs
        self._root = root
        """Where paths start that a person writes."""
        self._done: Mapping[str, Finished] = build.look(self._graph, self._graph.labels(), placements)

    @cached_property
    def unknown(self) -> list[str]:
        """Name the layers of which it is not known what they are made of, because their locks are to be made first."""
        open_ = (label for label in self._graph.labels() if self._graph.item(label) is None)
        return sorted({label.rpartition("/")[0] for label in open_})

    # -- the world -----------------------------------------------------------------------------------------------------

    @cached_property
    def _labels(self) -> Labels:
        return frozenset(self._graph.labels())

    def labels(self) -> Labels:
        """List all actions."""
        return self._labels

    @cached_property
    def _relations(self) -> Relations:
        needs: dict[str, list[str]] = {label: [] for label in self._labels}
        for needed, label in self._graph.edges():
            needs[label].append(needed)
        return Relations(needs)

    def relations(self) -> Relations:
        """Give what needs what."""
        return self._relations

    def match(self, pattern: str) -> Labels:
        """List the actions that a word means: one, those of a pattern or a layer, or a wheel. Raises SpecError."""
        if pattern.startswith(MARK):
            found = self._across(parse(pattern))
        elif len(self.stacks) == 1 and not self.stacks[0].prefix:
            found = self._named(self.stacks[0], pattern)
        else:
            found = {label for label in self._labels if label == pattern or _matches(label, pattern)}
            found = found or {label for label in self._labels if is_wheel(pattern, label)}
        if found:
            return frozenset(found)
        raise self._nothing(pattern)

    def _across(self, pattern: Pattern) -> set[str]:
        if pattern.below:
            folder = f"{pattern.folder}/" if pattern.folder else ""
            stacks = [s for s in self.stacks if s.file and f"{s.file.folder}/".startswith(folder or "")]
        else:
            prefix = stack_file(self._root, pattern).prefix
            stacks = [each for each in self.stacks if each.prefix == prefix]
        return {label for each in stacks for label in self._named(each, pattern.local)}

    def _named(self, stack: Asked, local: str) -> set[str]:
        """List what a word of one stack means, in the whole's labels."""
        known = self._locals(stack)
        if local == BELOW:
            return set(known.values())
        if local in known:
            return {known[local]}
        if local in stack.layers:
            links = (each for each in known if each.partition("[")[0] == f"{local}/link")
            return {known[each] for each in links}
        found = {full for label, full in known.items() if _matches(label, local)}
        return found or {full for label, full in known.items() if is_wheel(local, label)}

    def _locals(self, stack: Asked) -> dict[str, str]:
        """Give the labels in the whole by what a stack calls them."""
        graph = self._composition.members[stack.prefix].graph
        return {label: self._composition.label(stack.prefix, label) for label in graph.labels()}

    def _nothing(self, word: str) -> SpecError:
        layers = [f"{stack.prefix}{name}" for stack in self.stacks for name in stack.layers]
        meant = None
        if not any(mark in word for mark in "*?"):
            meant = did_you_mean(word, [*layers, *self._labels])
        error = SpecError.of(
            "unknown-label",
            f"nothing here is called `{word}`",
            hint=meant or "`strata graph show` lists the labels",
        )
        assert isinstance(error, SpecError)
        return error

    def attributes(self, label: str) -> Mapping[str, Sequence[str]]:
        """Give what is known of an action, by name."""
        item = self._graph.item(label)
        action = item if isinstance(item, Action) else None
        return _Lazily(
            {
                "label": lambda: [label],
                "kind": lambda: [self.mnemonic(label)],
                "mnemonic": lambda: [self.mnemonic(label)],
                "layer": lambda: [self.layer(label)],
                "platform": lambda: [self.platform(label)],
                "stack": lambda: self.stack_files(label),
                "pool": lambda: [action.pool] if action is not None else [],
                "scope": lambda: [action.scope.value] if action is not None else [],
                "format": lambda: [str(action.params.get("format", ""))] if action is not None else [],
                "input": lambda: self._inputs(action) if action is not None else [],
                "output": lambda: self._outputs(label, action),
            }
        )

    def state(self, name: str, argument: str | None) -> Labels:
        """Answer a question about builds. Raises SpecError."""
        match name:
            case "stale":
                found = self._stale()
            case "slow":
                least = _time(argument or "")
                past = self._build.history.seconds()
                found = {label for label in self._labels if past.get(label, 0.0) >= least}
            case "changed":
                found = self._changed(argument or "")
            case _:
                found = self._runs().state(name, argument)
        return self._labels & found

    # -- attributes ----------------------------------------------------------------------------------------------------

    def mnemonic(self, label: str) -> str:
        """Give an action's mnemonic; of one that is only promised, what its name says."""
        item = self._graph.item(label)
        if isinstance(item, Action):
            return item.mnemonic
        return label.rpartition("/")[2].partition("[")[0].capitalize()

    def layer(self, label: str) -> str:
        """Name the layer that an action belongs to; empty for what several may share."""
        for stack in self._owners(label):
            local = self._composition.local(stack.prefix, label) or ""
            name = local.partition("/")[0]
            if name in stack.layers:
                return name
        return ""

    def platform(self, label: str) -> str:
        """Name the platform that an action of a layer is for; empty for locks, and for what serves several."""
        if not self.layer(label) or label.endswith(_LOCK):
            return ""
        found = _PLATFORM.search(label)
        named = [name for name in found[1].split(",") if name in PLATFORMS] if found else []
        return named[0] if named else self.stacks[0].plan.host

    def stack_files(self, label: str) -> list[str]:
        """Name the stack files that have an action."""
        return [stack.shown for stack in self._owners(label)]

    def group(self, label: str) -> str:
        """Name what an action is drawn within."""
        return label.partition("[")[0].rpartition("/")[0]

    def outcome(self, label: str) -> str | None:
        """Give the outcome that an action would have."""
        return self._done[label].outcome.value if label in self._done else None

    def edges(self) -> list[tuple[str, str]]:
        """List what is needed, and by what."""
        return self._graph.edges()

    def _owners(self, label: str) -> list[Asked]:
        owners = self._composition.owners(label)
        return [stack for stack in self.stacks if stack.prefix in owners]

    def _inputs(self, action: Action) -> list[str]:
        sources = [each for each in action.inputs.values() if isinstance(each, (Source, SourceTree))]
        return [self._shown(path) for source in sources for path in changes.files_of(source, self._root)]

    def _outputs(self, label: str, action: Action | None) -> list[str]:
        placed = [self._shown(each.path) for each in self._placements if each.ref.label == label]
        lock = action.committed if action is not None else None
        return placed + ([self._shown(path) for path in lock.paths[:2]] if isinstance(lock, CommittedLock) else [])

    def _shown(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._root)).as_posix()

    def _stale(self) -> set[str]:
        """List what would not be up to date of what a plain build is for, and of what was built here before."""
        built = self._graph.closure(placement.ref.label for placement in self._placements)
        stale = {label for label, end in self._done.items() if end.outcome is not Outcome.UP_TO_DATE}
        return {label for label in stale if label in built or self._build.history.past(label) is not None}

    # -- changes -------------------------------------------------------------------------------------------------------

    def _changed(self, written: str) -> set[str]:
        top = work_tree_of(self._root)
        since = git.commit(top, written)
        changed = git.changed(since)
        found = set()
        for stack in self.stacks:

            def old(path: Path) -> bytes | None:
                return git.content(since, path) if path.is_relative_to(top) else None

            for local in changes.touched(stack.plan, changed, old):
                found.add(self._composition.label(stack.prefix, local))
        return found


class _Lazily(Mapping[str, Sequence[str]]):
    """Attributes, each found out when it is asked for: some ask the disk."""

    def __init__(self, makers: Mapping[str, Callable[[], Sequence[str]]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Sequence[str]:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def _matches(label: str, pattern: str) -> bool:
    # A platform stands in brackets, so these mean themselves.
    return fnmatchcase(label, pattern) or fnmatchcase(label, pattern.replace("[", "[[]"))


def work_tree_of(folder: Path) -> Path:
    """Find the work tree that a folder is in. Raises SpecError."""
    for top in (folder, *folder.parents):
        if (top / ".git").exists():
            return top
    raise SpecError.of("no-repository", f"`changed` compares with a commit, and `{folder}` is in no git repository")


def _time(text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise SpecError.of("bad-query", f"`{text}` is no time", hint="write it as in `5s`, `300ms` or `2m`")
    return float(match[1]) * _SECONDS[match[2]]
