"""What is to be done about one action whose inputs are known: nothing, take a result that exists, or run it.

Each early return stands under the reason for it; reading this module is reading how a build decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

import msgspec

from strata_engine import codec
from strata_engine.action import Action, Literal, Placement, Ref, Scope, Source, SourceTree, Stored
from strata_engine.action_cache import ActionCache, Corrupt, Hit, Missing, artifact_of
from strata_engine.cas import BlobLost, Cas
from strata_engine.digest import ABSENT, stamp
from strata_engine.errors import Diagnostic, SpecError
from strata_engine.history import History, Past
from strata_engine.key import Key, compute
from strata_engine.sources import Sources
from strata_engine.staleness import Reason, ReasonCode, explain
from strata_engine.tree import Artifact, File, Node, lookup


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a build is to be run; none of it but `salt` is in any key."""

    jobs: int = 0
    """Slots of the cpu pool; 0 means one per core."""
    network_jobs: int = 16
    """Slots of the network pool."""
    keep_going: bool = False
    """Go on with what does not need a failed action."""
    force: tuple[str, ...] = ()
    """Labels, or shell patterns of labels, that run whatever their keys say."""
    locked: bool = False
    """Refuse to replace a committed result."""
    dry_run: bool = False
    """Decide, execute nothing."""
    salt: str = ""
    """The operator's epoch: another one disowns every result made so far."""


class Done(msgspec.Struct, frozen=True):
    """The result is known; `fresh` when nothing at all is to be done."""

    key: Key
    artifact: Artifact
    fresh: bool
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()
    size: int = 0


class MustRun(msgspec.Struct, frozen=True):
    """The action has to be executed."""

    key: Key
    reasons: tuple[Reason, ...]


Decision: TypeAlias = Done | MustRun


class Decider:
    """Decides for one build. Not for use from several threads at once."""

    def __init__(
        self,
        cas: Cas,
        cache: ActionCache,
        sources: Sources,
        history: History,
        settings: Settings,
        placements: Sequence[Placement],
    ) -> None:
        self.cas = cas
        self.cache = cache
        self.sources = sources
        self.history = history
        self.settings = settings
        self._placements: dict[str, list[Placement]] = {}
        for placement in placements:
            self._placements.setdefault(placement.ref.label, []).append(placement)

    def resolve(self, action: Action, artifact_of_label: Callable[[str], Artifact]) -> dict[str, Node]:
        """Give the content of each input. Raises SpecError for a source that is missing, `BlobLost`."""
        nodes: dict[str, Node] = {}
        for name, source in action.inputs.items():
            match source:
                case Ref(label=label, path=path):
                    nodes[name] = entry_of(self.cas, artifact_of_label(label), Ref(label, path))
                case Source(path=path):
                    nodes[name] = self.sources.file(path)
                case SourceTree(path=path, accept=accept):
                    nodes[name] = self.sources.tree(self.cas, path, accept)
                case Literal(data=data):
                    nodes[name] = File(self.cas.put(data))
                case Stored(node=node):
                    nodes[name] = node
        return nodes

    def key(self, action: Action, inputs: Mapping[str, Node]) -> Key:
        """Compute the action's key."""
        return compute(action, inputs, self.cas, self.settings.salt.encode())

    def forced(self, label: str) -> bool:
        """Tell whether the user wants this label run in any case."""
        return any(label == pattern or fnmatchcase(label, pattern) for pattern in self.settings.force)

    def decide(self, action: Action, inputs: Mapping[str, Node]) -> Decision:
        """Decide about an action. Raises SpecError where `locked` forbids what would have to be done."""
        key = self.key(action, inputs)
        past = self.history.past(action.label)
        if self.forced(action.label):
            return MustRun(key, (Reason(ReasonCode.FORCED, action.label),))
        if action.scope is Scope.VOLATILE:
            return MustRun(key, (Reason(ReasonCode.VOLATILE, action.label),))
        if action.committed is not None:
            kept = action.committed.read(key.digest, self.cas)
            if kept is not None:
                return self._found(action, key, past, kept, kept=True)
            if self.settings.locked:
                raise SpecError.of(
                    "locked",
                    f"`{action.label}` would have to run, which `--locked` forbids",
                    action.place,
                    notes=action.committed.why_invalid(key.digest),
                    hint="run without `--locked` and commit what it writes",
                )
        match self.cache.lookup(key.digest):
            case Hit(result=result):
                artifact = artifact_of(result)
                if action.committed is not None and self.cas.lost(artifact):
                    return MustRun(key, (Reason(ReasonCode.CACHE_BLOB_LOST, action.label),))
                return self._found(action, key, past, artifact, warnings_of(result))
            case Corrupt():
                return MustRun(key, (Reason(ReasonCode.CACHE_ENTRY_CORRUPT, action.label),))
            case Missing():
                return MustRun(key, self.reasons(action, key, past))

    def _found(
        self,
        action: Action,
        key: Key,
        past: Past | None,
        artifact: Artifact,
        warnings: tuple[Diagnostic, ...] = (),
        *,
        kept: bool = False,
    ) -> Done:
        """Tell whether a result that exists is also what the last build here had, in its place.

        `kept` says that it is what the workspace keeps, so that it need not be written there.
        """
        broken = self.broken(action.label, artifact)
        if action.committed is not None and not kept:
            broken = (Reason(ReasonCode.OUTPUT_MISSING, action.label), *broken)
        size = past.bytes if past is not None and past.key == key.digest else 0
        if past is not None and past.key == key.digest and past.artifact is not None and not broken:
            return Done(key, artifact, fresh=True, size=size)
        if past is None and action.committed is not None and not broken:
            # A fresh checkout whose lock is valid: nothing was to do.
            return Done(key, artifact, fresh=True, size=size)
        changed = () if past is not None and past.key == key.digest else self.reasons(action, key, past)
        return Done(key, artifact, fresh=False, reasons=(*changed, *broken), warnings=warnings, size=size)

    def placements(self, label: str) -> list[Placement]:
        """List where the output of a label is wanted."""
        return self._placements.get(label, [])

    def broken(self, label: str, artifact: Artifact) -> tuple[Reason, ...]:
        """Say which wanted outputs of a label are not at their place as they should be."""
        reasons = []
        for placement in self.placements(label):
            node = entry_of(self.cas, artifact, placement.ref)
            if self.history.intact(placement.path, node):
                continue
            there = self.history.placed(placement.path)
            missing = there is None or stamp(placement.path) == ABSENT
            changed = there is not None and there.output != (node.digest if isinstance(node, File) else node.root)
            code = ReasonCode.OUTPUT_MISSING if missing or changed else ReasonCode.OUTPUT_TAMPERED
            reasons.append(Reason(code, self.sources.workspace.relative(placement.path)))
        return tuple(reasons)

    def reasons(self, action: Action, key: Key, past: Past | None) -> tuple[Reason, ...]:
        """Say why no result exists for this key, by comparing with the last one of this label."""
        if past is None:
            return (Reason(ReasonCode.FIRST_BUILD, action.label),)
        failed = (Reason(ReasonCode.PREVIOUS_FAILED, action.label),) if past.artifact is None else ()
        if past.key == key.digest:
            return failed or (Reason(ReasonCode.CACHE_ENTRY_MISSING, action.label),)
        self.keep(key)
        try:
            found = explain(self.cas, past.key, key.digest, action, self.sources.workspace.relative)
        except (BlobLost, ValueError):
            found = (Reason(ReasonCode.EVICTED, action.label, past.key.hash[:12], key.digest.hash[:12]),)
        return (*failed, *found)

    def keep(self, key: Key) -> None:
        """Put the blobs that explain a key into the store."""
        self.cas.put(key.action)
        self.cas.put(key.command)


def entry_of(cas: Cas, artifact: Artifact, ref: Ref) -> Artifact:
    """Give the part of an output that a Ref names. Raises SpecError where there is none, `BlobLost`."""
    if not ref.path:
        return artifact
    found = lookup(cas, artifact, ref.path) if not isinstance(artifact, File) else None
    if found is None or not isinstance(found, Artifact):
        raise SpecError.of("missing-output", f"`{ref.label}` has no output `{ref.path}`")
    return found


def warnings_of(result: codec.ActionResult) -> tuple[Diagnostic, ...]:
    """Read the warnings that an action gave when it was executed; a remote may have put anything there."""
    if not result.stderr_raw:
        return ()
    try:
        return msgspec.json.decode(result.stderr_raw, type=tuple[Diagnostic, ...])
    except msgspec.MsgspecError:
        return ()


def warnings_to_bytes(warnings: Sequence[Diagnostic]) -> bytes:
    """Write warnings as they are kept with a result."""
    return msgspec.json.encode(list(warnings)) if warnings else b""
