"""A build's result as the value that `--json` writes; its form is frozen by a test."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from strata_engine.build import BuildResult
from strata_engine.run_record import ActionReport
from strata_rules.cli.output import diagnostic_fields, emit
from strata_rules.metadata import CATEGORIES
from strata_rules.publish import Manifest


def with_stack(fields: dict[str, Any], stack: Mapping[str, Any] | None) -> dict[str, Any]:
    """Add what `--show` says, where it was given."""
    return fields if stack is None else {**fields, "stack": dict(stack)}


def result_fields(result: BuildResult) -> dict[str, Any]:
    """Give what every command that builds says of its build."""
    return {
        "run": result.run,
        "seconds": round(result.seconds, 3),
        "exit_code": result.exit_code,
        "interrupted": result.interrupted,
        "counts": dict(result.counts),
        "remote": msgspec.to_builtins(result.remote) if result.remote is not None else None,
        "actions": [_action_fields(action) for action in result.actions],
        "diagnostics": [diagnostic_fields(diagnostic) for diagnostic in result.diagnostics],
    }


def manifest_layers(manifests: Iterable[Manifest]) -> dict[str, list[dict[str, Any]]]:
    """Give what manifests say of layers, in venvstacks' form; what a dry run does not know yet is left out."""
    layers: dict[str, list[dict[str, Any]]] = {category: [] for category in CATEGORIES.values()}
    for manifest in manifests:
        for published in manifest.layers:
            known = {name: value for name, value in published.fields.items() if value != ""}
            layers[CATEGORIES[published.layer.kind]].append(known)
    return layers


def emit_dry_run(manifests: Iterable[Manifest]) -> None:
    """Write which files would be there, and which of them are."""
    for manifest in manifests:
        for published in manifest.layers:
            emit(f"{os.path.relpath(published.path)}  {'would be written' if published.changed else 'up to date'}")


def _action_fields(action: ActionReport) -> dict[str, Any]:
    return {
        "label": action.label,
        "mnemonic": action.mnemonic,
        "key": action.key,
        "outcome": action.outcome.value,
        "reasons": [msgspec.to_builtins(reason) for reason in action.reasons],
        "seconds": action.seconds,
        "bytes": action.bytes,
        "because": action.because,
    }
