"""A stack as a picture of text, and as a JSON document.

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
    operations: tuple[str, ...] = ()
    """What the command would do with it: `lock`, `build`, `publish`, …"""


UNKNOWN = LayerStatus()


def install_target(layer: Layer, status: LayerStatus) -> str:
    """Give the name that a layer is deployed under; `???` stands for the version of a lock that is not there yet."""
    if not layer.spec.versioned:
        return layer.env_name
    return f"{layer.env_name}@{'???' if status.lock_version is None else status.lock_version}"


def show_text(
    stack: Stack,
    statuses: Mapping[str, LayerStatus],
    *,
    selected: Sequence[str] | None = None,
    ascii_only: bool = False,
) -> str:
    """Draw the stack as a tree; `*` marks layers without a valid lock. `selected` are environment names."""
    branch, last, pipe = ("|-- ", "`-- ", "|   ") if ascii_only else ("├── ", "└── ", "│   ")
    lines = [stack.file]
    groups = [(category.key.capitalize(), _chosen(stack.of(category.kind), selected)) for category in CATEGORIES]
    groups = [(title, layers) for title, layers in groups if layers]
    for title, layers in groups:
        is_last = title == groups[-1][0]
        lines.append(f"{last if is_last else branch}{title}")
        outer = "    " if is_last else pipe
        for layer in layers:
            is_last = layer is layers[-1]
            lines.append(f"{outer}{last if is_last else branch}{_line(layer, statuses)}")
            inner = outer + ("    " if is_last else pipe)
            lower = layer.lower
            lines += [f"{inner}{last if below is lower[-1] else branch}" + _target(below, statuses) for below in lower]
    if any(not statuses.get(layer.env_name, UNKNOWN).has_valid_lock for _, layers in groups for layer in layers):
        lines += ["", "* no valid lock"]
    return "\n".join(lines) + "\n"


def _chosen(layers: Sequence[Layer], selected: Sequence[str] | None) -> list[Layer]:
    return [layer for layer in layers if selected is None or layer.env_name in selected]


def _line(layer: Layer, statuses: Mapping[str, LayerStatus]) -> str:
    status = statuses.get(layer.env_name, UNKNOWN)
    mark = "" if status.has_valid_lock else "*"
    target = f" -> {install_target(layer, status)}" if layer.spec.versioned else ""
    operations = f" ({', '.join(status.operations)})" if status.operations else ""
    return f"{mark}{layer.env_name}{target}{operations}"


def _target(layer: Layer, statuses: Mapping[str, LayerStatus]) -> str:
    return install_target(layer, statuses.get(layer.env_name, UNKNOWN))


def show_json(
    stack: Stack, statuses: Mapping[str, LayerStatus], *, selected: Sequence[str] | None = None
) -> dict[str, Any]:
    """Give the same as a document; its form is frozen by `schema` and `version`."""
    document: dict[str, Any] = {"schema": "strata.show", "version": 1, "spec_name": stack.file}
    for category in CATEGORIES:
        document[category.key] = [_entry(layer, statuses) for layer in _chosen(stack.of(category.kind), selected)]
    return document


def _entry(layer: Layer, statuses: Mapping[str, LayerStatus]) -> dict[str, Any]:
    status = statuses.get(layer.env_name, UNKNOWN)
    entry: dict[str, Any] = {
        "name": layer.env_name,
        "install_target": install_target(layer, status),
        "has_valid_lock": status.has_valid_lock,
        "selected_operations": list(status.operations),
    }
    if layer.lower:
        entry["dependencies"] = [_target(below, statuses) for below in layer.lower]
    return entry
