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


class There(NamedTuple):
    """A remote has a result that a build would take."""

    origin: str
    zone: str
    """Empty where the result proves itself."""
    signed_by: str = ""
    """The accepted key that vouches for it, in one line; empty where none is asked for."""


class NotTaken(NamedTuple):
    """A remote has a result that a build would not take."""

    origin: str
    zone: str
    why: str
    lost: int = 0
    """How many of its blobs are not there, where that is why."""


Standing: TypeAlias = There | NotTaken | None
"""How it is with a result in remotes; None where it is in none."""
