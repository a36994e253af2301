"""The rule Fetch: a locked wheel's bytes, by SHA-256, from wherever they are.

It knows no index and no layer. The action is fixed-output: its key is the hash alone, so a changed mirror or a moved
wheel folder fetches nothing again; the addresses travel beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from strata_engine.action import Action, Execution, Scope
from strata_engine.errors import Place
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


def names(
    wheels: Iterable[LockedWheel], *, contested: Collection[str] = (), taken: Callable[[str], str | None]
) -> dict[LockedWheel, str]:
    """Name each wheel for its labels: its file name, with `~` and 8 hex of the SHA-256 where others may differ.

    History goes by label, so a label should not depend on which lock is there first. Layers list the wheels of the
    layers below first, and so agree with them. Layers beside each other know nothing of each other's locks, and to wait
    for these would keep every download back; so all wheels of `contested` distributions have their hash in the name:
    those which the stack file lets come from different places. What is left is two layers that asked alike and were
    answered differently, as when an index replaced a file between two locks: then a name is whose `taken` says (it
    gives the SHA-256 that the graph has under a name), and the worst that order does is `cached` for `up-to-date`.
    """
    plain: dict[str, str] = {}
    found: dict[LockedWheel, str] = {}
    for wheel in wheels:
        first = plain.setdefault(wheel.file, wheel.sha256)
        same = first == wheel.sha256 == (taken(wheel.file) or first) and wheel.name not in contested
        found[wheel] = wheel.file if same else f"{wheel.file}~{wheel.sha256[:8]}"
    return found


def fetch_action(
    wheel: LockedWheel, label: str, *, lock_folder: Path, access: Access, place: Place | None = None
) -> Action:
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
            place=place,
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
        place=place,
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
