"""Help: complete, in its place, and within 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from strata_rules.cli.help import FLAGS, SECTIONS
from strata_rules.cli.main import strata


def commands(group: click.Group, ctx: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        inner = command.context_class(command, info_name=name, parent=ctx, terminal_width=80)
        yield inner.command_path, command, inner
        if isinstance(command, click.Group):
            yield from commands(command, inner)


TOP = strata.context_class(strata, info_name="strata", terminal_width=80, **strata.context_settings)
ALL = {path: (command, ctx) for path, command, ctx in [("strata", strata, TOP), *commands(strata, TOP)]}


@pytest.mark.parametrize("path", ALL)
def test_help_says_every_option_once_and_fits(path: str) -> None:
    command, ctx = ALL[path]
    text = command.get_help(ctx)
    lines = text.splitlines()
    # What is laid out by hand, an epilog, is not ours to wrap.
    ours = lines[: next((n for n, line in enumerate(lines) if line == f"  {FLAGS}"), len(lines))]
    if not command.epilog or not command.epilog.startswith("\b"):
        assert all(len(line) <= 80 for line in ours)
    assert "<=x<=" not in text
    terms = [line[2:].split("  ")[0] for line in lines if line.startswith("  -")]
    for option in command.get_params(ctx):
        if not isinstance(option, click.Option) or option.hidden:
            continue
        shown = option.secondary_opts if option.secondary_opts and option.default is True else option.opts
        assert sum(shown[-1] in term.replace(",", "").split(" ") for term in terms) == 1, option.name
        assert option.help, option.name
        assert option.help.endswith("."), option.help


def test_the_options_of_a_large_command_are_in_sections() -> None:
    command, ctx = ALL["strata build"]
    titles = [line[:-1] for line in command.get_help(ctx).splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == ["Options", *SECTIONS]
    command, ctx = ALL["strata check"]
    assert (
        command.get_help(ctx)
        == """\
Usage: strata check [OPTIONS] [SPEC]

  Validate the stack file SPEC: each problem with its place, what was expected
  and what to do.

  Nothing is locked, downloaded or built.

Options:
  --json      Write one JSON document to standard output.
  -h, --help  Show this message and exit.

  Global options, such as --console, --color and -C: see `strata --help`."""
    )


def test_a_flag_is_shown_with_the_side_that_changes_something() -> None:
    command, ctx = ALL["strata build"]
    text = command.get_help(ctx)
    assert "--no-index " in text
    assert "--dry-run " in text
    assert FLAGS in text
    for absent in ("--no-dry-run", " --index"):
        assert absent not in text
    # No option is broken at its hyphens.
    assert "--build-dependencies and --publish-dependencies" in " ".join(text.split())
