"""`strata graph show`: pictures of the action graph."""

from __future__ import annotations

from pathlib import Path

import click

from strata_engine import picture
from strata_engine.picture import PictureGraph
from strata_rules.cli.given import Given, given_options, labels_argument
from strata_rules.cli.options import StrataCommand
from strata_rules.cli.output import emit, emit_document
from strata_rules.cli.repository_call import repository_of
from strata_rules.cli.session_call import session_options, wishes_of
from strata_rules.cli.stack_file import find_stack_file, split_arguments
from strata_rules.repository.ask import below, drawn, settled_world
from strata_rules.repository.labels import names_repository
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
    """Draw the actions of a stack, or of LABELS and what they need, with the outcome that each would have now.

    Labels may begin with `//`: `//...` draws all stack files of the git repository as the one graph that they are.
    What a lock selects is known once the layer has been locked: before that, its wheels are not drawn.
    """
    graph = _across(arguments, given) if names_repository(arguments) else _of_stack(arguments, given)
    if given.as_json or format_ == "json":
        emit_document("strata.graph", 1, picture.document(graph))
    else:
        emit(DRAWN[format_](graph))


def _of_stack(arguments: tuple[str, ...], given: Given) -> PictureGraph:
    spec, labels = split_arguments(arguments, Path.cwd())
    path = find_stack_file(spec, Path.cwd())
    wishes = wishes_of(given, lock=Wish.IF_NEEDED, build=Wish.YES, publish=True)
    with open_session(path, session_options(given), wishes=wishes, reading=True) as session:
        return session.graph(labels)


def _across(arguments: tuple[str, ...], given: Given) -> PictureGraph:
    """Draw actions of several stacks."""
    with repository_of(arguments, given, reading=True) as repository:
        world = settled_world(repository)
        return drawn(world, below(world, arguments))
