"""What is asked about: the labels that a word means, the build that a name means, and what a workspace keeps of them.

Knows records, not what is told of them. Each thing that a workspace keeps is read when it is asked for: to explain one
label of ten thousand, no more may be read than its build's record.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from strata_engine.errors import SpecError, StrataError
from strata_engine.records import Records
from strata_engine.run_record import FILE, RunRecord
from strata_engine.workspace import Workspace
from strata_rules.cli.stack_file import find_stack_file, split_arguments
from strata_rules.repository.labels import BELOW, MARK, WHEEL, is_wheel, names_repository, repository_root, state_of
from strata_rules.repository.which import resolve
from strata_rules.spec.near import did_you_mean

if TYPE_CHECKING:
    from strata_engine.history import History, Past
    from strata_engine.recorded_graph import Needs, RecordedAction
    from strata_engine.tree import Reader

_LAST = re.compile(r"last(?:~(\d{1,6}))?")


class Kept:
    """What a workspace keeps of its builds."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @cached_property
    def records(self) -> Records:
        """The records of its builds."""
        return Records.read(self.workspace.state / FILE)

    @cached_property
    def graph(self) -> Mapping[str, RecordedAction]:
        """The graph as the last builds knew it."""
        from strata_engine.recorded_graph import read_graph  # noqa: PLC0415 - few questions need it

        return read_graph(self.workspace)

    @cached_property
    def needs(self) -> Mapping[str, Needs]:
        """What each action of that graph depends on."""
        from strata_engine.recorded_graph import read_needs  # noqa: PLC0415 - as above

        return read_needs(self.workspace)

    @cached_property
    def history(self) -> History:
        """What is known of the last builds."""
        from strata_engine.history import History  # noqa: PLC0415 - as above

        return History(self.workspace.state / "history")

    @property
    def past(self) -> Mapping[str, Past]:
        """What each label came to last."""
        return self.history.labels()

    def deciders(self) -> Mapping[str, Sequence[str]]:
        """Give the labels whose outputs decide that an action is there."""
        return {label: known.deciders for label, known in self.needs.items()}

    @contextlib.contextmanager
    def content(self) -> Iterator[Reader | None]:
        """Open the store for reading; None where there is none."""
        from strata_engine.store import open_reader, store_folder  # noqa: PLC0415 - as above

        folder = store_folder()
        reader = open_reader(folder) if folder.is_dir() else None
        try:
            yield reader
        finally:
            if reader is not None:
                reader.index.close()

    def labels(self) -> set[str]:
        """List all labels that are known."""
        known = set(self.needs)
        return known.union(*(self.records.labels(at) for at in range(len(self.records))))


class Found(NamedTuple):
    """The build in which what was asked about last did anything."""

    build: int
    labels: tuple[str, ...]
    """Those of the labels asked about that the build has not found up to date; empty where all of it is meant."""


def opened(arguments: Sequence[str], *, most: int = 1) -> tuple[Path, Kept, tuple[str, ...]]:
    """Tell SPEC from the other arguments, and give the stack file and what its workspace keeps. Raises SpecError.

    A label that begins with `//` names its stack file itself; `//...` means what is kept of builds of several stacks.
    """
    cwd = Path.cwd()
    if names_repository(arguments[:1]):
        label, *rest = arguments
        path, others, workspace = _across(label, tuple(rest), cwd)
    else:
        spec, others = split_arguments(arguments, cwd)
        path = find_stack_file(spec, cwd)
        workspace = Workspace(path.absolute().parent)
    if len(others) > most:
        raise SpecError.of(
            "usage", f"`{others[most]}` is one too many", hint="put a pattern that means several labels into quotes"
        )
    return path, Kept(workspace), others


def _across(label: str, rest: tuple[str, ...], cwd: Path) -> tuple[Path, tuple[str, ...], Workspace]:
    if label == f"{MARK}{BELOW}":
        workspace = state_of(repository_root(cwd))
        return workspace.root, rest, workspace
    path, local = resolve(label, cwd)
    return path, rest if local is None else (local, *rest), Workspace(path.parent)


def matching(word: str, labels: Iterable[str]) -> list[str]:
    """List the labels that a word means: one, those of a layer, an action for all platforms, a wheel, or a pattern."""
    known = list(labels)
    if word in known:
        return [word]
    if any(mark in word for mark in "*?"):
        # A platform stands in brackets, so these mean themselves.
        pattern = word.replace("[", "[[]")
        return sorted(label for label in known if fnmatchcase(label, pattern))
    found = [label for label in known if label.startswith((f"{word}/", f"{word}["))]
    return sorted(found or (label for label in known if is_wheel(word, label)))


def last_move(kept: Kept, word: str | None) -> Found:
    """Find the newest build in which what a word means was not up to date; anything at all for None.

    Raises SpecError where there is none.
    """
    records = kept.records
    builds = range(len(records) - 1, -1, -1)
    if word is None:
        found = next((Found(at, ()) for at in builds if not records.idle(at)), None)
    else:
        # One label is found in bytes; the labels of each build are listed only for what may be several.
        found = next((Found(at, (word,)) for at in builds if records.names(at, word)), None) or _last_of_several(
            records, word
        )
    if found is not None:
        return found
    if word is not None and not matching(word, kept.labels()):
        raise unknown_label(kept, word)
    what = f"no recorded build has made `{word}`" if word else "no recorded build has made anything"
    raise SpecError.of("no-history", what, hint="`strata build` leaves a record of every build")


def _last_of_several(records: Records, word: str) -> Found | None:
    for at in range(len(records) - 1, -1, -1):
        labels = matching(word, records.labels(at))
        if labels:
            return Found(at, tuple(labels))
    return None


def moved_in(kept: Kept, build: int, word: str | None) -> Found:
    """Find what a word means in one build; no labels where all of it was up to date. Raises SpecError."""
    if word is None:
        return Found(build, ())
    labels = matching(word, kept.records.labels(build))
    if not labels and not matching(word, kept.labels()):
        raise unknown_label(kept, word)
    return Found(build, tuple(labels))


def unknown_label(kept: Kept, word: str) -> StrataError:
    """Say that nothing is called so, and what may have been meant."""
    known = kept.labels()
    layers = {label.rpartition("/")[0] for label in known}
    names = {label.removeprefix(WHEEL).partition("-")[0] for label in known if label.startswith(WHEEL)}
    hint = did_you_mean(word, sorted(known | layers | names)) or "`strata graph show` lists the labels"
    if not known:
        hint = "`strata build` leaves a record of every build"
        return SpecError.of("no-history", f"no build has been recorded here, of `{word}` or anything else", hint=hint)
    return SpecError.of("unknown-label", f"no recorded build has had `{word}`", hint=hint)


def find_build(records: Records, name: str) -> int:
    """Find the build that `last`, `last~2`, the beginning of an id or of a commit means. Raises SpecError."""
    hint = "`strata graph runs` lists them"
    match = _LAST.fullmatch(name)
    if match:
        at = len(records) - 1 - int(match[1] or 0)
        if at >= 0:
            return at
        raise SpecError.of("unknown-run", f"there is no build `{name}`: {len(records)} are recorded", hint=hint)
    named = [at for at in range(len(records)) if _is_named(records.run(at), name)]
    if len(named) > 1:
        shown = ", ".join(f"`{records.run(at)}`" for at in named[-3:])
        raise SpecError.of("ambiguous-run", f"`{name}` is the beginning of several builds", notes=(shown,), hint=hint)
    if not named and len(name) >= 4:
        named = [at for at in range(len(records)) if records[at].revision.startswith(name)][-1:]
    if not named:
        raise SpecError.of("unknown-run", f"there is no build `{name}`", hint=hint)
    return named[0]


def _is_named(run: str, name: str) -> bool:
    return bool(name) and (run.startswith(name) or run.rpartition("-")[2].startswith(name))


def short_run(record: RunRecord) -> str:
    """Give as much of a build's id as people use."""
    return record.run.rpartition("-")[2]


def in_workspace(workspace: Workspace, path: str) -> str:
    """Give the name that a workspace has for a path which a person has typed."""
    # Not resolved: what is placed may be a symlink, and is named by where it stands.
    place = os.path.expanduser(path)  # noqa: PTH111 - Path's own raises where there is no such user
    return workspace.relative(os.path.normpath(Path.cwd() / place))


def is_file(name: str) -> bool:
    """Tell a file's name from a build's."""
    return os.sep in name or name.endswith(".json") or Path(name).is_file()
