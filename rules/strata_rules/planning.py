"""Turns a stack into a graph to build: runtimes chosen, modules found, targets analyzed.

The rim before analysis: what is read here goes through the build's `Sources`. It executes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from strata_engine.action import Action
from strata_engine.build import Build
from strata_engine.errors import SpecError
from strata_engine.rule import Analysis, analyze
from strata_rules import uv
from strata_rules.download.client import Network
from strata_rules.download.credentials import credentials_of
from strata_rules.lock.committed import CommittedLock
from strata_rules.platforms import host_platform
from strata_rules.providers import ArchiveInfo, LinkInfo, RuntimeInfo
from strata_rules.runtime.choose import Choice, Host, Wanted, choose
from strata_rules.spec.load import Layer, Stack
from strata_rules.spec.modules import ApplicationModules, application_modules
from strata_rules.stack import Setting, buildable, install_target, pin_path, targets
from strata_rules.wheel.fetch import Access


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all that is done with an opened stack. Folders are relative to the stack file."""

    build_dir: Path = Path("_build")
    output_dir: Path = Path("_artifacts")
    include: tuple[str, ...] = ()
    local_wheels: tuple[Path, ...] = ()
    index: bool = True
    offline: bool = False


class Plan(NamedTuple):
    """A graph, and what it was made with."""

    stack: Stack
    setting: Setting
    analysis: Analysis
    choices: dict[str, Choice]
    """The runtime of each runtime layer that this machine can build, by environment name."""
    modules: dict[str, ApplicationModules]

    @property
    def host(self) -> str:
        """The platform that is built for."""
        return self.setting.host

    def target_name(self, layer: Layer) -> str:
        """Name the folder that a layer is deployed in."""
        return install_target(layer, self.setting.versions)

    def runtime(self, layer: Layer) -> RuntimeInfo:
        """Give the runtime that a layer stands on."""
        return self.analysis.get(f"{layer.runtime.env_name}/runtime", RuntimeInfo)

    def link(self, layer: Layer) -> LinkInfo:
        """Give a layer as it is deployed."""
        return self.analysis.get(f"{layer.env_name}/link", LinkInfo)

    def archive(self, layer: Layer) -> ArchiveInfo:
        """Give a layer's archive."""
        return self.analysis.get(f"{layer.env_name}/archive", ArchiveInfo)

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
    upgrade: bool = False,
    format: str = "",
) -> Plan:
    """Choose runtimes, find modules, analyze. Raises SpecError, HostError."""
    sources, root, store = build.sources, build.workspace.root, build.store.folder
    modules = application_modules(stack, sources.read, sources.probe)
    choices = _choose(stack, build, locked=locked, upgrade=upgrade)
    indexes = {index.name or index.url: index.url for index in stack.uv.indexes}
    local_wheels = tuple(root / folder.expanduser() for folder in options.local_wheels)
    _check_folders(build, options.local_wheels)
    network = Network(offline=options.offline, credentials=credentials_of(indexes, os.environ))
    setting = Setting(
        host=host_platform(),
        chosen={name: choice.chosen for name, choice in choices.items()},
        modules=modules,
        versions=versions,
        access=Access(network, store / "parts", root, local_wheels),
        uv_cache=store / "uv",
        environ=os.environ,
        upgrade=upgrade,
        offline=options.offline,
        no_index=not options.index,
        local_wheels=local_wheels,
        format=format,
    )
    return Plan(stack, setting, analyze(targets(stack, setting)), choices, modules)


def _check_folders(build: Build, local_wheels: Iterable[Path]) -> None:
    """Refuse folders of wheels, named outside the stack file, that are not there. Raises SpecError."""
    root = build.workspace.root
    given = [("`--local-wheels` names", str(folder), root / folder.expanduser()) for folder in local_wheels]
    given += [
        ("`UV_FIND_LINKS` names", text, Path(text).expanduser().absolute())
        for text in uv.find_links_folders(os.environ)
    ]
    for who, text, folder in given:
        if not build.sources.probe(folder):
            raise SpecError.of("missing-folder", f"{who} the folder `{text}`, which is not at `{folder}`")


def _choose(stack: Stack, build: Build, *, locked: bool, upgrade: bool) -> dict[str, Choice]:
    """Choose the runtimes that this machine can build; each path that a choice depends on is observed."""
    sources = build.sources
    host = Host(
        platform=host_platform(),
        environ=os.environ,
        read=lambda path: sources.read(path) if sources.probe(path) else None,
    )
    choices = {}
    for layer in stack.of("runtime"):
        if not buildable(layer, host.platform):
            continue
        source = stack.runtime_source(layer)
        wanted = Wanted(
            layer=layer.env_name,
            python_implementation=f"{layer.implementation}@{layer.version}",
            platform=host.platform,
            providers=source.providers,
            url=source.url_for(host.platform) or "",
            sha256=source.sha256_for(host.platform) or "",
            accept=source.accept or "",
            pin_path=pin_path(build.workspace.root, layer),
            pin_shown=build.workspace.relative(pin_path(build.workspace.root, layer)),
            place=layer.place("python_implementation"),
        )
        # A new lock may use a newer table, but another Python of this machine only where the stack file asks for one.
        choice = choose(wanted, host, upgrade=upgrade and "local" not in source.providers, locked=locked)
        for path in choice.observed:
            sources.observe(path)
        choices[layer.env_name] = choice
    return choices
