"""`strata init`: write a first stack that builds, into a folder that has none."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from strata_engine.errors import SpecError, host_error
from strata_engine.workspace import write_atomically
from strata_rules.cli.options import Settings
from strata_rules.cli.options import command as declare
from strata_rules.cli.output import say
from strata_rules.null import SPEC_NAMES
from strata_rules.platforms import host_platform

STACK = """\
#:schema ./strata.schema.json
# A stack: a Python runtime, frameworks on it, applications on those.
# `strata schema > strata.schema.json` gives editors the completion that the line above asks for.

[[runtimes]]
name = "python"
python_implementation = "cpython@{python}"
platforms = ["{platform}"]
requirements = []

[[frameworks]]
name = "console"
runtime = "python"
requirements = ["rich>=13"]

[[applications]]
name = "hello"
frameworks = ["console"]
launch_module = "hello.py"
requirements = []

# A Python found on this machine will do; without one, a portable build is downloaded.
[tool.strata.runtimes."python"]
provider = ["local", "pbs"]
accept = ">=3.11"
"""

MODULE = '''\
"""Say hello from a layered environment."""

import platform
import sys

from rich import print
from rich.panel import Panel


def main() -> None:
    where = "\\n".join(path for path in sys.path if "site-packages" in path)
    print(Panel(f"Python {platform.python_version()}\\n\\n{where}", title="Hello from your stack"))


if __name__ == "__main__":
    main()
'''

IGNORED = ("_build/", "_artifacts/", "_export/", ".strata/")

PYTHON = "3.12.9"
"""The release that the scaffold names: python-build-standalone has it for every target platform."""


@declare("init")
@click.argument("folder", required=False, default=".", type=click.Path(file_okay=False, path_type=Path))
@click.pass_obj
def command(settings: Settings, folder: Path) -> None:
    """Write a first stack into FOLDER (this one by default): a stack file, an application, a .gitignore.

    Nothing that exists is overwritten.
    """
    scaffold(folder)
    into = "" if folder == Path() else f"-C {shlex.quote(str(folder))} "
    say(
        f"wrote `{folder / SPEC_NAMES[0]}`; next: `strata {into}build`, then `strata {into}run hello`",
        quiet=settings.quiet,
    )


def scaffold(folder: Path) -> None:
    """Write the files. Raises SpecError, having written nothing, where one of them exists."""
    files = {
        SPEC_NAMES[0]: STACK.format(python=PYTHON, platform=host_platform()),
        "hello.py": MODULE,
    }
    taken = [name for name in (*SPEC_NAMES, *files) if (folder / name).exists()]
    if taken:
        raise SpecError.of(
            "would-overwrite",
            f"`{folder / taken[0]}` exists already",
            hint="name a new folder, as in `strata init my-stack`",
        )
    try:
        _write(folder, files)
    except OSError as error:
        raise host_error(error, str(folder)) from error


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    old = ignore.read_text(encoding="utf-8") if ignore.exists() else ""
    missing = [line for line in IGNORED if line not in old.splitlines()]
    if missing:
        files[".gitignore"] = old + ("\n" if old and not old.endswith("\n") else "") + "\n".join(missing) + "\n"
    # The stack file last: while it is missing, the folder is not taken for a stack.
    for name in sorted(files, key=lambda name: name == SPEC_NAMES[0]):
        write_atomically(folder / name, files[name].encode())
