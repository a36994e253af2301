"""One HTML page out of a report: no network, no file beside it, and nothing in the data that the page could run.

Labels, messages and paths come from stack files and names of wheels, so they are hostile. The data is JSON in which
no character is left that could end the element it stands in; the page's own program only ever makes text of it, never
markup, and is not allowed to (Trusted Types); the policy names style and program by their digests and nothing else.
"""

from __future__ import annotations

import base64
import html
import re
from importlib.resources import files

import msgspec

from strata_engine.digest import Digest
from strata_engine.report.data import Report
from strata_engine.words import summary

PROGRAM = ("core.js", "details.js", "graph.js", "timeline.js", "tables.js", "main.js")
"""The parts of the page's program, which is one function."""

_ESCAPED = {c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_HOLE = re.compile(r"\{\{(\w+)\}\}")


def page(report: Report) -> str:
    """Give the page."""
    style = _file("page.css")
    program = "(() => {\n" + '"use strict";\n' + "\n".join(map(_file, PROGRAM)) + "\n})();\n"
    head = report.head
    policy = (
        f"default-src 'none'; script-src '{_source(program)}'; style-src '{_source(style)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    holes = {
        "policy": html.escape(policy),
        "title": html.escape(f"{'failed' if head.exit_code else 'done'}: strata {' '.join(head.command)}"),
        "summary": html.escape(summary(head.counts, head.seconds)),
        "style": style,
        "data": embedded(report),
        "program": program,
    }
    # In one pass: what is put in is not looked through again.
    return _HOLE.sub(lambda hole: holes[hole[1]], _file("page.html"))


def embedded(report: Report) -> str:
    """Give the data as JSON that means the same inside an element, whatever is in it."""
    text = msgspec.json.encode(report).decode("utf-8")
    return re.sub("[<>&\u2028\u2029]", lambda match: _ESCAPED[match[0]], text)


def _file(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


def _source(text: str) -> str:
    """Name an inline style or program as a Content-Security-Policy does."""
    return "sha256-" + base64.b64encode(bytes.fromhex(Digest.of(text.encode()).hash)).decode()
