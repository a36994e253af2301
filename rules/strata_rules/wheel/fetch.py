"""The rule Fetch: a locked wheel's bytes, by SHA-256, from wherever they are.

It knows no index and no layer. The action is fixed-output: its key is the hash alone, so a changed mirror or a moved
wheel folder fetches nothing again; the addresses travel beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from strata_engine.action import Action, Execution, Scope
from strata_engine.tree import File
from strata_rules.download.client import Network, download
from strata_rules.pylock import LockedWheel, local_path

VERSION = 1


class Access(NamedTuple):
    """How a build gets at bytes that it knows by hash; none of it is in a key."""

    network: Network
    parts: Path
    """Where downloads that were cut off are kept."""
    workspace: Path
    wheel_folders: tuple[Path, ...] = ()
    """Folders outside the workspace that locks may take wheels from."""


def names(wheels: Iterable[LockedWheel]) -> dict[LockedWheel, str]:
    """Name each wheel for its labels: its file name, with `~` and 8 hex of the SHA-256 where an earlier one differs.

    Layers that list the wheels of the layers below first therefore agree with them.
    """
    plain: dict[str, str] = {}
    found: dict[LockedWheel, str] = {}
    for wheel in wheels:
        same = plain.setdefault(wheel.file, wheel.sha256) == wheel.sha256
        found[wheel] = wheel.file if same else f"{wheel.file}~{wheel.sha256[:8]}"
    return found


def fetch_action(wheel: LockedWheel, label: str, *, lock_folder: Path, access: Access) -> Action:
    """Make the action that brings a wheel into the store.

    `lock_folder` is where the lock lies that names it. Raises SpecError (`wheel-outside`) for a path that leads to
    somewhere that no one declared.
    """
    urls = _candidates(wheel, lock_folder, access)

    async def run(execution: Execution) -> File:
        digest = await download(
            execution.store,
            urls,
            wheel.sha256,
            network=access.network,
            progress=execution.progress,
            folder_for_parts=access.parts,
            size=wheel.size,
        )
        return File(digest)

    return Action(
        label=label,
        mnemonic="Fetch",
        version=VERSION,
        scope=Scope.FIXED_OUTPUT,
        fixed=wheel.sha256,
        pool="network",
        run=run,
        description=f"fetch {wheel.file}",
    )


def _candidates(wheel: LockedWheel, lock_folder: Path, access: Access) -> Sequence[str]:
    """List where the bytes may be, the nearest first."""
    places = [] if wheel.url is None else [wheel.url]
    if wheel.path is not None:
        path = local_path(
            wheel, lock_folder=lock_folder, workspace=access.workspace, wheel_folders=access.wheel_folders
        )
        places.insert(0, str(path))
    return places
