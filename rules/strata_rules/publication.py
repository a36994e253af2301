"""What is published of a built stack: archives, trees and metadata, as `publish` wants them, for one output folder.

It builds nothing and says nothing: whoever builds is told by `BlobLost` what has to be made again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from strata_engine.action import Placement, Ref
from strata_engine.build import Build, BuildResult
from strata_engine.errors import Diagnostic
from strata_rules.metadata import PublishedModule, PublishLayer, lock_facts, module_hash
from strata_rules.planning import Plan, SessionOptions
from strata_rules.providers import ArchiveInfo
from strata_rules.publish import Manifest, publish, tree_path
from strata_rules.spec.load import Layer
from strata_rules.spec.modules import Module

Made: TypeAlias = tuple[Layer, ArchiveInfo]
"""A layer and what is published of it for one platform."""


def labels_of(made: Iterable[Made]) -> list[str]:
    """List the actions whose outputs are published."""
    return [info.archive.label for _, info in made]


def blobs_of(made: Iterable[Made]) -> list[Ref]:
    """List the archives that are copied from the store: it has to have all of them."""
    return [info.archive for _, info in made if info.format != "dir"]


def local_runtimes(plan: Plan, made: Iterable[Made]) -> Iterator[tuple[str, Diagnostic]]:
    """Warn of runtimes that are published though they were made from this machine's Python: by label."""
    for layer in dict.fromkeys(layer for layer, _ in made):
        here = layer.kind == "runtime" and plan.host in plan.platforms(layer)
        if here and plan.runtime(layer, plan.host).provider == "local":
            yield (
                f"{layer.env_name}/archive",
                Diagnostic(
                    "local-runtime-published",
                    f"`{layer.env_name}` was captured from this machine and needs system libraries as new as its own",
                    hint='set `provider = "pbs"` for what runs elsewhere',
                    severity="warning",
                ),
            )


class Publication(NamedTuple):
    """Where what a build makes is published."""

    build: Build
    options: SessionOptions

    @property
    def tagged(self) -> bool:
        """Tell whether names have platform and build number in them."""
        return self.options.tag_outputs or len(self.options.platforms) > 1

    @property
    def destination(self) -> Path:
        """Give the output folder."""
        return self.build.workspace.root / self.options.output_dir

    def trees(self, made: Iterable[Made]) -> list[Placement]:
        """List the trees to publish where the format is `dir`; the engine knows which of them are there already."""
        folder, tagged = self.destination, self.tagged
        return [
            Placement(info.archive, tree_path(folder, info.install_target, info.platform, tag_outputs=tagged))
            for _, info in made
            if info.format == "dir"
        ]

    def write(self, plan: Plan, made: Iterable[Made], result: BuildResult, *, dry_run: bool) -> Sequence[Manifest]:
        """Write archives and metadata, the manifests last. Raises `BlobLost`, HostError."""
        # In a dry run there are actions of which only the label is known: neither the archive nor what a lock says.
        unknown = {action.label for action in result.actions if action.label not in result.artifacts}
        return publish(
            self.build.store.cas,
            self.destination,
            [self._layer(plan, layer, info, result, unknown) for layer, info in made],
            tag_outputs=self.tagged,
            dry_run=dry_run,
            place_trees=False,
            is_there=self.build.history.intact,
        )

    def _layer(
        self, plan: Plan, layer: Layer, archive: ArchiveInfo, result: BuildResult, unknown: Collection[str]
    ) -> PublishLayer:
        modules = plan.modules.get(layer.env_name)
        artifact = result.artifacts.get(archive.archive.label)
        return PublishLayer(
            layer=layer.env_name,
            kind=layer.kind,
            install_target=archive.install_target,
            platform=archive.platform,
            format=archive.format,
            artifact=self.build.entry(artifact, archive.archive) if artifact is not None else None,
            lock=lock_facts({} if f"{layer.env_name}/lock" in unknown else plan.committed(layer).metadata()),
            runtime_layer=plan.target_name(layer.runtime),
            python_implementation=f"{layer.implementation}@{plan.runtime(layer, archive.platform).version}",
            required_layers=tuple(plan.target_name(below) for below in layer.below),
            launch_module=self._module(modules.launch) if modules is not None else None,
            support_modules=tuple(self._module(module) for module in modules.support) if modules is not None else (),
        )

    def _module(self, module: Module) -> PublishedModule:
        node = self.build.source(module.input)
        return PublishedModule(module.import_name, module_hash(self.build.store.cas, module.file_name, node))
