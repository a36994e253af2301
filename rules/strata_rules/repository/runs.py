"""The recorded builds of one or several workspaces in the order of time, with the labels of the whole.

A build of all of them is recorded by the repository and by each; it is one build here. Records are decoded when they
are looked at: there may be many, and a question is about one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import msgspec

from strata_engine.critical import critical_path
from strata_engine.errors import SpecError
from strata_engine.events import Outcome
from strata_engine.records import Records
from strata_engine.run_record import ActionReport

_LAST = re.compile(r"last(?:~(\d{1,6}))?")
_HINT = "`strata graph runs` lists them"

Full: TypeAlias = Callable[[str], str | None]
"""Gives the label in the whole of what records call by another name; None for what is not there any more."""


class _Run(NamedTuple):
    records: Records
    at: int
    full: Full


class Runs:
    """Recorded builds."""

    def __init__(self, recorded: Mapping[Full, Records]) -> None:
        """Put records together; the first that has a build tells of it."""
        runs: dict[str, _Run] = {}
        for full, records in recorded.items():
            for at in range(len(records)):
                runs.setdefault(records.run(at), _Run(records, at, full))
        # A build's id begins with the time.
        self._runs = dict(sorted(runs.items()))

    def actions(self, name: str | None) -> list[ActionReport]:
        """List what was not up to date in a build: of which this is an id or its beginning, `last`, or `last~2`.

        Raises SpecError.
        """
        records, at, full = self._runs[self._find(name or "last")]
        found = []
        for report in records[at].actions:
            label = full(report.label)
            if label is not None:
                needed = (full(each) for each in report.upstream)
                deciders = (full(each) for each in report.deciders)
                known = {"upstream": tuple(filter(None, needed)), "deciders": tuple(filter(None, deciders))}
                found.append(msgspec.structs.replace(report, label=label, **known))
        return found

    def state(self, name: str, run: str | None) -> set[str]:
        """Answer `ran`, `hit`, `failed` and `critical`. Raises SpecError."""
        actions = self.actions(run)
        if name == "critical":
            return set(critical_path(actions))
        outcomes = {
            "ran": {Outcome.EXECUTED, Outcome.FAILED},
            "hit": {Outcome.CACHED, Outcome.REMOTE},
            "failed": {Outcome.FAILED},
        }[name]
        return {report.label for report in actions if report.outcome in outcomes}

    def _find(self, name: str) -> str:
        runs = list(self._runs)
        if not runs:
            raise SpecError.of("no-history", "no build has been recorded here", hint="`strata build` records each")
        match = _LAST.fullmatch(name)
        if match:
            back = int(match[1] or 0)
            if back < len(runs):
                return runs[-1 - back]
            raise SpecError.of("unknown-run", f"there is no build `{name}`: {len(runs)} are recorded", hint=_HINT)
        # People use the last part of an id, which is short.
        found = [run for run in runs if run.startswith(name) or run.rpartition("-")[2].startswith(name)]
        if len(found) > 1:
            shown = ", ".join(f"`{run}`" for run in found[-3:])
            raise SpecError.of(
                "ambiguous-run", f"`{name}` is the beginning of several builds", notes=(shown,), hint=_HINT
            )
        if not found:
            raise SpecError.of("unknown-run", f"there is no build `{name}`", hint=_HINT)
        return found[0]
