"""One opened stack: what the commands ask of it. The composition of spec, plan, engine and publishing.

Knows no command line and prints nothing. Every read of the workspace goes through the build's `Sources`, so that the
snapshot of a good build knows all that could change its answer (design §6).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from strata_engine.action import Placement, Ref
from strata_engine.afar import Afar
from strata_engine.build import Build, BuildResult, open_build
from strata_engine.cas import BlobLost
from strata_engine.critical import critical_path
from strata_engine.decision import Settings
from strata_engine.digest import Digest, Stamp
from strata_engine.errors import Diagnostic, Place, SpecError
from strata_engine.events import Listener, Outcome, Warned
from strata_engine.job_summary import markdown
from strata_engine.picture import PictureGraph, PictureNode
from strata_engine.recorded_graph import read_graph
from strata_engine.records import Records
from strata_engine.run_record import FILE, short
from strata_engine.why import Story
from strata_engine.workspace import Workspace
from strata_rules.export import check_places, exported, left_over
from strata_rules.lock.committed import CommittedLock
from strata_rules.lock.survey import Survey, survey
from strata_rules.null import RUN, STARTED
from strata_rules.planning import Plan, SessionOptions, make_plan, pin_runtimes
from strata_rules.platforms import PLATFORMS, host_platform
from strata_rules.publication import Made, Publication, blobs_of, labels_of, local_runtimes
from strata_rules.publish import Manifest
from strata_rules.remember import Asked, remember, stamp_at_rest
from strata_rules.remotes import remote_settings
from strata_rules.runtime import pin as pins
from strata_rules.selection import NO_WISHES, Selection, Wish, Wishes, select, wanted_labels
from strata_rules.selection import application as find_application
from strata_rules.spec.folders import check_platforms
from strata_rules.spec.load import Layer, Stack, load_stack
from strata_rules.spec.show import LayerStatus
from strata_rules.stack import launch_module, pin_path

__all__ = ["Launch", "Session", "SessionOptions", "job_summary", "load_session", "open_session"]

BYTECODE_FOLDER = "pycache"
"""Where `run` lets Python keep bytecode, in the state folder: outputs stay as they were placed."""


class Launch(NamedTuple):
    """How an application is started."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


@contextlib.contextmanager
def open_session(
    path: Path,
    options: SessionOptions,
    listeners: Sequence[Listener] = (),
    *,
    wishes: Wishes = NO_WISHES,
    reading: bool = False,
) -> Iterator[Session]:
    """Open the stack file at `path`; `reading` waits for no other build and must not build. Raises StrataError."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - absolute() would keep `..`
    with open_build(Workspace(path.parent), listeners, reading=reading) as build:
        yield load_session(path, options, build, wishes)


def load_session(path: Path, options: SessionOptions, build: Build, wishes: Wishes = NO_WISHES) -> Session:
    """Load the stack file at an absolute path into a build that is open in its folder. Raises StrataError."""
    stack = load_stack(path, build.sources.read, probe=build.sources.probe)
    selection = select(stack, wishes, options.platforms or (host_platform(),))
    for warning in (*stack.warnings, *selection.warnings):
        build.emit(Warned(warning))
    build.epoch = _epoch(stack)
    if not options.offline:

        def place(field: str) -> Place:
            return stack.document.place(("tool", "strata", "remote", field))

        build.remotes = remote_settings(options.remote, stack.strata.remote, os.environ, place)
    return Session(stack, options, selection, build)


def _epoch(stack: Stack) -> str:
    """Give the stack's epoch. Raises SpecError where it cannot stand beside a zone (`remote.address`)."""
    if "\0" in stack.strata.epoch:
        place = stack.document.place(("tool", "strata", "epoch"))
        raise SpecError.of("bad-epoch", "an epoch with a NUL in it", place, hint="any word will do")
    return stack.strata.epoch


class Session:
    """A stack, its options, what is selected of it, and an opened build. Made by `open_session`."""

    def __init__(self, stack: Stack, options: SessionOptions, selection: Selection, build: Build) -> None:
        self.stack = stack
        self.selection = selection
        self.remotes = build.remotes
        """The remote caches that the stack asks."""
        self._options = options
        self.publication = Publication(build, options)
        """Where what is published goes."""
        self._build = build
        self.standing: list[Diagnostic] = [*stack.warnings, *selection.warnings]
        """The warnings that every such build gives again, as long as nothing changes."""
        self._outputs: list[Path] = []
        """What the last build wrote, for the snapshot."""
        self._locks: dict[str, CommittedLock] = {}
        """Its locks, by label."""
        self.manifests: Sequence[Manifest] = ()
        """What was published, or would be if this were no dry run."""
        self.surveyed = Survey()
        """What `lock` found that was to do nothing, or a build that was to replace no lock."""

    @property
    def opened(self) -> Build:
        """The opened build."""
        return self._build

    # -- what the commands do ----------------------------------------------------------------------------------------

    def build(
        self,
        labels: Sequence[str],
        settings: Settings,
        *,
        publish: bool = False,
        clean: bool = False,
        exactly: bool = False,
    ) -> BuildResult:
        """Build the selected layers, or the given labels and what they need; with `publish`, write archives too.

        With `clean`, every output is put in its place anew, whatever stands there. With `exactly`, no labels mean that
        nothing is wanted: a query may have found nothing.
        """
        anew = self.selection.anew()
        plan, earlier = self._plan(settings, anew=anew, everything=bool(labels) or exactly)
        if earlier is not None and earlier.exit_code:
            return earlier
        wanted = self.wanted(plan, labels, locked=settings.locked) if labels or not exactly else []
        places = self.places(plan, wanted)
        made = self._archives(plan)
        if publish:
            wanted += labels_of(made)
            places += self.publication.trees(made)
        for placement in places if clean else ():
            self._build.history.forget_placed(placement.path)
        whole = blobs_of(made) if publish else []
        result = self._run(plan, wanted, places, _forcing(settings, anew, earlier), earlier, whole=whole)
        return self.put_out(plan, made, settings, result) if publish else result

    def lock(self, settings: Settings, *, upgrade: bool = False) -> BuildResult:
        """Lock the selected layers; with `upgrade` anew, whatever is locked now."""
        anew = self.selection.anew(upgrade=upgrade)
        locked = self.selection.locked()
        plan = make_plan(self.stack, self._options, self._build, versions={}, locked=settings.locked, anew=anew)
        wanted = [f"{name}/lock" for name in locked]
        if settings.dry_run:
            self.surveyed = self._survey(plan, wanted)
            for stale in self.surveyed.stale:
                self._build.emit(Warned(stale.warned(), stale.action.label))
        result = self._run(plan, wanted, [], _forcing(settings, anew), None)
        if result.exit_code == 0 and not settings.dry_run and not settings.locked:
            self._adopt(result, wanted)
            pin_runtimes(plan, self._build, self._layers(locked))
        return result

    def publish(self, settings: Settings, *, format: str | None = None) -> BuildResult:
        """Archive the selected layers and write archives and metadata to the output folder."""
        plan, earlier = self._plan(settings, format=format or "")
        if earlier is not None and earlier.exit_code:
            return earlier
        made = self._archives(plan)
        result = self._run(plan, labels_of(made), self.publication.trees(made), settings, earlier, whole=blobs_of(made))
        return self.put_out(plan, made, settings, result)

    def export(self, settings: Settings, *, anew: bool = False) -> BuildResult:
        """Put the selected layers into the output folder, to be run there; with `anew` those that are there, too."""
        plan, earlier = self._plan(settings)
        if earlier is not None and earlier.exit_code:
            return earlier
        made = [
            (layer, exported(plan.compiled(layer, platform)))
            for layer, platform in self._built(plan, self._published_layers())
        ]
        places, history = self.publication.trees(made), self._build.history
        paths = [placement.path for placement in places]
        check_places(self.publication.destination, paths, lambda path: history.placed(path) is not None)
        for path in paths if anew else ():
            history.forget_placed(path)
        result = self._run(plan, labels_of(made), places, settings, earlier)
        result = self.put_out(plan, made, settings, result, here=True)
        for warning in left_over(self.manifests, {plan.target_name(layer) for layer in self.stack.layers}):
            self._build.emit(Warned(warning))
        return result

    def run(self, application: str, settings: Settings) -> tuple[BuildResult, Launch | None]:
        """Build what an application needs and say how to start it; None where the build failed."""
        layer = find_application(self.stack, application)
        plan, earlier = self._plan(settings)
        if earlier is not None and earlier.exit_code:
            return earlier, None
        if plan.host not in layer.platforms:
            raise SpecError.of(
                "other-platform",
                f"`{layer.env_name}` is not for this machine, which is `{plan.host}`",
                layer.place("platforms"),
                hint=f"add `{plan.host}` to the `platforms` of the layer and of those below it",
            )
        wanted = [f"{layer.env_name}/link"]
        result = self._run(plan, wanted, self.places(plan, wanted), settings, earlier)
        if result.exit_code or settings.dry_run:
            return result, None
        python = self._folder(plan, layer, plan.host) / "bin" / "python"
        bytecode = self._build.workspace.state / BYTECODE_FOLDER
        return result, Launch([str(python), "-m", launch_module(layer)], {"PYTHONPYCACHEPREFIX": str(bytecode)})

    def graph(self, labels: Sequence[str]) -> PictureGraph:
        """Give the graph as far as it is known by now, with the outcome that each action would have."""
        plan = self.plan_by_now()
        wanted = self.wanted(plan, labels)
        if not labels:
            wanted += labels_of(self._archives(plan))
        graph = plan.analysis.graph
        done = self._build.look(graph, wanted)
        closure = graph.closure(wanted)
        nodes = tuple(
            PictureNode(
                action.label,
                action.mnemonic,
                action.label.split("/")[0],
                done[action.label].outcome.value if action.label in done else None,
            )
            for action in graph.actions()
            if action.label in closure
        )
        drawn = {node.label for node in nodes}
        return PictureGraph(nodes, tuple(edge for edge in graph.edges() if set(edge) <= drawn))

    def labels(self) -> list[str]:
        """List the labels that are known by now, whether or not anything selects them."""
        plan = self.plan_by_now()
        graph = plan.analysis.graph
        self._build.look(graph, [link for layer in self.stack.layers for link in self._links(plan, layer)])
        return graph.labels()

    def look_afar(self, labels: Sequence[str]) -> tuple[Afar, list[str]]:
        """Look what remote caches have for these labels, or for what is built by default; also give what was wanted.

        It is to be closed. Raises StrataError.
        """
        plan = self.plan_by_now()
        wanted = self.wanted(plan, labels)
        return self._build.look_afar(plan.analysis.graph, wanted), wanted

    def job_summary(self, result: BuildResult) -> str:
        """Tell of a build in Markdown."""
        return job_summary(self._build, result)

    def statuses(self) -> dict[str, LayerStatus]:
        """Say of each layer whether its lock is valid and which version it has."""
        plan = make_plan(self.stack, self._options, self._build, versions={})
        locked = [layer for layer in self.stack.layers if layer.platforms]
        surveyed = self._survey(plan, [f"{layer.env_name}/lock" for layer in locked])
        return {
            layer.env_name: LayerStatus(
                has_valid_lock=surveyed.is_valid(f"{layer.env_name}/lock"),
                lock_version=plan.lock_version(layer),
            )
            for layer in locked
        }

    def remember(self, asked: Asked, result: BuildResult, answer: tuple[str, str]) -> None:
        """Write the snapshot by which the same command finds that it has nothing to do, and give up where that fails.

        `answer` is what it prints then, to standard error and output. Nothing is written where the workspace has
        changed meanwhile: what this build read must be as it was, and what it keeps there what it came to.
        """
        sources = self._build.sources
        try:
            outputs = stamp_at_rest(self._outputs)
            for path, value in outputs.items():
                if sources.observed.get(path, value) != value:
                    # Read first and written then.
                    del sources.observed[path]
            if sources.holds() and self._kept(result):
                texts = (*answer, self._idle_record(result))
                damaged = remember(self._build.workspace, asked, sources.observed, outputs, texts)
                if damaged is not None:
                    self._build.emit(Warned(damaged))
        except OSError:
            # A snapshot saves time and nothing else.
            return

    def seen(self) -> dict[str, Stamp]:
        """Give the stamps of what this build read, and of what it wrote as it left it."""
        return {**self._build.sources.observed, **stamp_at_rest(self._outputs)}

    def _idle_record(self, result: BuildResult) -> str:
        """Give the record of a build that a snapshot answers, without its name and its time."""
        counts = {outcome.value: 0 for outcome in Outcome} | {Outcome.UP_TO_DATE.value: len(result.actions)}
        record = self._build.record(msgspec.structs.replace(result, run=RUN, seconds=0.0, counts=counts), STARTED)
        idle = msgspec.structs.replace(record, actions=(), settings={"answered": "by a snapshot"})
        return msgspec.json.encode(idle).decode()

    def _kept(self, result: BuildResult) -> bool:
        """Tell whether the workspace has the locks that this build came to."""
        cas = self._build.store.cas
        return all(
            self._locks[action.label].read(Digest.parse(action.key), cas) == result.artifacts[action.label]
            for action in result.actions
            if action.label in self._locks
        )

    # -- what is selected --------------------------------------------------------------------------------------------

    def _layers(self, names: Iterable[str]) -> list[Layer]:
        return [self.stack.layer(name) for name in names]

    def _published_layers(self) -> list[Layer]:
        return self._layers(self.selection.published())

    def wanted(self, plan: Plan, labels: Sequence[str], *, locked: bool = False) -> list[str]:
        """Give the labels to build: those asked for, else each selected layer's Links, or Lock where none is built.

        With `locked`, locks are looked at all the same: those that do not fit are refused.
        """
        graph = plan.analysis.graph
        if labels:
            links = {layer.env_name: self._links(plan, layer) for layer in self.stack.layers}
            asked = [found for label in labels for found in links.get(label) or [label]]
            return wanted_labels(self.stack, graph, asked, lambda known: self._build.look(graph, known))
        wanted = []
        for layer in self._layers(self.selection.layers):
            chosen = self.selection.layers[layer.env_name]
            if chosen.build is Wish.YES:
                wanted += self._links(plan, layer)
            elif chosen.lock is not Wish.NO or locked:
                wanted.append(f"{layer.env_name}/lock")
        return wanted

    def _links(self, plan: Plan, layer: Layer) -> list[str]:
        return [plan.link(layer, platform).tree.label for platform in plan.platforms(layer)]

    def places(self, plan: Plan, wanted: Iterable[str]) -> list[Placement]:
        """Say which layers go to their places: the wanted ones and those below, without which none would work."""
        labels = set(wanted)
        parts = {
            (part, platform)
            for layer, platform in self._built(plan, self.stack.layers)
            if plan.link(layer, platform).tree.label in labels
            for part in (layer, *layer.lower)
        }
        return [
            Placement(plan.link(layer, platform).tree, self._folder(plan, layer, platform))
            for layer, platform in self._built(plan, self.stack.layers)
            if (layer, platform) in parts
        ]

    def _built(self, plan: Plan, layers: Iterable[Layer]) -> list[tuple[Layer, str]]:
        """List layers with each platform that they are built for."""
        return [(layer, platform) for layer in layers for platform in plan.platforms(layer)]

    def _archives(self, plan: Plan) -> list[Made]:
        """List the archives of the layers to publish."""
        built = self._built(plan, self._published_layers())
        return [(layer, plan.archive(layer, platform)) for layer, platform in built]

    def archives(self, plan: Plan, labels: Collection[str]) -> list[Made]:
        """List the archives of all layers that are among labels."""
        every = ((layer, plan.archive(layer, platform)) for layer, platform in self._built(plan, self.stack.layers))
        return [(layer, info) for layer, info in every if info.archive.label in labels]

    def published_labels(self, plan: Plan, links: Collection[str] | None = None) -> list[str]:
        """Name the archives of the selected layers, or of those whose Links are given."""
        if links is None:
            return labels_of(self._archives(plan))
        every = self._built(plan, self.stack.layers)
        return [plan.archive(*each).archive.label for each in every if plan.link(*each).tree.label in links]

    # -- planning and running ----------------------------------------------------------------------------------------

    def _plan(
        self,
        settings: Settings,
        *,
        format: str = "",
        anew: frozenset[str] = frozenset(),
        everything: bool = False,
    ) -> tuple[Plan, BuildResult | None]:
        """Analyze the stack. Where folders are named after lock versions, locks come first, as a part of the build.

        These are the locks of what is selected, unless it is said that `everything` may be asked for by label.
        """
        plan, labels = self.first_plan(settings, format=format, anew=anew, everything=everything)
        if not labels:
            return plan, None
        earlier = self._run(plan, labels, [], _forcing(settings, anew), None, last=False)
        return self.next_plan(plan, settings, format=format, anew=anew), earlier

    def first_plan(
        self,
        settings: Settings,
        *,
        format: str = "",
        anew: frozenset[str] = frozenset(),
        everything: bool = False,
    ) -> tuple[Plan, list[str]]:
        """Analyze the stack as far as that can be done by now, and name the locks that are to be made for the rest."""
        self._check_platforms()
        stack, options, build = self.stack, self._options, self._build
        plan = make_plan(stack, options, build, versions={}, locked=settings.locked, anew=anew, format=format)
        selected = stack.layers if everything else self._layers(self.selection.layers)
        needed = {part for layer in selected for part in (layer, *layer.lower)}
        return plan, [f"{layer.env_name}/lock" for layer in self._versioned() if layer in needed]

    def next_plan(
        self, plan: Plan, settings: Settings, *, format: str = "", anew: frozenset[str] = frozenset()
    ) -> Plan:
        """Analyze the stack anew, with the versions that its locks have by now."""
        stack, options, build = self.stack, self._options, self._build
        versions = {layer.env_name: plan.lock_version(layer) or 1 for layer in self._versioned()}
        return make_plan(stack, options, build, versions=versions, locked=settings.locked, anew=anew, format=format)

    def plan_by_now(self) -> Plan:
        """Analyze the stack to be looked at: folders are named after the locks that are there."""
        return make_plan(self.stack, self._options, self._build, versions=self._versions_by_now())

    def _versioned(self) -> list[Layer]:
        return [layer for layer in self.stack.layers if layer.spec.versioned and layer.platforms]

    def _versions_by_now(self) -> dict[str, int]:
        versioned = self._versioned()
        if not versioned:
            return {}
        plan = make_plan(self.stack, self._options, self._build, versions={})
        return {layer.env_name: plan.lock_version(layer) or 1 for layer in versioned}

    def _run(
        self,
        plan: Plan,
        wanted: Sequence[str],
        places: Sequence[Placement],
        settings: Settings,
        earlier: BuildResult | None,
        *,
        whole: Sequence[Ref] = (),
        last: bool = True,
    ) -> BuildResult:
        self.begin(plan, wanted, settings)
        graph = plan.analysis.graph
        result = self._build.run(graph, wanted, places, settings, whole=whole, earlier=earlier, last=last)
        return self.end(plan, places, settings, result)

    def begin(self, plan: Plan, wanted: Sequence[str], settings: Settings) -> None:
        """Say what is to be said of runtimes and locks before they are built."""
        for (name, _), choice in plan.choices.items():
            self._warn(name, [choice.warning] if choice.warning is not None else [])
        for action in plan.analysis.graph.actions():
            if isinstance(action.committed, CommittedLock):
                self._warn(action.label, action.committed.warnings())
                edited = action.committed.edited()
                if edited is not None and not settings.locked and not settings.dry_run:
                    self._build.emit(Warned(edited, action.label))
        if settings.locked:
            self.surveyed = self._survey(plan, wanted)

    def end(self, plan: Plan, places: Sequence[Placement], settings: Settings, result: BuildResult) -> BuildResult:
        """Do what follows a run: pin runtimes, refuse further locks, note what the snapshot is to look at."""
        if settings.locked:
            # The engine stops at the first lock that it may not replace.
            told = {action.label for action in result.actions if action.outcome is Outcome.FAILED}
            others = [stale.refused() for stale in self.surveyed.stale if stale.action.label not in told]
            result = msgspec.structs.replace(result, diagnostics=(*result.diagnostics, *others))
        self._outputs = [placement.path for placement in places]
        graph = plan.analysis.graph
        self._locks = {a.label: a.committed for a in graph.actions() if isinstance(a.committed, CommittedLock)}
        for lock in self._locks.values():
            self._outputs += lock.paths
        for layer in self.stack.of("runtime"):
            path = pin_path(self._build.workspace.root, layer)
            self._outputs.append(path)
            for platform in plan.platforms(layer):
                choice = plan.choices[layer.env_name, platform]
                if choice.pin is not None and plan.runtime(layer, platform).tree.label in result.artifacts:
                    # Pinned only once it has been had: a download that fails must not tie the stack to it.
                    pins.keep(path, platform, choice.pin)
        return result

    def _check_platforms(self) -> None:
        """Refuse platforms that no selected layer is for, and those whose folder is a layer's. Raises SpecError."""
        asked = self._options.platforms
        check_platforms(self.stack, asked, host_platform())
        layers = self._layers(self.selection.included)
        known = [name for name in PLATFORMS if any(name in layer.platforms for layer in layers)]
        if not asked and known and host_platform() not in known:
            message = f"nothing is built: no selected layer is for this machine (`{host_platform()}`)"
            hint = f"name what to build for, such as `--platform {known[0]}`"
            self._warn("", [Diagnostic("other-platform", message, hint=hint, severity="warning")])
        for platform in asked:
            if layers and not any(platform in layer.platforms for layer in layers):
                raise SpecError.of(
                    "other-platform",
                    f"no selected layer is for `{platform}`",
                    hint=f"they are for {', '.join(f'`{name}`' for name in known)}" if known else None,
                )
        for layer in layers:
            if asked and not set(asked) & set(layer.platforms):
                message = f"`{layer.env_name}` is left out: it is for none of the platforms asked for"
                notes = (f"it is for {', '.join(f'`{name}`' for name in layer.platforms)}",)
                place = layer.place("platforms")
                self._warn(layer.env_name, [Diagnostic("other-platform", message, place, notes, severity="warning")])

    def _survey(self, plan: Plan, wanted: Iterable[str]) -> Survey:
        """Look at all locks that what is wanted needs."""
        graph = plan.analysis.graph
        closure = graph.closure(wanted)
        locks = [a for a in graph.actions() if a.label in closure and isinstance(a.committed, CommittedLock)]
        done = self._build.look(graph, [action.label for action in locks])
        return survey(locks, {label: finished.key for label, finished in done.items()})

    def _adopt(self, result: BuildResult, labels: Iterable[str]) -> None:
        """Record what was asked beside valid locks that are not ours."""
        wanted = set(labels)
        for action in result.actions:
            if action.label in wanted:
                self._locks[action.label].adopt(Digest.parse(action.key), self._build.store.cas)

    def _warn(self, label: str, warnings: Iterable[Diagnostic]) -> None:
        """Say what holds for every such build, once."""
        for warning in warnings:
            if warning not in self.standing:
                self.standing.append(warning)
                self._build.emit(Warned(warning, label))

    def _folder(self, plan: Plan, layer: Layer, platform: str) -> Path:
        """Give the place of a layer; those of other platforms have a folder of their own each."""
        folder = self._build.workspace.root / self._options.build_dir
        return (folder if platform == plan.host else folder / platform) / plan.target_name(layer)

    # -- publishing --------------------------------------------------------------------------------------------------

    def put_out(
        self, plan: Plan, made: Sequence[Made], settings: Settings, result: BuildResult, *, here: bool = False
    ) -> BuildResult:
        """Write archives and metadata of a build that went well; an archive that the store has lost is made again.

        `here` says that all of it is for this machine.
        """
        if result.exit_code:
            return result
        if not settings.dry_run and not here:
            for label, warning in local_runtimes(plan, made):
                self._warn(label, [warning])
        try:
            manifests = self.publication.write(plan, made, result, dry_run=settings.dry_run)
        except BlobLost:
            again = msgspec.structs.replace(settings, force=tuple(labels_of(made)))
            result = self._run(plan, labels_of(made), self.publication.trees(made), again, result)
            if result.exit_code:
                return result
            manifests = self.publication.write(plan, made, result, dry_run=settings.dry_run)
        self.manifests = manifests
        for manifest in manifests if not settings.dry_run else ():
            self._outputs += [manifest.path, *(published.path for published in manifest.layers)]
        return result


def job_summary(build: Build, result: BuildResult) -> str:
    """Tell in Markdown what an opened build came to."""
    record, graph = short(build.record(result, "")), read_graph(build.workspace)
    # Causes may be of earlier builds, of which one failed.
    kept = Records.read(build.workspace.state / FILE)
    at = next((number for number in range(len(kept)) if kept.run(number) == record.run), None)
    deciders = {label: known.deciders for label, known in graph.items()}
    story = Story(kept, at, lambda: deciders) if at is not None else Story([record])
    return markdown(record, story.roots(), critical_path(record.actions), graph, result.diagnostics)


def _forcing(settings: Settings, anew: Iterable[str], earlier: BuildResult | None = None) -> Settings:
    """Have the locks of these layers made in any case, but for those that an earlier part of the build has made."""
    made = {action.label for action in earlier.actions} if earlier is not None else set()
    labels = [label for label in (f"{name}/lock" for name in sorted(anew)) if label not in made]
    return msgspec.structs.replace(settings, force=(*settings.force, *labels))
