"""`strata schema`: the JSON schema of the stack file, for editors."""

from __future__ import annotations

import json

from strata_rules.cli.options import command as declare
from strata_rules.cli.output import emit
from strata_rules.spec.schema import stack_schema


@declare("schema")
def command() -> None:
    """Write the JSON schema of the stack file to standard output.

    \b
    Editors use it through a first line in the stack file:
      strata schema > strata.schema.json
      #:schema ./strata.schema.json
    """
    emit(json.dumps(stack_schema(), indent=2, ensure_ascii=True))
