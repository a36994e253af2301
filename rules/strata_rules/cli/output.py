"""What goes to standard output: JSON documents and other data, and nothing that is said to a person.

Every document names its `schema` and that schema's integer `version`; a reader that knows both can rely on the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from strata_engine.console.terminal import ASCII, Sink, show_diagnostics, speaks_unicode
from strata_engine.errors import Diagnostic
from strata_rules.cli.options import Settings


def emit(text: str) -> None:
    """Write data to standard output. A reader that went away is no failure of ours; a full disk is."""
    stream = sys.stdout
    if stream is None:
        return
    if not speaks_unicode(stream):
        text = text.translate(ASCII).encode(stream.encoding, "backslashreplace").decode(stream.encoding)
    with contextlib.suppress(BrokenPipeError):
        stream.write(text if text.endswith("\n") else f"{text}\n")
        stream.flush()


def document_text(schema: str, version: int, fields: Mapping[str, Any]) -> str:
    """Give one JSON document as it is written to standard output."""
    document = {"schema": schema, "version": version, **fields}
    # Escapes of JSON's own where the stream's encoding lacks characters: ours would not be JSON.
    return json.dumps(document, indent=2, ensure_ascii=not speaks_unicode(sys.stdout)) + "\n"


def emit_document(schema: str, version: int, fields: Mapping[str, Any]) -> None:
    """Write one JSON document."""
    emit(document_text(schema, version, fields))


def say(text: str, *, quiet: bool = False) -> None:
    """Tell a person something on standard error."""
    if not quiet:
        Sink(sys.stderr).lines([text])


def diagnostic_fields(diagnostic: Diagnostic) -> dict[str, Any]:
    """Give a diagnostic as a value for JSON."""
    place = diagnostic.place
    return {
        "id": diagnostic.id,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        "file": place.file if place else None,
        "line": place.line if place and place.line else None,
        "column": place.column if place and place.line else None,
        "notes": list(diagnostic.notes),
        "hint": diagnostic.hint,
    }


def say_diagnostic(diagnostic: Diagnostic, settings: Settings) -> None:
    """Tell a person a warning that no exception carries."""
    if not settings.quiet:
        show_diagnostics([diagnostic], sys.stderr, color=settings.color, environ=os.environ)
