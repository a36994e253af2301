"""`strata completion`, and what a shell is told when it asks for layer names and labels.

A stack file that is wrong completes to nothing: a shell prompt is no place for diagnostics.
"""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from strata_engine.errors import SpecError, StrataError
from strata_rules.cli.options import command as declare
from strata_rules.cli.output import emit

SHELLS = ("bash", "zsh", "fish")
ACTIONS = ("lock", "install", "link", "archive")
"""The actions of a layer that are worth naming."""

WHERE = {
    "bash": 'eval "$(strata completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(strata completion zsh)"    # in ~/.zshrc',
    "fish": "strata completion fish > ~/.config/fish/completions/strata.fish",
}


@declare(
    "completion",
    epilog="\b\n" + "\n".join(WHERE.values()),
)
@click.argument("shell", required=False, type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str | None) -> None:
    """Write the script that makes SHELL complete commands, options, layers and labels.

    Without SHELL, the one in $SHELL is meant.
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    found = get_completion_class(shell) if shell in SHELLS else None
    if found is None:
        raise SpecError.of(
            "unknown-shell",
            "cannot tell which shell is meant",
            hint="say it, as in `strata completion bash`; there are " + ", ".join(f"`{name}`" for name in SHELLS),
        )
    emit(found(ctx.find_root().command, {}, "strata", "_STRATA_COMPLETE").source())


def complete_labels(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a SPEC or a label."""
    names = _layers(ctx)
    labels = [*names, *(f"{name}/{action}" for name in names for action in ACTIONS)]
    found = [CompletionItem(label) for label in labels if label.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def complete_layers(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a layer."""
    return [CompletionItem(name) for name in _layers(ctx) if name.startswith(incomplete)]


def complete_applications(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of an application, without the prefix of its layer."""
    names = [name.removeprefix("app-") for name in _layers(ctx) if name.startswith("app-")]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _layers(ctx: click.Context) -> list[str]:
    # Here and not above: writing a completion script needs no stack.
    from strata_rules.cli.stack_file import find_stack_file  # noqa: PLC0415 - see the comment above
    from strata_rules.spec.load import load_stack  # noqa: PLC0415 - see the comment above

    cwd = Path.cwd()
    try:
        path = find_stack_file(_spec(ctx, cwd), cwd)
        return [layer.env_name for layer in load_stack(path, Path.read_bytes).layers]
    except (StrataError, OSError):
        return []


def _spec(ctx: click.Context, cwd: Path) -> str | None:
    from strata_rules.cli.stack_file import split_arguments  # noqa: PLC0415 - as above

    typed = ctx.params.get("arguments") or ctx.params.get("spec") or ()
    return split_arguments((typed,) if isinstance(typed, str) else typed, cwd)[0]
