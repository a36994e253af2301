"""Open the stacks of a repository that a command line names, and show what is done with them, as `session_call` does.

It is the seam for labels that begin with `//`; what such a label means is the repository package's to say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from strata_engine.build import BuildResult
from strata_engine.digest import Stamp
from strata_engine.errors import SpecError
from strata_engine.events import Listener
from strata_rules.cli.given import Given
from strata_rules.cli.options import Settings
from strata_rules.cli.session_call import add_job_summary, build_settings, session_options
from strata_rules.publish import Manifest
from strata_rules.repository.ask import patterns, published, wanted
from strata_rules.repository.labels import repository_root
from strata_rules.repository.opened import Repository, Whole, open_repository
from strata_rules.repository.which import stack_files
from strata_rules.selection import NO_WISHES, Wishes
from strata_rules.session import job_summary


@contextlib.contextmanager
def repository_of(
    arguments: Sequence[str],
    given: Given,
    listeners: Sequence[Listener] = (),
    *,
    wishes: Wishes = NO_WISHES,
    reading: bool = False,
) -> Iterator[Repository]:
    """Open the stacks that labels and queries name. Raises StrataError."""
    root = repository_root(Path.cwd())
    found = stack_files(root, patterns(arguments))
    options = session_options(given)
    with open_repository(root, found.files, options, listeners, wishes=wishes, reading=reading) as repository:
        repository.broken += [SpecError(problem) for problem in found.problems]
        yield repository


def built_across(
    settings: Settings,
    arguments: Sequence[str],
    given: Given,
    *,
    force: tuple[str, ...] = (),
    wishes: Wishes = NO_WISHES,
    clean: bool = False,
    publish: bool = False,
    saw: Callable[[Mapping[str, Stamp]], None] | None = None,
) -> BuildResult:
    """Build what the arguments name under a console, and say the errors that no event brought.

    With `publish`, archives of it are written, too. `saw` is told what was read and written of all stacks, by stamps.
    """
    with (
        settings.open_console(explain=given.explain, dry_run=given.dry_run) as console,
        repository_of(arguments, given, (console,), wishes=wishes) as repository,
    ):
        # As everywhere, a layer's name alone means its link.
        force = tuple(label if "/" in label.rpartition(":")[2] else f"{label}/link" for label in force)
        links = wanted(repository, arguments, locked=given.locked)
        archives = published(repository, arguments, locked=given.locked)

        def asked(whole: Whole) -> list[str]:
            return list(dict.fromkeys([*links(whole), *(archives(whole) if publish else ())]))

        try:
            result = repository.run(asked, build_settings(given, force), clean=clean, publish=publish)
        finally:
            if saw is not None:
                saw(repository.seen())
        console.tell(result.diagnostics)
        add_job_summary(settings, given, lambda: job_summary(repository.build, result))
        return result


def published_across(
    settings: Settings,
    arguments: Sequence[str],
    given: Given,
    *,
    force: tuple[str, ...] = (),
    wishes: Wishes = NO_WISHES,
    format: str = "",
) -> tuple[BuildResult, Sequence[Manifest]]:
    """Publish what the arguments name under a console, each stack into its own output folder."""
    with (
        settings.open_console(explain=given.explain, dry_run=given.dry_run) as console,
        repository_of(arguments, given, (console,), wishes=wishes) as repository,
    ):
        asked = published(repository, arguments, locked=given.locked)
        result = repository.run(asked, build_settings(given, force), publish=True, format=format)
        console.tell(result.diagnostics)
        add_job_summary(settings, given, lambda: job_summary(repository.build, result))
        return result, repository.manifests
