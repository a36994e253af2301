"""`strata build`: bring a stack, or the named parts of it, up to date."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from strata_engine.build import BuildResult
from strata_engine.events import Outcome
from strata_rules.cli.completion import complete_labels
from strata_rules.cli.given import BUILDING, Given, accepted_quietly, given_options, labels_argument
from strata_rules.cli.options import Settings
from strata_rules.cli.options import command as declare
from strata_rules.cli.output import document_text, emit
from strata_rules.cli.report import result_fields
from strata_rules.cli.session_call import build_settings, built
from strata_rules.cli.stack_file import split_arguments

WORK_FOUND = 4
"""The exit code of `--check` where something would run."""


@declare("build")
@labels_argument
@click.option("--publish/--no-publish", default=False, help="Write archives and metadata, too.")
@click.option("--check/--no-check", default=False, help="Do nothing; exit with 4 if anything would run.")
@click.option(
    "--force",
    metavar="LABEL",
    multiple=True,
    shell_complete=complete_labels,
    help="Run this action whatever its key says; a pattern such as `*/install` will do; may be repeated.",
)
@given_options(*BUILDING)
@accepted_quietly("clean", "if-needed", "lock-if-needed")
@click.pass_obj
def command(
    settings: Settings, arguments: tuple[str, ...], given: Given, force: tuple[str, ...], *, publish: bool, check: bool
) -> int:
    """Bring the layers of a stack up to date: lock what has no valid lock, fetch, install, link.

    LABELS, such as `app-hello` or `framework-console/lock`, restrict it to these and what they need. Nothing whose
    inputs are unchanged is done again.
    """
    spec, labels = split_arguments(arguments, Path.cwd())
    given = replace(given, dry_run=given.dry_run or check)

    def code(result: BuildResult) -> int:
        return (
            WORK_FOUND
            if check and not result.exit_code and result.counts.get(Outcome.EXECUTED, 0)
            else result.exit_code
        )

    def document(result: BuildResult) -> str:
        fields = {"dry_run": given.dry_run, **result_fields(result), "exit_code": code(result)}
        return document_text("strata.build", 1, fields)

    result = built(
        settings,
        spec,
        given,
        lambda session: session.build(labels, build_settings(given, force), publish=publish),
        document=None if force else document,
    )
    if given.as_json:
        emit(document(result))
    return code(result)
