"""What a change of a key means in the words of the file that it was made in: lines for people, made on demand.

Everything is found afterwards in the two Actions that a report names, and in the workspace's own stack file; nothing is
recorded for it. What is no longer kept, or is not what it should be, is told of in no line: an explanation that is less
exact is still one, and an exception in its place would be none. Read and said is little, whatever the change is.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from strata_engine.run_record import ActionReport
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.tree import Reader
from strata_engine.words import fit, printable
from strata_rules.semantics import content
from strata_rules.semantics.sides import Sides, both_sides

LINES = 12
"""Lines that are said of one reason, at most."""

WIDTH = 160

_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s\"'<>]+")

_TOOLS = {"uv": "resolves locks", "installer": "makes programs for Windows"}
"""What tools are for; all others compress archives."""

_ASKED = (ReasonCode.PARAMETER_CHANGED, ReasonCode.ENV_CHANGED, ReasonCode.TOOL_CHANGED)
"""What changes the question that a lock answers."""


def details(cas: Reader, root: Path, report: ActionReport, reason: Reason) -> list[str]:
    """Give the lines that say what a reason of an action means; none where there is no more to say.

    `root` is the workspace's folder. Never raises for what is damaged or gone.
    """
    lines: list[str] = []
    # Whatever is wrong with what is looked at, what was found by then is worth telling.
    with contextlib.suppress(Exception):
        lines += islice(_lines(cas, root, report, reason), LINES)
    return [fit(printable(_public(line)), WIDTH) for line in lines]


def _lines(cas: Reader, root: Path, report: ActionReport, reason: Reason) -> Iterator[str]:
    match reason.reason:
        case _ if "#" in reason.subject or reason.reason is ReasonCode.PARAMETER_CHANGED:
            from strata_rules.semantics import written  # noqa: PLC0415 - reading TOML with places costs its time

            yield from written.lines(root, reason)
        case ReasonCode.RULE_CHANGED:
            yield f"Strata itself changed: what `{reason.subject}` does is version {_told(reason, 'v')}"
        case ReasonCode.TOOL_CHANGED:
            yield f"{reason.subject}, which {_TOOLS.get(reason.subject, 'compresses archives')}: {_told(reason)}"
        case ReasonCode.ENV_CHANGED:
            yield from _variable(reason)
        case ReasonCode.PLATFORM_CHANGED:
            yield f"this machine's {reason.subject}: {_told(reason)}"
        case ReasonCode.INPUT_CHANGED | ReasonCode.INPUT_ADDED | ReasonCode.INPUT_REMOVED | ReasonCode.UPSTREAM_CHANGED:
            yield from _content(both_sides(cas, report), report, reason)
        case _:
            return
    if report.mnemonic == "Lock" and reason.reason in _ASKED:
        yield from content.of_locks(cas, report.former, report.output)


def _content(sides: Sides, report: ActionReport, reason: Reason) -> Iterator[str]:
    """Say what is another one in an input."""
    if reason.subject.endswith("/lock") and report.mnemonic == "Install":
        yield from content.of_selections(sides)
        return
    found = sides.find(reason)
    if found is None:
        return
    if found.name == "postinstall.py" and report.mnemonic == "Link":
        yield "Strata itself changed: `postinstall.py` is shipped with every layer"
    yield from content.of_nodes(sides.cas, found)


def _variable(reason: Reason) -> Iterator[str]:
    """Say what changed in a variable, element by element where it is a list. Only allowlisted ones are in any key."""
    old, new = ((side or "").replace(",", " ").split() for side in (reason.old, reason.new))
    if max(len(old), len(new)) < 2:
        yield f"${reason.subject}  {_told(reason)}"
        return
    yield from (f"${reason.subject}  - {each}" for each in old if each not in new)
    yield from (f"${reason.subject}  + {each}" for each in new if each not in old)


def _told(reason: Reason, prefix: str = "") -> str:
    sides = (reason.old, reason.new)
    return " → ".join("(none)" if side is None else side.removeprefix(prefix) for side in sides)


def _public(line: str) -> str:
    """Leave out of URLs what may be a login or a signature: none is in a key, but files may have some."""
    if "://" not in line:
        return line
    from strata_engine.logins import public_url  # noqa: PLC0415 - most lines have no URL

    def shown(match: re.Match[str]) -> str:
        try:
            return public_url(match[0])
        except ValueError:
            return f"{match[0].partition('://')[0]}://…"

    return _URL.sub(shown, line)
