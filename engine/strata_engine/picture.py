"""Pictures of an action graph: text by layer, DOT, Mermaid, and a JSON value.

Pure functions of a plain value; knows neither actions nor how the graph was made. Labels come from stack files and file
names of wheels, so each format escapes them; what a format names is numbered, never spelt after a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from graphlib import TopologicalSorter
from typing import NamedTuple, TypeAlias

from strata_engine.words import outcome_word, printable

FILLS = {
    "up_to_date": "#e2e8f0",
    "cached": "#cfe8ff",
    "remote": "#d9d2ff",
    "executed": "#c9f2cf",
    "failed": "#ffc9c9",
    "skipped": "#ffe8b3",
}
"""The colour of each outcome."""

SHOWN_NEEDS = 4
"""How many of an action's needs the text picture spells out."""

Json: TypeAlias = "str | int | list[Json] | dict[str, Json] | None"


class PictureNode(NamedTuple):
    """An action in a picture."""

    label: str
    mnemonic: str
    group: str
    """What it is drawn within: its layer."""
    outcome: str | None = None


class PictureGraph(NamedTuple):
    """What is drawn. An edge goes from the action that is needed to the one that needs it."""

    nodes: tuple[PictureNode, ...]
    edges: tuple[tuple[str, str], ...]


def _groups(graph: PictureGraph) -> dict[str, list[PictureNode]]:
    groups: dict[str, list[PictureNode]] = {}
    for node in graph.nodes:
        groups.setdefault(node.group, []).append(node)
    return groups


def _needs(graph: PictureGraph) -> Mapping[str, list[str]]:
    needs: dict[str, list[str]] = {node.label: [] for node in graph.nodes}
    for needed, needing in graph.edges:
        if needing in needs and needed not in needs[needing]:
            needs[needing].append(needed)
    return needs


def tree(graph: PictureGraph) -> str:
    """Draw as text: a block per layer, each action after what it needs, with the outcome that it would have now."""
    needs, lines = _needs(graph), []
    places = {label: place for place, label in enumerate(TopologicalSorter(needs).static_order())}
    for group, members in _groups(graph).items():
        nodes = sorted(members, key=lambda node: places[node.label])
        lines.append(printable(group))
        wide = max(len(node.mnemonic) for node in nodes)
        for node in nodes:
            branch = "└─" if node is nodes[-1] else "├─"
            text = f"{branch} {node.mnemonic:<{wide}}  {printable(node.label)}"
            wanted = needs[node.label]
            if wanted:
                text += " ← " + ", ".join(map(printable, wanted[:SHOWN_NEEDS]))
                text += f" and {len(wanted) - SHOWN_NEEDS} more" if len(wanted) > SHOWN_NEEDS else ""
            lines.append(f"{text}  ({outcome_word(node.outcome, dry_run=True)})" if node.outcome else text)
    return "\n".join(lines)


def _dot_text(text: str) -> str:
    return '"' + printable(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def dot(graph: PictureGraph) -> str:
    """Draw in Graphviz' language."""
    lines = ["digraph strata {", "  rankdir=LR;", '  node [shape=box, style="rounded,filled", fillcolor=white];']

    def one(node: PictureNode, name: str) -> str:
        fill = f', fillcolor="{FILLS[node.outcome]}"' if node.outcome in FILLS else ""
        return f"{name} [label={_dot_text(node.label)}, tooltip={_dot_text(node.mnemonic)}{fill}];"

    lines += _grouped(graph, lambda number, group: f"subgraph cluster_{number} {{ label={_dot_text(group)};", one, "}")
    lines += [f"  {first} -> {second};" for first, second in _numbered_edges(graph)]
    return "\n".join([*lines, "}"])


def _mermaid_text(text: str) -> str:
    # Inside double quotes Mermaid still reads entities, HTML and, between backquotes, Markdown.
    special = {'"': "quot", "#": "35", "<": "lt", ">": "gt", "&": "amp", "`": "96", ";": "59", "\\": "92"}
    return '"' + "".join(f"#{special[c]};" if c in special else c for c in printable(text)) + '"'


def mermaid(graph: PictureGraph) -> str:
    """Draw in Mermaid's language, which GitHub renders inside Markdown."""
    lines = ["flowchart LR"]

    def one(node: PictureNode, name: str) -> str:
        return f"{name}[{_mermaid_text(node.label)}]" + (f":::{node.outcome}" if node.outcome in FILLS else "")

    lines += _grouped(graph, lambda number, group: f"subgraph g{number}[{_mermaid_text(group)}]", one, "end")
    lines += [f"  {first} --> {second}" for first, second in _numbered_edges(graph)]
    used = {node.outcome for node in graph.nodes}
    # Dark text: on a dark page it would be light, on fills that are light too.
    styles = [f"  classDef {name} fill:{fill},color:#1f2328" for name, fill in FILLS.items() if name in used]
    return "\n".join([*lines, *styles])


def document(graph: PictureGraph) -> dict[str, Json]:
    """Give the graph as a value for JSON."""
    return {
        "nodes": [dict(node._asdict()) for node in graph.nodes],
        "edges": [{"from": needed, "to": needing} for needed, needing in graph.edges],
    }


def _names(graph: PictureGraph) -> dict[str, str]:
    return {node.label: f"n{number}" for number, node in enumerate(graph.nodes)}


def _numbered_edges(graph: PictureGraph) -> Iterable[tuple[str, str]]:
    names = _names(graph)
    return ((names[first], names[second]) for first, second in graph.edges if first in names and second in names)


def _grouped(
    graph: PictureGraph, opening: Callable[[int, str], str], one: Callable[[PictureNode, str], str], closing: str
) -> list[str]:
    names, lines = _names(graph), []
    for number, (group, nodes) in enumerate(_groups(graph).items()):
        lines.append(f"  {opening(number, group)}")
        lines += [f"    {one(node, names[node.label])}" for node in nodes]
        lines.append(f"  {closing}")
    return lines
