"""`strata publish`: one reproducible archive per layer, and the metadata that describes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import click

from strata_engine.build import BuildResult
from strata_rules.cli.completion import complete_labels
from strata_rules.cli.given import BUILDING, Given, given_options
from strata_rules.cli.options import Settings
from strata_rules.cli.options import command as declare
from strata_rules.cli.output import document_text, emit
from strata_rules.cli.report import emit_dry_run, manifest_layers, result_fields, with_stack
from strata_rules.cli.session_call import build_settings, built, wishes_of
from strata_rules.cli.status import show_stack
from strata_rules.publish import Manifest
from strata_rules.repository.labels import names_repository
from strata_rules.session import Session
from strata_rules.spec.declared import ArchiveFormat

ARCHIVES = ("*/archive", "*/archive[[]*")
"""The labels of all archives, for the host's platform and others."""


@declare("publish")
@click.argument("arguments", nargs=-1, metavar="[SPEC | //LABELS...]", shell_complete=complete_labels)
@click.option("--force/--no-force", default=False, help="Make every archive again.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(get_args(ArchiveFormat)),
    help="The archives' format; by default the stack file's, else zip for Windows and tar.xz elsewhere.",
)
@given_options(*BUILDING)
@click.pass_obj
def command(settings: Settings, arguments: tuple[str, ...], given: Given, format_: str | None, *, force: bool) -> int:
    """Build what needs it and write one archive per layer, with metadata, into the output folder.

    Labels that begin with `//` mean stacks of the git repository, layers of them, or archives: `//...` is all, and a
    query such as `rdeps(//..., changed(main)) & kind(Archive)` what has changed. Each stack has its own output folder.

    With --json, the document's `layers` is what the manifest says; with --dry-run too, as far as it is known by then.

    The same stack gives the same archives, byte for byte, on any machine.
    """
    across = names_repository(arguments)
    spec = arguments[0] if arguments and not across else None
    if len(arguments) > 1 and not across:
        raise click.UsageError(f"`{arguments[1]}` is one too many: labels of `publish` begin with `//`")
    wishes = wishes_of(given, publish=True)
    if across and (given.show or given.show_only):
        raise click.UsageError("`--show` is for one stack, not for labels that begin with `//`")
    stack = show_stack(settings, spec, given, wishes) if given.show or given.show_only else None
    if given.show_only:
        return 0

    manifests: Sequence[Manifest] = []
    forced = ARCHIVES if force else ()

    def work(session: Session) -> BuildResult:
        result = session.publish(build_settings(given, forced), format=format_)
        nonlocal manifests
        manifests = session.manifests
        return result

    def document(result: BuildResult) -> str:
        fields = {"dry_run": given.dry_run, **result_fields(result), "layers": manifest_layers(manifests)}
        return document_text("strata.publish", 1, with_stack(fields, stack))

    if across:
        # Here and not above: only this pays for it.
        from strata_rules.cli.repository_call import published_across  # noqa: PLC0415 - see the comment above

        result, manifests = published_across(
            settings, arguments, given, force=forced, wishes=wishes, format=format_ or ""
        )
    else:
        remembered = None if force or stack is not None else document
        result = built(settings, spec, given, work, wishes=wishes, document=remembered)
    if given.as_json:
        emit(document(result))
    elif given.dry_run:
        emit_dry_run(manifests)
    return result.exit_code
