"""What the last build of each label here came to: its key, output and duration, and what was placed where.

One small sealed file per workspace, written as a whole at the end of a build. Losing it costs no correctness: the
action cache still knows every result by key; only reasons become `first-build` and durations unknown.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import msgspec

from strata_engine.digest import Digest, Stamp, stamp
from strata_engine.errors import Diagnostic
from strata_engine.seal import seal
from strata_engine.tree import Artifact, File, Tree
from strata_engine.workspace import write_atomically

FORMAT = 2


class Past(msgspec.Struct, frozen=True, array_like=True):
    """A label's last build."""

    key: Digest
    output: Digest | None
    """None where it failed."""
    is_tree: bool = False
    executable: bool = False
    seconds: float = 0.0
    """How long it took when it was last executed."""
    bytes: int = 0
    """The size of its files together."""
    run: str = ""
    """The build that last looked at it."""
    sources: tuple[str, ...] = ()
    """The files and folders that it read, as the workspace names them."""

    @property
    def artifact(self) -> Artifact | None:
        """The output as a value."""
        if self.output is None:
            return None
        return Tree(self.output) if self.is_tree else File(self.output, self.executable)

    @classmethod
    def of(cls, key: Digest, artifact: Artifact | None, seconds: float, size: int = 0) -> Past:
        """Make the record of a build that has just ended."""
        match artifact:
            case None:
                return cls(key, None, seconds=seconds)
            case Tree(root=root):
                return cls(key, root, is_tree=True, seconds=seconds, bytes=size)
            case File(digest=digest, executable=executable):
                return cls(key, digest, executable=executable, seconds=seconds, bytes=size)


class PlacedOutput(msgspec.Struct, frozen=True, array_like=True):
    """What was put at a place, and the stamp of its root afterwards."""

    output: Digest
    stamp: Stamp


class _State(msgspec.Struct, array_like=True):
    format: int = FORMAT
    labels: dict[str, Past] = {}
    placed: dict[bytes, PlacedOutput] = {}
    """By path as the file system has it: a path need not be text."""


class Pasts(Protocol):
    """What a build asks of history, and tells it."""

    run: str
    """The build that records what follows."""

    def past(self, label: str) -> Past | None:
        """Give what is known of a label."""
        ...

    def labels(self) -> dict[str, Past]:
        """Give all that is known, by label."""
        ...

    def record(self, label: str, past: Past) -> None:
        """Note how a label ended."""
        ...

    def seconds(self) -> dict[str, float]:
        """Give the recorded duration of each label that was ever executed."""
        ...

    def placed(self, path: Path) -> PlacedOutput | None:
        """Give what was last put at a place, whatever stands there now."""
        ...

    def intact(self, path: Path, artifact: Artifact) -> bool:
        """Tell whether `artifact` still stands at `path`."""
        ...

    def record_placed(self, path: Path, artifact: Artifact) -> None:
        """Note what has been put at a place."""
        ...

    def forget_placed(self, path: Path) -> None:
        """Trust nothing that stands at a place."""
        ...

    def save(self) -> None:
        """Keep it. Raises OSError."""
        ...


class History:
    """The history of one workspace, held in memory while a build runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.run = ""
        """The build that records what follows."""
        self.warning: Diagnostic | None = None
        self._state = self._load()

    def _load(self) -> _State:
        try:
            data = self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return _State()
        except OSError as error:
            self.warning = _damaged(self._path, error.strerror or str(error))
            return _State()
        try:
            if seal(data[16:]) != data[:16]:
                raise ValueError("its seal is broken")  # noqa: TRY301 - damage found here and by the decoder ends alike
            state = msgspec.msgpack.decode(data[16:], type=_State)
        except (ValueError, msgspec.MsgspecError) as error:
            self.warning = _damaged(self._path, str(error))
            return _State()
        return state if state.format == FORMAT else _State()

    def past(self, label: str) -> Past | None:
        """Give what is known of a label."""
        return self._state.labels.get(label)

    def labels(self) -> dict[str, Past]:
        """Give all that is known, by label."""
        return self._state.labels

    def record(self, label: str, past: Past) -> None:
        """Note how a label ended."""
        self._state.labels[label] = msgspec.structs.replace(past, run=self.run)

    def seconds(self) -> dict[str, float]:
        """Give the recorded duration of each label that was ever executed here."""
        # A copy, because worker threads record meanwhile.
        return {label: past.seconds for label, past in self._state.labels.copy().items() if past.seconds}

    def placed(self, path: Path) -> PlacedOutput | None:
        """Give what was last put at a place, whatever stands there now."""
        return self._state.placed.get(os.fsencode(path))

    def intact(self, path: Path, artifact: Artifact) -> bool:
        """Tell whether `artifact` still stands at `path`, as far as the stamp of its root shows."""
        there = self.placed(path)
        digest = artifact.root if isinstance(artifact, Tree) else artifact.digest
        return there is not None and there.output == digest and there.stamp == stamp(path)

    def record_placed(self, path: Path, artifact: Artifact) -> None:
        """Note what has been put at a place."""
        digest = artifact.root if isinstance(artifact, Tree) else artifact.digest
        self._state.placed[os.fsencode(path)] = PlacedOutput(digest, stamp(path))

    def forget_placed(self, path: Path) -> None:
        """Trust nothing that stands at a place: the next build puts its output there anew."""
        self._state.placed.pop(os.fsencode(path), None)

    def save(self) -> None:
        """Write the file. Raises OSError."""
        body = msgspec.msgpack.encode(self._state)
        write_atomically(self._path, seal(body) + body)


def _damaged(path: Path, why: str) -> Diagnostic:
    return Diagnostic(
        "state-damaged",
        f"the history of this workspace is damaged ({why}) and was begun anew",
        notes=(f"file: {path.parent.name}/{path.name}",),
        hint="nothing is lost but the reasons of this one build",
        severity="warning",
    )
