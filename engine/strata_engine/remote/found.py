"""What a question for a result may be answered with: nouns that every build knows, also where there is no remote."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from strata_engine.codec import ActionResult
from strata_engine.tree import Artifact

FROM_REMOTE = "remote"
"""Who made a result in the local action cache that was taken from a remote: it is not sent on."""


class Found(NamedTuple):
    """A result that a remote had, with its folders in the store."""

    artifact: Artifact
    result: ActionResult
    origin: str
    """Where it came from, as a person may see it."""
    seconds: float
    """How long it took where it was made; 0 where that is not said."""


class Untrusted(NamedTuple):
    """There was a result that is not believed."""

    origin: str
    why: str


Answer: TypeAlias = Found | Untrusted | None
