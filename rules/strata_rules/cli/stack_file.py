"""Find the stack file that a command means, and tell it from labels among the arguments.

Looks at names only, but where a stack file has any name at all; what is in it is `spec`'s to read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from strata_engine.errors import SpecError
from strata_rules.null import SPEC_NAMES


def find_stack_file(argument: str | None, cwd: Path) -> Path:
    """Give the stack file that `argument` names, or the nearest one at or above `cwd`. Raises SpecError.

    The path is as the user would type it, relative to `cwd` where that is possible.
    """
    if argument is not None:
        return _named(argument, cwd)
    for folder in (cwd, *cwd.parents):
        if found := _in_folder(folder):
            return Path(os.path.relpath(found, cwd))
    raise SpecError.of(
        "no-stack-file",
        f"there is no {' or '.join(f'`{name}`' for name in SPEC_NAMES)} in `{cwd}` or above it",
        hint="`strata init` writes a first one",
    )


def split_arguments(arguments: Sequence[str], cwd: Path) -> tuple[str | None, tuple[str, ...]]:
    """Tell the optional SPEC in front from labels: a `.toml` path, a folder with a stack file, or any file of TOML."""
    if not arguments:
        return None, ()
    first = arguments[0]
    is_spec = first.endswith((".toml", "/", os.sep)) or first in (".", "..")
    path = cwd / os.path.expanduser(first)  # noqa: PTH111 - Path's own raises where there is no such user
    is_spec = is_spec or _is_stack_folder(path) or _is_toml(path)
    return (first, tuple(arguments[1:])) if is_spec else (None, tuple(arguments))


def _is_stack_folder(folder: Path) -> bool:
    return any((folder / name).is_file() for name in SPEC_NAMES)


def _is_toml(path: Path) -> bool:
    """Tell whether a file could be a stack file, and is not just called as a layer is."""
    if not path.is_file():
        return False
    # Here and not above: a label is hardly ever called as a file is.
    import tomllib  # noqa: PLC0415 - see the comment above

    try:
        tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return True


def _named(argument: str, cwd: Path) -> Path:
    shown = Path(os.path.expanduser(argument))  # noqa: PTH111 - Path's own raises where there is no such user
    path = cwd / shown
    if path.is_dir():
        found = _in_folder(path)
        if found is None:
            names = " or ".join(f"`{name}`" for name in SPEC_NAMES)
            raise SpecError.of(
                "no-stack-file", f"there is no {names} in `{argument}`", hint=f"`strata init {argument}` writes one"
            )
        return shown / found.name
    if not path.is_file():
        hint = "give a path that ends in `.toml` or a folder, or leave it out to take the nearest stack file"
        if argument.startswith("//"):
            hint = "`build`, `publish` and `graph` take labels that begin with `//`: `build 'kind(Lock) & //...'` locks"
        raise SpecError.of("no-stack-file", f"there is no stack file `{argument}`", hint=hint)
    return shown


def _in_folder(folder: Path) -> Path | None:
    found = [folder / name for name in SPEC_NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise SpecError.of(
            "two-stack-files",
            f"`{folder}` has both `{SPEC_NAMES[0]}` and `{SPEC_NAMES[1]}`",
            hint=f"say which one is meant, as in `strata build {SPEC_NAMES[0]}`",
        )
    return found[0] if found else None
