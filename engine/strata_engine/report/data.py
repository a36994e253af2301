"""The nouns of a report: what a page shows, as one value that becomes its JSON.

It knows neither HTML nor how it is gathered. Rows are arrays, and actions are named by their positions: at thousands
of actions, names would be most of a page.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

OUTSIDE, UNKNOWN = "outside", "unknown"
"""Of actions that the graph has and the record has not: not part of the build, or nobody can tell."""
OUTCOMES = ("executed", "failed", "skipped", "cached", "remote", "up_to_date", OUTSIDE, UNKNOWN)


class Weight(NamedTuple):
    """What a group comes to in bytes."""

    group: str
    bytes: int
    parts: tuple[tuple[str, int], ...] = ()
    """What it is made of, as far as that is known."""
    archives: tuple[tuple[str, int], ...] = ()
    """The forms in which it is shipped."""


class _Array(msgspec.Struct, frozen=True, array_like=True):
    """Written as an array: names would be most of a large report."""


class Row(_Array, frozen=True):
    """One action. Other actions are named by their positions."""

    label: str
    mnemonic: str
    group: int
    outcome: int
    column: int
    """Where it stands among those of its group: what needs is right of what is needed."""
    seconds: float
    bytes: int
    needs: tuple[int, ...]
    deciders: tuple[int, ...]
    key: str
    output: str
    """What came of it, in short."""
    cut_off: bool
    """It was done again and came out as before."""
    because: int
    """For what was skipped: what stood in the way; else -1."""
    sources: tuple[str, ...]
    places: tuple[str, ...]
    reasons: tuple[Why, ...]
    more: int
    """How many reasons are left out."""
    above: tuple[int, ...]
    """The actions that explain reasons which are not its own; beyond the rows begin those of earlier builds."""


class Why(_Array, frozen=True):
    """A reason."""

    code: str
    subject: str
    old: str | None
    new: str | None
    own: bool
    """Nothing else explains it: a root cause."""


class Earlier(_Array, frozen=True):
    """An action of an earlier build that explains one of this."""

    label: str
    run: str
    started: str
    reasons: tuple[Why, ...]
    above: tuple[int, ...]


class Cause(_Array, frozen=True):
    """A root cause and what it cost."""

    why: Why
    labels: tuple[str, ...]
    actions: int
    seconds: float


class Drawn(_Array, frozen=True):
    """A stretch of time on a track."""

    track: int
    action: int
    """-1 where the graph has it no more."""
    start: float
    seconds: float
    label: str
    """Where it has no action."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of the build as a whole."""

    run: str
    started: str
    seconds: float
    command: tuple[str, ...]
    exit_code: int
    counts: dict[str, int]
    revision: str
    settings: dict[str, str]
    version: str
    platform: str
    critical: float
    """How long the actions on the critical path took together."""
    busy: float
    """How long all actions took together."""
    idle: bool
    """There was nothing to do."""
    traced: bool
    whole: bool
    """The graph is known to be the one that was built."""


class Saving(NamedTuple):
    """What it would have saved if results had been in a cache, in seconds."""

    name: str
    """An action's label, or a mnemonic."""
    kind: bool
    """Whether it is a mnemonic: every action of it."""
    takes: float
    """What these actions took together."""
    now: float | None
    """Saved with the workers that there were; None where nobody knows how many."""
    unbounded: float
    """Saved with workers without end."""


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """How long it would have taken otherwise."""

    unbounded: float
    played: float | None
    """As it was, by the same rules as the others; None where the workers are not known."""
    workers: dict[str, int]
    """How many of each pool were used."""
    pool: str
    """The one whose number of workers varies."""
    others: tuple[tuple[int, float], ...]
    """Its numbers of workers, and the seconds."""
    savings: tuple[Saving, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that a page shows."""

    head: Head
    outcomes: tuple[str, ...] = OUTCOMES
    groups: tuple[str, ...]
    actions: tuple[Row, ...]
    earlier: tuple[Earlier, ...]
    critical: tuple[int, ...]
    roots: tuple[Cause, ...]
    more_roots: int
    tracks: tuple[str, ...]
    spans: tuple[Drawn, ...]
    what_if: WhatIf | None
    weights: tuple[Weight, ...]
    messages: tuple[dict[str, str], ...]
