"""What a build would do now, as a record of it: everything is looked at, nothing is executed, no network is used."""

from __future__ import annotations

import time
from pathlib import Path

from strata_engine.decision import Settings
from strata_engine.errors import SpecError
from strata_engine.run_record import RunRecord, short
from strata_rules.cli.given import Given
from strata_rules.cli.graph.asked import Kept, matching, unknown_label
from strata_rules.cli.session_call import session_options, wishes_of
from strata_rules.selection import Wish
from strata_rules.session import Session, open_session


def would(path: Path, kept: Kept, word: str | None, given: Given) -> RunRecord:
    """Give the record that `strata build` would leave of the default layers, or of what a word means.

    Raises StrataError.
    """
    wishes = wishes_of(given, lock=Wish.IF_NEEDED, build=Wish.YES)
    with open_session(path, session_options(given), wishes=wishes, reading=True) as session:
        result = session.build(_labels(session, kept, word), Settings(dry_run=True))
    if result.exit_code and result.diagnostics:
        raise SpecError(*result.diagnostics)
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return short(
        RunRecord(
            run="",
            started=started,
            seconds=result.seconds,
            command=("build",),
            exit_code=0,
            counts=result.counts,
            actions=result.actions,
        )
    )


def _labels(session: Session, kept: Kept, word: str | None) -> list[str]:
    if word is None or any(word == layer.env_name for layer in session.stack.layers):
        return [] if word is None else [word]
    labels = matching(word, (node.label for node in session.graph(()).nodes))
    if not labels:
        raise unknown_label(kept, word)
    return labels
