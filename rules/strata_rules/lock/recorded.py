"""What is recorded beside a lock, `pylock.*.meta.json`: venvstacks' fields, and a section of ours in it.

It must not know when a lock is valid. The file comes from a repository and is hostile until checked; what cannot be
read is an error and never "nothing recorded": a version of a versioned layer would begin anew at 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from strata_engine.errors import Diagnostic, Place, SpecError
from strata_rules.lock.parts import Given, Parts
from strata_rules.pylock import CONFLICTED, TAKE_A_SIDE, conflict

MAX_SIZE = 1 << 20
"""Records above this are not read: a real one is under 10 KiB."""

SECTION = "strata"

_LEGACY = "_legacy_requirements_hash"

_AGAIN = "take it from git again, or have the layer locked anew with `strata lock --upgrade`"


class Seal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Our section: what was asked for, and what came of it."""

    content: str
    """The SHA-256 of the lock."""
    request: str
    """The digest of all that was asked for: the key of the action Lock."""
    uv: str
    """uv's version."""
    parts: Parts
    given: Given = Given()
    """What the command line said, which a later one need not repeat."""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded, checked. Hashes that are not there are empty."""

    lock_input_hash: str = ""
    requirements_hash: str = ""
    other_inputs_hash: str = ""
    version_inputs_hash: str = ""
    lock_version: Annotated[int, msgspec.Meta(ge=1, le=999_999_999)] | None = None
    locked_at: str = ""
    strata: Seal | None = None
    document: dict[str, Any] = {}
    """All of it, other tools' keys too."""
    is_legacy: bool = False
    """Whether it is of a venvstacks before 0.8, whose locks had another form."""


def read(data: bytes, file: str) -> Recorded:
    """Read and check. Raises SpecError (`bad-lock-record`)."""
    if len(data) > MAX_SIZE:
        raise _bad(file, f"is larger than {MAX_SIZE >> 20} MiB")
    try:
        document = msgspec.json.decode(data)
        if not isinstance(document, dict):
            raise _bad(file, "is not a JSON object")
        ours = (SECTION, "document", "is_legacy")
        recorded = msgspec.convert({name: value for name, value in document.items() if name not in ours}, Recorded)
        if recorded.locked_at:
            moment(recorded.locked_at)
    except RecursionError:
        raise _bad(file, "is nested too deeply") from None
    except UnicodeDecodeError:
        raise _bad(file, "is not UTF-8") from None
    except msgspec.ValidationError as error:
        raise _bad(file, f"is not what it should be: {_worded(str(error))}") from None
    except msgspec.DecodeError as error:
        if (place := conflict(data, file)) is not None:
            raise _bad(file, CONFLICTED, TAKE_A_SIDE, place) from None
        raise _bad(file, f"is not JSON: {_worded(str(error))}") from None
    except ValueError:
        raise _bad(file, "has a `locked_at` that is no date and time") from None
    seal = _seal(document.get(SECTION))
    return msgspec.structs.replace(recorded, strata=seal, document=document, is_legacy=_LEGACY in document)


def _seal(section: object) -> Seal | None:
    """Read our section; one of another Strata, in a form that this one does not know, counts as none."""
    try:
        return msgspec.convert(section, Seal)
    except msgspec.ValidationError:
        return None


def write(document: Mapping[str, Any]) -> bytes:
    """Write a record as venvstacks does."""
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def moment(text: str) -> datetime:
    """Read a time; one without a zone is in UTC, on every machine. Raises ValueError."""
    return in_utc(datetime.fromisoformat(text))


def in_utc(time: datetime) -> datetime:
    """Give a time in UTC; one without a zone is taken for it, and one at the end of all calendars, too."""
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        return time.replace(tzinfo=UTC)


def _worded(message: str) -> str:
    return message.replace("$.", "").replace(" - at ", " at ")


def _bad(file: str, what: str, hint: str = _AGAIN, place: Place | None = None) -> SpecError:
    told = f"what is recorded of this lock {what}"
    return SpecError(Diagnostic("bad-lock-record", told, place or Place(file, 0), hint=hint))
