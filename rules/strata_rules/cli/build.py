"""`strata build`: bring a stack, or the named parts of it, up to date."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import NoReturn

import click

from strata_engine.build import BuildResult
from strata_engine.console.terminal import is_terminal
from strata_engine.digest import Stamp
from strata_engine.errors import Diagnostic
from strata_engine.events import Outcome, Warned
from strata_rules.cli.completion import complete_labels
from strata_rules.cli.given import BUILDING, RELATED, Given, accepted_quietly, given_options, labels_argument
from strata_rules.cli.options import Settings
from strata_rules.cli.options import command as declare
from strata_rules.cli.output import document_text, emit
from strata_rules.cli.report import result_fields, with_stack
from strata_rules.cli.session_call import build_settings, built, wishes_of
from strata_rules.cli.stack_file import find_stack_file, split_arguments
from strata_rules.cli.status import show_stack
from strata_rules.repository.labels import is_query, names_repository, repository_root
from strata_rules.selection import Wish
from strata_rules.session import Session
from strata_rules.spec.near import did_you_mean

WORK_FOUND = 4
"""The exit code of `--check` where something would run."""


@declare("build")
@labels_argument
@click.option("--build/--no-build", default=True, help="Put nothing into the build folder: only lock, and --publish.")
@click.option("--publish/--no-publish", default=False, help="Write archives and metadata, too.")
@click.option("--clean/--no-clean", default=False, help="Put every output in its place anew, whatever stands there.")
@click.option("--check/--no-check", default=False, help="Do nothing; exit with 4 if anything would run.")
@click.option("--watch/--no-watch", default=False, help="Build again whenever something that was read has changed.")
@click.option(
    "--force",
    metavar="LABEL",
    multiple=True,
    shell_complete=complete_labels,
    help="Run this action whatever its key says; a pattern such as `*/install` will do; may be repeated.",
)
@given_options(*BUILDING, "reset_lock", *RELATED)
@click.option("--lock-if-needed/--no-lock-if-needed", default=None, hidden=True)
@click.option("--lock/--no-lock", "lock_alias", default=None, hidden=True)
@accepted_quietly("if-needed")
@click.pass_obj
def command(
    settings: Settings,
    arguments: tuple[str, ...],
    given: Given,
    force: tuple[str, ...],
    lock_if_needed: bool | None,  # noqa: FBT001 - click calls by keyword
    lock_alias: bool | None,  # noqa: FBT001 - click calls by keyword
    *,
    build: bool,
    publish: bool,
    clean: bool,
    check: bool,
    watch: bool,
) -> int:
    """Bring the layers of a stack up to date: lock what has no valid lock, fetch, install, link.

    LABELS, such as `app-hello` or `framework-console/lock`, restrict it to these and what they need; so does a query,
    such as `kind(Archive) & app-*` (see `strata graph query --help`). `//...` means all stack files of the git
    repository, `//DIR:LABEL` a part of one. Nothing whose inputs are unchanged is done again.
    """
    # As everywhere, a layer's name alone means its link.
    force = tuple(label if set(label) & set("/*?[") else f"{label}/link" for label in force)
    across = names_repository(arguments)
    spec, labels = split_arguments(arguments, Path.cwd()) if not across else (None, arguments)
    locked = given.locked or not _may_lock(lock_if_needed, lock_alias)
    given = replace(given, dry_run=given.dry_run or check, locked=locked)
    may_lock, may_build = Wish.NO if locked else Wish.IF_NEEDED, Wish.YES if build else Wish.NO
    wishes = wishes_of(given, lock=may_lock, build=may_build, publish=True)
    if across and (given.show or given.show_only):
        raise click.UsageError("`--show` is for one stack, not for labels that begin with `//`")
    stack = show_stack(settings, spec, given, wishes) if given.show or given.show_only else None
    if given.show_only:
        return 0

    def code(result: BuildResult) -> int:
        return (
            WORK_FOUND
            if check and not result.exit_code and result.counts.get(Outcome.EXECUTED, 0)
            else result.exit_code
        )

    def document(result: BuildResult) -> str:
        fields = {"dry_run": given.dry_run, **result_fields(result), "exit_code": code(result)}
        return document_text("strata.build", 1, with_stack(fields, stack))

    queries = any(map(is_query, labels))

    def work(session: Session) -> BuildResult:
        asked, more = _found(session, labels) if queries else (labels, {})
        result = session.build(asked, build_settings(given, force), publish=publish, clean=clean, **more)
        for warning in _unmatched(force, result):
            session.opened.emit(Warned(warning))
        return result

    if across:
        # Here and not above: only this pays for it.
        from strata_rules.cli.repository_call import built_across  # noqa: PLC0415 - see the comment above

        together = partial(
            built_across, settings, labels, given, force=force, wishes=wishes, clean=clean, publish=publish
        )
        if watch:
            _watch(repository_root(Path.cwd()), settings, given, lambda saw: together(saw=saw))
        result = together()
        if given.as_json:
            emit(document(result))
        return code(result)
    if watch:
        root = find_stack_file(spec, Path.cwd()).absolute().parent
        _watch(root, settings, given, lambda saw: built(settings, spec, given, work, wishes=wishes, saw=saw))
    result = built(
        settings,
        spec,
        given,
        work,
        wishes=wishes,
        # What is asked for in any case is no matter for a snapshot, nor what may be answered otherwise the next time.
        document=None if force or clean or given.reset_lock or stack is not None or queries else document,
    )
    if given.as_json:
        emit(document(result))
    return code(result)


def _unmatched(force: tuple[str, ...], result: BuildResult) -> Iterator[Diagnostic]:
    """Warn of what was to be forced and is no part of the build; which actions there are is known afterwards."""
    labels = [action.label for action in result.actions]
    for pattern in force if result.exit_code == 0 else ():
        if not any(label == pattern or fnmatchcase(label, pattern) for label in labels):
            hint = did_you_mean(pattern, labels) or "`strata graph show` lists the labels"
            message = f"no action of this build matches `--force {pattern}`"
            yield Diagnostic("unmatched-pattern", message, hint=hint, severity="warning")


def _found(session: Session, labels: Sequence[str]) -> tuple[Sequence[str], dict[str, bool]]:
    """Answer the queries among labels. They may have found nothing, which does not mean everything."""
    from strata_rules.repository.ask import answer, world_of_stack  # noqa: PLC0415 - only this pays for it

    world = world_of_stack(session)
    found = [each for label in labels for each in (answer(world, label) if is_query(label) else [label])]
    return found, {"exactly": True}


def _watch(
    root: Path, settings: Settings, given: Given, once: Callable[[Callable[[Mapping[str, Stamp]], None]], object]
) -> NoReturn:
    """Build until interrupted."""
    if given.as_json or given.dry_run:
        raise click.UsageError("`--watch` builds for a person who looks on: `--json`, `--dry-run` and `--check` do not")
    # Here and not above: only this pays for it.
    from strata_rules.cli.watch import watch  # noqa: PLC0415 - see the comment above

    watch(root, once, settings, terminal=is_terminal(sys.stderr))


def _may_lock(*asked: bool | None) -> bool:
    """Tell whether locks may be made: that happens anyway where nobody says otherwise."""
    said = [each for each in asked if each is not None]
    return any(said) or not said
