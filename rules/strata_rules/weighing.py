"""What layers weigh: the bytes of each as it was last linked, of the packages in it, and of its archives.

It reads what builds have recorded and what Install says of its packages, and knows neither stack file nor page. What
is not known is left out: a layer that was collected from the store has a size and no packages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from strata_engine.blobs import BlobLost
from strata_engine.digest import Digest
from strata_engine.history import Past
from strata_engine.recorded_graph import RecordedAction
from strata_engine.report.data import Weight
from strata_engine.run_record import RunRecord
from strata_engine.tree import File, Reader, Tree, lookup
from strata_rules.contents import InstalledPackage, decode


class Output(NamedTuple):
    """What an action had made by a certain build."""

    digest: str
    """`HASH/SIZE`."""
    bytes: int
    """0 where that is not known."""


def outputs(
    graph: Mapping[str, RecordedAction], records: Sequence[RunRecord], build: int, past: Mapping[str, Past]
) -> dict[str, Output]:
    """Give what each action of the graph had made by a build: what was up to date in it, an earlier one tells."""
    found: dict[str, Output] = {}
    for at in range(build, -1, -1):
        for each in records[at].actions:
            if each.output and each.label in graph:
                found.setdefault(each.label, Output(each.output, each.bytes))
        if len(found) == len(graph):
            return found
    for at in range(build + 1, len(records)):
        for each in records[at].actions:
            if each.former and each.label in graph:
                found.setdefault(each.label, Output(each.former, 0))
    for label in graph.keys() - found.keys():
        known = past.get(label)
        if known is not None and known.output is not None:
            found[label] = Output(str(known.output), known.bytes)
    return found


def weigh(
    graph: Mapping[str, RecordedAction], made: Mapping[str, Output], content: Reader | None
) -> tuple[Weight, ...]:
    """Weigh each layer, per platform."""
    layers: dict[str, dict[str, str]] = {}
    archives: dict[str, list[tuple[str, int]]] = {}
    for label in sorted(graph.keys() & made.keys()):
        path, _, action = label.partition("[")[0].rpartition("/")
        layer = path + _platform(label, graph)
        if action in ("install", "link"):
            layers.setdefault(layer, {})[action] = label
        elif action == "archive" and made[label].bytes:
            places = graph[label].places
            name = places[0].rpartition("/")[2] if places else label.rpartition("/")[2]
            archives.setdefault(layer, []).append((name, made[label].bytes))
    return tuple(
        Weight(
            layer,
            next((made[labels[name]].bytes for name in ("link", "install") if name in labels), 0),
            tuple(_packages(made[labels["install"]].digest, content)) if "install" in labels else (),
            tuple(archives.get(layer, ())),
        )
        for layer, labels in layers.items()
    )


def _platform(label: str, graph: Mapping[str, RecordedAction]) -> str:
    """Give `[PLATFORM]` for an action of another platform than the host's; an archive's brackets name its form too."""
    path, bracket, inside = label.partition("[")
    if not bracket:
        return ""
    platform = f"[{inside.removesuffix(']').partition(',')[0]}]"
    return platform if f"{path.rpartition('/')[0]}/install{platform}" in graph else ""


def _packages(install: str, content: Reader | None) -> list[tuple[str, int]]:
    """List the packages that an Install has put together, with their bytes."""
    if content is None:
        return []
    with contextlib.suppress(BlobLost, ValueError, msgspec.MsgspecError):
        entry = lookup(content, Tree(Digest.parse(install)), "packages.json")
        if isinstance(entry, File):
            packages = decode(content.get(entry.digest), list[InstalledPackage])
            return [(f"{each.name} {each.version}", each.bytes) for each in packages]
    return []
