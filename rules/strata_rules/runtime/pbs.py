"""The `Download` action of a runtime archive: bytes known by their SHA-256, so equal archives are one action.

Where they come from travels beside the action, never in its key (design §3).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from strata_engine.action import Action, Execution, Scope
from strata_engine.errors import Place
from strata_engine.tree import File
from strata_rules.download.client import Network, download

VERSION = 1


class Downloading(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be downloaded."""

    label: str
    name: str
    """For people."""
    urls: tuple[str, ...]
    sha256: str
    network: Network
    folder_for_parts: Path
    place: Place | None = None


def download_action(wanted: Downloading) -> Action:
    """Make the action; `out` is the archive."""

    async def run(execution: Execution) -> File:
        digest = await download(
            execution.store,
            wanted.urls,
            wanted.sha256,
            network=wanted.network,
            progress=execution.progress,
            folder_for_parts=wanted.folder_for_parts,
            place=wanted.place,
        )
        return File(digest)

    return Action(
        label=wanted.label,
        mnemonic="Download",
        version=VERSION,
        scope=Scope.FIXED_OUTPUT,
        pool="network",
        fixed=wanted.sha256,
        run=run,
        description=f"download {wanted.name}",
        place=wanted.place,
    )
