"""A group of commands that are imported when they are used: help and completion know them by name alone."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from strata_engine.errors import SpecError
from strata_rules.cli.help import HelpContext
from strata_rules.spec.near import did_you_mean


class Commands(click.Group):
    """Commands, each `command` in the module of its name (a dash is `_` there) in one package."""

    context_class = HelpContext

    def __init__(self, name: str, package: str, table: Mapping[str, str], **settings: Any) -> None:
        """Make a group of the commands in `table`, which has their short help in the order of help."""
        super().__init__(name, **settings)
        self._package = package
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of help."""
        del ctx
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        if cmd_name not in self._table:
            return None
        found = importlib.import_module(f"{self._package}.{cmd_name.replace('-', '_')}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(self._table.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the commands without importing any: a shell asks at each key."""
        names = [name for name in self._table if name.startswith(incomplete)]
        commands = [CompletionItem(name, help=self._table[name]) for name in names]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may have been meant."""
        name = args[0]
        if name not in self._table and not name.startswith("-") and not ctx.resilient_parsing:
            raise SpecError.of(
                "unknown-command",
                f"there is no command `{ctx.command_path.partition(' ')[2]} {name}`".replace("` ", "`"),
                hint=did_you_mean(name, self._table) or f"`{ctx.command_path} --help` lists the commands",
            )
        return super().resolve_command(ctx, args)
