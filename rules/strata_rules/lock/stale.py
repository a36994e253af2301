"""Why a lock that lies in the workspace is not what is asked for now, in sentences.

Pure but for local wheels, which it hashes: it is given what was found and what is asked. The hard part is that a lock
of venvstacks' own says little of what it was made for, so that it is held against what venvstacks would hold it
against, and against all that its content alone can show.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec

from strata_engine.digest import Digest, Stamp, digest_file, stamp
from strata_engine.errors import SpecError
from strata_rules import uv
from strata_rules.lock import recipes
from strata_rules.lock.fits import contradictions, gaps
from strata_rules.lock.parts import Given, Parts, changes, parts_of
from strata_rules.lock.pins import Pin, dump
from strata_rules.lock.recorded import Recorded, Seal
from strata_rules.lock.request import Request
from strata_rules.pylock import LockedWheel, Pylock, local_path

Below: TypeAlias = "Sequence[tuple[str, Sequence[Pin] | None]]"
"""The layers below with their pins, as far as these are known."""

OWN = "strata"
"""What `created-by` says in locks of ours."""


class Found(NamedTuple):
    """A lock as it lies in the workspace."""

    data: bytes
    document: Mapping[str, Any]
    recorded: Recorded | None
    pylock: Pylock = Pylock("")
    """What it says; nothing where someone has made something of it that no lock can say."""

    @property
    def created_by(self) -> str:
        """Whose it says it is."""
        return str(self.document.get("created-by", ""))

    @property
    def content(self) -> str:
        """The digest by which our section knows a lock."""
        return f"sha256:{Digest.of(self.data).hash}"

    @property
    def is_foreign(self) -> bool:
        """Whether nothing of ours is recorded beside it."""
        return self.recorded is not None and self.recorded.strata is None

    @property
    def is_edited(self) -> bool:
        """Whether it is not what was recorded when it was made, in form or, if venvstacks made it, in meaning."""
        if self.recorded is None:
            return False
        seal = self.recorded.strata
        if seal is not None and (seal.content == self.content or self.created_by == OWN):
            return seal.content != self.content
        return recipes.requirements_hash(self.document) != self.recorded.requirements_hash


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a layer's lock is to be, as far as it is known without looking at any lock."""

    request: Request
    lower: tuple[str, ...] = ()
    """For venvstacks' hashes: the runtime's environment name, then the names of the frameworks, in order."""
    versioned: bool = False
    modules: tuple[str, ...] = ()
    """For venvstacks' hashes: those of the launch and support modules, which give a versioned layer a new version."""
    targets: recipes.Targets = recipes.Targets()
    """For venvstacks' hashes: what the layer's table states."""
    here: tuple[str, ...] = ()
    """The platforms that are built: without a wheel for them a lock is of no use."""
    variables: Mapping[str, str] = {}
    """uv's variables, as they are in the key."""
    given: Given = Given()
    """What the command line says, or said when the layer was locked."""
    folders: tuple[Path, ...] = ()
    """The local folders of wheels that are in the key."""
    repository: Path | None = None
    """Where wheels may lie that the lock names, beside the workspace and these folders."""

    @property
    def lock_input_hash(self) -> str:
        """The hash of the requirements."""
        return recipes.lock_input_hash(self.request.lines)

    @property
    def other_inputs_hashes(self) -> tuple[str, ...]:
        """The hashes of Python, targets and layers below: venvstacks 0.8's betas hash no target that is not stated."""
        request = self.request
        system = {platform.partition("_")[0] for platform in request.platforms}
        filled = recipes.Targets(
            request.linux_target if "linux" in system else None,
            request.macosx_target if "macosx" in system else None,
        )
        hashed = (
            recipes.other_inputs_hash(python=request.python, targets=targets, lower=self.lower)
            for targets in (self.targets, filled)
        )
        return tuple(dict.fromkeys(hashed))

    @property
    def version_inputs_hash(self) -> str:
        """The hash of what gives the layer a new version."""
        return recipes.version_inputs_hash(self.request.layer, versioned=self.versioned, modules=self.modules)

    def parts(self, below: Below) -> Parts:
        """Take apart what is asked."""
        pins = [(layer, None if known is None else dump(known)) for layer, known in below]
        return parts_of(self.request, self.variables, pins)


def reasons(
    found: Found,
    asked: Asked,
    below: Below,
    *,
    key: Digest | None,
    then: frozenset[str] | None,
    name: str,
) -> list[str]:
    """Say why a lock that is called `name` is not valid; nothing where it is, as far as it is known without a key.

    `then` are the requirements that are recorded as its own, `below` the layers below with their pins.
    """
    layer, recorded = asked.request.layer, found.recorded
    assert recorded is not None
    said = []
    if found.is_edited:
        said.append(f"the lock of `{layer}` was changed by hand (`{name}`)")
    seal = recorded.strata
    if seal is None:
        said += _requirements(recorded, asked, then) + _foreign(found, recorded, asked, below)
    elif key is None or seal.request != str(key):
        said += _requirements(recorded, asked, then) + _sealed(found, seal, asked, below)
        if key is not None and not said:
            said.append(_rest(asked))
    if asked.versioned and recorded.version_inputs_hash != asked.version_inputs_hash:
        said.append(f"`{layer}` is versioned, and its modules have changed since it was locked")
    if found.created_by != OWN:
        said += _gaps(found, asked)
    return said


def sha256_of(wheel: LockedWheel, asked: Asked) -> str | None:
    """Hash a local wheel as it is now; None where there is no such file, or it lies where none of ours can."""
    try:
        folder, root = asked.request.lock_folder, asked.request.uv.root
        allowed = asked.folders if asked.repository is None else (*asked.folders, asked.repository)
        path = local_path(wheel, lock_folder=folder, workspace=root, wheel_folders=allowed)
        return _hash(path, stamp(path)) if path.is_file() else None
    except (OSError, SpecError):
        return None


@functools.lru_cache(maxsize=1024)
def _hash(path: Path, _stamp: Stamp) -> str:
    return digest_file(path).hash


def _requirements(recorded: Recorded, asked: Asked, then: frozenset[str] | None) -> list[str]:
    if recorded.lock_input_hash == asked.lock_input_hash:
        return []
    said = f"the requirements of `{asked.request.layer}` have changed since it was locked"
    if then is None:
        return [said]
    now = set(asked.request.lines)
    listed = [f"`{line}` is required now" for line in sorted(now - then)]
    listed += [f"`{line}` is no longer required" for line in sorted(then - now)]
    return [f"{said}: {', '.join(listed)}"]


def _sealed(found: Found, seal: Seal, asked: Asked, below: Below) -> list[str]:
    now = asked.parts(below)
    said = changes(seal.parts, now)
    if not asked.request.requirements:
        return said
    if seal.parts.below != now.below:
        said += _contradictions(found, asked, below)
    said += [
        f"`{path}` is not the wheel that `{asked.request.layer}` was locked with" for path in _others(found, asked)
    ]
    if seal.uv != uv.version():
        said.append(f"it was locked with uv {seal.uv}, this is uv {uv.version()}")
    return said


def _others(found: Found, asked: Asked) -> list[str]:
    """List the local wheels, relative to the stack file, that are gone or have other content."""
    wheels = [wheel for package in found.pylock.packages for wheel in package.wheels if wheel.path is not None]
    return [
        _shown(wheel, asked.request) for wheel in wheels if wheel.sha256 and sha256_of(wheel, asked) != wheel.sha256
    ]


def _shown(wheel: LockedWheel, request: Request) -> str:
    path = os.path.normpath(request.lock_folder / (wheel.path or ""))
    return Path(os.path.relpath(path, request.uv.root)).as_posix()


def _rest(asked: Asked) -> str:
    """Name what alone can have changed where nothing else has."""
    root = asked.request.uv.root
    if asked.folders:
        listed = ", ".join(f"`{Path(os.path.relpath(folder, root)).as_posix()}`" for folder in asked.folders)
        return f"other wheels are in {listed} than when it was locked"
    return "it was locked by another version of Strata"


def _foreign(found: Found, recorded: Recorded, asked: Asked, below: Below) -> list[str]:
    said = []
    if recorded.is_legacy:
        said.append("it was made by a venvstacks before 0.8")
    if recorded.other_inputs_hash not in asked.other_inputs_hashes:
        then, now = found.pylock.requires_python, f"=={asked.request.python}.*"
        if then is not None and then != now:
            said.append(f"it was locked for Python {then}, and this is {asked.request.python}")
        else:
            what = "`linux_target`, `macosx_target` or the layers below it"
            said.append(f"{what} are others than when `{asked.request.layer}` was locked")
    return said + _contradictions(found, asked, below)


def _contradictions(found: Found, asked: Asked, below: Below) -> list[str]:
    known = [(layer, pins) for layer, pins in below if pins is not None]
    return contradictions(found.pylock, known, asked.request.targets) if len(known) == len(below) else []


def _gaps(found: Found, asked: Asked) -> list[str]:
    said = []
    for package, platform, wheel in gaps(_hashed(found.pylock, asked), asked.request, asked.here):
        if wheel is None:
            said.append(f"its `{package.name}` {package.version} has no wheel for `{platform}`")
        elif wheel.path is not None:
            said.append(f"its wheel `{_shown(wheel, asked.request)}` is not there")
        else:
            said.append(f"it gives no SHA-256 of `{wheel.file}`")
    return said


def _hashed(pylock: Pylock, asked: Asked) -> Pylock:
    """Give a lock with the SHA-256 of local wheels that has none of its own."""
    if all(wheel.sha256 or wheel.path is None for package in pylock.packages for wheel in package.wheels):
        return pylock
    packages = []
    for package in pylock.packages:
        wheels = tuple(
            wheel
            if wheel.sha256 or wheel.path is None
            else msgspec.structs.replace(wheel, sha256=sha256_of(wheel, asked) or "")
            for wheel in package.wheels
        )
        packages.append(msgspec.structs.replace(package, wheels=wheels))
    return msgspec.structs.replace(pylock, packages=tuple(packages))
