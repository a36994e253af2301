"""How help is laid out: options by what they are about, flags without their opposites, no word broken at its hyphens.

Knows click and names of options; what options mean is said where they are declared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import click

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Which layers": (
        "--include",
        "--allow-missing",
        "--lock-dependencies",
        "--build-dependencies",
        "--publish-dependencies",
        "--include-dependencies",
        "--build-derived",
        "--publish-derived",
        "--reset-lock",
        "--platform",
    ),
    "How": ("--locked", "--offline", "--index", "--local-wheels", "--jobs", "--keep-going"),
    "Where": ("--build-dir", "--output-dir", "--tag-outputs"),
    "What is said": ("--explain", "--show", "--show-only", "--json", "--help"),
}
"""The options of which many commands have several. What is left is what a command is about."""

SHORT = 10
"""So many options need no sections."""

EPILOG = "Global options, such as --console, --color and -C: see `strata --help`."

FLAGS = "A flag has an opposite: --no-x for --x."

_UNBROKEN = "\N{NON-BREAKING HYPHEN}"


class _Formatter(click.HelpFormatter):
    """Breaks no option at its hyphens."""

    def write(self, string: str) -> None:
        """Take a piece of the text."""
        super().write(string.replace(_UNBROKEN, "-"))

    def write_text(self, text: str) -> None:
        """Write paragraphs."""
        super().write_text(text.replace("-", _UNBROKEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 28, col_spacing: int = 2) -> None:
        """Write terms and what they mean."""
        kept = [(term, text.replace("-", _UNBROKEN)) for term, text in rows]
        super().write_dl(kept, col_max, col_spacing)


class HelpContext(click.Context):
    """A context whose help is laid out so."""

    formatter_class = _Formatter


def write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write a command's options; those of a command that has many in sections."""
    rows: dict[str, tuple[str, str]] = {}
    for option in command.get_params(ctx):
        record = option.get_help_record(ctx)
        if isinstance(option, click.Option) and record is not None:
            rows[option.opts[-1]] = _row(option, *record)
    sections = SECTIONS if len(rows) > SHORT else {}
    found = [(title, [rows.pop(name) for name in names if name in rows]) for title, names in sections.items()]
    for title, section in (("Options", list(rows.values())), *found):
        if section:
            with formatter.section(title):
                formatter.write_dl(section)


def has_flags(command: click.Command) -> bool:
    """Tell whether there is a flag, besides --json, of which only one side is shown."""
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    return any(option.secondary_opts and "--json" not in option.opts for option in options)


def _row(option: click.Option, declared: str, text: str) -> tuple[str, str]:
    """Show of a flag the side that is not the default, and of a number no range."""
    if option.secondary_opts:
        shown = option.secondary_opts if option.default is True else option.opts
        declared = ", ".join(sorted(shown, key=len))
    return declared, re.sub(r"\s*\[\d+<=x<=\d+\]", "", text)
