import json
import re
import tomllib

import msgspec
import pytest

from strata_rules.spec.declared import (
    ApplicationSpec,
    ArchiveOptions,
    FrameworkSpec,
    RuntimeSource,
    RuntimeSpec,
    ToolStrata,
)
from strata_rules.spec.schema import stack_schema

SCHEMA = stack_schema()

QUICKSTART = """\
[[runtimes]]
name = "python"
python_implementation = "cpython@3.12.9"
requirements = []

[[frameworks]]
name = "numbers"
runtime = "python"
requirements = ["numpy>=2"]
platforms = ["linux_x86_64"]
package_indexes = { numpy = "main" }

[[applications]]
name = "report"
frameworks = ["numbers"]
requirements = ["rich"]
launch_module = "report.py"

[tool.uv]
exclude-newer = "2025-01-01"

[tool.strata]
conflicts = "error"
[tool.strata.runtimes.python]
provider = ["local", "pbs"]
url = { linux_x86_64 = "https://example.org/x" }
accept = ">=3.11"
[tool.strata.archive]
format = "tar.zst"
level = 3
"""


def faults(value, schema, at="$"):
    """Validate, as far as our schema goes: an independent reading of the keywords that it uses."""
    known = {"$ref", "anyOf", "type", "enum", "properties", "required", "additionalProperties", "items"}
    known |= {"description", "title", "default", "deprecated", "$schema", "definitions"}
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        yield from faults(value, SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]], at)
    if "anyOf" in schema and all(list(faults(value, each, at)) for each in schema["anyOf"]):
        yield at
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    if "type" in schema and type(value) is not types[schema["type"]]:
        yield at
        return
    if "enum" in schema and value not in schema["enum"]:
        yield at
    if isinstance(value, dict):
        yield from (f"{at}.{name}" for name in schema.get("required", ()) if name not in value)
        for name, each in value.items():
            other = schema.get("additionalProperties", True)
            inner = schema.get("properties", {}).get(name, {} if other is True else other)
            if inner is False:
                yield f"{at}.{name}"
            else:
                yield from faults(each, inner, f"{at}.{name}")
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from faults(each, schema.get("items", {}), f"{at}[{index}]")


def test_a_stack_file_is_valid():
    assert list(faults(tomllib.loads(QUICKSTART), SCHEMA)) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("requirements = []", 'requirements = "numpy"', "$.runtimes[0].requirements"),
        ("requirements = []", "", "$.runtimes[0].requirements"),
        ("runtime = ", "runtim = ", "$.frameworks[0].runtim"),
        ('"linux_x86_64"]', '"linux"]', "$.frameworks[0].platforms[0]"),
        ('"error"', '"fail"', "$.tool.strata.conflicts"),
        ('"pbs"]', '"other"]', "$.tool.strata.runtimes.python.provider"),
        ("level = 3", "level = '3'", "$.tool.strata.archive.level"),
        ("python_implementation", "implementation", "$.runtimes[0].implementation"),
        ('launch_module = "report.py"', "", "$.applications[0].launch_module"),
    ],
)
def test_a_wrong_stack_file_is_not(old, new, fault):
    assert fault in set(faults(tomllib.loads(QUICKSTART.replace(old, new)), SCHEMA))


@pytest.mark.parametrize(
    "struct", [RuntimeSpec, FrameworkSpec, ApplicationSpec, ToolStrata, RuntimeSource, ArchiveOptions]
)
def test_every_field_is_there_and_described(struct):
    properties = SCHEMA["definitions"][struct.__name__]["properties"]
    assert {field.name for field in msgspec.structs.fields(struct)} <= properties.keys()
    for field in msgspec.structs.fields(struct):
        assert re.fullmatch(r"[A-Z].+\.", properties[field.name]["description"], re.DOTALL), field.name


def test_toml_has_no_null_and_every_reference_leads_somewhere():
    text = json.dumps(SCHEMA)
    assert "null" not in text
    assert set(re.findall(r'"#/definitions/(\w+)"', text)) == set(SCHEMA["definitions"])


def test_old_fields_are_told_as_deprecated():
    properties = SCHEMA["definitions"]["RuntimeSpec"]["properties"]
    assert properties["fully_versioned_name"]["deprecated"]
    assert properties["build_requirements"]["deprecated"]
    old = QUICKSTART.replace("python_implementation", "fully_versioned_name")
    assert list(faults(tomllib.loads(old), SCHEMA)) == []
