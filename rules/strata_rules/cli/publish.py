"""`strata publish`: one reproducible archive per layer, and the metadata that describes them."""

from __future__ import annotations

from typing import get_args

import click

from strata_engine.build import BuildResult
from strata_rules.cli.given import BUILDING, Given, given_options
from strata_rules.cli.options import Settings, spec_argument
from strata_rules.cli.options import command as declare
from strata_rules.cli.output import document_text, emit
from strata_rules.cli.report import emit_dry_run, manifest_layers, result_fields, with_stack
from strata_rules.cli.session_call import build_settings, built, wishes_of
from strata_rules.cli.status import show_stack
from strata_rules.publish import Manifest
from strata_rules.session import Session
from strata_rules.spec.declared import ArchiveFormat

ARCHIVES = ("*/archive", "*/archive[[]*")
"""The labels of all archives, for the host's platform and others."""


@declare("publish")
@spec_argument
@click.option("--force/--no-force", default=False, help="Make every archive again.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(get_args(ArchiveFormat)),
    help="The archives' format; by default the stack file's, else zip for Windows and tar.xz elsewhere.",
)
@given_options(*BUILDING)
@click.pass_obj
def command(settings: Settings, spec: str | None, given: Given, format_: str | None, *, force: bool) -> int:
    """Build what needs it and write one archive per layer, with metadata, into the output folder.

    With --json, the document's `layers` is what the manifest says; with --dry-run too, as far as it is known by then.

    The same stack gives the same archives, byte for byte, on any machine.
    """

    wishes = wishes_of(given, publish=True)
    stack = show_stack(settings, spec, given, wishes) if given.show or given.show_only else None
    if given.show_only:
        return 0

    manifests: list[Manifest] = []

    def work(session: Session) -> BuildResult:
        result = session.publish(build_settings(given, ARCHIVES if force else ()), format=format_)
        manifests.extend(session.manifests)
        return result

    def document(result: BuildResult) -> str:
        fields = {"dry_run": given.dry_run, **result_fields(result), "layers": manifest_layers(manifests)}
        return document_text("strata.publish", 1, with_stack(fields, stack))

    result = built(
        settings,
        spec,
        given,
        work,
        wishes=wishes,
        document=None if force or stack is not None else document,
    )
    if given.as_json:
        emit(document(result))
    elif given.dry_run:
        emit_dry_run(manifests)
    return result.exit_code
