"""A layer's lock as git keeps it: `requirements/LAYER/`, and whether it answers a request.

It resolves nothing. The committed lock is valid while the request recorded beside it is the one that is asked and its
content is what was written then; all other files are derived from the lock and are for people and other tools.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from strata_engine.digest import Digest, digest_file
from strata_engine.errors import Diagnostic, HostError, Place, SpecError
from strata_engine.tree import Artifact, File, Store, Tree, assemble, lookup
from strata_engine.workspace import write_atomically
from strata_rules import uv
from strata_rules.lock import postprocess, recipes
from strata_rules.lock.pins import Pin
from strata_rules.lock.request import Request
from strata_rules.pylock import Pylock, parse

_HASHES = ("lock_input_hash", "other_inputs_hash", "requirements_hash", "version_inputs_hash")


def _now() -> datetime:
    return datetime.now(UTC)


class CommittedLock(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one layer's lock, as an action's `committed`."""

    request: Request
    lower: tuple[str, ...] = ()
    """For venvstacks' hashes: the runtime's environment name, then the names of the frameworks, in order."""
    versioned: bool = False
    modules: tuple[str, ...] = ()
    """For venvstacks' hashes: those of the launch and support modules, which give a versioned layer a new version."""
    lock_time: datetime | None = None
    """The time that the lock is said to be of; now without it."""
    now: Callable[[], datetime] = _now

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.request.lock_folder

    @property
    def pylock_path(self) -> Path:
        """The lock itself."""
        return self.folder / f"pylock.{_plain(self.request.layer)}.toml"

    @property
    def metadata_path(self) -> Path:
        """What was asked, when, and what came of it."""
        return self.folder / f"pylock.{_plain(self.request.layer)}.meta.json"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that decide whether the lock is valid."""
        return self.pylock_path, self.metadata_path

    def read(self, key: Digest, store: Store) -> Artifact | None:
        """Give the lock, and what is derived from it, if it answers the request."""
        if self.why_invalid(key):
            return None
        try:
            files = postprocess.outputs(_read(self.pylock_path), self.request)
        except (OSError, SpecError):
            return None
        return assemble(store, {name: File(store.put(data)) for name, data in files.items()})

    def write(self, key: Digest, artifact: Artifact, store: Store) -> None:
        """Keep a lock: each file as a whole, none that is right already, what makes it valid last."""
        assert isinstance(artifact, Tree)
        data = {name: _entry(store, artifact, name) for name in (postprocess.PYLOCK, postprocess.PACKAGES)}
        lock = data[postprocess.PYLOCK]
        plain = _plain(self.request.layer)
        metadata = self._metadata(key, lock, parse(lock, str(self.pylock_path)))
        files = {
            self.pylock_path: lock,
            self.folder / f"requirements-{plain}.in": _entry(store, artifact, postprocess.REQUIREMENTS),
            self.folder / f"packages-{self.request.layer}.txt": data[postprocess.PACKAGES],
            self.metadata_path: (json.dumps(metadata, indent=2, sort_keys=True) + "\n").encode(),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path, content in files.items():
                if not path.exists() or _read(path) != content:
                    write_atomically(path, content)
        except OSError as error:
            raise HostError.of(
                "cannot-write-lock", f"cannot write the lock of `{self.request.layer}`: {error.strerror}"
            ) from error

    def why_invalid(self, key: Digest) -> tuple[str, ...]:
        """Say in sentences why the lock does not answer the request; nothing where it does."""
        try:
            lock = _read(self.pylock_path)
        except OSError:
            return (f"`{self.request.layer}` has no lock (`{self.pylock_path.name}`)",)
        metadata = self.metadata()
        ours = metadata.get("strata")
        if not isinstance(ours, dict):
            return (f"nothing says what the lock of `{self.request.layer}` was made for (`{self.metadata_path.name}`)",)
        reasons = []
        if ours.get("content") != _content(lock):
            reasons.append(f"the lock of `{self.request.layer}` was changed by hand (`{self.pylock_path.name}`)")
        if ours.get("request") != str(key):
            reasons += self._changes(metadata, lock)
            if ours.get("uv") != uv.version():
                reasons.append(f"it was locked with uv {ours.get('uv')}, this is uv {uv.version()}")
        if self.versioned and metadata.get("version_inputs_hash") != self._version_inputs_hash():
            reasons.append(f"`{self.request.layer}` is versioned, and its modules have changed since it was locked")
        return tuple(reasons)

    def _changes(self, metadata: Mapping[str, Any], lock: bytes) -> list[str]:
        """Say what is asked for now and was not then, as far as the files beside the lock tell."""
        layer = self.request.layer
        now, then = set(self.request.lines), self._locked_lines()
        if now != then:
            changes = [f"`{line}` is required now" for line in sorted(now - then)]
            changes += [f"`{line}` is no longer required" for line in sorted(then - now)]
            return [f"the requirements of `{layer}` have changed since it was locked: {', '.join(changes)}"]
        if metadata.get("other_inputs_hash") != self._other_inputs_hash():
            return [
                f"the Python, the C library targets or the layers below `{layer}` are others than when it was locked"
            ]
        if wheels := self._changed_wheels(lock):
            return [f"`{path}` is not the wheel that `{layer}` was locked with" for path in wheels]
        what = "its platforms, uv's settings, the wheels in local folders, or what the layers below it have"
        return [f"what `{layer}` was locked for has changed: {what}"]

    def _locked_lines(self) -> set[str]:
        try:
            text = _read(self.folder / f"requirements-{_plain(self.request.layer)}.in").decode("utf-8", "replace")
        except OSError:
            return set()
        return {line for line in text.splitlines() if line and not line.startswith("#")}

    def _changed_wheels(self, lock: bytes) -> list[str]:
        """List the wheels of local folders, relative to the stack file, that are gone or have other content."""
        try:
            wheels = [wheel for package in parse(lock, self.pylock_path.name).packages for wheel in package.wheels]
        except SpecError:
            return []
        changed = []
        for wheel in wheels:
            path = Path(os.path.normpath(self.folder / wheel.path)) if wheel.path else None
            if path is not None and _hash(path) != wheel.sha256:
                changed.append(Path(os.path.relpath(path, self.request.uv.root)).as_posix())
        return changed

    def tampered(self) -> Diagnostic | None:
        """Give a warning where the lock is not what was written, by which it is about to be replaced."""
        ours = self.metadata().get("strata")
        try:
            if not isinstance(ours, dict) or ours.get("content") == _content(_read(self.pylock_path)):
                return None
        except OSError:
            return None
        return Diagnostic(
            "lock-edited",
            f"the lock of `{self.request.layer}` was changed by hand: it is made anew, keeping the versions that fit",
            Place(Path(os.path.relpath(self.pylock_path, self.request.uv.root)).as_posix(), 0),
            hint="say what you want in the stack file; `--locked` refuses such a lock instead",
            severity="warning",
        )

    def metadata(self) -> dict[str, Any]:
        """Read the recorded metadata; empty where there is none that can be read."""
        try:
            found = json.loads(_read(self.metadata_path))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def preferred(self) -> tuple[Pin, ...]:
        """List the pins of the lock as it stands, valid or not, for a resolution to keep where they still fit."""
        try:
            pylock = parse(_read(self.pylock_path), str(self.pylock_path))
        except (OSError, SpecError):
            return ()
        return tuple(Pin(p.name, p.version) for p in pylock.packages if not p.from_lower_layer)

    def _metadata(self, key: Digest, lock: bytes, pylock: Pylock) -> dict[str, Any]:
        """Make the metadata; time and version stay as they are while what venvstacks hashes is the same."""
        request = self.request
        new: dict[str, Any] = {
            "lock_input_hash": recipes.lock_input_hash(request.lines),
            "other_inputs_hash": self._other_inputs_hash(),
            "requirements_hash": recipes.requirements_hash(pylock),
            "version_inputs_hash": self._version_inputs_hash(),
            "strata": {"content": _content(lock), "request": str(key), "uv": uv.version()},
        }
        old = self.metadata()
        version, locked_at = old.get("lock_version"), old.get("locked_at")
        known = isinstance(version, int) and version > 0
        if known and isinstance(locked_at, str) and all(old.get(name) == new[name] for name in _HASHES):
            return new | {"lock_version": version if self.versioned else 1, "locked_at": locked_at}
        count = version + 1 if known and isinstance(version, int) and self.versioned else 1
        moment = (self.lock_time or self.now()).astimezone(UTC).replace(microsecond=0)
        return new | {"lock_version": count, "locked_at": moment.isoformat()}

    def _other_inputs_hash(self) -> str:
        request = self.request
        return recipes.other_inputs_hash(
            python=request.python,
            platforms=request.platforms,
            linux_target=request.linux_target,
            macosx_target=request.macosx_target,
            lower=self.lower,
        )

    def _version_inputs_hash(self) -> str:
        return recipes.version_inputs_hash(self.request.layer, versioned=self.versioned, modules=self.modules)


def _plain(layer: str) -> str:
    return layer.replace(".", "_")


def _read(path: Path) -> bytes:
    # git may check out text with the line ends of another system; the lock is the same.
    return path.read_bytes().replace(b"\r\n", b"\n")


def _hash(path: Path) -> str:
    try:
        return digest_file(path).hash
    except OSError:
        return ""


def _content(lock: bytes) -> str:
    return f"sha256:{Digest.of(lock).hash}"


def _entry(store: Store, tree: Tree, name: str) -> bytes:
    node = lookup(store, tree, name)
    assert isinstance(node, File), name
    return store.get(node.digest)
