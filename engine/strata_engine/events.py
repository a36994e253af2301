"""Events: facts about a build, the only thing that consoles, records, traces and reports see."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

import msgspec

from strata_engine.errors import Diagnostic
from strata_engine.staleness import Reason


class Outcome(StrEnum):
    """How an action ended. The first four are good."""

    UP_TO_DATE = "up_to_date"
    """Its key is that of the last build here and nothing was to do."""
    CACHED = "cached"
    """Its result came from this machine's store."""
    REMOTE = "remote"
    """Its result came from a remote cache."""
    EXECUTED = "executed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not tried, because something it needs failed or the build was stopped."""


class Event(msgspec.Struct, frozen=True, tag_field="event", tag=str.lower):
    """Base of all events."""


class BuildStarted(Event, frozen=True):
    """The build knows what is asked of it. `total` grows as expansions add actions."""

    run: str
    total: int


class GraphGrew(Event, frozen=True):
    """An expansion added actions that are wanted."""

    total: int


class ActionStarted(Event, frozen=True):
    """An action begins to execute, for these reasons."""

    label: str
    mnemonic: str
    pool: str
    slot: int
    """The worker slot in its pool: two actions never hold one slot at once."""
    reasons: tuple[Reason, ...]
    description: str = ""
    expected_seconds: float | None = None
    """How long it took last time."""


class ActionProgress(Event, frozen=True):
    """Bytes done, of how many."""

    label: str
    done: int
    total: int | None


class ActionOutput(Event, frozen=True):
    """A line that the action's subprocess printed."""

    label: str
    line: str


class ActionFinished(Event, frozen=True):
    """An action has its outcome."""

    label: str
    mnemonic: str
    outcome: Outcome
    seconds: float
    reasons: tuple[Reason, ...] = ()
    bytes: int = 0
    """Size of the output's own blob, or of a tree's files together; 0 where unknown."""
    diagnostics: tuple[Diagnostic, ...] = ()
    output: str = ""
    """What its subprocess printed, where it failed."""
    because: str = ""
    """For `skipped`: the label that stood in the way."""


class Warned(Event, frozen=True):
    """Something a person should know; the build goes on."""

    diagnostic: Diagnostic
    label: str = ""


class Fetching(Event, frozen=True):
    """An output that a remote cache has is brought here, because something reads it."""

    label: str
    done: int
    """Bytes."""
    total: int


class Fetched(Event, frozen=True):
    """It is here, or as much of it as remote caches had."""

    label: str
    done: int
    seconds: float


class Placed(Event, frozen=True):
    """An output was put at its place in the workspace."""

    label: str
    path: str
    seconds: float
    files: int = 0


class Waiting(Event, frozen=True):
    """The build waits for another process."""

    what: str
    holder: str


class Uploading(Event, frozen=True):
    """All is done but that results are being sent to remote caches."""

    left: int


class BuildFinished(Event, frozen=True):
    """The build is over."""

    seconds: float
    counts: dict[str, int]
    interrupted: bool = False
    critical: tuple[tuple[str, float], ...] = ()
    """The critical path, from its beginning: labels and seconds."""
    remote: str = ""
    """What remote caches did, in a line."""


class Aborted(Event, frozen=True):
    """The process ends now, whatever is unfinished: who holds the terminal gives it back while hearing this."""


Listener: TypeAlias = Callable[[Event], None]
