"""`strata run`: build what an application needs, then become that application."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

from strata_engine.build import BuildResult
from strata_engine.errors import HostError
from strata_rules.cli.completion import complete_applications
from strata_rules.cli.given import REMOTE, Given, given_options
from strata_rules.cli.options import Settings
from strata_rules.cli.options import command as declare
from strata_rules.cli.session_call import build_settings, built
from strata_rules.cli.stack_file import split_arguments
from strata_rules.session import Launch, Session


@declare(
    "run",
    # What follows the application's name is the application's, options included.
    context_settings={"allow_interspersed_args": False},
)
@click.argument(
    "arguments",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[SPEC] APP [--] [ARGS]...",
    shell_complete=complete_applications,
)
@given_options("locked", "offline", "jobs", "explain", "build_dir", "index", "local_wheels", *REMOTE)
@click.pass_obj
def command(settings: Settings, arguments: tuple[str, ...], given: Given) -> int:
    """Build what the application APP needs and run it with ARGS; its exit code is the command's.

    Options of strata stand before APP. When nothing had to be built, nothing is said.
    """
    spec, rest = split_arguments(arguments, Path.cwd())
    if not rest:
        raise click.UsageError("Missing argument `APP`")
    application, rest = rest[0], rest[1:]
    if rest[:1] == ("--",):
        rest = rest[1:]
    launches: list[Launch] = []

    def work(session: Session) -> BuildResult:
        result, launch = session.run(application, build_settings(given))
        if launch is not None:
            launches.append(launch)
        return result

    result = built(settings, spec, given, work, brief=True)
    for launch in launches if result.exit_code == 0 else ():
        _become(launch, rest)
    return result.exit_code


def _become(launch: Launch, rest: tuple[str, ...]) -> NoReturn:
    """Let the application take this process's place: signals, terminal and exit code are its own."""
    program = launch.arguments[0]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    # Python ignores SIGPIPE, and what is ignored stays so in the program that follows.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execve(program, [*launch.arguments, *rest], {**os.environ, **launch.environment})  # noqa: S606 - see above
    except OSError as error:
        hint = "is the layer built for this machine?"
        raise HostError.of("cannot-run", f"cannot run `{program}`: {error.strerror}", hint=hint) from error
