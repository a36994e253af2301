"""A layer's lock as git keeps it: `requirements/LAYER/`, and whether it answers a request.

It resolves nothing. A lock of ours is valid while the request recorded beside it is the one that is asked and its
content is what was written then. A lock of venvstacks' own is valid where venvstacks says so and its content
contradicts nothing; a build uses it as it is, and `adopt` records what was asked, so that from then on all of it
counts. All other files are derived from the lock and are for people and other tools.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, HostError, Place, SpecError
from strata_engine.tree import Artifact, File, Store, Tree, assemble, lookup
from strata_engine.workspace import as_typed, write_atomically
from strata_rules import pylock, uv
from strata_rules.lock import earlier, postprocess, recipes, recorded, stale
from strata_rules.lock.fits import gaps
from strata_rules.lock.parts import Given
from strata_rules.lock.pins import Pin, pins_of
from strata_rules.lock.recorded import Recorded, Seal, in_utc, moment
from strata_rules.lock.request import LOCK_FOLDER
from strata_rules.lock.stale import Asked, Below, Found


def _now() -> datetime:
    return datetime.now(UTC)


class CommittedLock(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one layer's lock, as an action's `committed`."""

    asked: Asked
    below: tuple[str, ...] = ()
    """The environment names of the layers below, in the order in which their pins count."""
    lock_time: datetime | None = None
    """`exclude-newer`, where it is a point in time: no lock is said to be later."""
    now: Callable[[], datetime] = _now

    @property
    def layer(self) -> str:
        """The layer's environment name."""
        return self.asked.request.layer

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.asked.request.lock_folder

    @property
    def pylock_path(self) -> Path:
        """The lock itself."""
        return self._pylock_of(self.layer)

    @property
    def metadata_path(self) -> Path:
        """What was asked, when, and what came of it."""
        return _metadata_path(self.asked.request.uv.root, self.layer)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that decide whether the lock is valid, and what it means."""
        return self.pylock_path, self.metadata_path, *(path for path, _ in self._unhashed())

    # -- the action's committed result -------------------------------------------------------------------------------

    def read(self, key: Digest, store: Store) -> Artifact | None:
        """Give the lock, and what is derived from it, if it answers the request.

        Raises SpecError where it cannot be read: it might be somebody's work, and is not replaced unasked.
        """
        found = self._found()
        if found is None or self._reasons(found, key):
            return None
        return self._artifact(found, store)

    def write(self, key: Digest, artifact: Artifact, store: Store) -> None:
        """Keep a lock: each file as a whole, none that is right already, what makes it valid last."""
        assert isinstance(artifact, Tree)
        found = self._readable()
        metadata = self._metadata(key, _entry(store, artifact, postprocess.PYLOCK), found)
        if found is not None and found.recorded is not None and not self._reasons(found, key):
            settled = found.is_foreign or found.recorded.document == metadata
            if settled and self._artifact(found, store) == artifact:
                return
        self._write(self._derived(artifact, store), metadata)

    def why_invalid(self, key: Digest) -> tuple[str, ...]:
        """Say in sentences why the lock does not answer the request; nothing where it does. Raises SpecError."""
        return self._why(key)

    # -- beyond the protocol -----------------------------------------------------------------------------------------

    def why_stale(self, unknown: Collection[str] = ()) -> tuple[str, ...]:
        """Say the same where the request is not known in full, because locks below have to be made first.

        `unknown` are the layers of these. Raises SpecError.
        """
        return self._why(None, unknown)

    def adopt(self, key: Digest, store: Store) -> bool:
        """Record what was asked beside a valid lock of somebody else's, so that it is one of ours; True where it did.

        The lock itself stays as it is, but that it gets the SHA-256 of its local wheels. Of a lock of ours, what is
        derived from it is brought up to date, and what is recorded for venvstacks. Raises SpecError, HostError.
        """
        found = self._found()
        if found is None or found.recorded is None or self._reasons(found, key):
            return False
        artifact = self._artifact(found, store)
        document, lock = found.recorded.document, _entry(store, artifact, postprocess.PYLOCK)
        changed = lock != found.data
        new = dict(document)
        if found.is_foreign:
            new[recorded.SECTION] = msgspec.to_builtins(self._seal(key, lock))
        if changed:
            new["requirements_hash"] = recipes.requirements_hash(_loaded(lock, ""))
        if found.recorded.other_inputs_hash not in self.asked.other_inputs_hashes:
            new["other_inputs_hash"] = self.asked.other_inputs_hashes[0]
        self._write(self._derived(artifact, store) if changed or found.created_by == stale.OWN else {}, new)
        return new != document

    def known(self, store: Store) -> Artifact | None:
        """Give a lock of somebody else's that is missing nothing but a new version, for changed modules."""
        found = self._found()
        if found is None or not found.is_foreign:
            return None
        asked = msgspec.structs.replace(self.asked, versioned=False)
        if msgspec.structs.replace(self, asked=asked)._reasons(found, None):  # noqa: SLF001 (its own)
            return None
        return self._artifact(found, store)

    def warnings(self) -> tuple[Diagnostic, ...]:
        """Say what is doubtful about a lock that is used."""
        found = self._readable()
        if found is None or found.created_by == stale.OWN or self.why_stale():
            return ()
        return (*self._unhashed_wheels(), *self._gaps(found))

    def edited(self) -> Diagnostic | None:
        """Give a warning where the lock is not what was written, by which it is about to be replaced."""
        found = self._readable()
        if found is None or not found.is_edited:
            return None
        message = f"the lock of `{self.layer}` was changed by hand: it is made anew, keeping the versions that fit"
        hint = "say what you want in the stack file; `--locked` refuses such a lock instead"
        return self._warning("lock-edited", message, (), hint)

    def metadata(self) -> dict[str, Any]:
        """Give the recorded metadata, with a version for versioned layers only; empty where none can be read."""
        try:
            found = self._recorded()
        except (HostError, SpecError):
            return {}
        if found is None:
            return {}
        return found.document if self.asked.versioned else found.document | {"lock_version": 1}

    def preferred(self) -> tuple[Pin, ...]:
        """List the pins of the lock as it stands, valid or not, for a resolution to keep where they still fit."""
        found = self._found()
        if found is None:
            return earlier.pins(self.folder, self.layer)
        return tuple(Pin(name, version) for name, version in pylock.versions(found.document))

    # -- reading -----------------------------------------------------------------------------------------------------

    def _found(self) -> Found | None:
        file = as_typed(self.pylock_path)
        data = _bytes(self.pylock_path, file)
        if data is None:
            return None
        found = Found(data, _loaded(data, file), self._recorded())
        try:
            return found._replace(pylock=_parsed(data, file))
        except SpecError:
            if found.is_edited:
                return found
            raise

    def _readable(self) -> Found | None:
        try:
            return self._found()
        except (HostError, SpecError):
            return None

    def _recorded(self) -> Recorded | None:
        file = as_typed(self.metadata_path)
        data = _bytes(self.metadata_path, file)
        return None if data is None else recorded.read(data, file)

    def _why(self, key: Digest | None, unknown: Collection[str] = ()) -> tuple[str, ...]:
        found = self._found()
        if found is None:
            return (f"`{self.layer}` has no lock (`{self.pylock_path.name}`)", *self._earlier())
        return tuple(self._reasons(found, key, unknown))

    def _earlier(self) -> tuple[str, ...]:
        names = [f"`{path.name}`" for path in earlier.files(self.folder, self.layer)]
        return (f"of {', '.join(names)}, made by a venvstacks before 0.8, only the versions count",) if names else ()

    def _reasons(self, found: Found, key: Digest | None, unknown: Collection[str] = ()) -> list[str]:
        if found.recorded is None:
            return [f"nothing says what the lock of `{self.layer}` was made for (`{self.metadata_path.name}`)"]
        then = self._locked_lines(found.recorded)
        name = self.pylock_path.name
        return stale.reasons(found, self.asked, self._pins_below(unknown), key=key, then=then, name=name)

    def _pins_below(self, unknown: Collection[str] = ()) -> Below:
        """Read what the locks of the layers below give; they are made before this one is looked at."""
        return [(layer, None if layer in unknown else self._pins_of(layer)) for layer in self.below]

    def _pins_of(self, layer: str) -> list[Pin] | None:
        path = self._pylock_of(layer)
        try:
            data = _bytes(path, as_typed(path))
            return None if data is None else pins_of(_parsed(data, as_typed(path)))
        except (HostError, SpecError):
            return None

    def _locked_lines(self, old: Recorded) -> frozenset[str] | None:
        """Read the requirements that were locked, if the file that lists them is still theirs."""
        path = self.folder / f"requirements-{_plain(self.layer)}.in"
        try:
            text = (_bytes(path, path.name) or b"").decode("utf-8", "replace")
        except (HostError, SpecError):
            return None
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        return frozenset(lines) if recipes.lock_input_hash(lines) == old.lock_input_hash else None

    def _unhashed(self) -> list[tuple[Path, pylock.LockedWheel]]:
        """List the local wheels of which the lock says no more than where they are."""
        found = self._readable()
        if found is None:
            return []
        return [
            (Path(os.path.normpath(self.folder / wheel.path)), wheel)
            for package in found.pylock.packages
            for wheel in package.wheels
            if wheel.path is not None and not wheel.sha256 and not package.from_lower_layer
        ]

    def _artifact(self, found: Found, store: Store) -> Tree:
        """Give the lock and what is derived from it; local wheels are what lies there now."""
        request, asked = self.asked.request, self.asked

        def find(wheel: pylock.LockedWheel) -> str | None:
            return stale.sha256_of(wheel, asked)

        lock = postprocess.usable(found.document, found.pylock, request, find) or found.data
        files = postprocess.outputs(lock, request)
        return assemble(store, {name: File(store.put(data)) for name, data in files.items()})

    # -- writing -----------------------------------------------------------------------------------------------------

    def _derived(self, artifact: Tree, store: Store) -> dict[Path, bytes]:
        return {
            self.pylock_path: _entry(store, artifact, postprocess.PYLOCK),
            self.folder / f"requirements-{_plain(self.layer)}.in": _entry(store, artifact, postprocess.REQUIREMENTS),
            self.folder / f"packages-{self.layer}.txt": _entry(store, artifact, postprocess.PACKAGES),
        }

    def _write(self, files: Mapping[Path, bytes], metadata: Mapping[str, Any]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path, content in {**files, self.metadata_path: recorded.write(metadata)}.items():
                # git may check out text with the line ends of another system; the file is the same.
                if not path.is_file() or _read(path) != content:
                    write_atomically(path, content)
        except OSError as error:
            raise HostError.of(
                "cannot-write-lock", f"cannot write the lock of `{self.layer}`: {error.strerror}"
            ) from error

    def _seal(self, key: Digest, lock: bytes) -> Seal:
        return Seal(
            content=f"sha256:{Digest.of(lock).hash}",
            request=str(key),
            uv=uv.version(),
            parts=self.asked.parts(self._pins_below()),
            given=self.asked.given,
        )

    def _metadata(self, key: Digest, lock: bytes, found: Found | None) -> dict[str, Any]:
        """Make the metadata; time and version stay as they are while what venvstacks hashes is the same."""
        asked = self.asked
        old = found.recorded if found is not None and found.recorded is not None else self._old()
        others = asked.other_inputs_hashes
        new: dict[str, Any] = {
            "lock_input_hash": asked.lock_input_hash,
            "other_inputs_hash": old.other_inputs_hash if old.other_inputs_hash in others else others[0],
            "requirements_hash": recipes.requirements_hash(_loaded(lock, "")),
            "version_inputs_hash": asked.version_inputs_hash,
            recorded.SECTION: msgspec.to_builtins(self._seal(key, lock)),
        }
        names = ("lock_input_hash", "other_inputs_hash", "requirements_hash")
        same = all(getattr(old, name) == new[name] for name in names)
        moments = [moment(old.locked_at)] if same and old.locked_at else [in_utc(self.now())]
        if self.lock_time is not None:
            moments.append(in_utc(self.lock_time))
        new["locked_at"] = old.locked_at if min(moments) == moments[0] and same else _shortened(min(moments))
        version = old.lock_version
        if asked.versioned and version is not None:
            same = same and old.version_inputs_hash == new["version_inputs_hash"]
            new["lock_version"] = version if same else version + 1
        else:
            new["lock_version"] = 1
        return new

    def _old(self) -> Recorded:
        try:
            return self._recorded() or Recorded()
        except (HostError, SpecError):
            return Recorded()

    # -- saying ------------------------------------------------------------------------------------------------------

    def _warning(self, id: str, message: str, notes: tuple[str, ...], hint: str) -> Diagnostic:
        return Diagnostic(id, message, Place(as_typed(self.pylock_path), 0), notes, hint, severity="warning")

    def _unhashed_wheels(self) -> tuple[Diagnostic, ...]:
        files = tuple(f"`{as_typed(path)}` is used as it is now" for path, _ in self._unhashed() if path.is_file())
        if not files:
            return ()
        message = f"the lock of `{self.layer}` does not say which content its local wheels have"
        hint = "`strata lock` records their SHA-256, so that another file of the same name is noticed"
        return (self._warning("lock-without-sha256", message, files, hint),)

    def _gaps(self, found: Found) -> tuple[Diagnostic, ...]:
        """Warn of platforms that are not built now, and cannot be with this lock: venvstacks' betas made such locks."""
        request = self.asked.request
        others = [platform for platform in request.platforms if platform not in self.asked.here]
        missing = [(package, platform) for package, platform, wheel in gaps(found.pylock, request, others) if not wheel]
        if not missing:
            return ()
        notes = tuple(f"`{package.name}` {package.version} has none for `{platform}`" for package, platform in missing)
        message = f"the lock of `{self.layer}` does not have a wheel for all its platforms"
        hint = "leave the platform out of the layer's `platforms`, or lock anew with `strata lock --upgrade`"
        return (self._warning("lock-without-wheel", message, notes, hint),)

    def _pylock_of(self, layer: str) -> Path:
        return self.asked.request.uv.root / LOCK_FOLDER / layer / f"pylock.{_plain(layer)}.toml"


def given_then(root: Path, layer: str, else_given: Given) -> Given:
    """Read what the command line said when a layer was locked; nothing where nothing that can be read says so.

    Of a lock of somebody else's nobody knows: then it is what was last given here.
    """
    path = _metadata_path(root, layer)
    try:
        data = _bytes(path, path.name)
        found = recorded.read(data, path.name) if data is not None else None
    except (HostError, SpecError):
        return Given()
    if found is None:
        return Given()
    return found.strata.given if found.strata is not None else else_given


def _metadata_path(root: Path, layer: str) -> Path:
    return root / LOCK_FOLDER / layer / f"pylock.{_plain(layer)}.meta.json"


@functools.lru_cache(maxsize=256)
def _loaded(data: bytes, file: str) -> Mapping[str, Any]:
    return pylock.load(data, file)


@functools.lru_cache(maxsize=256)
def _parsed(data: bytes, file: str) -> pylock.Pylock:
    return pylock.check(_loaded(data, file), file)


def _plain(layer: str) -> str:
    return layer.replace(".", "_")


def _shortened(time: datetime) -> str:
    return time.replace(microsecond=0).isoformat()


def _read(path: Path) -> bytes:
    return path.read_bytes().replace(b"\r\n", b"\n")


def _bytes(path: Path, shown: str) -> bytes | None:
    """Read a file; None where there is none. Raises SpecError for what is no file, HostError."""
    try:
        mode, size = (found := path.stat()).st_mode, found.st_size
        if not stat.S_ISREG(mode):
            hint = "move it out of the way"
            raise SpecError.of("not-a-file", f"`{shown}` is not a file", Place(shown, 0), hint=hint)
        if size > pylock.MAX_SIZE:
            raise SpecError.of("bad-lock", f"`{shown}` is larger than any lock", Place(shown, 0))
        return _read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HostError.of("cannot-read-lock", f"cannot read `{shown}`: {error.strerror}") from error


def _entry(store: Store, tree: Tree, name: str) -> bytes:
    node = lookup(store, tree, name)
    assert isinstance(node, File), name
    return store.get(node.digest)
