"""Turns a stack into a graph to build: runtimes chosen, modules found, targets analyzed.

The rim before analysis: what is read here goes through the build's `Sources`. It executes nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from strata_engine.action import Action
from strata_engine.build import Build
from strata_engine.errors import SpecError, StrataError
from strata_engine.rule import Analysis, analyze
from strata_engine.workspace import as_typed, write_atomically
from strata_rules import uv
from strata_rules.download.client import Network
from strata_rules.download.credentials import credentials_of
from strata_rules.lock.committed import CommittedLock, given_then
from strata_rules.lock.parts import Given
from strata_rules.metadata import module_hash
from strata_rules.origins import annotator
from strata_rules.platforms import host_platform
from strata_rules.providers import ArchiveInfo, CompiledInfo, LinkInfo, RuntimeInfo
from strata_rules.remotes import RemoteWishes
from strata_rules.runtime import pin as pins
from strata_rules.runtime.choose import Choice, Host, Wanted, choose
from strata_rules.spec.folders import check_targets, install_target
from strata_rules.spec.gitignore import find_work_tree
from strata_rules.spec.load import Layer, Stack
from strata_rules.spec.modules import ApplicationModules, application_modules
from strata_rules.stack import Setting, locked_python, pin_path, targets
from strata_rules.wheel.fetch import Access
from strata_rules.wheel.packages import label_of

GIVEN = "given"
"""What the command line last said of where wheels come from, in the state folder."""


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all that is done with an opened stack. Folders are relative to the stack file."""

    build_dir: Path = Path("_build")
    output_dir: Path = Path("_artifacts")
    local_wheels: tuple[Path, ...] = ()
    index: bool = True
    offline: bool = False
    platforms: tuple[str, ...] = ()
    """The platforms to build for; empty for this machine's."""
    remote: RemoteWishes = RemoteWishes()
    """What is asked for of remote caches."""
    tag_outputs: bool = False
    """Whether names of archives tell platform and build; those of more than one platform always do."""


class Plan(NamedTuple):
    """A graph, and what it was made with."""

    stack: Stack
    setting: Setting
    analysis: Analysis
    choices: dict[tuple[str, str], Choice]
    """The runtimes, by environment name and platform."""
    modules: dict[str, ApplicationModules]

    @property
    def host(self) -> str:
        """This machine's platform."""
        return self.setting.host

    def platforms(self, layer: Layer) -> list[str]:
        """List the platforms that a layer is built for."""
        return [platform for platform in self.setting.platforms if platform in layer.platforms]

    def target_name(self, layer: Layer) -> str:
        """Name the folder that a layer is deployed in."""
        return install_target(layer, self.setting.versions)

    def runtime(self, layer: Layer, platform: str) -> RuntimeInfo:
        """Give the runtime that a layer stands on."""
        return self.analysis.get(self._name(layer.runtime, "runtime", platform), RuntimeInfo)

    def link(self, layer: Layer, platform: str) -> LinkInfo:
        """Give a layer as it is deployed."""
        return self.analysis.get(self._name(layer, "link", platform), LinkInfo)

    def compiled(self, layer: Layer, platform: str) -> CompiledInfo:
        """Give a layer as it is deployed, with bytecode."""
        return self.analysis.get(self._name(layer, "compile", platform), CompiledInfo)

    def archive(self, layer: Layer, platform: str) -> ArchiveInfo:
        """Give a layer's archive."""
        return self.analysis.get(self._name(layer, "archive", platform), ArchiveInfo)

    def _name(self, layer: Layer, action: str, platform: str) -> str:
        return label_of(layer.env_name, action, platform, self.setting.host)

    def committed(self, layer: Layer) -> CommittedLock:
        """Give the lock that git keeps."""
        action = self.analysis.graph.item(f"{layer.env_name}/lock")
        assert isinstance(action, Action)
        assert isinstance(action.committed, CommittedLock)
        return action.committed

    def lock_version(self, layer: Layer) -> int | None:
        """Give the version of a layer's lock, where there is one."""
        version = self.committed(layer).metadata().get("lock_version")
        return version if isinstance(version, int) else None


def make_plan(
    stack: Stack,
    options: SessionOptions,
    build: Build,
    *,
    versions: Mapping[str, int],
    locked: bool = False,
    anew: frozenset[str] = frozenset(),
    format: str = "",
) -> Plan:
    """Choose runtimes, find modules, analyze. Raises SpecError, HostError.

    `anew` are the layers whose locks keep no version of now, by environment name.
    """
    check_targets(stack.layers, versions)
    sources, root, store = build.sources, build.workspace.root, build.store.folder
    modules = application_modules(stack, sources.read, sources.probe)
    platforms = options.platforms or (host_platform(),)
    choices = _choose(stack, build, platforms, locked=locked, anew=anew)
    indexes = {index.name or index.url: index.url for index in stack.uv.indexes}
    _check_folders(build, options.local_wheels)
    _remember_given(options, build)
    network = Network(offline=options.offline, credentials=credentials_of(indexes, os.environ))
    setting = Setting(
        host=host_platform(),
        platforms=platforms,
        chosen={name: choice.chosen for name, choice in choices.items()},
        modules=modules,
        module_hashes={name: _hashes(build, stack.layer(name), found) for name, found in modules.items()},
        versions=versions,
        access=Access(network, store / "parts", root),
        repository=_repository(build),
        uv_cache=store / "uv",
        environ=os.environ,
        anew=anew,
        offline=options.offline,
        given={layer.env_name: _given(layer, options, build, anew) for layer in stack.layers},
        format=format,
    )
    _check_pythons(stack, setting)
    analysis = analyze(targets(stack, setting), annotator(stack, setting.chosen, setting.host))
    return Plan(stack, setting, analysis, choices, modules)


def _repository(build: Build) -> Path:
    found = find_work_tree(build.workspace.root, build.sources.read, build.sources.probe)
    return found.top if found is not None else build.workspace.root


def _given(layer: Layer, options: SessionOptions, build: Build, anew: frozenset[str]) -> Given:
    """Say where a layer's wheels come from beside what the stack file says.

    A lock that was made with `--local-wheels` or `--no-index` is as valid for a command without: it is held against
    what they said then, and kept up with that. venvstacks records neither, and publishes without them: its scripts say
    them to `lock` and `build` alone.
    """
    root, now = build.workspace.root, _given_now(options, build)
    if now != Given() or layer.env_name in anew:
        return now
    then = given_then(root, layer.env_name, _given_before(build))
    there = tuple(folder for folder in then.local_wheels if build.sources.probe(root / folder))
    return Given(there, then.no_index)


def _given_now(options: SessionOptions, build: Build) -> Given:
    root = build.workspace.root
    folders = (Path(os.path.relpath(root / folder, root)).as_posix() for folder in options.local_wheels)
    return Given(tuple(folders), not options.index)


def _given_before(build: Build) -> Given:
    path = build.workspace.state / GIVEN
    try:
        return msgspec.json.decode(build.sources.read(path), type=Given) if build.sources.probe(path) else Given()
    except (msgspec.DecodeError, StrataError, RecursionError, UnicodeDecodeError):
        return Given()


def _remember_given(options: SessionOptions, build: Build) -> None:
    """Keep what the command line says, for locks that do not; where that fails, it will have to be said again."""
    given, path = msgspec.json.encode(_given_now(options, build)), build.workspace.state / GIVEN
    with contextlib.suppress(OSError):
        if (options.local_wheels or not options.index) and not (path.is_file() and path.read_bytes() == given):
            write_atomically(path, given)


def _hashes(build: Build, layer: Layer, modules: ApplicationModules) -> tuple[str, ...]:
    store = build.store.cas
    found = (modules.launch, *modules.support)
    try:
        return tuple(module_hash(store, module.file_name, build.source(module.input)) for module in found)
    except SpecError as error:
        place = layer.place("name")
        raise SpecError(*(each if each.place else each._replace(place=place) for each in error.diagnostics)) from None


def _check_folders(build: Build, local_wheels: Iterable[Path]) -> None:
    """Refuse folders of wheels, named outside the stack file, that are not there. Raises SpecError."""
    root = build.workspace.root
    given = [("`--local-wheels` names", str(folder), root / folder) for folder in local_wheels]
    linked = uv.find_links_folders(os.environ)
    places = map(os.path.expanduser, linked)
    given += [
        ("`UV_FIND_LINKS` names", text, Path(place).absolute()) for text, place in zip(linked, places, strict=True)
    ]
    for who, text, folder in given:
        if not build.sources.probe(folder):
            said = f"{who} the folder `{text}`, which is not at `{folder}`"
            raise SpecError.of("missing-folder", said, hint="make it, even if it is empty, or name no such folder")


def _check_pythons(stack: Stack, setting: Setting) -> None:
    """Refuse runtimes whose Python is another than the one that locks are for. Raises SpecError."""
    for layer in stack.of("runtime"):
        python = locked_python(layer, setting)
        for platform in setting.platforms:
            chosen = setting.chosen.get((layer.env_name, platform))
            if chosen is not None and not chosen.version.startswith(f"{python}."):
                raise SpecError.of(
                    "python-differs",
                    f"`{layer.env_name}` is Python {chosen.version} on `{platform}`, and its lock is for {python}",
                    layer.place("python_implementation"),
                    notes=[f"a lock is for all platforms, and this machine's runtime is a Python {python}"],
                    hint=f"let `python_implementation` name a Python {python}, or `accept` only what it names",
                )


def _choose(
    stack: Stack, build: Build, platforms: Sequence[str], *, locked: bool, anew: frozenset[str]
) -> dict[tuple[str, str], Choice]:
    """Choose the runtimes of what is built, and those of this machine, for whose Python locks are."""
    here = host_platform()
    choices = {}
    for layer in stack.of("runtime"):
        for platform in dict.fromkeys((here, *platforms)):
            if platform not in layer.platforms:
                continue
            built = platform in platforms
            try:
                choice = _choice(stack, build, layer, platform, locked=locked and built, anew=anew)
            except StrataError:
                if built:
                    raise
                continue
            choices[layer.env_name, platform] = choice
    return choices


def pin_runtimes(plan: Plan, build: Build, layers: Iterable[Layer]) -> None:
    """Pin the runtimes of layers for all their platforms, where it takes no more than a look at a table or the spec.

    So what was locked on one machine is built with the same runtimes on all others. Raises HostError.
    """
    for layer in dict.fromkeys(layer.runtime for layer in layers):
        for platform in layer.platforms:
            try:
                choice = _choice(plan.stack, build, layer, platform, locked=False, anew=plan.setting.anew)
            except StrataError:
                continue  # nobody has asked to build for it
            if choice.pin is not None and choice.pin.python.startswith(f"{locked_python(layer, plan.setting)}."):
                pins.keep(pin_path(build.workspace.root, layer), platform, choice.pin)


def _choice(stack: Stack, build: Build, layer: Layer, platform: str, *, locked: bool, anew: frozenset[str]) -> Choice:
    """Choose a runtime layer's runtime; each path that the choice depends on is observed."""
    sources, root = build.sources, build.workspace.root
    source = stack.runtime_source(layer)
    host = Host(
        platform=host_platform(),
        environ=os.environ,
        read=lambda path: sources.read(path) if sources.probe(path) else None,
    )
    wanted = Wanted(
        layer=layer.env_name,
        python_implementation=f"{layer.implementation}@{layer.version}",
        platform=platform,
        providers=source.providers,
        url=source.url_for(platform) or "",
        sha256=source.sha256_for(platform) or "",
        accept=source.accept or "",
        pin_path=pin_path(root, layer),
        pin_shown=as_typed(pin_path(root, layer)),
        place=layer.place("python_implementation"),
    )
    # A new lock may use a newer table, but another Python of this machine only where the stack file asks for one.
    upgrade = layer.env_name in anew and "local" not in source.providers
    choice = choose(wanted, host, upgrade=upgrade, locked=locked)
    for path in choice.observed:
        sources.observe(path)
    return choice
