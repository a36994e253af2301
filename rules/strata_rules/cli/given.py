"""The options that the commands share, declared once and handed over as one value.

Names and defaults are venvstacks' where it has them (reference: its command line); folders are relative to the stack
file's folder, as there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from strata_rules.cli.completion import complete_labels, complete_layers
from strata_rules.platforms import PLATFORMS
from strata_rules.spec.near import did_you_mean

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Given:
    """What was given; an option that a command does not have keeps its default."""

    build_dir: Path = Path("_build")
    output_dir: Path = Path("_artifacts")
    tag_outputs: bool = False
    platform: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    allow_missing: bool = False
    reset_lock: tuple[str, ...] = ()
    lock_dependencies: bool = False
    build_dependencies: bool = False
    publish_dependencies: bool = False
    include_dependencies: bool | None = None
    """The three above at once."""
    build_derived: bool = False
    publish_derived: bool = False
    show: bool = False
    show_only: bool = False
    local_wheels: tuple[Path, ...] = ()
    index: bool = True
    offline: bool = False
    locked: bool = False
    jobs: int = 0
    """0 means one per core."""
    keep_going: bool = False
    dry_run: bool = False
    explain: bool = False
    as_json: bool = False
    remote_cache: tuple[str, ...] = ()
    remote_zone: str = ""
    remote_upload: str | None = None
    remote_cache_required: bool = False
    remote_timeout: float = 0.0


MOST_JOBS = 1024
"""More threads than this serve nobody, and a number with a few digits too many would take all memory."""

UPLOADS = ("wait", "detach", "off")
"""The engine's `Upload`, written here too because only builds pay for its import; a test compares them."""


def _folder(name: str, default: Path, text: str) -> Decorator:
    # What stands there is looked at where it is used: the folder starts from the stack file, not from here.
    kind = click.Path(path_type=Path)
    return click.option(f"--{name}", metavar="DIR", type=kind, default=default, show_default=True, help=text)


def _flag(name: str, text: str, *, default: bool = False) -> Decorator:
    return click.option(f"--{name}/--no-{name}", default=default, help=text)


def _platforms(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if name not in PLATFORMS:
            near = did_you_mean(name, PLATFORMS)
            known = near or f"platforms are {', '.join(f'`{each}`' for each in PLATFORMS)}"
            raise click.BadParameter(f"there is no platform `{name}`: {known}", ctx, parameter)
    return tuple(dict.fromkeys(value))


def _complete_platforms(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in PLATFORMS if name.startswith(incomplete)]


OPTIONS: dict[str, Decorator] = {
    "dry_run": _flag("dry-run", "Say what would be done, and do nothing."),
    "explain": _flag("explain", "Say why each action runs, old beside new."),
    "locked": _flag("locked", "Refuse to lock: a lock that does not fit the stack is an error."),
    "offline": _flag("offline", "Use no network."),
    "jobs": click.option(
        "-j",
        "--jobs",
        metavar="N",
        type=click.IntRange(0, MOST_JOBS),
        default=0,
        help="How many actions run at once; 0, the default, is one per core.",
    ),
    "keep_going": click.option(
        "-k", "--keep-going/--no-keep-going", default=False, help="Go on with what does not need a failed action."
    ),
    "include": click.option(
        "--include",
        metavar="PATTERN",
        multiple=True,
        shell_complete=complete_layers,
        help="Only layers whose name matches, such as `app-*`; may be repeated.",
    ),
    "allow_missing": _flag("allow-missing", "Only warn of a pattern that matches no layer."),
    "lock_dependencies": _flag("lock-dependencies", "Lock what included layers stand on as if it were included."),
    "build_dependencies": _flag("build-dependencies", "Build what included layers stand on as if it were included."),
    "publish_dependencies": _flag("publish-dependencies", "Publish what included layers stand on, too."),
    "include_dependencies": click.option(
        "--include-dependencies/--no-include-dependencies",
        default=None,
        help="All three of --lock-dependencies, --build-dependencies and --publish-dependencies, or none.",
    ),
    "build_derived": _flag("build-derived", "Build what stands on included layers, too."),
    "publish_derived": _flag("publish-derived", "Publish what stands on included layers, too."),
    "reset_lock": click.option(
        "--reset-lock",
        metavar="PATTERN",
        multiple=True,
        shell_complete=complete_layers,
        help="Lock these layers as if they had no lock, where they are locked at all; may be repeated.",
    ),
    "show": _flag("show", "Show the stack and what is selected of it first."),
    "show_only": _flag("show-only", "Show the stack and what is selected of it, and do nothing."),
    "as_json": click.option("--json/--no-json", "as_json", default=False, help="Write one JSON document to stdout."),
    "platform": click.option(
        "--platform",
        metavar="PLATFORM",
        multiple=True,
        callback=_platforms,
        shell_complete=_complete_platforms,
        help="Build for this platform instead of this machine's, such as `win_amd64`; may be repeated.",
    ),
    "build_dir": _folder("build-dir", Path("_build"), "Where layers are built."),
    "output_dir": _folder("output-dir", Path("_artifacts"), "Where archives and metadata go."),
    "tag_outputs": _flag("tag-outputs", "Put platform and build number into the names of archives."),
    "index": _flag("index", "Ask no package index: wheels come from --local-wheels alone.", default=True),
    "remote_cache": click.option(
        "--remote-cache",
        metavar="URL",
        multiple=True,
        help="Ask this remote cache instead of those configured, `none` for no one; may be repeated, in order.",
    ),
    "remote_zone": click.option(
        "--remote-zone", metavar="ZONE", default="", help="Whose results to read first and to write, such as `main`."
    ),
    "remote_upload": click.option(
        "--remote-upload",
        type=click.Choice(UPLOADS),
        default=None,
        help="Whether results are sent, and the build waits for that; by default only where a credential is given.",
    ),
    "remote_timeout": click.option(
        "--remote-timeout",
        metavar="SECONDS",
        type=click.FloatRange(0, 3600),
        default=0.0,
        help="How long without any progress a remote cache is waited for.",
    ),
    "remote_cache_required": _flag("remote-cache-required", "Fail where a remote cache does not do its part."),
    "local_wheels": click.option(
        "--local-wheels",
        metavar="DIR",
        multiple=True,
        type=click.Path(path_type=Path),
        help="A folder of wheels to choose from; may be repeated.",
    ),
}


REMOTE = ("remote_cache", "remote_zone", "remote_upload", "remote_timeout", "remote_cache_required")
"""What those take that execute actions which a remote cache may know."""

BUILDING = (
    "dry_run",
    "explain",
    "locked",
    "offline",
    "jobs",
    "keep_going",
    "include",
    "allow_missing",
    "platform",
    "build_dir",
    "output_dir",
    "tag_outputs",
    "index",
    "local_wheels",
    *REMOTE,
    "publish_dependencies",
    "publish_derived",
    "show",
    "show_only",
    "as_json",
)
"""What `build` and `publish` take alike."""

RELATED = ("lock_dependencies", "build_dependencies", "include_dependencies", "build_derived")
"""What only those take that do more than one thing with a layer."""


def given_options(*names: str) -> Decorator:
    """Add these options to a command, in the order of OPTIONS; it gets them as its argument `given`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def packed(*args: Any, **values: Any) -> Any:
            return function(*args, given=Given(**{name: values.pop(name) for name in names}), **values)

        wrapped: Callable[..., Any] = packed
        for name in reversed([name for name in OPTIONS if name in names]):
            wrapped = OPTIONS[name](wrapped)
        return wrapped

    return decorate


def accepted_quietly(*names: str) -> Decorator:
    """Take venvstacks' options that ask for what always happens here, and do nothing more about them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            option = click.option(f"--{name}/--no-{name}", default=None, expose_value=False, hidden=True)
            function = option(function)
        return function

    return decorate


def labels_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments `[SPEC] [LABELS]...`."""
    return click.argument("arguments", nargs=-1, metavar="[SPEC] [LABELS]...", shell_complete=complete_labels)(function)
