"""What a command line selects of a stack: layers and what is wanted of each, an application by name, labels.

The layers follow venvstacks' rules word for word, so that a script's `--include` means the same here; a differential
test compares the two. Pure but for `wanted_labels`, which may have to look what locks select before a wheel's label
means anything.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from strata_engine.errors import Diagnostic, SpecError
from strata_engine.graph import ActionGraph
from strata_rules.spec.load import Layer, Stack
from strata_rules.spec.near import did_you_mean


class Wish(enum.Enum):
    """Whether something is to be done with a layer."""

    NO = "no"
    IF_NEEDED = "if-needed"
    YES = "yes"


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a command and its options say about which layers it is for."""

    lock: Wish = Wish.NO
    build: Wish = Wish.NO
    publish: bool = False
    """These three are what is wanted of the included layers."""
    include: tuple[str, ...] = ()
    """Patterns of environment names; without any, all layers are included."""
    reset_lock: tuple[str, ...] = ()
    """Patterns of the layers whose old pins count for nothing, where they are locked."""
    allow_missing: bool = False
    """Whether a pattern that matches no layer is only worth a warning."""
    lock_dependencies: bool = False
    build_dependencies: bool = False
    publish_dependencies: bool = False
    build_derived: bool = False
    publish_derived: bool = False
    """Whether that is wanted of what the included layers stand on, and of what stands on them, too."""


NO_WISHES = Wishes()


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of one layer."""

    lock: Wish
    build: Wish
    publish: bool
    reset_lock: bool = False

    @property
    def operations(self) -> tuple[str, ...]:
        """Name what is wanted as venvstacks does."""
        wanted = {
            "reset-lock": self.reset_lock,
            "lock": self.lock is Wish.YES,
            "lock-if-needed": self.lock is Wish.IF_NEEDED,
            "build": self.build is Wish.YES,
            "build-if-needed": self.build is Wish.IF_NEEDED,
            "publish": self.publish,
        }
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)


class Selection(NamedTuple):
    """The layers that a command is for, by environment name in the stack's order. Others are left alone."""

    layers: Mapping[str, Chosen]
    warnings: tuple[Diagnostic, ...] = ()
    included: tuple[str, ...] = ()
    """Those that the command line names, whatever platforms they are for."""

    def locked(self) -> list[str]:
        """Name the layers to lock, if they need it or in any case."""
        return [name for name, chosen in self.layers.items() if chosen.lock is not Wish.NO]

    def anew(self, *, upgrade: bool = False) -> frozenset[str]:
        """Name the layers to lock whatever is locked now; `upgrade` asks it of all whose lock is asked for."""
        return frozenset(
            name
            for name, chosen in self.layers.items()
            if (chosen.reset_lock and chosen.lock is not Wish.NO) or (upgrade and chosen.lock is Wish.YES)
        )

    def built(self) -> list[str]:
        """Name the layers to put at their places. What they stand on is brought up to date with them."""
        return [name for name, chosen in self.layers.items() if chosen.build is Wish.YES]

    def published(self) -> list[str]:
        """Name the layers to publish."""
        return [name for name, chosen in self.layers.items() if chosen.publish]


class _Related(NamedTuple):
    """What is wanted of layers that stand on included ones, and of those below them, once earlier parts are looked at.

    Nothing is built of a layer that is not locked with the others, and nothing published that is not built with them.
    """

    lock_derived: bool
    build_derived: bool
    publish_derived: bool
    lock_below: bool
    build_below: bool
    publish_below: bool

    def disagreement(self) -> str | None:
        """Name the first thing that is wanted of the ones and not of the others."""
        pairs = {
            "lock": (self.lock_derived, self.lock_below),
            "build": (self.build_derived, self.build_below),
            "publish": (self.publish_derived, self.publish_below),
        }
        return next((name for name, (derived, below) in pairs.items() if derived != below), None)


def select(stack: Stack, wishes: Wishes, platforms: Collection[str]) -> Selection:
    """Say what is wanted of each layer of a stack on a machine that builds for `platforms`.

    Disabled layers are never selected. Raises SpecError for patterns that match nothing, and for a layer that is both
    above and below included ones where the two ask for different things.
    """
    layers = [layer for layer in stack.layers if layer.platforms]
    unmatched = [_unmatched(stack, text) for text in _missing(layers, (*wishes.include, *wishes.reset_lock))]
    if unmatched and not wishes.allow_missing:
        raise SpecError(*unmatched)
    included = {layer for layer in layers if not wishes.include or _matches(layer, wishes.include)}
    related = _related(wishes)
    below = {part for layer in included for part in layer.lower} - included
    derived = {layer for layer in layers if not included.isdisjoint(layer.lower)} - included
    if not (related.lock_derived or related.build_derived or related.publish_derived):
        derived = set()
    _refuse_disagreement([layer for layer in layers if layer in below & derived], related)
    found = {}
    for layer in layers:
        reset = _matches(layer, wishes.reset_lock)
        if layer in included:
            chosen = Chosen(lock=wishes.lock, build=wishes.build, publish=wishes.publish, reset_lock=reset)
        elif layer in below:
            chosen = Chosen(
                lock=Wish.YES if related.lock_below else Wish.IF_NEEDED,
                build=Wish.YES if related.build_below else Wish.IF_NEEDED,
                publish=related.publish_below,
                reset_lock=reset and related.lock_below,
            )
        elif layer in derived:
            chosen = Chosen(
                lock=Wish.YES if related.lock_derived else Wish.NO,
                build=Wish.YES if related.build_derived else Wish.NO,
                publish=related.publish_derived,
                reset_lock=reset and related.lock_derived,
            )
        else:
            continue
        found[layer.env_name] = chosen if set(platforms) & set(layer.platforms) else _elsewhere(chosen)
    named = tuple(layer.env_name for layer in layers if layer in included)
    return Selection(found, tuple(each._replace(severity="warning") for each in unmatched), named)


def _elsewhere(chosen: Chosen) -> Chosen:
    """Give what remains to be done with a layer that is for other platforms: locks are for all."""
    build = Wish.NO if chosen.build is Wish.YES else chosen.build
    return msgspec.structs.replace(chosen, build=build, publish=False)


def _related(wishes: Wishes) -> _Related:
    locks, builds = wishes.lock is Wish.YES, wishes.build is Wish.YES
    # Where locking is asked for, what stands on a new lock is locked again in any case.
    build_below = builds and wishes.build_dependencies and (wishes.lock_dependencies or not locks)
    publish_below = wishes.publish_dependencies and (wishes.lock_dependencies or not locks)
    return _Related(
        lock_derived=locks,
        build_derived=builds and wishes.build_derived,
        publish_derived=wishes.publish and wishes.publish_derived and (wishes.build_derived or not builds),
        lock_below=locks and wishes.lock_dependencies,
        build_below=build_below,
        publish_below=wishes.publish and publish_below and (build_below or not builds),
    )


def _refuse_disagreement(layers: Sequence[Layer], related: _Related) -> None:
    name = related.disagreement()
    if not layers or name is None:
        return
    both = ["--lock-dependencies"] if name == "lock" else [f"--{name}-dependencies", f"--{name}-derived"]
    options = " and ".join(f"`{option}`" for option in both)
    raise SpecError(
        *(
            Diagnostic(
                "conflicting-selection",
                f"`{layer.env_name}` is above an included layer and below another: unclear whether to {name} it",
                layer.place(),
                hint=f"include it too, or give {options}" + (" or neither" if len(both) > 1 else ""),
            )
            for layer in layers
        )
    )


def _matches(layer: Layer, patterns: Iterable[str]) -> bool:
    # A name may have brackets in it, which are no pattern then.
    return any(layer.env_name == pattern or fnmatchcase(layer.env_name, pattern) for pattern in patterns)


def _missing(layers: Sequence[Layer], patterns: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(patterns) if not any(_matches(layer, [text]) for layer in layers)]


def _unmatched(stack: Stack, pattern: str) -> Diagnostic:
    disabled = next((layer for layer in stack.layers if _matches(layer, [pattern])), None)
    if disabled is not None:
        message = f"`{pattern}` matches only layers without a platform, such as `{disabled.env_name}`"
        return Diagnostic("unmatched-pattern", message, disabled.place("platforms"), hint="give them a platform")
    names = [layer.env_name for layer in stack.layers if layer.platforms]
    # A person may well give the name that the stack file has, without the prefix.
    meant = next((layer.env_name for layer in stack.layers if layer.name == pattern and layer.platforms), None)
    hint = f"did you mean `{meant}`?" if meant else did_you_mean(pattern, names)
    hint = hint or (f"layers are {', '.join(f'`{name}`' for name in names)}" if names else "the stack has no layers")
    return Diagnostic("unmatched-pattern", f"no layer matches `{pattern}`", hint=hint)


def application(stack: Stack, name: str) -> Layer:
    """Find an application by its name, with or without `app-`. Raises SpecError."""
    names = {layer.name: layer for layer in stack.of("application")}
    layer = names.get(name) or names.get(name.removeprefix("app-"))
    if layer is None:
        hint = did_you_mean(name, names) or f"applications are {', '.join(f'`{known}`' for known in names)}"
        raise SpecError.of("unknown-application", f"there is no application `{name}`", hint=hint)
    return layer


def wanted_labels(
    stack: Stack, graph: ActionGraph, labels: Sequence[str], expand: Callable[[Iterable[str]], object]
) -> list[str]:
    """Complete labels as users give them: a layer is its Link, a pattern all that it matches. Raises SpecError.

    `expand` makes the graph grow by all that is known below the labels that it is given.
    """
    names = {layer.env_name for layer in stack.layers}
    if not names.union(graph.labels()).issuperset(labels):
        # Wheels, and what is made of them, are known only once locks are.
        expand([label for label in graph.labels() if label.endswith("/link")])
    known = graph.labels()
    found: list[str] = []
    for label in labels:
        if label in names and f"{label}/link" in known:
            found.append(f"{label}/link")
        elif label in known:
            found.append(label)
        elif matching := [name for name in known if fnmatchcase(name, label)]:
            found += matching
        else:
            hint = did_you_mean(label, [*names, *known]) or "`strata graph show` lists the labels"
            raise SpecError.of("unknown-label", f"nothing in this stack is called `{label}`", hint=hint)
    return list(dict.fromkeys(found))
