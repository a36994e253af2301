"""One opened stack: what the commands ask of it. The composition of spec, choices, rules, engine and publishing.

Knows no command line and prints nothing. Every read of the workspace goes through the build's `Sources`, so that the
snapshot of a good build knows all that could change its answer (design §6).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import msgspec

from strata_engine.action import Action, Placement
from strata_engine.build import Build, BuildResult, open_build
from strata_engine.cas import BlobLost
from strata_engine.decision import Settings
from strata_engine.errors import Diagnostic, SpecError
from strata_engine.events import Listener, Outcome, Warned
from strata_engine.picture import PictureGraph, PictureNode
from strata_engine.rule import Analysis, analyze
from strata_engine.tree import Node
from strata_engine.workspace import Workspace
from strata_rules import null
from strata_rules.download.client import Network
from strata_rules.download.credentials import credentials_of
from strata_rules.lock.committed import CommittedLock
from strata_rules.metadata import PublishedModule, PublishLayer, lock_facts, module_hash
from strata_rules.platforms import host_platform
from strata_rules.providers import ArchiveInfo, LinkInfo, RuntimeInfo
from strata_rules.publish import publish
from strata_rules.runtime import pin as pins
from strata_rules.runtime.choose import Choice, Host, Wanted, choose
from strata_rules.spec.load import Layer, Stack, load_stack
from strata_rules.spec.modules import ApplicationModules, Module, application_modules
from strata_rules.spec.show import LayerStatus
from strata_rules.spec.source import did_you_mean
from strata_rules.stack import Setting, buildable, install_target, launch_module, pin_path, python_version, targets
from strata_rules.wheel.fetch import Access

BYTECODE_FOLDER = "pycache"
"""Where `run` lets Python keep bytecode, in the state folder: outputs stay as they were placed."""


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all that is done in a session. Folders are relative to the stack file."""

    build_dir: Path = Path("_build")
    output_dir: Path = Path("_artifacts")
    include: tuple[str, ...] = ()
    local_wheels: tuple[Path, ...] = ()
    index: bool = True
    offline: bool = False


class Launch(NamedTuple):
    """How an application is started."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


class _Plan(NamedTuple):
    """A graph, and what it was made with."""

    setting: Setting
    analysis: Analysis
    choices: dict[str, Choice]


@contextlib.contextmanager
def open_session(
    path: Path, options: SessionOptions, listeners: Sequence[Listener] = (), *, reading: bool = False
) -> Iterator[Session]:
    """Open the stack file at `path`; `reading` waits for no other build and must not build. Raises StrataError."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - absolute() would keep `..`
    with open_build(Workspace(path.parent), listeners, reading=reading) as build:
        stack = load_stack(path, build.sources.read, probe=build.sources.probe)
        for warning in stack.warnings:
            build.emit(Warned(warning))
        yield Session(stack, options, build)


class Session:
    """A stack, its options, and an opened build. Made by `open_session`."""

    def __init__(self, stack: Stack, options: SessionOptions, build: Build) -> None:
        self.stack = stack
        self._options = options
        self._build = build
        self._host = host_platform()
        self._modules: dict[str, ApplicationModules] = {}
        self._outputs: list[Path] = []
        """What the last build wrote, for the snapshot."""

    # -- what the commands do ----------------------------------------------------------------------------------------

    def build(
        self, labels: Sequence[str], settings: Settings, *, publish: bool = False, tag_outputs: bool = False
    ) -> BuildResult:
        """Build the selected layers, or the given labels and what they need; with `publish`, write archives too."""
        plan, earlier = self._plan(settings)
        if earlier is not None and earlier.exit_code:
            return earlier
        layers = self._selected()
        wanted = self._wanted(plan, labels, layers)
        places = [self._place(plan, layer) for layer in self._placed(plan, wanted, layers, chosen=bool(labels))]
        if publish:
            wanted += self._archives(plan, layers)
        result = self._run(plan, wanted, places, settings, earlier)
        return self._publish(plan, layers, settings, result, tag_outputs=tag_outputs) if publish else result

    def lock(self, settings: Settings, *, upgrade: bool = False) -> BuildResult:
        """Lock the selected layers; with `upgrade` anew, whatever is locked now."""
        layers = [layer for layer in self._selected() if layer.platforms]
        labels = [f"{layer.env_name}/lock" for layer in layers]
        if upgrade:
            settings = msgspec.structs.replace(settings, force=(*settings.force, *labels))
        plan = self._analyze(settings, {}, upgrade=upgrade)
        return self._run(plan, labels, [], settings, None)

    def publish(self, settings: Settings, *, tag_outputs: bool = False, format: str | None = None) -> BuildResult:
        """Archive the selected layers and write archives and metadata to the output folder."""
        plan, earlier = self._plan(settings, format_=format or "")
        if earlier is not None and earlier.exit_code:
            return earlier
        layers = self._selected()
        result = self._run(plan, self._archives(plan, layers), [], settings, earlier)
        return self._publish(plan, layers, settings, result, tag_outputs=tag_outputs)

    def run(self, application: str, settings: Settings) -> tuple[BuildResult, Launch | None]:
        """Build what an application needs and say how to start it; None where the build failed."""
        layer = self._application(application)
        plan, earlier = self._plan(settings)
        if earlier is not None and earlier.exit_code:
            return earlier, None
        if not buildable(layer, self._host):
            raise SpecError.of(
                "other-platform", f"`{layer.env_name}` is not for this machine ({self._host})", layer.place("platforms")
            )
        places = [self._place(plan, part) for part in (layer, *layer.lower)]
        result = self._run(plan, [f"{layer.env_name}/link"], places, settings, earlier)
        if result.exit_code or settings.dry_run:
            return result, None
        python = self._folder(plan, layer) / "bin" / "python"
        bytecode = self._build.workspace.state / BYTECODE_FOLDER
        return result, Launch([str(python), "-m", launch_module(layer)], {"PYTHONPYCACHEPREFIX": str(bytecode)})

    def graph(self, labels: Sequence[str]) -> PictureGraph:
        """Give the graph as far as it is known by now, with the outcome that each action would have."""
        plan = self._analyze(Settings(dry_run=True), self._versions_by_now())
        wanted = self._wanted(plan, labels, self._selected())
        if not labels:
            wanted += self._archives(plan, self._selected())
        done = self._build.look(plan.analysis.graph, wanted)
        graph = plan.analysis.graph
        closure = graph.closure(wanted)
        nodes = tuple(
            PictureNode(action.label, action.mnemonic, action.label.split("/")[0], _known(done, action.label))
            for action in graph.actions()
            if action.label in closure
        )
        drawn = {node.label for node in nodes}
        return PictureGraph(nodes, tuple(edge for edge in graph.edges() if set(edge) <= drawn))

    def statuses(self) -> dict[str, LayerStatus]:
        """Say of each layer whether its lock is valid and which version it has."""
        plan = self._analyze(Settings(dry_run=True), {})
        locked = [layer for layer in self.stack.layers if layer.platforms]
        done = self._build.look(plan.analysis.graph, [f"{layer.env_name}/lock" for layer in locked])
        return {
            layer.env_name: LayerStatus(
                has_valid_lock=done[f"{layer.env_name}/lock"].outcome is Outcome.UP_TO_DATE,
                lock_version=_version(self._committed(plan, layer)),
            )
            for layer in locked
        }

    def remember(self, argv: Sequence[str], error: str, output: str) -> None:
        """Write the snapshot by which the same command finds that it has nothing to do.

        `error` and `output` are what it prints then. Nothing is written where the workspace has changed meanwhile.
        """
        sources = self._build.sources
        for path in self._outputs:
            sources.observed.pop(str(path), None)
        if sources.holds():
            with contextlib.suppress(OSError):
                null.remember(self._build.workspace, list(argv), sources.observed, self._outputs, error, output)

    # -- selection ---------------------------------------------------------------------------------------------------

    def _selected(self) -> list[Layer]:
        """List the layers that `--include` selects. Raises SpecError for a pattern that selects none."""
        patterns = self._options.include
        for pattern in patterns:
            if not any(fnmatchcase(layer.env_name, pattern) for layer in self.stack.layers):
                names = [layer.env_name for layer in self.stack.layers]
                raise SpecError.of(
                    "unmatched-pattern",
                    f"no layer matches `{pattern}`",
                    hint=did_you_mean(pattern, names) or f"layers are {', '.join(f'`{name}`' for name in names)}",
                )
        if not patterns:
            return list(self.stack.layers)
        return [
            layer for layer in self.stack.layers if any(fnmatchcase(layer.env_name, pattern) for pattern in patterns)
        ]

    def _application(self, name: str) -> Layer:
        names = {layer.name: layer for layer in self.stack.of("application")}
        layer = names.get(name) or names.get(name.removeprefix("app-"))
        if layer is None:
            hint = did_you_mean(name, names) or f"applications are {', '.join(f'`{known}`' for known in names)}"
            raise SpecError.of("unknown-application", f"there is no application `{name}`", hint=hint)
        return layer

    def _wanted(self, plan: _Plan, labels: Sequence[str], layers: Sequence[Layer]) -> list[str]:
        """Give the labels to build: those asked for, else every layer's link, or lock where it is not for here."""
        if not labels:
            parts = {layer: "link" if buildable(layer, self._host) else "lock" for layer in layers if layer.platforms}
            return [f"{layer.env_name}/{part}" for layer, part in parts.items()]
        graph = plan.analysis.graph
        names = {layer.env_name for layer in self.stack.layers}
        if not all(label in names or label in graph.labels() for label in labels):
            # Wheels and what is made of them are known only once locks are.
            self._build.look(graph, [label for label in graph.labels() if label.endswith(("/link", "/archive"))])
        found: list[str] = []
        for label in labels:
            known = graph.labels()
            if label in names and f"{label}/link" in known:
                found.append(f"{label}/link")
            elif label in known:
                found.append(label)
            elif matching := [name for name in known if fnmatchcase(name, label)]:
                found += matching
            else:
                raise SpecError.of(
                    "unknown-label",
                    f"nothing in this stack is called `{label}`",
                    hint=did_you_mean(label, [*names, *known]) or "`strata graph show` lists the labels",
                )
        return found

    def _placed(self, plan: _Plan, wanted: Iterable[str], layers: Iterable[Layer], *, chosen: bool) -> list[Layer]:
        """List the layers to put at their places: the wanted ones and those below, without which none would work."""
        links = set(wanted)
        if chosen:
            layers = [layer for layer in self.stack.layers if f"{layer.env_name}/link" in links]
        parts = {part for layer in layers if f"{layer.env_name}/link" in links for part in (layer, *layer.lower)}
        del plan
        return [layer for layer in self.stack.layers if layer in parts]

    def _archives(self, plan: _Plan, layers: Iterable[Layer]) -> list[str]:
        return [self._archive(plan, layer).archive.label for layer in layers if buildable(layer, self._host)]

    # -- planning ----------------------------------------------------------------------------------------------------

    def _plan(self, settings: Settings, *, format_: str = "") -> tuple[_Plan, BuildResult | None]:
        """Analyze the stack. Where folders are named after lock versions, locks come first, as a part of the build."""
        versioned = [layer for layer in self.stack.layers if layer.spec.versioned and layer.platforms]
        if not versioned:
            return self._analyze(settings, {}, format_=format_), None
        plan = self._analyze(settings, {})
        labels = [f"{layer.env_name}/lock" for layer in versioned]
        earlier = self._run(plan, labels, [], settings, None, last=False)
        versions = {layer.env_name: _version(self._committed(plan, layer)) or 1 for layer in versioned}
        return self._analyze(settings, versions, format_=format_), earlier

    def _versions_by_now(self) -> dict[str, int]:
        versioned = [layer for layer in self.stack.layers if layer.spec.versioned and layer.platforms]
        plan = self._analyze(Settings(dry_run=True), {}) if versioned else None
        return {layer.env_name: _version(self._committed(plan, layer)) or 1 for layer in versioned if plan is not None}

    def _analyze(
        self, settings: Settings, versions: Mapping[str, int], *, upgrade: bool = False, format_: str = ""
    ) -> _Plan:
        sources, root = self._build.sources, self._build.workspace.root
        self._modules = application_modules(self.stack, sources.read, sources.probe)
        choices = self._choose(settings, upgrade=upgrade)
        indexes = {index.name or index.url: index.url for index in self.stack.uv.indexes}
        local_wheels = tuple(root / folder.expanduser() for folder in self._options.local_wheels)
        network = Network(offline=self._options.offline, credentials=credentials_of(indexes, os.environ))
        store = self._build.store.folder
        setting = Setting(
            host=self._host,
            chosen={name: choice.chosen for name, choice in choices.items()},
            modules=self._modules,
            versions=versions,
            access=Access(network, store / "parts", root, local_wheels),
            uv_cache=store / "uv",
            environ=os.environ,
            upgrade=upgrade,
            offline=self._options.offline,
            no_index=not self._options.index,
            local_wheels=local_wheels,
            format=format_,
        )
        return _Plan(setting, analyze(targets(self.stack, setting)), choices)

    def _choose(self, settings: Settings, *, upgrade: bool) -> dict[str, Choice]:
        """Choose the runtimes that this machine can build, saying what was chosen anew."""
        sources = self._build.sources
        host = Host(
            platform=self._host,
            environ=os.environ,
            read=lambda path: sources.read(path) if sources.probe(path) else None,
        )
        choices = {}
        for layer in self.stack.of("runtime"):
            if not buildable(layer, self._host):
                continue
            source = self.stack.runtime_source(layer)
            wanted = Wanted(
                layer=layer.env_name,
                python_implementation=f"{layer.implementation}@{layer.version}",
                platform=self._host,
                providers=source.providers,
                url=source.url_for(self._host) or "",
                sha256=source.sha256_for(self._host) or "",
                accept=source.accept or "",
                pin_path=pin_path(self._build.workspace.root, layer),
                place=layer.place("python_implementation"),
            )
            # A new lock may use a new table, but another Python only where the stack file asks for one.
            choice = choose(wanted, host, upgrade=upgrade and "local" not in source.providers, locked=settings.locked)
            for path in choice.observed:
                sources.observe(path)
            choices[layer.env_name] = choice
        return choices

    # -- running -----------------------------------------------------------------------------------------------------

    def _run(
        self,
        plan: _Plan,
        wanted: Sequence[str],
        places: Sequence[Placement],
        settings: Settings,
        earlier: BuildResult | None,
        *,
        last: bool = True,
    ) -> BuildResult:
        graph = plan.analysis.graph
        result = self._build.run(graph, wanted, places, settings, earlier=earlier, last=last)
        self._outputs = [placement.path for placement in places]
        for item in graph.actions():
            if isinstance(item.committed, CommittedLock):
                self._outputs += item.committed.paths
        for layer in self.stack.of("runtime"):
            self._outputs.append(pin_path(self._build.workspace.root, layer))
            choice = plan.choices.get(layer.env_name)
            if choice is not None and choice.pin is not None and _made(result, plan, layer):
                pins.keep(self._outputs[-1], self._host, choice.pin)
        return result

    def _folder(self, plan: _Plan, layer: Layer) -> Path:
        return self._build.workspace.root / self._options.build_dir / install_target(layer, plan.setting.versions)

    def _place(self, plan: _Plan, layer: Layer) -> Placement:
        link = plan.analysis.get(f"{layer.env_name}/link", LinkInfo)
        return Placement(link.tree, self._folder(plan, layer))

    def _archive(self, plan: _Plan, layer: Layer) -> ArchiveInfo:
        return plan.analysis.get(f"{layer.env_name}/archive", ArchiveInfo)

    def _committed(self, plan: _Plan, layer: Layer) -> CommittedLock:
        action = plan.analysis.graph.item(f"{layer.env_name}/lock")
        assert isinstance(action, Action)
        assert isinstance(action.committed, CommittedLock)
        return action.committed

    # -- publishing --------------------------------------------------------------------------------------------------

    def _publish(
        self, plan: _Plan, layers: Sequence[Layer], settings: Settings, result: BuildResult, *, tag_outputs: bool
    ) -> BuildResult:
        """Write archives and metadata of a build that went well; an archive that the store has lost is made again."""
        if result.exit_code or settings.dry_run:
            return result
        destination = self._build.workspace.root / self._options.output_dir
        layers = [layer for layer in layers if buildable(layer, self._host)]
        self._warn_of_local_runtimes(plan, layers)
        published = [self._published(plan, layer, result) for layer in layers]
        try:
            manifests = publish(self._build.store.cas, destination, published, tag_outputs=tag_outputs)
        except BlobLost:
            again = msgspec.structs.replace(settings, force=tuple(self._archives(plan, layers)))
            result = self._run(plan, self._archives(plan, layers), [], again, result)
            published = [self._published(plan, layer, result) for layer in layers]
            manifests = publish(self._build.store.cas, destination, published, tag_outputs=tag_outputs)
        for manifest in manifests:
            self._outputs += [manifest.path, *(layer.path for layer in manifest.layers)]
        return result

    def _warn_of_local_runtimes(self, plan: _Plan, layers: Iterable[Layer]) -> None:
        for layer in layers:
            if layer.kind != "runtime":
                continue
            info = plan.analysis.get(f"{layer.env_name}/runtime", RuntimeInfo)
            if info.provider == "local":
                warning = Diagnostic(
                    "local-runtime-published",
                    f"`{layer.env_name}` was captured from this machine and needs system libraries as new as its own",
                    hint='set `provider = "pbs"` for what runs elsewhere',
                    severity="warning",
                )
                self._build.emit(Warned(warning, f"{layer.env_name}/archive"))

    def _published(self, plan: _Plan, layer: Layer, result: BuildResult) -> PublishLayer:
        archive = self._archive(plan, layer)
        modules = self._modules.get(layer.env_name)
        versions = plan.setting.versions
        return PublishLayer(
            layer=layer.env_name,
            kind=layer.kind,
            install_target=archive.install_target,
            platform=self._host,
            format=archive.format,
            artifact=self._build.entry(result.artifacts[archive.archive.label], archive.archive),
            lock=lock_facts(self._committed(plan, layer).metadata()),
            runtime_layer=install_target(layer.runtime, versions),
            python_implementation=f"{layer.implementation}@{python_version(layer, plan.setting.chosen)}",
            required_layers=tuple(install_target(below, versions) for below in layer.below),
            launch_module=self._module(modules.launch) if modules is not None else None,
            support_modules=tuple(self._module(module) for module in modules.support) if modules is not None else (),
        )

    def _module(self, module: Module) -> PublishedModule:
        node: Node = self._build.source(module.input)
        return PublishedModule(module.import_name, module_hash(self._build.store.cas, module.file_name, node))


def _version(committed: CommittedLock) -> int | None:
    version = committed.metadata().get("lock_version")
    return version if isinstance(version, int) else None


def _known(done: Mapping[str, object], label: str) -> str | None:
    outcome = getattr(done.get(label), "outcome", None)
    return outcome.value if isinstance(outcome, Outcome) else None


def _made(result: BuildResult, plan: _Plan, layer: Layer) -> bool:
    """Tell whether the tree of a runtime layer is there."""
    return plan.analysis.get(f"{layer.env_name}/runtime", RuntimeInfo).tree.label in result.artifacts
