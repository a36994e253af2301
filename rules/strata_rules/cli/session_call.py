"""Open the session that a command line asks for, and show what it does: the one seam between options and engine.

Every command that builds comes through `built`: the console lives exactly as long as the build, so that whatever is
printed afterwards comes after its last line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from strata_engine import known
from strata_engine.build import BuildResult
from strata_engine.decision import Settings as BuildSettings
from strata_engine.store import store_folder
from strata_engine.workspace import Workspace
from strata_rules.cli.given import Given
from strata_rules.cli.options import Settings
from strata_rules.cli.stack_file import find_stack_file
from strata_rules.session import Session, SessionOptions, open_session


def build_settings(given: Given, force: tuple[str, ...] = ()) -> BuildSettings:
    """Give the engine's settings."""
    return BuildSettings(
        jobs=given.jobs,
        keep_going=given.keep_going,
        force=force,
        locked=given.locked,
        dry_run=given.dry_run,
    )


def session_options(given: Given) -> SessionOptions:
    """Give the session's options."""
    return SessionOptions(
        build_dir=given.build_dir,
        output_dir=given.output_dir,
        include=given.include,
        local_wheels=given.local_wheels,
        index=given.index,
        offline=given.offline,
    )


def built(
    settings: Settings,
    spec: str | None,
    given: Given,
    work: Callable[[Session], BuildResult],
    *,
    brief: bool = False,
) -> BuildResult:
    """Open the session, do `work` in it under a console, and say the errors that no event brought."""
    path = find_stack_file(spec, Path.cwd())
    with (
        settings.open_console(explain=given.explain, dry_run=given.dry_run, brief=brief) as console,
        open_session(path, session_options(given), listeners=(console,)) as session,
    ):
        result = work(session)
        console.tell(result.diagnostics)
    known.remember(store_folder(), Workspace(session.stack.root))
    return result
