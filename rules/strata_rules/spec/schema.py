"""The JSON schema of the stack file, for editors: from the structs, described by their docstrings.

It must not say anything that the structs do not say, but for two things that they cannot: which top-level tables there
are, and fields that are deprecated. Read by Taplo through `#:schema`; kept to what JSON schema draft 4 to 2020 share.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from typing import Any

import msgspec

from strata_rules.platforms import PLATFORMS
from strata_rules.spec.declared import CATEGORIES, ToolStrata

_PLATFORM_LIST = {"type": "array", "items": {"type": "string", "enum": list(PLATFORMS)}}


def stack_schema() -> dict[str, Any]:
    """Compose the schema."""
    kinds = [category.spec for category in CATEGORIES]
    (*layers, strata), definitions = msgspec.json.schema_components(
        [*kinds, ToolStrata], ref_template="#/definitions/{name}"
    )
    for definition, struct in ((definitions[each.__name__], each) for each in _structs(ToolStrata, *kinds)):
        _describe(definition, struct)
    for category in CATEGORIES:
        definitions[category.spec.__name__]["properties"]["platforms"] |= {"anyOf": [_PLATFORM_LIST, {"type": "null"}]}
    runtime = definitions[CATEGORIES[0].spec.__name__]
    runtime["properties"]["fully_versioned_name"] = _deprecated("write `python_implementation` instead")
    runtime["required"].remove("python_implementation")
    runtime["anyOf"] = [{"required": ["python_implementation"]}, {"required": ["fully_versioned_name"]}]
    for category in CATEGORIES:
        definitions[category.spec.__name__]["properties"]["build_requirements"] = _deprecated("it is ignored") | {
            "type": "array"
        }
    arrays = {
        category.key: {"type": "array", "items": layer, "description": inspect.getdoc(category.spec)}
        for category, layer in zip(CATEGORIES, layers, strict=True)
    }
    uv = {"type": "object", "description": "Settings of uv for all layers; `index` and `sources` as in uv's own."}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Stack file",
        "description": "A stack of layered Python environments: runtimes, frameworks, applications.",
        "type": "object",
        "properties": {
            **arrays,
            "tool": {"type": "object", "properties": {"strata": strata, "uv": uv}},
        },
        "definitions": {name: _without_null(definition) for name, definition in sorted(definitions.items())},
    }


def _deprecated(instead: str) -> dict[str, Any]:
    return {"type": "string", "deprecated": True, "description": f"Deprecated: {instead}."}


def _structs(*kinds: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """List the structs and those that their fields hold."""
    found: list[type[msgspec.Struct]] = []
    for info in msgspec.inspect.multi_type_info(kinds):
        _collect(info, found)
    return found


def _collect(info: Any, found: list[type[msgspec.Struct]]) -> None:
    if isinstance(info, msgspec.inspect.StructType):
        found.append(info.cls)
        for field in info.fields:
            _collect(field.type, found)
    elif isinstance(info, msgspec.inspect.DictType):
        _collect(info.value_type, found)


def _describe(definition: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    """Put the docstrings of a struct's fields beside their types, and refuse unknown fields."""
    definition["additionalProperties"] = False
    for base in struct.__mro__:
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            for name, text in _field_docs(base).items():
                definition["properties"][name] = definition["properties"][name] | {"description": text}


def _field_docs(struct: type) -> dict[str, str]:
    """Read the docstrings that stand below the fields in the source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(struct))).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(after.value.value)
        for field, after in itertools.pairwise(body.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    }


def _without_null(value: Any) -> Any:
    """Leave out `null`, which TOML does not have."""
    if isinstance(value, list):
        return [_without_null(each) for each in value if each != {"type": "null"}]
    if not isinstance(value, dict):
        return value
    kept = {name: _without_null(each) for name, each in value.items() if each is not None}
    if len(kept.get("anyOf", ())) == 1:
        return kept.pop("anyOf")[0] | kept
    return kept
