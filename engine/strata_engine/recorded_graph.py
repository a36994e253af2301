"""The graph as the last builds knew it: what each action reads, where its output goes. For questions asked afterwards.

It is written at the end of a build and decides nothing. The hard part is that a graph is never known as a whole: what
an expansion would add is known only where it was expanded, so what earlier builds knew below a promise is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from strata_engine.action import Action, Input, Placement, Ref, Source, SourceTree
from strata_engine.workspace import Workspace, write_atomically

if TYPE_CHECKING:
    from strata_engine.graph import ActionGraph

FILE = "graph"
FORMAT = 1


class RecordedAction(msgspec.Struct, frozen=True, array_like=True):
    """One action, as far as it is the same in every build."""

    mnemonic: str
    needs: tuple[str, ...] = ()
    """The labels whose outputs it reads."""
    deciders: tuple[str, ...] = ()
    """The labels whose outputs decide that it is there."""
    sources: tuple[str, ...] = ()
    """The files and folders that it reads, as the workspace names them; a folder ends with `/`."""
    places: tuple[str, ...] = ()
    """Where its output is put, as the workspace names it."""
    pool: str = "cpu"
    inputs: dict[str, str] = {}
    """What each of its inputs is: a label, a source (a folder ends with `/`), or nothing that has a name."""
    origins: dict[str, str] = {}
    """As the action's own: the subjects that a person knows its parameters by."""
    derived: dict[str, str] = {}
    """As the action's own: the labels that its parameters were taken from."""
    members: dict[str, str] = {}
    """As the action's own: the lists that name its inputs, by the folder that these are in."""
    presence: str = ""
    """As the action's own: the parameter that decides whether it has most of its others."""

    @property
    def upstream(self) -> tuple[str, ...]:
        """All labels that it depends on."""
        return tuple(dict.fromkeys((*self.needs, *self.deciders)))


class Needs(msgspec.Struct, frozen=True, array_like=True):
    """Of an action what it depends on and nothing else: many are read in half of the time."""

    mnemonic: str
    needs: tuple[str, ...] = ()
    deciders: tuple[str, ...] = ()


class _Needs(msgspec.Struct, frozen=True, array_like=True):
    format: int
    actions: dict[str, Needs]


class _File(msgspec.Struct, frozen=True, array_like=True):
    format: int
    actions: dict[str, RecordedAction]


def record_graph(workspace: Workspace, graph: ActionGraph, placements: Sequence[Placement]) -> None:
    """Write what is known of the graph by now. Raises OSError."""
    old = read_graph(workspace)
    path = workspace.state / FILE
    data = msgspec.msgpack.encode(_File(FORMAT, _known(workspace, graph, placements, old)))
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)


def read_graph(workspace: Workspace) -> dict[str, RecordedAction]:
    """Read what the last builds knew; nothing where there is none or it cannot be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        file = msgspec.msgpack.decode((workspace.state / FILE).read_bytes(), type=_File)
        if file.format == FORMAT:
            return file.actions
    return {}


def read_needs(workspace: Workspace) -> dict[str, Needs]:
    """Read what each action depends on, as `read_graph` does."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        file = msgspec.msgpack.decode((workspace.state / FILE).read_bytes(), type=_Needs)
        if file.format == FORMAT:
            return file.actions
    return {}


def _known(
    workspace: Workspace, graph: ActionGraph, placements: Sequence[Placement], old: Mapping[str, RecordedAction]
) -> dict[str, RecordedAction]:
    # Here and not above: who only reads what was recorded does not pay for networkx.
    from strata_engine.graph import needs  # noqa: PLC0415 - see the comment above

    places: dict[str, list[str]] = {}
    for placement in placements:
        places.setdefault(placement.ref.label, []).append(workspace.relative(placement.path))
    found: dict[str, RecordedAction] = {}
    waiting: list[str] = []
    for label in graph.labels():
        item = graph.item(label)
        if isinstance(item, Action):
            there = tuple(places.get(label, old[label].places if label in old else ()))
            inputs = {name: _named(workspace, source) for name, source in item.inputs.items()}
            found[label] = RecordedAction(
                mnemonic=item.mnemonic,
                needs=needs(item),
                deciders=graph.deciders(label),
                sources=tuple(inputs[name] for name, source in item.inputs.items() if _is_source(source)),
                places=there,
                pool=item.pool,
                inputs=inputs,
                origins=dict(item.origins),
                derived=dict(item.derived),
                members=dict(item.members),
                presence=item.presence,
            )
        else:
            waiting.append(label)
    # What is below a promise was expanded by an earlier build, or by none.
    while waiting:
        label = waiting.pop()
        if label in old and label not in found:
            found[label] = old[label]
            waiting.extend(old[label].upstream)
    return found


def _is_source(source: Input) -> bool:
    return isinstance(source, Source | SourceTree)


def _named(workspace: Workspace, source: Input) -> str:
    match source:
        case Ref(label=label):
            return label
        case Source(path=path):
            return workspace.relative(workspace.root / Path(path))
        case SourceTree(path=path):
            return workspace.relative(workspace.root / Path(path)) + "/"
        case _:
            return ""
