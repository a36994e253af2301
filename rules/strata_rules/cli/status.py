"""The stack and what is selected of it, as `show` and the other commands' `--show` and `--show-only` write it.

The document is venvstacks', with our `schema` and `version` in front. Nothing is built or changed, and no other build
is waited for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from strata_engine.console.terminal import speaks_unicode
from strata_rules.cli.given import Given
from strata_rules.cli.options import Settings
from strata_rules.cli.output import emit, emit_document, say, say_diagnostic
from strata_rules.cli.session_call import session_options
from strata_rules.cli.stack_file import find_stack_file
from strata_rules.selection import Wishes
from strata_rules.session import open_session
from strata_rules.spec.show import show_json, show_text

SCHEMA, VERSION = "strata.show", 2


def show_stack(
    settings: Settings, spec: str | None, given: Given, wishes: Wishes, *, operations: bool = True
) -> dict[str, Any]:
    """Write the stack to standard output, and give the document that says the same.

    With `operations`, it says what is wanted of each layer, else what each stands on. Where a command goes on with
    `--json`, nothing is written: the document is to become a part of that command's.
    """
    path = find_stack_file(spec, Path.cwd())
    with open_session(path, session_options(given), wishes=wishes, reading=True) as session:
        stack, statuses, chosen = session.stack, session.statuses(), session.selection.layers
        warnings = session.standing
    if operations:
        statuses = {
            name: msgspec.structs.replace(status, operations=chosen[name].operations if name in chosen else ())
            for name, status in statuses.items()
        }
    selected = list(chosen)
    document = show_json(stack, statuses, selected=selected, dependencies=not operations)
    goes_on = given.show and not given.show_only
    for warning in warnings if not goes_on else ():
        say_diagnostic(warning, settings)
    if not given.as_json:
        ascii_only = not speaks_unicode(sys.stdout)
        emit(show_text(stack, statuses, selected=selected, dependencies=not operations, ascii_only=ascii_only))
        if any(not statuses[name].has_valid_lock for name in selected):
            say("* no valid lock", quiet=settings.quiet)
    elif not goes_on:
        emit_document(SCHEMA, VERSION, document)
    return document
