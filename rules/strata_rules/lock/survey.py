"""All locks of a stack at once: which are not what is asked for, and why, so that they are told together.

It decides nothing about a build. The hard part is that the request for a layer's lock is known in full only once the
locks below it fit; until then a lock is held against what is known without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from strata_engine.action import Action, Ref
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, HostError, SpecError
from strata_rules.lock.committed import CommittedLock


class Stale(NamedTuple):
    """A lock that is not what is asked for."""

    action: Action
    reasons: tuple[str, ...]

    def refused(self) -> Diagnostic:
        """Say that it may not be replaced, in the engine's words."""
        message = f"`{self.action.label}` would have to run, which `--locked` forbids"
        hint = "run without `--locked` and commit what it writes"
        return Diagnostic("locked", message, self.action.place, self.reasons, hint)

    def warned(self) -> Diagnostic:
        """Say that it is to be replaced."""
        layer = self.action.label.partition("/")[0]
        message = f"`{layer}` has no lock that is what is asked for"
        hint = "`strata lock` makes it, keeping the versions that fit"
        return Diagnostic("stale-lock", message, self.action.place, self.reasons, hint, severity="warning")


class Survey(NamedTuple):
    """What is known of the locks of a stack."""

    stale: tuple[Stale, ...] = ()
    """Each after those below it."""
    unsure: frozenset[str] = frozenset()
    """The labels of locks that cannot be read, and of those that depend on one that is to be made first."""

    def is_valid(self, label: str) -> bool:
        """Tell whether a lock, and all below it, are what is asked for."""
        return label not in self.unsure and all(stale.action.label != label for stale in self.stale)


def survey(actions: Iterable[Action], keys: Mapping[str, Digest | None]) -> Survey:
    """Look at locks, each after those below it; `keys` has the keys that are known."""
    found: dict[str, Stale] = {}
    unsure: set[str] = set()
    for action in actions:
        lock = action.committed
        if not isinstance(lock, CommittedLock):
            continue
        lower = {source.label for source in action.inputs.values() if isinstance(source, Ref)}
        unknown = lower & (found.keys() | unsure)
        key = None if unknown else keys.get(action.label)
        try:
            layers = {label.partition("/")[0] for label in unknown}
            reasons = lock.why_stale(layers) if key is None else lock.why_invalid(key)
        except (HostError, SpecError):
            unsure.add(action.label)
            continue
        if reasons:
            found[action.label] = Stale(action, reasons)
        elif key is None:
            unsure.add(action.label)
    return Survey(tuple(found.values()), frozenset(unsure))
