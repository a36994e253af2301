"""`strata graph query`: which actions an expression means, of one stack or of all stacks of a repository."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from strata_engine import picture
from strata_engine.query import functions_text
from strata_rules.cli.given import Given, given_options
from strata_rules.cli.options import Settings, StrataCommand
from strata_rules.cli.output import emit, emit_document, say
from strata_rules.cli.repository_call import repository_of
from strata_rules.cli.session_call import session_options
from strata_rules.cli.stack_file import find_stack_file, split_arguments
from strata_rules.repository.ask import answer, drawn, settled_world, world_of_stack
from strata_rules.repository.labels import names_repository
from strata_rules.repository.world import StackWorld
from strata_rules.session import open_session

SCHEMA, VERSION = "strata.query", 1
DRAWN = {"tree": picture.tree, "dot": picture.dot, "mermaid": picture.mermaid}
SHOWN_UNKNOWN = 3
"""How many layers whose wheels are unknown are named."""


def _epilog() -> str:
    table = [*functions_text(), ("X | Y,  X & Y,  X - Y", "either, both, the first without the second")]
    wide = max(len(usage) for usage, _ in table)
    lines = "\n".join(f"  {usage:<{wide}}  {means}" for usage, means in table)
    return f"""\b
Functions, where X, Y and U are labels, patterns or expressions:
{lines}

\b
Attributes: label, kind, layer, platform, stack, pool, scope, format, input, output.
RUN is `last`, `last~2` or the beginning of a build's name.
"""


@click.command("query", cls=StrataCommand, epilog=_epilog())
@click.argument("arguments", nargs=-1, required=True, metavar="EXPR [SPEC]")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["labels", *DRAWN]),
    default="labels",
    show_default=True,
    help="One label per line, or a picture of them.",
)
@given_options("platform", "build_dir", "output_dir", "index", "local_wheels", "as_json")
@click.pass_obj
def command(settings: Settings, arguments: tuple[str, ...], given: Given, format_: str) -> None:
    """Say which actions EXPR means, such as `rdeps(//..., changed(main)) & kind(Archive)`.

    Words are labels, patterns of them, layers or wheels; those that begin with `//` are about all stack files of the
    git repository, as `//...` or `//DIR:LABEL`. Nothing is executed, and no other build is waited for.
    """
    if len(arguments) > 2:
        raise click.UsageError("`graph query` takes one expression: put it into quotes")
    with _opened(arguments, given) as (expression, world):
        labels = answer(world, expression)
        _tell_unknown(world, settings)
        if given.as_json:
            emit_document(SCHEMA, VERSION, {"query": expression, "labels": [_fields(world, each) for each in labels]})
        elif format_ != "labels":
            emit(DRAWN[format_](drawn(world, labels)))
        elif labels:
            emit("\n".join(labels))


@contextlib.contextmanager
def _opened(arguments: Sequence[str], given: Given) -> Iterator[tuple[str, StackWorld]]:
    """Give the expression, and what it is asked of."""
    expression = arguments[0]
    if names_repository(arguments):
        if len(arguments) > 1:
            raise click.UsageError("a query about `//` is about all stack files: name none beside it")
        with repository_of([expression], given, reading=True) as repository:
            yield expression, settled_world(repository)
        return
    spec = arguments[1] if len(arguments) > 1 else None
    if spec is not None and split_arguments([spec], Path.cwd())[0] is None:
        # SPEC in front, as other commands have it.
        spec, expression = arguments
    with open_session(find_stack_file(spec, Path.cwd()), session_options(given), reading=True) as session:
        yield expression, world_of_stack(session)


def _tell_unknown(world: StackWorld, settings: Settings) -> None:
    if world.unknown:
        more = len(world.unknown) - SHOWN_UNKNOWN
        named = ", ".join(f"`{name}`" for name in world.unknown[:SHOWN_UNKNOWN])
        rest = f" and {more} more" if more > 0 else ""
        say(f"the wheels of {named}{rest} are unknown until `strata lock` has made their locks", quiet=settings.quiet)


def _fields(world: StackWorld, label: str) -> dict[str, Any]:
    stacks = world.stack_files(label)
    return {
        "label": label,
        "mnemonic": world.mnemonic(label),
        "stack": stacks[0] if len(stacks) == 1 else None,
        "layer": world.layer(label) or None,
        "platform": world.platform(label) or None,
    }
