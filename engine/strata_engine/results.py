"""How actions end: the value that the scheduler, records and the command line share."""

from __future__ import annotations

import msgspec

from strata_engine.digest import Digest
from strata_engine.errors import ActionError, Diagnostic, HostError, Place, StrataError
from strata_engine.events import ActionFinished, Outcome
from strata_engine.staleness import Reason
from strata_engine.tree import Artifact


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """How one action ended."""

    label: str
    mnemonic: str
    outcome: Outcome
    key: Digest | None = None
    artifact: Artifact | None = None
    reasons: tuple[Reason, ...] = ()
    seconds: float = 0.0
    bytes: int = 0
    diagnostics: tuple[Diagnostic, ...] = ()
    output: str = ""
    because: str = ""
    exit_code: int = 0
    origin: str = ""
    """Where a result that was not made here came from, where that is not the store."""

    def event(self) -> ActionFinished:
        """Give the event that tells of it."""
        return ActionFinished(
            self.label,
            self.mnemonic,
            self.outcome,
            self.seconds,
            self.reasons,
            self.bytes,
            self.diagnostics,
            self.output,
            self.because,
        )


def failed(
    label: str,
    mnemonic: str,
    error: StrataError,
    *,
    place: Place | None = None,
    key: Digest | None = None,
    reasons: tuple[Reason, ...] = (),
    seconds: float = 0.0,
) -> Finished:
    """Turn an error into the outcome of the action that it ended.

    Where the user can mend it and it has no place of its own, it is told at `place`, which the action comes from.
    """
    told = error.diagnostics
    if not isinstance(error, HostError):
        told = tuple(each if each.place is not None else each._replace(place=place) for each in told)
    return Finished(
        label=label,
        mnemonic=mnemonic,
        outcome=Outcome.FAILED,
        key=key,
        reasons=reasons,
        seconds=seconds,
        diagnostics=told,
        output=error.output if isinstance(error, ActionError) else "",
        exit_code=error.exit_code,
    )
