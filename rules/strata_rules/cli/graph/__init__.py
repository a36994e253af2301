"""`strata graph`: what was built and why, asked and drawn. One module per command."""

from __future__ import annotations

from strata_rules.cli.commands import Commands

COMMANDS = {
    "why": "Say why something was built again.",
    "why-not": "Say why something was not built again.",
    "runs": "List the builds of this workspace.",
    "diff": "Say what differs between two builds.",
    "query": "Find actions by what they are, need and did.",
    "show": "Draw the graph.",
    "trace": "Print where a build's trace is.",
    "report": "Write a page about a build.",
}
"""The commands in the order of help."""

command = Commands(
    "graph",
    __name__,
    COMMANDS,
    help="Explain and draw the graph of actions that a stack comes to.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
