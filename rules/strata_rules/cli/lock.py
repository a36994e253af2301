"""`strata lock`: resolve each layer's requirements and write the lock files."""

from __future__ import annotations

from dataclasses import replace

import click

from strata_engine.build import BuildResult
from strata_engine.events import Outcome
from strata_rules.cli.build import WORK_FOUND
from strata_rules.cli.given import Given, accepted_quietly, given_options
from strata_rules.cli.options import Settings, spec_argument
from strata_rules.cli.options import command as declare
from strata_rules.cli.output import emit_document
from strata_rules.cli.report import result_fields, with_stack
from strata_rules.cli.session_call import build_settings, built, wishes_of
from strata_rules.cli.status import show_stack
from strata_rules.selection import Wish
from strata_rules.session import Session


@declare("lock")
@spec_argument
@click.option("--upgrade/--no-upgrade", default=False, help="Resolve anew instead of keeping the versions locked now.")
@click.option("--check/--no-check", default=False, help="Do nothing; exit with 4 if a lock does not fit the stack.")
@click.option("--if-needed/--no-if-needed", default=False, help="With --include, leave alone what stands on it.")
@given_options(
    "dry_run",
    "explain",
    "offline",
    "jobs",
    "keep_going",
    "include",
    "allow_missing",
    "reset_lock",
    "lock_dependencies",
    "build_dir",
    "index",
    "local_wheels",
    "show",
    "show_only",
    "as_json",
)
@accepted_quietly("clean")
@click.pass_obj
def command(settings: Settings, spec: str | None, given: Given, *, upgrade: bool, check: bool, if_needed: bool) -> int:
    """Lock the layers of the stack SPEC whose lock is missing or does not fit; a valid lock is left alone.

    Versions that are locked now are kept where they still fit, unless --upgrade asks for the newest. With --include,
    what stands on the layers that match is locked with them.
    """
    given = replace(given, dry_run=given.dry_run or check)
    wishes = wishes_of(given, lock=Wish.IF_NEEDED if if_needed and not upgrade else Wish.YES)
    stack = show_stack(settings, spec, given, wishes) if given.show or given.show_only else None
    if given.show_only:
        return 0
    stale: list[str] = []

    def work(session: Session) -> BuildResult:
        result = session.lock(build_settings(given), upgrade=upgrade)
        stale.extend(found.action.label for found in session.surveyed.stale)
        return result

    result = built(settings, spec, given, work, wishes=wishes)
    code = result.exit_code
    if check and code == 0 and (stale or result.counts.get(Outcome.EXECUTED, 0)):
        code = WORK_FOUND
    if given.as_json:
        fields = {"dry_run": given.dry_run, **result_fields(result), "exit_code": code}
        emit_document("strata.lock", 1, with_stack(fields, stack))
    return code
