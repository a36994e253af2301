"""Decides about many actions at once, on a worker thread: keys one by one, the action cache in one query.

What is decided is posted as it becomes known, because a file that takes long to read must keep nothing from starting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from strata_engine.action import Action, Source, SourceTree
from strata_engine.action_cache import Lookup
from strata_engine.decision import Decider, Decision, Done
from strata_engine.errors import StrataError
from strata_engine.execution import as_failure
from strata_engine.key import Key
from strata_engine.tree import Artifact, Node

MOMENT_SECONDS = 0.02
"""How long what becomes ready may wait while decisions are made about what is less critical."""

Decided: TypeAlias = "tuple[Action, Decision | StrataError]"
"""An action, and what there is to do about it, or why that cannot be known."""


class _Keyed(NamedTuple):
    """An action whose inputs are known."""

    action: Action
    inputs: dict[str, Node]
    key: Key


class Deciding:
    """The decisions of one build; one call of `some` at a time."""

    def __init__(
        self,
        decider: Decider,
        artifact: Callable[[str], Artifact],
        post: Callable[[Decided], None],
        stop: threading.Event,
    ) -> None:
        self._decider = decider
        self._artifact = artifact
        self._post = post
        self._stop = stop

    def some(self, actions: Sequence[Action]) -> int:
        """Decide about the first of some actions, as many as fit into a moment; say how many."""
        until = time.monotonic() + MOMENT_SECONDS
        keyed: list[_Keyed] = []
        taken = 0
        for action in actions:
            if taken and (time.monotonic() > until or self._stop.is_set()):
                break
            taken += 1
            if any(isinstance(source, (Source, SourceTree)) for source in action.inputs.values()):
                # Reading may take long: what is known by now need not wait for it.
                self._decide(keyed)
                keyed = []
            try:
                with as_failure(action):
                    inputs = self._decider.resolve(action, self._artifact)
                    keyed.append(_Keyed(action, inputs, self._decider.key(action, inputs)))
            except StrataError as error:
                self._post((action, error))
        self._decide(keyed)
        return taken

    def _decide(self, keyed: Sequence[_Keyed]) -> None:
        found = self._decider.cache.lookup_many(each.key.digest for each in keyed)
        for each in keyed:
            try:
                with as_failure(each.action):
                    self._post((each.action, self._one(each, found[each.key.digest])))
            except StrataError as error:
                self._post((each.action, error))

    def _one(self, keyed: _Keyed, found: Lookup) -> Decision:
        action = keyed.action
        decision = self._decider.decide(action, keyed.inputs, keyed.key, found)
        if isinstance(decision, Done) and not decision.fresh and not self._decider.settings.dry_run:
            self._decider.keep(decision.key)
            if action.committed is not None:
                action.committed.write(decision.key.digest, decision.artifact, self._decider.cas)
        return decision
