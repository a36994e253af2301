"""What is to be done about one action whose inputs are known: nothing, take a result that exists, or run it.

Each early return stands under the reason for it; reading this module is reading how a build decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

import msgspec

from strata_engine import codec
from strata_engine.action import Action, Committed, Input, Literal, Placement, Ref, Scope, Source, SourceTree, Stored
from strata_engine.action_cache import ActionCache, Corrupt, Hit, Lookup, artifact_of
from strata_engine.cas import BlobLost, Cas
from strata_engine.digest import ABSENT, stamp
from strata_engine.errors import Diagnostic, SpecError, StrataError
from strata_engine.history import Past, Pasts, PlacedOutput
from strata_engine.key import Key, compute
from strata_engine.sources import Reads
from strata_engine.staleness import Reason, ReasonCode, explain
from strata_engine.tree import Artifact, File, Node, Reader, Tree, lookup, total_size

_SHARED = {Scope.CACHED, Scope.FIXED_OUTPUT}

EVICTED = Reason(ReasonCode.EVICTED, "store")
"""The store has lost what it knew of an action: it was emptied, or is another one. One loss, whatever it hits."""


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
    inputs: Mapping[str, Node]
    """The contents that the key was computed from."""
    reasons: tuple[Reason, ...]
    elsewhere: bool = False
    """Whether a result that was made on another machine would do."""


Decision: TypeAlias = Done | MustRun


class Decider:
    """Decides for one build: one decision at a time, while worker threads resolve inputs and record history."""

    def __init__(
        self,
        cas: Cas,
        cache: ActionCache,
        sources: Reads,
        history: Pasts,
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
        return {name: self._node(source, artifact_of_label) for name, source in action.inputs.items()}

    def _node(self, source: Input, artifact_of_label: Callable[[str], Artifact]) -> Node:
        match source:
            case Ref(label=label, path=path):
                return entry_of(self.cas, artifact_of_label(label), Ref(label, path))
            case Source(path=path):
                return self.sources.file(path)
            case SourceTree(path=path, accept=accept, follow=follow, empty=empty):
                return self.sources.tree(self.cas, path, accept, follow=follow, empty=empty)
            case Literal(data=data):
                return File(self.cas.put(data))
            case Stored(node=node):
                return node

    def key(self, action: Action, inputs: Mapping[str, Node]) -> Key:
        """Compute the action's key."""
        # What git keeps is disowned by whoever reviews it, and outlives an epoch.
        salt = "" if action.committed is not None else self.settings.salt
        return compute(action, inputs, self.cas, salt.encode())

    def forced(self, label: str) -> bool:
        """Tell whether the user wants this label run in any case."""
        return any(label == pattern or fnmatchcase(label, pattern) for pattern in self.settings.force)

    def decide(self, action: Action, inputs: Mapping[str, Node], key: Key, found: Lookup) -> Decision:
        """Decide about an action whose key is `key`, under which the action cache has `found`.

        Raises SpecError where `locked` forbids what would have to be done.
        """
        past = self.history.past(action.label)

        def must_run(*codes: ReasonCode) -> MustRun:
            own = tuple(Reason(code, action.label) for code in codes)
            return MustRun(key, inputs, (*own, *self.changes(action, key, past), *self.displaced(action.label)))

        if action.committed is not None and self.settings.locked:
            return self._locked(action, action.committed, key, past)
        if self.forced(action.label):
            return must_run(ReasonCode.FORCED)
        if action.scope is Scope.VOLATILE:
            return must_run(ReasonCode.VOLATILE)
        if action.committed is not None:
            kept = action.committed.read(key.digest, self.cas)
            if kept is not None:
                return self._found(action, key, past, kept, kept=True)
        match found:
            case Hit(result=result):
                artifact = artifact_of(result)
                try:
                    if action.committed is not None and self.cas.lost(artifact):
                        return must_run(ReasonCode.CACHE_BLOB_LOST)
                    return self._found(action, key, past, artifact, warnings_of(result))
                except BlobLost:
                    decision = must_run(ReasonCode.CACHE_BLOB_LOST)
            case Corrupt():
                decision = must_run(ReasonCode.CACHE_ENTRY_CORRUPT)
            case _:
                decision = MustRun(key, inputs, (*self._missing(action, key, past), *must_run().reasons))
        return msgspec.structs.replace(decision, elsewhere=may_come(action))

    def _missing(self, action: Action, key: Key, past: Past | None) -> tuple[Reason, ...]:
        """Say that the result of the last build here is not in the store any more, where it was one."""
        if past is None or past.artifact is None or past.key != key.digest:
            return ()
        # Where not even the question is known any more, that is the store's loss and not this result's.
        known = not self.cas.missing((key.digest,))
        return (Reason(ReasonCode.CACHE_ENTRY_MISSING, action.label) if known else EVICTED,)

    def _locked(self, action: Action, committed: Committed, key: Key, past: Past | None) -> Decision:
        """Take what is committed, or refuse: nothing may replace it."""
        notes: tuple[str, ...] = ("it is to run in any case",)
        if not self.forced(action.label):
            kept = committed.read(key.digest, self.cas)
            if kept is not None:
                return self._found(action, key, past, kept, kept=True)
            notes = committed.why_invalid(key.digest)
        raise SpecError.of(
            "locked",
            f"`{action.label}` would have to run, which `--locked` forbids",
            action.place,
            notes=notes,
            hint="run without `--locked` and commit what it writes",
        )

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
        same = past is not None and past.key == key.digest and past.artifact is not None
        changes = () if same else self.changes(action, key, past)
        broken = self.broken(action.label, artifact, outdated=same)
        if action.committed is not None and not kept:
            broken = (Reason(ReasonCode.OUTPUT_MISSING, action.label), *broken)
        size = past.bytes if past is not None and same else size_of(self.cas, artifact)
        # In a fresh checkout whose lock is valid nothing is to be done either.
        fresh = not broken and (same or (past is None and action.committed is not None))
        if fresh:
            return Done(key, artifact, fresh=True, size=size)
        return Done(key, artifact, fresh=False, reasons=(*changes, *broken), warnings=warnings, size=size)

    def placements(self, label: str) -> list[Placement]:
        """List where the output of a label is wanted."""
        return self._placements.get(label, [])

    def broken(self, label: str, artifact: Artifact, *, outdated: bool) -> tuple[Reason, ...]:
        """Say which wanted outputs of a label are not at their place as they should be.

        An earlier output, untouched, counts only where it is `outdated`: where no change of the key explains it.
        """
        reasons = []
        for placement in self.placements(label):
            node = entry_of(self.cas, artifact, placement.ref)
            if self.history.intact(placement.path, node):
                continue
            there = self.history.placed(placement.path)
            displaced = self._displaced(placement, there)
            if displaced is not None:
                reasons.append(displaced)
            elif outdated and there is not None:
                subject = self.sources.workspace.relative(placement.path)
                wanted = node.digest if isinstance(node, File) else node.root
                reasons.append(Reason(ReasonCode.OUTPUT_MISSING, subject, there.output.hash[:12], wanted.hash[:12]))
        return tuple(reasons)

    def displaced(self, label: str) -> tuple[Reason, ...]:
        """Say which outputs of a label are not as they were left, whatever they are to be now."""
        placed = ((placement, self.history.placed(placement.path)) for placement in self.placements(label))
        found = (self._displaced(placement, there) for placement, there in placed if there is not None)
        return tuple(reason for reason in found if reason is not None)

    def _displaced(self, placement: Placement, there: PlacedOutput | None) -> Reason | None:
        found = stamp(placement.path)
        if there is not None and there.stamp == found != ABSENT:
            return None
        missing = there is None or found == ABSENT
        code = ReasonCode.OUTPUT_MISSING if missing else ReasonCode.OUTPUT_TAMPERED
        return Reason(code, self.sources.workspace.relative(placement.path))

    def changes(self, action: Action, key: Key, past: Past | None) -> tuple[Reason, ...]:
        """Say all that is not as it was when this label was last built with success."""
        if past is None:
            return (Reason(ReasonCode.FIRST_BUILD, action.label),)
        failed = (Reason(ReasonCode.PREVIOUS_FAILED, action.label),) if past.artifact is None else ()
        if past.key == key.digest:
            return failed
        self.keep(key)
        try:
            relative = self.sources.workspace.relative
            found = explain(self.cas, past.key, key.digest, action, relative, lambda name: _source(past, name))
        except (BlobLost, ValueError):
            found = (EVICTED,)
        return (*failed, *found)

    def changes_so_far(self, action: Action, known: Callable[[str], Artifact | None]) -> tuple[Reason, ...]:
        """Say what has changed of an action of which not all inputs are known: these count as they were last.

        For a dry run, which makes nothing.
        """
        refs = dict.fromkeys(source.label for source in action.inputs.values() if isinstance(source, Ref))
        there = {label: known(label) for label in refs}
        made = {label: artifact for label, artifact in there.items() if artifact is not None}
        awaited = tuple(Reason(ReasonCode.UPSTREAM_CHANGED, label) for label in refs if label not in made)
        past = self.history.past(action.label)
        if past is None:
            return (Reason(ReasonCode.FIRST_BUILD, action.label), *awaited)
        nodes: dict[str, Node] = {}
        try:
            root = Tree(codec.decode_action(self.cas.get(past.key)).input_root_digest)
            for name, source in action.inputs.items():
                last = isinstance(source, Ref) and source.label not in made
                node = lookup(self.cas, root, name) if last else self._node(source, made.__getitem__)
                nodes |= {} if node is None else {name: node}
            changes = self.changes(action, self.key(action, nodes), past)
        except (StrataError, ValueError):
            # Lost, or not to be had: what is awaited is reason enough.
            changes = ()
        return (*changes, *awaited, *self.displaced(action.label))

    def record(self, action: Action, past: Past) -> None:
        """Note in the history how an action ended, and what it had read."""
        inputs = action.inputs.values()
        paths = [source.path for source in inputs if isinstance(source, (Source, SourceTree))]
        if paths:
            past = msgspec.structs.replace(past, sources=tuple(map(self.sources.workspace.relative, paths)))
        self.history.record(action.label, past)

    def keep(self, key: Key) -> None:
        """Put the blobs that explain a key into the store."""
        self.cas.put_named(key.digest, key.action)
        self.cas.put(key.command)


def may_leave(action: Action) -> bool:
    """Tell whether the result of an action may be sent to others: git does that for those that it keeps."""
    return bool(action.pinned) or (action.committed is None and action.scope in _SHARED)


def may_come(action: Action) -> bool:
    """Tell whether a result that was made on another machine would do."""
    return action.committed is None and (action.scope in _SHARED or action.expected is not None)


def is_expected(action: Action, artifact: Artifact, store: Reader) -> bool:
    """Tell whether an output may be that of an action, of which the workspace may keep a part. Raises `BlobLost`."""
    if action.expected is None:
        return True
    return isinstance(artifact, Tree) and lookup(store, artifact, action.pinned) == action.expected


def _source(past: Past, name: str) -> str:
    """Give the file or folder that an input was which is no input any more: names end as paths do."""
    last = name.rpartition("/")[2]
    found = [path for path in past.sources if path.rpartition("/")[2] == last]
    return found[0] if len(found) == 1 else name


def entry_of(cas: Cas, artifact: Artifact, ref: Ref) -> Artifact:
    """Give the part of an output that a Ref names. Raises SpecError where there is none, `BlobLost`."""
    if not ref.path:
        return artifact
    found = lookup(cas, artifact, ref.path) if not isinstance(artifact, File) else None
    if found is None or not isinstance(found, Artifact):
        raise SpecError.of("missing-output", f"`{ref.label}` has no output `{ref.path}`")
    return found


def size_of(cas: Cas, artifact: Artifact) -> int:
    """Give the size of an output's files together; 0 where it cannot be known."""
    try:
        return artifact.digest.size if isinstance(artifact, File) else total_size(cas, artifact)
    except BlobLost:
        return 0


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
