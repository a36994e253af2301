"""`strata show`: the stack as a tree."""

from __future__ import annotations

import click

from strata_rules.cli.given import Given, given_options
from strata_rules.cli.options import Settings, spec_argument
from strata_rules.cli.options import command as declare
from strata_rules.cli.session_call import wishes_of
from strata_rules.cli.status import show_stack
from strata_rules.selection import Wish


@declare("show")
@spec_argument
@given_options("include", "allow_missing", "build_dir", "as_json")
@click.pass_obj
def command(settings: Settings, spec: str | None, given: Given) -> None:
    """Show the layers of the stack SPEC, what each stands on, and which have no valid lock.

    With --include, these layers are the ones that match, what they stand on, and what stands on them.
    """
    wishes = wishes_of(given, lock=Wish.YES, lock_dependencies=True)
    show_stack(settings, spec, given, wishes, operations=False)
