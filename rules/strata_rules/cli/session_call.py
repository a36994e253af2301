"""Open the session that a command line asks for, and show what it does: the one seam between options and engine.

Every command that builds comes through `built`: the console lives exactly as long as the build, so that whatever is
printed afterwards comes after its last line.
"""

from __future__ import annotations

import os
import os.path
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from strata_engine.build import BuildResult
from strata_engine.console.terminal import is_terminal
from strata_engine.decision import Settings as BuildSettings
from strata_engine.digest import Stamp
from strata_engine.errors import Diagnostic
from strata_engine.events import Outcome
from strata_engine.remote.settings import Upload
from strata_rules.cli.given import Given
from strata_rules.cli.options import Settings
from strata_rules.cli.output import say_diagnostic
from strata_rules.cli.stack_file import find_stack_file
from strata_rules.remotes import RemoteWishes
from strata_rules.selection import NO_WISHES, Wish, Wishes
from strata_rules.session import Session, SessionOptions, open_session

JOB_SUMMARY = "GITHUB_STEP_SUMMARY"
"""The variable that names the file to which GitHub's jobs add what their page is to show."""

Document: TypeAlias = Callable[[BuildResult], str]


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
        build_dir=_at_home(given.build_dir),
        output_dir=_at_home(given.output_dir),
        local_wheels=tuple(_at_home(folder) for folder in given.local_wheels),
        index=given.index,
        offline=given.offline,
        platforms=given.platform,
        tag_outputs=given.tag_outputs,
        remote=RemoteWishes(
            caches=given.remote_cache,
            zone=given.remote_zone,
            upload=Upload(given.remote_upload) if given.remote_upload else None,
            required=given.remote_cache_required,
            timeout=given.remote_timeout,
            attended=is_terminal(sys.stderr),
        ),
    )


def _at_home(folder: Path) -> Path:
    # Shells leave the `~` of `--build-dir=~/x` to the program.
    return Path(os.path.expanduser(folder))  # noqa: PTH111 - Path's own raises where there is no such user


def wishes_of(
    given: Given,
    *,
    lock: Wish = Wish.NO,
    build: Wish = Wish.NO,
    publish: bool = False,
    lock_dependencies: bool = False,
) -> Wishes:
    """Give what the options say about which layers a command is for that does this with those included."""
    every = given.include_dependencies

    def below(given_alone: bool) -> bool:  # noqa: FBT001 - one option's value
        return given_alone if every is None else every

    return Wishes(
        lock=lock,
        build=build,
        publish=publish,
        include=given.include,
        reset_lock=given.reset_lock,
        allow_missing=given.allow_missing,
        lock_dependencies=lock_dependencies or below(given.lock_dependencies),
        build_dependencies=below(given.build_dependencies),
        publish_dependencies=below(given.publish_dependencies),
        build_derived=given.build_derived,
        publish_derived=given.publish_derived,
    )


def built(
    settings: Settings,
    spec: str | None,
    given: Given,
    work: Callable[[Session], BuildResult],
    *,
    wishes: Wishes = NO_WISHES,
    brief: bool = False,
    document: Document | None = None,
    saw: Callable[[Mapping[str, Stamp]], None] | None = None,
) -> BuildResult:
    """Open the session, do `work` in it under a console, and say the errors that no event brought.

    With `document`, which gives what `--json` writes for a result, the next identical command may be answered by a
    snapshot of this one. `saw` is told what the build read and wrote, by stamps.
    """
    path = find_stack_file(spec, Path.cwd())
    with (
        settings.open_console(explain=given.explain, dry_run=given.dry_run, brief=brief) as console,
        open_session(path, session_options(given), listeners=(console,), wishes=wishes) as session,
    ):
        try:
            result = work(session)
        finally:
            if saw is not None:
                saw(session.seen())
        console.tell(result.diagnostics)
        add_job_summary(settings, given, lambda: session.job_summary(result))
        if document is not None:
            _remember(settings, given, session, result, document)
    return result


def add_job_summary(settings: Settings, given: Given, text: Callable[[], str]) -> None:
    """Tell a CI service of a build, where it says where."""
    if (summary := os.environ.get(JOB_SUMMARY)) and not given.dry_run:
        _append(Path(summary), text(), settings)


def _append(path: Path, text: str, settings: Settings) -> None:
    """Add to the job's summary; a CI service that gives no place to write to is no reason to fail."""
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(f"{text}\n")
    except OSError as error:
        unwritten = f"cannot write the job summary to `{path}`: {error.strerror}"
        say_diagnostic(Diagnostic("no-job-summary", unwritten, severity="warning"), settings)


def _remember(settings: Settings, given: Given, session: Session, result: BuildResult, document: Document) -> None:
    """Let the session write down what the same command is to say as long as nothing changes."""
    good = result.exit_code == 0 and not result.interrupted and not given.dry_run
    # With --verbose every action has a line, in the order in which they are looked at.
    if settings.asked is None or settings.verbose or not good:
        return
    error = settings.idle_text(session.standing, len(result.actions))
    session.remember(settings.asked, result, (error, document(_idle(result)) if given.as_json else ""))


def _idle(result: BuildResult) -> BuildResult:
    """Give the result of the same build when it finds nothing to do."""
    actions = tuple(
        msgspec.structs.replace(action, outcome=Outcome.UP_TO_DATE, reasons=(), seconds=0.0, because="")
        for action in result.actions
    )
    counts = {outcome.value: 0 for outcome in Outcome} | {Outcome.UP_TO_DATE.value: len(actions)}
    return msgspec.structs.replace(result, seconds=0.0, counts=counts, actions=actions, remote=None)
