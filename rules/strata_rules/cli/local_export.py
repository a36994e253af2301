"""`strata local-export`: each layer as a folder to be run from, with bytecode, and the metadata that describes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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

OWN = ("output_dir", "tag_outputs")
"""What building commands take and this one does in its own way: an exported folder's name is what layers expect."""


@declare("local-export")
@spec_argument
@click.option("--force/--no-force", default=False, help="Put every layer in its place anew, whatever stands there.")
@given_options(*(name for name in BUILDING if name not in OWN))
@click.option(
    "--output-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("_export"),
    show_default=True,
    help="Where layers and metadata go.",
)
@click.pass_obj
def command(settings: Settings, spec: str | None, given: Given, output_dir: Path, *, force: bool) -> int:
    """Build what needs it and put the layers side by side into one folder, with bytecode, to be run there.

    A layer that is there and unchanged is left alone; another one is replaced as a whole.

    With --json, the document's `layers` is what the manifest says; with --dry-run too, as far as it is known by then.
    """
    given = replace(given, output_dir=output_dir)
    wishes = wishes_of(given, publish=True)
    stack = show_stack(settings, spec, given, wishes) if given.show or given.show_only else None
    if given.show_only:
        return 0

    manifests: list[Manifest] = []

    def work(session: Session) -> BuildResult:
        result = session.export(build_settings(given), anew=force)
        manifests.extend(session.manifests)
        return result

    def document(result: BuildResult) -> str:
        fields = {"dry_run": given.dry_run, **result_fields(result), "layers": manifest_layers(manifests)}
        return document_text("strata.local-export", 1, with_stack(fields, stack))

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
