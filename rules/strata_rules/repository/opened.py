"""The opened stacks of a repository, built as one: analyzed each by itself, composed, run once, then each finished.

Every stack is left as a build in its folder would leave it: its history, locks, pins, records and graph are its own,
and its workspace's lock is held. What is said of all of them is kept beside these, in the root's `.strata/repository`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from strata_engine import run_record
from strata_engine.action import Placement, Ref
from strata_engine.build import Build, BuildResult, Shared, open_build
from strata_engine.compose import Composition, Member
from strata_engine.decision import Settings
from strata_engine.digest import Stamp
from strata_engine.errors import Diagnostic, HostError, SpecError, StrataError, host_error
from strata_engine.events import Listener, Warned
from strata_engine.federation import Federation, Local, RoutedSources, result_in
from strata_engine.recorded_graph import record_graph
from strata_engine.store import open_store, store_folder
from strata_engine.workspace import Workspace
from strata_rules.planning import Plan, SessionOptions
from strata_rules.publication import Made, blobs_of
from strata_rules.publish import Manifest
from strata_rules.remotes import joined
from strata_rules.repository.labels import StackFile, state_of
from strata_rules.selection import NO_WISHES, Wishes
from strata_rules.session import Session, load_session

SHARED = ("fetch/", "wheel/")
"""What labels begin with that are no layer's: the same in each stack that has them."""


def shares(label: str) -> bool:
    """Tell whether equal actions of this label are one, whatever stack they are in."""
    return label.startswith(SHARED)


class Part(NamedTuple):
    """An opened stack, and the build of its folder."""

    file: StackFile
    session: Session
    build: Build

    @property
    def prefix(self) -> str:
        """What its labels begin with."""
        return self.file.prefix


class Planned(NamedTuple):
    """An analyzed stack."""

    part: Part
    plan: Plan

    @property
    def member(self) -> Member:
        """It as a part of the whole."""
        file = self.part.file
        folder = f"{file.folder}/" if file.folder else ""
        return Member(file.prefix, self.plan.analysis.graph, file.path.parent, folder)


class Whole(NamedTuple):
    """Analyzed stacks, and the one graph that they come to."""

    planned: tuple[Planned, ...]
    composition: Composition

    def labels(self, planned: Planned, locals_: Iterable[str]) -> list[str]:
        """Give the labels in the whole of what a stack names."""
        return [self.composition.label(planned.part.prefix, local) for local in locals_]

    def places(self, planned: Planned, wanted: Iterable[str]) -> list[Placement]:
        """Say which layers of a stack go to their places, in the whole's labels, where all that is wanted is given."""
        local = self.composition.locals(planned.part.prefix, wanted)
        return self.placed(planned, planned.part.session.places(planned.plan, local))

    def placed(self, planned: Planned, local: Iterable[Placement]) -> list[Placement]:
        """Say in the whole's labels what goes where."""
        prefix = planned.part.prefix
        return [
            Placement(Ref(self.composition.label(prefix, each.ref.label), each.ref.path), each.path) for each in local
        ]

    def archives(self, planned: Planned, wanted: Iterable[str]) -> list[Made]:
        """List the archives of a stack that are wanted."""
        local = frozenset(self.composition.locals(planned.part.prefix, wanted))
        return planned.part.session.archives(planned.plan, local)


def compose(planned: Iterable[Planned]) -> Whole:
    """Make one graph of analyzed stacks."""
    stacks = tuple(planned)
    return Whole(stacks, Composition([each.member for each in stacks], shares))


@contextlib.contextmanager
def open_repository(
    root: Path,
    files: Sequence[StackFile],
    options: SessionOptions,
    listeners: Sequence[Listener] = (),
    *,
    wishes: Wishes = NO_WISHES,
    reading: bool = False,
) -> Iterator[Repository]:
    """Open stacks of one repository, holding the locks of their folders unless for `reading`.

    A stack that cannot be loaded is among `broken`. Raises HostError.
    """

    def tell(event: Warned) -> None:
        for listener in listeners:
            listener(event)

    with contextlib.ExitStack() as stack:
        store = open_store(store_folder(), lambda diagnostic: tell(Warned(diagnostic)))
        stack.callback(store.close)
        # In one order, so that no two such builds wait for each other; a folder may have several stack files.
        builds = {
            folder: stack.enter_context(open_build(Workspace(folder), listeners, store, reading=reading))
            for folder in sorted({file.path.parent for file in files})
        }
        broken: list[StrataError] = []
        parts = []
        for file in files:
            build = builds[file.path.parent]
            with collected(broken):
                parts.append(Part(file, load_session(file.path, options, build, wishes), build))
        pasts = Federation({part.prefix: Local(part.build.history, part.build.sources) for part in parts})
        workspace = state_of(root)
        reads = RoutedSources(workspace, [build.sources for build in builds.values()])
        shared = Shared(pasts, reads)
        whole = stack.enter_context(open_build(workspace, listeners, store, reading=reading, shared=shared))
        with collected(broken):
            whole.epoch = _common_epoch(parts)
        with collected(broken):
            whole.remotes = joined([part.session.remotes for part in parts])
        yield Repository(parts, whole, pasts, broken, tuple(builds.values()))


def _common_epoch(parts: Sequence[Part]) -> str:
    """Give the epoch that all stacks are in. Raises SpecError where they are not in one."""
    stacks = {part.session.stack.strata.epoch: part.session.stack for part in parts}
    if len(stacks) < 2:
        return next(iter(stacks), "")
    (one, first), (other, second) = list(stacks.items())[:2]
    raise SpecError.of(
        "two-epochs",
        f"stacks that are built together must be in one epoch, not `{one}` (`{first.file}`) and `{other}`",
        second.document.place(("tool", "strata"), of="key"),
        hint="write the same `epoch` into `[tool.strata]` of both",
    )


@contextlib.contextmanager
def collected(broken: list[StrataError]) -> Iterator[None]:
    """Take down what is wrong with one stack, so that others can be looked at, too."""
    try:
        yield
    except (HostError, SpecError) as error:
        broken.append(error)


class Repository:
    """Opened stacks. Made by `open_repository`."""

    def __init__(
        self,
        parts: Sequence[Part],
        build: Build,
        pasts: Federation,
        broken: list[StrataError],
        builds: Sequence[Build],
    ) -> None:
        self.root = build.workspace.root
        self.parts = parts
        self.build = build
        self.broken = broken
        """What keeps stacks from being built."""
        self._pasts = pasts
        self._builds = builds
        """Those of all folders, of stacks that are broken too."""
        self.manifests: list[Manifest] = []
        """What was published, or would be if this were no dry run."""

    def look(self) -> Whole:
        """Analyze all stacks as they are now, to be asked about. Raises StrataError for those that cannot be."""
        found = []
        for part in self.parts:
            with collected(self.broken):
                found.append(Planned(part, part.session.plan_by_now()))
        self.check()
        return compose(found)

    def places(self, whole: Whole) -> list[Placement]:
        """Say where all layers of composed stacks would be put, and look at these places from now on."""
        labels = whole.composition.graph.labels()
        found = {each.part.prefix: whole.places(each, labels) for each in whole.planned}
        self._pasts.compose(whole.composition, _owners(found))
        return [placement for places in found.values() for placement in places]

    def seen(self) -> dict[str, Stamp]:
        """Give the stamps of what a build read of all stacks, and of what it wrote as it left it."""
        # Of what could not be loaded, too: whoever waits for it to be mended has to know where.
        found = {path: value for build in self._builds for path, value in build.sources.observed.items()}
        for part in self.parts:
            found |= part.session.seen()
        return found

    def check(self) -> None:
        """Refuse to go on where anything is wrong. Raises StrataError with all of it."""
        if self.broken:
            # What a person can mend goes before what the machine refuses.
            kind = SpecError if any(isinstance(error, SpecError) for error in self.broken) else HostError
            raise kind(*self._told())

    def _told(self) -> list[Diagnostic]:
        return [diagnostic for error in self.broken for diagnostic in error.diagnostics]

    def run(
        self,
        wanted_of: Callable[[Whole], list[str]],
        settings: Settings,
        *,
        clean: bool = False,
        publish: bool = False,
        format: str = "",
    ) -> BuildResult:
        """Build what is wanted of the composed stacks; with `publish`, write the archives among it, each stack its own.

        Stacks that cannot be built are left out where `settings` say to go on; they are in the result all the same.
        Raises StrataError where it does not say so.
        """
        settings = self._forcing(settings)
        planned, earlier = self._plan(settings, format)
        if earlier is not None and earlier.exit_code:
            return earlier
        if not settings.keep_going:
            self.check()
        whole = compose(planned)
        wanted = wanted_of(whole)
        places = {each.part.prefix: whole.places(each, wanted) for each in whole.planned}
        made = {each.part.prefix: whole.archives(each, wanted) if publish else [] for each in whole.planned}
        for each in whole.planned:
            own = places[each.part.prefix]
            own += whole.placed(each, each.part.session.publication.trees(made[each.part.prefix]))
            for placement in own if clean else ():
                each.part.build.history.forget_placed(placement.path)
        archives = [
            Ref(whole.composition.label(prefix, ref.label), ref.path)
            for prefix, published in made.items()
            for ref in blobs_of(published)
        ]
        result = self._run(whole, wanted, places, settings, earlier, archives)
        for each in whole.planned if publish else ():
            result = self._put_out(whole, each, made[each.part.prefix], settings, result)
        if not self.broken:
            return result
        diagnostics = (*self._told(), *result.diagnostics)
        code = result.exit_code or self.broken[0].exit_code
        return msgspec.structs.replace(result, diagnostics=diagnostics, exit_code=code)

    def _forcing(self, settings: Settings) -> Settings:
        anew = [f"{part.prefix}{name}/lock" for part in self.parts for name in sorted(part.session.selection.anew())]
        return msgspec.structs.replace(settings, force=(*settings.force, *anew))

    def _put_out(
        self, whole: Whole, planned: Planned, made: Sequence[Made], settings: Settings, result: BuildResult
    ) -> BuildResult:
        """Write archives and metadata of one stack, where all of it went well."""
        local = result_in(whole.composition, planned.part.prefix, result)
        if not made or local.exit_code:
            return result
        ended = planned.part.session.put_out(planned.plan, made, settings, local)
        self.manifests += planned.part.session.manifests
        return msgspec.structs.replace(result, exit_code=ended.exit_code) if ended.exit_code else result

    def _plan(self, settings: Settings, format: str) -> tuple[list[Planned], BuildResult | None]:
        """Analyze the stacks. Where folders are named after lock versions, locks come first, those of all at once."""
        planned: list[Planned] = []
        first: dict[str, list[str]] = {}
        for part in self.parts:
            with collected(self.broken):
                anew = part.session.selection.anew()
                plan, locks = part.session.first_plan(settings, format=format, anew=anew, everything=True)
                planned.append(Planned(part, plan))
                first[part.prefix] = locks
        if not any(first.values()) or (self.broken and not settings.keep_going):
            return planned, None
        whole = compose(each for each in planned if first[each.part.prefix])
        wanted = [label for each in whole.planned for label in whole.labels(each, first[each.part.prefix])]
        earlier = self._run(whole, wanted, {}, settings, None, last=False)
        again = []
        for each in planned:
            session = each.part.session
            anew = session.selection.anew()
            versioned = bool(first[each.part.prefix])
            with collected(self.broken):
                plan = session.next_plan(each.plan, settings, format=format, anew=anew) if versioned else each.plan
                again.append(Planned(each.part, plan))
        return again, earlier

    def _run(
        self,
        whole: Whole,
        wanted: Sequence[str],
        places: Mapping[str, Sequence[Placement]],
        settings: Settings,
        earlier: BuildResult | None,
        archives: Sequence[Ref] = (),
        *,
        last: bool = True,
    ) -> BuildResult:
        composition = whole.composition
        if earlier is not None:
            made = {action.label for action in earlier.actions}
            # What the first part made because it was told to is not made again.
            settings = msgspec.structs.replace(settings, force=tuple(f for f in settings.force if f not in made))
        for each in whole.planned:
            each.part.session.begin(each.plan, composition.locals(each.part.prefix, wanted), settings)
        self._pasts.compose(composition, _owners(places))
        every = [placement for found in places.values() for placement in found]
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        result = self.build.run(composition.graph, wanted, every, settings, whole=archives, earlier=earlier, last=last)
        diagnostics = list(result.diagnostics)
        for each in whole.planned:
            prefix = each.part.prefix
            local = result_in(composition, prefix, result)
            own = places.get(prefix, ())
            ended = each.part.session.end(each.plan, own, settings, local)
            diagnostics += [said for said in ended.diagnostics if said not in diagnostics]
            if local.actions and (last or result.exit_code) and not settings.dry_run:
                self._keep(each, own, local, started, settings, composition)
        return msgspec.structs.replace(result, diagnostics=tuple(diagnostics))

    def _keep(
        self,
        planned: Planned,
        places: Sequence[Placement],
        result: BuildResult,
        started: str,
        settings: Settings,
        composition: Composition,
    ) -> None:
        """Write the record and the graph of one stack as its own build would."""
        build, prefix = planned.part.build, planned.part.prefix
        local = [
            Placement(Ref(composition.local(prefix, each.ref.label) or each.ref.label, each.ref.path), each.path)
            for each in places
        ]
        record = run_record.short(build.record(result, started, settings))
        try:
            record_graph(build.workspace, planned.plan.analysis.graph, local)
            run_record.append(build.workspace.state / run_record.FILE, record)
        except OSError as error:
            [diagnostic] = host_error(error, str(build.workspace.state)).diagnostics
            build.emit(Warned(diagnostic._replace(severity="warning")))


def _owners(places: Mapping[str, Sequence[Placement]]) -> dict[Path, str]:
    return {placement.path: prefix for prefix, found in places.items() for placement in found}
