"""Puts the outputs of a build at their places in the workspace, all after every action.

What is at its place already is left alone. An output whose blobs turn out to be lost is made again first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from strata_engine.action import Placement
from strata_engine.cas import BlobLost
from strata_engine.decision import Decider, entry_of
from strata_engine.errors import StrataError, host_error
from strata_engine.events import Listener, Placed
from strata_engine.execution import ATTEMPTS, Executions
from strata_engine.executor import in_thread
from strata_engine.place import place
from strata_engine.tree import Artifact


class Placing:
    """The last part of one build."""

    def __init__(self, decider: Decider, executions: Executions, emit: Listener) -> None:
        self._decider = decider
        self._executions = executions
        self._emit = emit

    async def place_all(self, placements: Sequence[Placement]) -> StrataError | None:
        """Place what has been made: a failed build leaves the old outputs whole. Give what stood in the way."""
        try:
            for placement in placements:
                if self._executions.has(placement.ref.label):
                    await self._place_whole(placement)
        except StrataError as error:
            return error
        except OSError as error:
            return host_error(error)
        return None

    async def _place_whole(self, placement: Placement) -> None:
        if await in_thread(self._is_there, placement):
            return
        # What came from a remote is here by name only, and is fetched all at once.
        await self._executions.secure(placement.ref)
        for attempt in range(ATTEMPTS):
            try:
                await in_thread(self._place, placement)
            except BlobLost as lost:
                if attempt == ATTEMPTS - 1:
                    raise self._executions.given_up(placement.ref.label, lost) from lost
                await self._executions.secure(placement.ref)
            else:
                return

    def _node(self, placement: Placement) -> Artifact:
        return entry_of(self._decider.cas, self._executions.artifact(placement.ref.label), placement.ref)

    def _is_there(self, placement: Placement) -> bool:
        try:
            return self._decider.history.intact(placement.path, self._node(placement))
        except BlobLost:
            return False

    def _place(self, placement: Placement) -> None:
        history, node = self._decider.history, self._node(placement)
        begun = time.monotonic()
        placement.path.parent.mkdir(parents=True, exist_ok=True)
        placed = place(self._decider.cas, node, placement.path)
        history.record_placed(placement.path, node)
        path = self._decider.sources.workspace.relative(placement.path)
        self._emit(Placed(placement.ref.label, path, time.monotonic() - begun, placed.files))
