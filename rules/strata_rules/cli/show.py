"""`strata show`: the stack as a tree."""

from __future__ import annotations

import sys
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import click

from strata_engine.console.terminal import speaks_unicode
from strata_engine.errors import Diagnostic, SpecError
from strata_rules.cli.given import Given, given_options
from strata_rules.cli.options import Settings, spec_argument
from strata_rules.cli.options import command as declare
from strata_rules.cli.output import emit, emit_document, say_diagnostic
from strata_rules.cli.session_call import session_options
from strata_rules.cli.stack_file import find_stack_file
from strata_rules.session import open_session
from strata_rules.spec.load import Stack
from strata_rules.spec.show import show_json, show_text


@declare("show")
@spec_argument
@click.option(
    "--allow-missing/--no-allow-missing", default=False, help="Only warn of an --include that matches no layer."
)
@given_options("include", "build_dir", "as_json")
@click.pass_obj
def command(settings: Settings, spec: str | None, given: Given, *, allow_missing: bool) -> None:
    """Show the layers of the stack SPEC, what each stands on, and which have no valid lock."""
    path = find_stack_file(spec, Path.cwd())
    with open_session(path, session_options(replace(given, include=())), reading=True) as session:
        stack, statuses = session.stack, session.statuses()
    selected = _selected(stack, given.include, settings, allow_missing=allow_missing)
    if given.as_json:
        document = show_json(stack, statuses, selected=selected)
        emit_document(document.pop("schema"), document.pop("version"), document)
    else:
        emit(show_text(stack, statuses, selected=selected, ascii_only=not speaks_unicode(sys.stdout)))


def _selected(stack: Stack, patterns: tuple[str, ...], settings: Settings, *, allow_missing: bool) -> list[str] | None:
    if not patterns:
        return None
    names = [layer.env_name for layer in stack.layers]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            unmatched = Diagnostic(
                "unmatched-pattern",
                f"no layer matches `{pattern}`",
                hint=f"layers are {', '.join(f'`{name}`' for name in names)}",
            )
            if not allow_missing:
                raise SpecError(unmatched)
            say_diagnostic(unmatched._replace(severity="warning"), settings)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
