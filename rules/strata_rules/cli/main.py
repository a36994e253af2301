"""The group of all commands, and `run`, which turns a wrong command line into a diagnostic.

Knows each command's module by name only: a command is imported when it is used.
"""

from __future__ import annotations

import os
import re

import click

from strata_engine.errors import SpecError
from strata_rules.cli.commands import Commands
from strata_rules.cli.options import Settings, global_options
from strata_rules.remember import ask
from strata_rules.spec.near import did_you_mean

COMMANDS = {
    "init": "Write a first stack that builds.",
    "check": "Validate the stack file.",
    "show": "Show the stack as a tree.",
    "lock": "Resolve requirements and write the lock files.",
    "build": "Lock what needs it and build the layers.",
    "publish": "Write one reproducible archive per layer.",
    "local-export": "Put the layers into one folder, to be run there.",
    "run": "Build what an application needs and run it.",
    "graph": "Explain what ran and why; draw the action graph.",
    "cache": "Look at the shared store and at remote caches, or make it smaller.",
    "schema": "Write the JSON schema of the stack file.",
    "completion": "Write the completion script of a shell.",
}
"""The commands in the order of help. Each is `command` in the module of its name beside this one."""

EPILOG = """\
\b
First steps:
  strata init                  write a first stack in this folder
  strata build                 lock and build all of it
  strata run hello             run its application

\b
SPEC is a stack file or its folder; without one, the nearest venvstacks.toml or
strata.toml at or above the current folder is taken.

\b
Exit codes:
  0    done
  1    an action failed
  2    the stack file, a lock or the command line is wrong
  3    the network, the disk or a missing tool is in the way
  4    `build --check` found something to do
  70   a defect of strata
  130  interrupted
"""


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if value and not ctx.resilient_parsing:
        # Here and not above: it is a quarter of what `graph why` would import.
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - see the comment above

        try:
            number = version("stratabuild")
        except PackageNotFoundError:
            number = "unknown"
        click.echo(f"strata {number}")
        ctx.exit()


strata = Commands(
    "strata",
    "strata_rules.cli",
    COMMANDS,
    params=[
        *global_options(hidden=False),
        click.Option(
            ["-V", "--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Say which version this is.",
        ),
    ],
    help="""Build layered, portable Python environments.

    A stack file names runtimes, frameworks on them and applications on those. Strata locks, builds and publishes the
    layers, does again only what a change requires, and can say why.""",
    epilog=EPILOG,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def run(argv: list[str], settings: Settings | None = None) -> int:
    """Run a command line and give its exit code. Raises StrataError, KeyboardInterrupt, and what a defect raises."""
    settings = settings or Settings(asked=ask(argv))
    if "_STRATA_COMPLETE" in os.environ:
        strata.main(argv, prog_name="strata", obj=settings)
    try:
        # Not `strata.main`: it has its own mind about broken pipes and interrupts.
        with strata.make_context("strata", list(argv), obj=settings) as ctx:
            code = strata.invoke(ctx)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return SpecError.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.UsageError as error:
        raise _wrong(error) from None
    return code if isinstance(code, int) else 0


def _wrong(error: click.UsageError) -> SpecError:
    """Say in our form what click says in its own."""
    path = error.ctx.command_path if error.ctx is not None else "strata"
    if isinstance(error, click.NoSuchOption):
        known = error.ctx.command.get_params(error.ctx) if error.ctx is not None else []
        options = [name for parameter in known for name in parameter.opts + parameter.secondary_opts]
        message = f"`{path}` has no option `{error.option_name}`"
        hint = did_you_mean(error.option_name, options)
    else:
        message = re.sub(r"'([^']*)'", r"`\1`", error.format_message()).rstrip(".")
        message = message.replace("is not a valid integer range", "is not a whole number")
        message = message.replace(": Directory `", ": the folder `").replace(": File `", ": the file `")
        message, hint = message[:1].lower() + message[1:], None
    made = SpecError.of("usage", message, hint=hint or f"`{path} --help` says how it is used")
    assert isinstance(made, SpecError)
    return made
