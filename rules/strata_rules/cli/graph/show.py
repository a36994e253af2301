"""`strata graph show`: pictures of the action graph."""

from __future__ import annotations

from pathlib import Path

import click

from strata_engine import picture
from strata_rules.cli.given import Given, given_options, labels_argument
from strata_rules.cli.options import StrataCommand
from strata_rules.cli.output import emit, emit_document
from strata_rules.cli.session_call import session_options, wishes_of
from strata_rules.cli.stack_file import find_stack_file, split_arguments
from strata_rules.selection import Wish
from strata_rules.session import open_session

DRAWN = {"tree": picture.tree, "dot": picture.dot, "mermaid": picture.mermaid}


@click.command("show", cls=StrataCommand)
@labels_argument
@click.option(
    "--format",
    "format_",
    type=click.Choice([*DRAWN, "json"]),
    default="tree",
    show_default=True,
    help="`dot` is Graphviz' language; `mermaid` is what GitHub draws inside Markdown.",
)
@given_options("include", "allow_missing", "build_dir", "index", "local_wheels", "as_json")
def command(arguments: tuple[str, ...], given: Given, format_: str) -> None:
    """Draw the actions of a stack, or of LABELS and what they need, with the outcome each had last.

    What a lock selects is known once the layer has been locked: before that, its wheels are not drawn.
    """
    spec, labels = split_arguments(arguments, Path.cwd())
    path = find_stack_file(spec, Path.cwd())
    wishes = wishes_of(given, lock=Wish.IF_NEEDED, build=Wish.YES, publish=True)
    with open_session(path, session_options(given), wishes=wishes, reading=True) as session:
        graph = session.graph(labels)
    if given.as_json or format_ == "json":
        emit_document("strata.graph", 1, picture.document(graph))
    else:
        emit(DRAWN[format_](graph))
