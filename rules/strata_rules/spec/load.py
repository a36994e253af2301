"""A stack: what a stack file says, checked, its layers in build order.

It must not touch the disk: files are read through the functions that `load_stack` is given, so that a build knows all
that could change its answer. All problems of a file are reported together, each at its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from strata_engine.errors import Diagnostic, SpecError
from strata_engine.workspace import as_typed
from strata_rules.spec.checks import Declared, check_indexes, check_layer, check_strata
from strata_rules.spec.declared import (
    CATEGORIES,
    ApplicationSpec,
    Category,
    FrameworkSpec,
    Kind,
    LayerSpec,
    RuntimeSource,
    RuntimeSpec,
    ToolStrata,
)
from strata_rules.spec.fields import Problems, Table, decode, kind_of
from strata_rules.spec.launch import check_launch
from strata_rules.spec.layers import MACOSX_DEPLOYMENT_TARGET, Layer, link_layers
from strata_rules.spec.near import did_you_mean
from strata_rules.spec.source import Document, decode_toml
from strata_rules.spec.uvconfig import EXCLUDE_NEWER, UvConfig, read_uv_config

__all__ = [
    "ENVIRONMENT",
    "ApplicationSpec",
    "FrameworkSpec",
    "Kind",
    "Layer",
    "LayerSpec",
    "RuntimeSource",
    "RuntimeSpec",
    "Stack",
    "ToolStrata",
    "load_stack",
]

ENVIRONMENT = (MACOSX_DEPLOYMENT_TARGET, EXCLUDE_NEWER)
"""The variables that a stack depends on."""


class Stack(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A stack file, checked."""

    path: Path
    """The stack file, absolute."""
    file: str
    """The stack file as messages name it."""
    layers: tuple[Layer, ...]
    """Runtimes, frameworks, applications; each after all that it needs."""
    strata: ToolStrata
    """What `[tool.strata]` says."""
    uv: UvConfig
    """What uv is told for all layers."""
    document: Document
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def root(self) -> Path:
        """The folder of the stack file, from which its paths start."""
        return self.path.parent

    def of(self, kind: Kind) -> tuple[Layer, ...]:
        """List the layers of one kind, in build order."""
        return tuple(layer for layer in self.layers if layer.kind == kind)

    def layer(self, env_name: str) -> Layer:
        """Find a layer by its environment name. Raises SpecError `unknown-layer`."""
        for layer in self.layers:
            if layer.env_name == env_name:
                return layer
        names = [layer.env_name for layer in self.layers]
        # A person may well give the name that the stack file has, without the prefix.
        meant = next((layer.env_name for layer in self.layers if layer.name == env_name), None)
        hint = f"did you mean `{meant}`?" if meant else did_you_mean(env_name, names)
        hint = hint or f"layers are {', '.join(f'`{name}`' for name in names)}"
        raise SpecError.of("unknown-layer", f"there is no layer `{env_name}` in `{self.file}`", hint=hint)

    def runtime_source(self, layer: Layer) -> RuntimeSource:
        """Tell where a layer's runtime comes from."""
        return self.strata.runtimes.get(layer.runtime.name, RuntimeSource())


def load_stack(
    path: Path,
    read: Callable[[Path], bytes],
    *,
    name: str | None = None,
    probe: Callable[[Path], bool] | None = None,
    env: Mapping[str, str] | None = None,
) -> Stack:
    """Read a stack file, and `venvstacks.uv.toml` beside it where that counts. Raises SpecError with all problems.

    Everything read goes through `read` and `probe`; `name` is what messages call the file.
    """
    env = os.environ if env is None else env
    file = name or as_typed(path)
    try:
        data = read(path)
    except (FileNotFoundError, IsADirectoryError, SpecError) as error:
        message = f"there is no stack file `{file}`"
        raise SpecError.of("missing-file", message, hint="`strata init` makes one") from error
    document = decode_toml(data, file)
    problems = Problems()
    layers = _declared_layers(document, problems)
    strata = _tool_strata(document, layers, problems)
    root, probe = path.absolute().parent, probe or Path.exists
    uv = read_uv_config(document, root, read, probe, env, problems)
    for layer in layers:
        check_layer(layer, problems)
        check_indexes(layer, uv.named, problems)
        if layer.kind == "application" and "launch_module" not in layer.bad:
            check_launch(layer, root, probe, problems)
    linked = link_layers(layers, env, problems)
    problems.stop()
    return Stack(
        path=path.absolute(),
        file=file,
        layers=linked,
        strata=strata,
        uv=uv,
        document=document,
        warnings=problems.in_order(),
    )


def _declared_layers(document: Document, problems: Problems) -> list[Declared]:
    """Read the tables of all layers."""
    known = [*(category.key for category in CATEGORIES), "tool"]
    for key in document.values:
        if key not in known:
            hint = did_you_mean(key, known) or "it is ignored"
            problems.warn("unknown-key", f"a stack file has no `{key}`", document.place((key,), of="key"), hint=hint)
    found = []
    for category in CATEGORIES:
        tables = document.values.get(category.key, [])
        if not isinstance(tables, list):
            said = f"`{category.key}` must be an array of tables, not {kind_of(tables)}"
            hint = f"write `[[{category.key}]]` before each {category.kind}"
            problems.error("wrong-type", said, document.place((category.key,), of="key"), hint=hint)
            continue
        for index, table in enumerate(tables):
            at = (category.key, index)
            if isinstance(table, dict):
                found.append(_declare(category, Table(document, at, _who(category, index, table), table), problems))
            else:
                message = f"each of `{category.key}` must be a table, not {kind_of(table)}"
                problems.error("wrong-type", message, document.place(at))
    return found


def _who(category: Category, index: int, table: Mapping[str, Any]) -> str:
    name = table.get("name")
    return (
        f"{category.kind} `{name}`" if isinstance(name, str) and name.isprintable() else f"{category.kind} {index + 1}"
    )


def _declare(category: Category, table: Table, problems: Problems) -> Declared:
    """Read one layer's table, with the names that fields had in the past."""
    values = dict(table.values)
    if "build_requirements" in values:
        del values["build_requirements"]
        place = table.place("build_requirements", of="key")
        problems.warn("deprecated-field", "`build_requirements` is deprecated and ignored", place, hint="remove it")
    old, new = "fully_versioned_name", "python_implementation"
    if category.kind == "runtime" and old in values:
        place = table.place(old, of="key")
        if new in values:
            message = f"{table.who} has both `{old}` and `{new}`"
            problems.error("deprecated-field", message, place, hint=f"remove `{old}`")
            del values[old]
        else:
            problems.warn("deprecated-field", f"`{old}` is deprecated", place, hint=f"write `{new}` instead")
            # At its old place among the fields, so that problems are found in the order of the text.
            values = {new if name == old else name: value for name, value in values.items()}
    elsewhere = {
        field: f"`{field}` is a field of {other.key}"
        for other in CATEGORIES
        for field in other.spec.__struct_fields__
        if field not in category.spec.__struct_fields__
    }
    decoded = decode(category.spec, table._replace(values=values), problems, elsewhere=elsewhere)
    spec = decoded.value
    requirements = tuple(each.strip() for each in spec.requirements)
    spec = spec if requirements == spec.requirements else msgspec.structs.replace(spec, requirements=requirements)
    return Declared(category, table, spec, decoded.bad)


def _tool_strata(document: Document, layers: list[Declared], problems: Problems) -> ToolStrata:
    tool = document.values.get("tool", {})
    if not isinstance(tool, dict):
        problems.error("wrong-type", f"`tool` must be a table, not {kind_of(tool)}", document.place(("tool",)))
        return ToolStrata()
    values = tool.get("strata", {})
    if not isinstance(values, dict):
        place = document.place(("tool", "strata"))
        problems.error("wrong-type", f"`tool.strata` must be a table, not {kind_of(values)}", place)
        return ToolStrata()
    table = Table(document, ("tool", "strata"), "`tool.strata`", values)
    decoded = decode(ToolStrata, table, problems)
    runtimes = [layer.spec.name for layer in layers if layer.kind == "runtime"]
    check_strata(decoded.value, table, runtimes, problems)
    return decoded.value
