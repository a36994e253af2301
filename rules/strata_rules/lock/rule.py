"""The rule that locks a layer: its Lock action, which depends on the locks below, and the lock's provider.

It decides what is in the key and what travels beside it; how uv is asked and what becomes of its answer is said
elsewhere (`resolve`, `postprocess`).
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from strata_engine.action import Action, Execution, Ref, Scope
from strata_engine.errors import HostError
from strata_engine.rule import RuleContext
from strata_engine.tree import Artifact, File, Tree, assemble, entries
from strata_rules import uv
from strata_rules.lock import postprocess, recipes
from strata_rules.lock.committed import CommittedLock
from strata_rules.lock.parts import Given
from strata_rules.lock.pins import Lower, load
from strata_rules.lock.postprocess import LocalWheel, NoWheelsError
from strata_rules.lock.request import Request, WheelFolder, inputs, wheel_sources
from strata_rules.lock.resolve import Beside, resolve
from strata_rules.lock.stale import Asked
from strata_rules.providers import LockInfo

MNEMONIC = "Lock"
RULE_VERSION = 1


class LockAttrs(msgspec.Struct, frozen=True, kw_only=True):
    """What a layer's lock is made of. The target's dependencies are the locks below: the runtime, then frameworks."""

    request: Request
    beside: Beside
    lower: tuple[str, ...] = ()
    """The runtime's environment name, then the frameworks' names as declared, in order (for venvstacks' hashes)."""
    versioned: bool = False
    modules: tuple[str, ...] = ()
    """The hashes of launch and support modules (for venvstacks' hashes)."""
    targets: recipes.Targets = recipes.Targets()
    """The C library targets as the layer's table states them (for venvstacks' hashes)."""
    given: Given = Given()
    """What the command line says of where wheels come from: the request has it too."""
    repository: Path | None = None
    """Where wheels may lie that the lock names, beside the workspace and the declared folders."""
    here: tuple[str, ...] = ()
    """The platforms that the layer is built for in this build."""
    lock_time: datetime | None = None
    """`exclude-newer`, where it is a point in time: no lock is said to be later."""
    keep_pins: bool = True
    """Whether the versions of the lock as it stands are preferred."""


def lock(ctx: RuleContext) -> tuple[LockInfo]:
    """Add the Lock action of a layer."""
    attrs = ctx.attrs(LockAttrs)
    asked = Asked(
        request=attrs.request,
        lower=attrs.lower,
        versioned=attrs.versioned,
        modules=attrs.modules,
        targets=attrs.targets,
        given=attrs.given,
        repository=attrs.repository,
        here=attrs.here,
        variables=uv.settings(attrs.beside.environ),
        folders=tuple(folder.path for folder in wheel_sources(attrs.request, attrs.beside.environ)),
    )
    below = tuple(info.layer for info in ctx.all(LockInfo))
    committed = CommittedLock(asked=asked, below=below, lock_time=attrs.lock_time)
    label = f"{attrs.request.layer}/lock"
    ctx.add(lock_action(label, attrs, committed, ctx.all(LockInfo)))
    pylock, pins = Ref(label, postprocess.PYLOCK), Ref(label, postprocess.PINS)
    return (LockInfo(layer=attrs.request.layer, pylock=pylock, pins=pins),)


def lock_action(label: str, attrs: LockAttrs, committed: CommittedLock, lower: Sequence[LockInfo]) -> Action:
    """Make the Lock action."""
    request, beside = attrs.request, attrs.beside
    shared = functools.partial(
        Action,
        label=label,
        mnemonic=MNEMONIC,
        version=RULE_VERSION,
        params=request.params(),
        scope=Scope.LOCAL,
        pool="network",
        committed=committed,
        description=f"Lock {request.layer}",
        place=beside.place,
    )
    if not request.requirements:
        return shared(run=functools.partial(_lock_nothing, request))
    uv.check_urls(beside.environ, [index.url for index in request.uv.indexes])
    folders = wheel_sources(request, beside.environ)
    keep = attrs.keep_pins and not beside.upgrade
    return shared(
        inputs=inputs(folders, [(info.layer, info.pins) for info in lower]),
        environment=uv.settings(beside.environ),
        platform={"tool:uv": uv.version()},
        run=functools.partial(_lock, request, beside, folders, committed if keep else None),
    )


def _lock_nothing(request: Request, execution: Execution) -> Artifact:
    return _file(execution, request, postprocess.empty(request))


def _lock(
    request: Request,
    beside: Beside,
    folders: Sequence[WheelFolder],
    preferred: CommittedLock | None,
    execution: Execution,
) -> Artifact:
    kept = preferred.known(execution.store) if preferred is not None else None
    if kept is not None:
        return kept
    lower = Lower([load(execution.read(name)) for name in execution.names("pins/")], request.targets)
    if preferred is not None:
        beside = msgspec.structs.replace(beside, preferred=preferred.preferred())
    find = _local_wheels(execution, request, folders)
    while True:
        exported = resolve(execution, request, lower.constraints, beside)
        try:
            return _file(execution, request, postprocess.finish(exported, request, lower, find, beside.place))
        except NoWheelsError as error:
            # A version that lacks a platform does not fit any more: another one may.
            fitting = tuple(pin for pin in beside.preferred if pin.name not in error.names)
            if fitting == beside.preferred:
                raise
            beside = msgspec.structs.replace(beside, preferred=fitting)


def _file(execution: Execution, request: Request, lock: bytes) -> Tree:
    files = postprocess.outputs(lock, request)
    return assemble(execution.store, {name: File(execution.store.put(data)) for name, data in files.items()})


def _local_wheels(execution: Execution, request: Request, folders: Sequence[WheelFolder]) -> postprocess.Localize:
    """Find local wheels by URL. Their SHA-256 is that of the input, which is in the key, not what uv says."""
    contents: list[tuple[WheelFolder, Mapping[str, str]]] = []
    for number, folder in enumerate(folders):
        node = execution.node(f"wheels/{number:04}")
        tree = entries(execution.store, node) if isinstance(node, Tree) else ((".", node),)
        contents.append((folder, {path: each.digest.hash for path, each in tree if isinstance(each, File)}))

    def find(url: str) -> LocalWheel | None:
        if not url.startswith("file:"):
            return None
        for folder, wheels in contents:
            path = folder.file(url)
            if path is not None and path in wheels:
                return LocalWheel(relative(folder.path / path, request.lock_folder), wheels[path])
        raise HostError.of(
            "wheel-outside",
            f"uv chose `{posixpath.basename(url)}`, which is in none of the wheel folders as the build found them",
            hint="start again if the folders were just changed; wheels that a page lists must lie beside it",
        )

    return find


def relative(path: Path, start: Path) -> str:
    """Give the posix path that leads from one absolute folder to a file."""
    return posixpath.relpath(path.as_posix(), start.as_posix())
