"""A stack as a picture of text, and as a JSON document: what venvstacks writes, and names are never taken for markup.

It must not find out anything: whether locks are valid, their versions, and what is selected are given by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from strata_rules.spec.declared import CATEGORIES
from strata_rules.spec.load import Layer, Stack


class LayerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a layer beyond the stack file."""

    has_valid_lock: bool = False
    lock_version: int | None = None
    """The version of the lock, where there is a lock."""
    operations: tuple[str, ...] | None = None
    """What the command would do with it: `lock`, `build`, `publish`, …; None where the stack alone is shown."""


UNKNOWN = LayerStatus()


def install_target(layer: Layer, status: LayerStatus) -> str:
    """Give the name that a layer is deployed under; `???` stands for the version that only a valid lock tells."""
    if not layer.spec.versioned:
        return layer.env_name
    known = status.has_valid_lock and status.lock_version is not None
    return f"{layer.env_name}@{status.lock_version if known else '???'}"


def show_text(
    stack: Stack,
    statuses: Mapping[str, LayerStatus],
    *,
    selected: Sequence[str],
    dependencies: bool = True,
    ascii_only: bool = False,
) -> str:
    """Draw the stack as a tree; `*` marks layers without a valid lock. `selected` are environment names.

    With `dependencies`, below each layer stands what it stands on, in the order of `sys.path`.
    """
    branch, last, pipe = ("|-- ", "`-- ", "|   ") if ascii_only else ("├── ", "└── ", "│   ")
    lines = [str(stack.path)]
    for category in CATEGORIES:
        is_last = category is CATEGORIES[-1]
        lines.append(f"{last if is_last else branch}{category.key.capitalize()}")
        outer = "    " if is_last else pipe
        layers = _chosen(stack.of(category.kind), selected)
        for layer in layers:
            is_last = layer is layers[-1]
            lines.append(f"{outer}{last if is_last else branch}{_line(layer, statuses, operations=True)}")
            inner = outer + ("    " if is_last else pipe)
            lower = layer.lower if dependencies else ()
            lines += [f"{inner}{last if below is lower[-1] else branch}{_line(below, statuses)}" for below in lower]
    return "\n".join(lines) + "\n"


def _chosen(layers: Sequence[Layer], selected: Sequence[str]) -> list[Layer]:
    return [layer for layer in layers if layer.env_name in selected]


def _line(layer: Layer, statuses: Mapping[str, LayerStatus], *, operations: bool = False) -> str:
    status = statuses.get(layer.env_name, UNKNOWN)
    mark = "" if status.has_valid_lock else "*"
    target = f" -> {install_target(layer, status)}" if layer.spec.versioned else ""
    wanted = f" ({', '.join(status.operations)})" if operations and status.operations else ""
    return f"{mark}{layer.env_name}{target}{wanted}"


def show_json(
    stack: Stack, statuses: Mapping[str, LayerStatus], *, selected: Sequence[str], dependencies: bool = True
) -> dict[str, Any]:
    """Give the same as venvstacks' document."""
    document: dict[str, Any] = {"spec_name": str(stack.path)}
    for category in CATEGORIES:
        layers = _chosen(stack.of(category.kind), selected)
        document[category.key] = [_entry(layer, statuses, dependencies=dependencies) for layer in layers]
    return document


def _entry(layer: Layer, statuses: Mapping[str, LayerStatus], *, dependencies: bool) -> dict[str, Any]:
    status = statuses.get(layer.env_name, UNKNOWN)
    entry = {**_facts(layer, statuses), "selected_operations": _listed(status.operations)}
    if layer.lower and dependencies:
        entry["dependencies"] = [{**_facts(below, statuses), "selected_operations": None} for below in layer.lower]
    return entry


def _facts(layer: Layer, statuses: Mapping[str, LayerStatus]) -> dict[str, Any]:
    status = statuses.get(layer.env_name, UNKNOWN)
    return {
        "name": layer.env_name,
        "install_target": install_target(layer, status),
        "has_valid_lock": status.has_valid_lock,
    }


def _listed(operations: Sequence[str] | None) -> list[str] | None:
    return None if operations is None else list(operations)
