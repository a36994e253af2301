"""What the commands' options have in common: the global ones, sizes and ages, and how a command declares them.

Knows click, and no command. The global options may stand before the command or after it, so both places write to one
`Settings`, which lives as long as the command line does.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from strata_engine.errors import Diagnostic
from strata_rules.cli.help import EPILOG, FLAGS, HelpContext, has_flags, write_options
from strata_rules.remember import Asked

if TYPE_CHECKING:
    from strata_engine.console.choose import Shown

F = TypeVar("F", bound=Callable[..., Any])

SIZES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
AGES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass
class Settings:
    """What the global options say."""

    console: str = "auto"
    color: str = "auto"
    verbose: int = 0
    quiet: bool = False
    asked: Asked | None = None
    """The whole command line as it was given, where a snapshot may answer it the next time."""

    def open_console(self, *, explain: bool = False, dry_run: bool = False, brief: bool = False) -> Shown:
        """Open the console on standard error."""
        # Here and not above: what only answers questions shows no build.
        from strata_engine.console.choose import open_console  # noqa: PLC0415 - see the comment above
        from strata_engine.console.transcript import Detail  # noqa: PLC0415 - as above

        detail = Detail(explain=explain, dry_run=dry_run, brief=brief, verbose=self.verbose > 0, quiet=self.quiet)
        return open_console(sys.stderr, os.environ, console=self.console, color=self.color, detail=detail)

    def idle_text(self, warnings: Iterable[Diagnostic], actions: int) -> str:
        """Give what that console writes of a build with so many actions and nothing to do."""
        from strata_engine.console.idle import idle_text  # noqa: PLC0415 - as above
        from strata_engine.console.transcript import Detail  # noqa: PLC0415 - as above

        return idle_text(
            sys.stderr,
            os.environ,
            console=self.console,
            color=self.color,
            detail=Detail(quiet=self.quiet),
            warnings=warnings,
            actions=actions,
        )


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def store(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        source = ctx.get_parameter_source(parameter.name or "")
        if source is not click.core.ParameterSource.DEFAULT:
            setattr(ctx.ensure_object(Settings), name, value)

    return store


def _enter(ctx: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    # The process really goes there, as with git and make: every relative path then means what it says.
    if value is not None and not ctx.resilient_parsing:
        ctx.with_resource(contextlib.chdir(value))


def global_options(*, hidden: bool) -> list[click.Option]:
    """Make the options that every command takes."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    shared: dict[str, Any] = {"expose_value": False, "hidden": hidden}
    return [
        click.Option(["-C"], metavar="DIR", type=folder, callback=_enter, is_eager=True, help="Work in DIR.", **shared),
        click.Option(
            ["--console"],
            type=click.Choice(["auto", "live", "plain", "none"]),
            default="auto",
            callback=_store("console"),
            help="How to show progress: auto is live on a terminal, plain in CI and pipes.",
            **shared,
        ),
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            callback=_store("color"),
            help="Whether to colour messages; NO_COLOR and FORCE_COLOR are heeded.",
            **shared,
        ),
        click.Option(
            ["-v", "--verbose"], count=True, callback=_store("verbose"), help="List what needed no work, too.", **shared
        ),
        click.Option(["-q", "--quiet"], is_flag=True, callback=_store("quiet"), help="Say only what fails.", **shared),
    ]


class StrataCommand(click.Command):
    """A command that takes the global options too, without repeating them in its help."""

    context_class = HelpContext

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"epilog": EPILOG, **kwargs})
        self.params += global_options(hidden=True)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        write_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what is said last."""
        if has_flags(self):
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(FLAGS)
        super().format_epilog(ctx, formatter)


def command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command. Its function's result is the exit code; None is 0."""
    return click.command(name, cls=StrataCommand, **settings)


def json_option(function: F) -> F:
    """Add `--json`."""
    text = "Write one JSON document to standard output."
    return click.option("--json/--no-json", "as_json", default=False, help=text)(function)


def spec_argument(function: F) -> F:
    """Add the optional SPEC."""
    return click.argument("spec", required=False, metavar="[SPEC]", shell_complete=_no_completion)(function)


def _no_completion(_ctx: click.Context, _parameter: click.Parameter, _incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only a shell asks for it

    return [CompletionItem(_incomplete, type="file")]


def quantity(text: str, units: Mapping[str, int]) -> int | None:
    """Read a number with a unit, such as `10GB` or `30d`; None where the text is something else."""
    known = {unit.lower(): factor for unit, factor in units.items()}
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*", text, re.ASCII)
    if match is None or match[2].lower() not in known:
        return None
    return int(float(match[1]) * known[match[2].lower()])


def quantity_callback(
    name: str, units: Mapping[str, int], example: str
) -> Callable[[click.Context, click.Parameter, str | None], int | None]:
    """Make the callback of an option that takes a size or an age."""

    def read(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
        if value is None:
            return None
        found = quantity(value, units)
        if found is None:
            known = ", ".join(f"`{unit}`" for unit in units if unit)
            message = f"`{value}` is no {name}: write a number and a unit ({known}), as in `{example}`"
            raise click.BadParameter(message, ctx, parameter)
        return found

    return read
