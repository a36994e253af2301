"""`strata check`: validate a stack file and say all that is wrong with it, without building anything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from strata_engine.errors import Diagnostic, SpecError
from strata_engine.sources import Sources
from strata_engine.workspace import Workspace
from strata_rules.cli.options import Settings, json_option, spec_argument
from strata_rules.cli.options import command as declare
from strata_rules.cli.output import diagnostic_fields, emit_document, say, say_diagnostic
from strata_rules.cli.stack_file import find_stack_file
from strata_rules.spec.load import Stack, load_stack
from strata_rules.spec.modules import application_modules


@declare("check")
@spec_argument
@json_option
@click.pass_obj
def command(settings: Settings, spec: str | None, *, as_json: bool) -> int:
    """Validate the stack file SPEC: each problem with its place, what was expected and what to do.

    Nothing is locked, downloaded or built.
    """
    path = find_stack_file(spec, Path.cwd())
    try:
        stack = _checked(path.absolute())
    except SpecError as error:
        if not as_json:
            raise
        _document(path, error.diagnostics, valid=False)
        return error.exit_code
    if as_json:
        _document(path, stack.warnings, valid=True)
        return 0
    for warning in stack.warnings:
        say_diagnostic(warning, settings)
    say(f"`{stack.file}` is valid: {_contents(stack)}", quiet=settings.quiet)
    return 0


def _checked(path: Path) -> Stack:
    """Read a stack file as a build does, and look for the modules of its applications. Raises SpecError, HostError."""
    sources = Sources(Workspace(path.parent))
    stack = load_stack(path, sources.read, probe=sources.probe)
    application_modules(stack, sources.read, sources.probe)
    return stack


def _document(path: Path, diagnostics: Iterable[Diagnostic], *, valid: bool) -> None:
    told = [diagnostic_fields(diagnostic) for diagnostic in diagnostics]
    emit_document("strata.check", 1, {"spec": str(path), "valid": valid, "diagnostics": told})


def _contents(stack: Stack) -> str:
    counted = (
        (len(stack.of("runtime")), "runtime"),
        (len(stack.of("framework")), "framework"),
        (len(stack.of("application")), "application"),
    )
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counted)
