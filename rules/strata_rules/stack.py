"""From a stack to targets: which rule each part of each layer is, with what attributes, on top of what.

The table of rules. It composes; what the rules do is theirs, and they meet through providers alone. A layer comes to
the target `ENV/lock`, and for each platform that is built to `ENV/runtime` (runtimes), `ENV/packages`, `ENV/link`,
`ENV/compile` and `ENV/archive`, with a suffix `[PLATFORM]` where that is not this machine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from strata_engine.rule import Target
from strata_rules.archive.rule import ArchiveAttrs, archive
from strata_rules.bytecode.rule import BytecodeAttrs, bytecode
from strata_rules.link import rule as link_rule
from strata_rules.link.rule import LinkAttrs, link
from strata_rules.lock.parts import Given
from strata_rules.lock.recipes import Targets
from strata_rules.lock.request import LOCK_FOLDER, Request, wheel_sources
from strata_rules.lock.resolve import Beside
from strata_rules.lock.rule import LockAttrs, lock
from strata_rules.runtime.choose import Chosen
from strata_rules.runtime.rule import RuntimeAttrs, runtime
from strata_rules.spec.declared import ApplicationSpec
from strata_rules.spec.folders import install_target
from strata_rules.spec.load import Layer, Stack
from strata_rules.spec.modules import ApplicationModules, Module
from strata_rules.spec.uvconfig import LayerUvConfig, layer_config
from strata_rules.wheel.fetch import Access
from strata_rules.wheel.packages import PackagesAttrs, label_of, packages


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What targets are made of beside the stack file; none of it but `platforms` decides what is built."""

    host: str
    """This machine's platform."""
    platforms: tuple[str, ...]
    """The platforms to build for."""
    chosen: Mapping[tuple[str, str], Chosen]
    """The runtimes, by environment name and platform."""
    modules: Mapping[str, ApplicationModules]
    module_hashes: Mapping[str, tuple[str, ...]]
    """venvstacks' hashes of each application's launch module and its support modules."""
    versions: Mapping[str, int]
    """The lock version of each versioned layer."""
    access: Access
    repository: Path
    """The git work tree that the stack file is in, else its folder: what is committed may name wheels there."""
    uv_cache: Path
    environ: Mapping[str, str]
    anew: frozenset[str] = frozenset()
    """The layers whose locks keep no version of now, by environment name."""
    offline: bool = False
    given: Mapping[str, Given]
    """What the command line says, or said when the layer was locked, of where its wheels come from."""
    format: str = ""
    """The archive format asked for; empty for what the stack file or the platform says."""


def targets(stack: Stack, setting: Setting) -> Iterator[Target]:
    """Give the targets of all layers that are not disabled."""
    unsure = contested(stack)
    for layer in stack.layers:
        if not layer.platforms:
            continue
        yield _lock(stack, layer, setting)
        for platform in setting.platforms:
            if platform not in layer.platforms:
                continue
            if layer.kind == "runtime":
                yield _runtime(layer, platform, setting)
            yield _packages(stack, layer, platform, setting, unsure)
            yield _link(stack, layer, platform, setting)
            yield _compile(layer, platform, setting)
            yield _archive(stack, layer, platform, setting)


def _runtime(layer: Layer, platform: str, setting: Setting) -> Target:
    attrs = RuntimeAttrs(
        layer=layer.env_name,
        platform=platform,
        host=setting.host,
        implementation=layer.implementation,
        chosen=setting.chosen[layer.env_name, platform],
        pin_path=pin_path(setting.access.workspace, layer),
        network=setting.access.network,
        folder_for_parts=setting.access.parts,
        place=layer.place("python_implementation"),
    )
    return Target(name=label_of(layer.env_name, "runtime", platform, setting.host), rule=runtime, attrs=attrs)


def pin_path(root: Path, layer: Layer) -> Path:
    """Give the place of a runtime layer's pin."""
    return root / LOCK_FOLDER / layer.env_name / f"runtime.{layer.env_name}.json"


def locked_python(layer: Layer, setting: Setting) -> str:
    """Give the `X.Y` that a layer is locked for: that of this machine's runtime, else what the stack file says."""
    choice = setting.chosen.get((layer.runtime.env_name, setting.host))
    return ".".join((choice.version if choice is not None else layer.version).split(".")[:2])


def _request(stack: Stack, layer: Layer, setting: Setting) -> Request:
    return Request(
        layer=layer.env_name,
        requirements=layer.spec.requirements,
        python=locked_python(layer, setting),
        platforms=layer.platforms,
        linux_target=layer.linux_target,
        macosx_target=layer.macosx_target,
        uv=_uv(stack, layer, setting),
        implementation=layer.implementation,
        below=tuple(_urls_below(layer)),
    )


def _urls_below(layer: Layer) -> Iterable[str]:
    """List the requirements with URLs of the layers below: of each distribution those of the first that has any."""
    seen: set[str] = set()
    for below in (layer.base, *layer.below) if layer.base is not None else ():
        found = [each for each in map(Requirement, below.spec.requirements) if each.url is not None]
        new = [each for each in found if canonicalize_name(each.name) not in seen]
        seen.update(canonicalize_name(each.name) for each in new)
        for requirement in new:
            requirement.extras = set()
            yield str(requirement)


def _lock(stack: Stack, layer: Layer, setting: Setting) -> Target:
    request = _request(stack, layer, setting)
    beside = Beside(
        cache=setting.uv_cache,
        environ=setting.environ,
        upgrade=layer.env_name in setting.anew,
        offline=setting.offline,
        place=layer.place("requirements"),
        locate=stack.uv.place,
    )
    attrs = LockAttrs(
        request=request,
        beside=beside,
        lower=(layer.base.env_name, *(below.name for below in layer.below)) if layer.base else (),
        versioned=layer.spec.versioned,
        modules=setting.module_hashes.get(layer.env_name, ()),
        given=setting.given[layer.env_name],
        repository=setting.repository,
        targets=Targets(_stated(layer, "linux_target"), _stated(layer, "macosx_target")),
        here=tuple(platform for platform in setting.platforms if platform in layer.platforms),
        lock_time=stack.uv.lock_time,
        keep_pins=layer.env_name not in setting.anew,
    )
    return Target(name=f"{layer.env_name}/lock", rule=lock, attrs=attrs, deps=tuple(_locks_below(layer)))


def _uv(stack: Stack, layer: Layer, setting: Setting) -> LayerUvConfig:
    given = setting.given[layer.env_name]
    folders = [stack.root / folder for folder in given.local_wheels]
    return layer_config(stack, layer, no_index=given.no_index, local_wheels=folders)


def _stated(layer: Layer, field: str) -> str | None:
    """Give a target only where the layer's own table states it."""
    return getattr(layer.spec, field) if field in layer.declared.table.values else None


def _locks_below(layer: Layer) -> Iterable[str]:
    """Name the lock targets below, in the order in which their pins count: the runtime, then the frameworks."""
    if layer.base is not None:
        yield f"{layer.base.env_name}/lock"
        yield from (f"{below.env_name}/lock" for below in layer.below)


def _packages(stack: Stack, layer: Layer, platform: str, setting: Setting, unsure: frozenset[str]) -> Target:
    # Whatever the lock may choose from may be fetched from, wherever it lies.
    folders = tuple(folder.path for folder in wheel_sources(_request(stack, layer, setting), setting.environ))
    attrs = PackagesAttrs(
        layer=layer.env_name,
        platform=platform,
        host=setting.host,
        linux_target=layer.linux_target,
        macosx_target=layer.macosx_target,
        lock_folder=setting.access.workspace / LOCK_FOLDER / layer.env_name,
        lock_file=f"{LOCK_FOLDER}/{layer.env_name}/pylock.{layer.env_name.replace('.', '_')}.toml",
        access=setting.access._replace(wheel_folders=(*folders, setting.repository)),
        is_runtime=layer.kind == "runtime",
        entry_points=stack.strata.entry_points,
        refuse_conflicts=stack.strata.conflicts == "error",
        contested=unsure,
        place=layer.place("requirements"),
    )
    base = label_of(layer.runtime.env_name, "runtime", platform, setting.host)
    deps = (f"{layer.env_name}/lock", base, *_locks_below(layer))
    name = label_of(layer.env_name, "packages", platform, setting.host)
    return Target(name=name, rule=packages, attrs=attrs, deps=deps)


def contested(stack: Stack) -> frozenset[str]:
    """List the distributions that the stack file lets layers take from different indexes.

    Counted are layers that say where a distribution comes from, and those that require it without saying so.
    """
    origins: dict[str, set[str]] = {}
    for layer in stack.layers:
        required = [Requirement(text) for text in layer.spec.requirements]
        routed = {str(name): index for name, index in {**stack.uv.sources, **layer.package_indexes}.items()}
        routed |= {canonicalize_name(each.name): each.url for each in required if each.url is not None}
        for name in {*(canonicalize_name(each.name) for each in required), *routed}:
            origins.setdefault(name, set()).add(routed.get(name, ""))
    return frozenset(name for name, indexes in origins.items() if len(indexes) > 1)


def _link(stack: Stack, layer: Layer, platform: str, setting: Setting) -> Target:
    modules = setting.modules.get(layer.env_name)
    attrs = LinkAttrs(
        layer=layer.env_name,
        install_target=install_target(layer, setting.versions),
        kind=layer.kind,
        platform=platform,
        host=setting.host,
        dynlib=stack.strata.dynlib,
        dynlib_exclude=layer.spec.dynlib_exclude,
        launch=_module(modules.launch) if modules is not None else None,
        support=tuple(_module(module) for module in modules.support) if modules is not None else (),
        place=layer.place("name"),
    )

    def name(part: Layer, action: str) -> str:
        return label_of(part.env_name, action, platform, setting.host)

    below = tuple(name(lower, "link") for lower in layer.lower)
    deps = (name(layer, "packages"), name(layer.runtime, "runtime"), *below)
    return Target(name=name(layer, "link"), rule=link, attrs=attrs, deps=deps)


def _module(module: Module) -> link_rule.Module:
    return link_rule.Module(module.import_name, module.file_name, module.input)


def _compile(layer: Layer, platform: str, setting: Setting) -> Target:
    attrs = BytecodeAttrs(layer=layer.env_name, platform=platform, host=setting.host)
    parts = ((layer, "packages"), (layer, "link"), (layer.runtime, "runtime"))
    deps = tuple(label_of(part.env_name, action, platform, setting.host) for part, action in parts)
    name = label_of(layer.env_name, "compile", platform, setting.host)
    return Target(name=name, rule=bytecode, attrs=attrs, deps=deps)


def _archive(stack: Stack, layer: Layer, platform: str, setting: Setting) -> Target:
    options = stack.strata.archive
    attrs = ArchiveAttrs(
        layer=layer.env_name,
        platform=platform,
        host=setting.host,
        format=setting.format or options.format or "",
        level=options.level if not setting.format or setting.format == options.format else None,
        bytecode=options.bytecode,
    )
    name = label_of(layer.env_name, "archive", platform, setting.host)
    parts = ("link", "compile") if options.bytecode else ("link",)
    deps = tuple(label_of(layer.env_name, part, platform, setting.host) for part in parts)
    return Target(name=name, rule=archive, attrs=attrs, deps=deps)


def launch_module(layer: Layer) -> str:
    """Give the name by which `python -m` runs an application."""
    assert isinstance(layer.spec, ApplicationSpec)
    return Path(layer.spec.launch_module).stem
