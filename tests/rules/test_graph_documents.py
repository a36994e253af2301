"""The form of the documents that `graph why` and its family write: a change of it is a new version."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from strata_rules.cli.graph import documents

SCHEMAS = Path(documents.__file__).parent / "schemas"


@pytest.mark.parametrize("name", sorted(documents.DOCUMENTS))
def test_a_document_has_the_form_that_was_promised(name: str) -> None:
    path = SCHEMAS / f"{name}.json"
    text = json.dumps(documents.schema_of(name), indent=2) + "\n"
    if os.environ.get("STRATA_UPDATE_TABLE") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text


def test_every_schema_is_of_a_document() -> None:
    assert {path.stem for path in SCHEMAS.iterdir()} == set(documents.DOCUMENTS)


def test_why_has_the_fields_that_design_and_issue_name() -> None:
    schema = json.loads((SCHEMAS / "strata.why.json").read_text())
    fields = ["schema", "version", "label", "run", "against", "root_causes", "chain", "cutoff"]
    assert list(schema["properties"]) == schema["required"] == fields
    causes = ["reason", "subject", "old", "new", "actions", "seconds"]
    assert list(schema["$defs"]["RootCause"]["properties"]) == causes
    assert list(schema["$defs"]["Step"]["properties"]) == ["label", "outcome", "reasons"]
