"""What a layer's own modules may be called where their names meet a file system's rules and other people's files.

It knows no library and writes nothing: trees in, diagnostics out. Wheels were looked at when they were installed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from strata_engine.action import Execution
from strata_engine.digest import EMPTY
from strata_engine.errors import Diagnostic, SpecError
from strata_engine.tree import File, Node, Store, Tree, assemble, case_clashes, entries, listing, lookup
from strata_rules.layout import ignores_case, is_windows, why_not_on_windows


def check_target(target: str, platform: str) -> None:
    """Refuse a layer whose folder Windows cannot have. Raises SpecError (`name-on-windows`)."""
    why = why_not_on_windows(target) if is_windows(platform) else ""
    if why:
        raise SpecError.of(
            "name-on-windows",
            f"Windows cannot have the layer's folder `{target}`: {why}",
            hint="give the layer another name, or leave Windows out of its `platforms`",
        )


def check_names(store: Store, modules: Mapping[str, Node], installed: Tree, site: str, platform: str) -> None:
    """Refuse modules that the target platform cannot have beside each other and what is in `site`.

    Raises SpecError (`name-on-windows`, `case-clash`).
    """
    own = assemble(store, dict(modules))
    wrong = []
    if is_windows(platform):
        paths = [path for path, _ in entries(store, own)]
        wrong += [_no_name(path, why) for path in paths if (why := why_not_on_windows(posixpath.basename(path)))]
    if ignores_case(platform):
        folder = lookup(store, installed, site)
        there = [f"{site}/{name}" for name, _ in listing(store, folder)] if isinstance(folder, Tree) else []
        # What stands beside a module counts by its name alone.
        beside: dict[str, Node] = {path: File(EMPTY) for path in there}
        wrong += [_clash(*pair) for pair in case_clashes(store, assemble(store, beside | dict(modules)))]
    if wrong:
        raise SpecError(*wrong)


def warn_of_sitecustomize(execution: Execution, site: str) -> None:
    """Say that a package's own `sitecustomize` gives way to the one that finds the layers below, on Windows."""
    installed = execution.node("install")
    assert isinstance(installed, Tree)
    if lookup(execution.store, installed, f"{site}/sitecustomize.py") is not None:
        execution.warn(
            Diagnostic(
                "sitecustomize-replaced",
                f"a package installs `{site}/sitecustomize.py`, which `postinstall.py` replaces on Windows",
                hint="call what it does from the launch module",
                severity="warning",
            )
        )


def _no_name(path: str, why: str) -> Diagnostic:
    return Diagnostic(
        "name-on-windows",
        f"Windows cannot have the module file `{path}`: {why}",
        hint="give it another name, or leave Windows out of the layer's `platforms`",
    )


def _clash(first: str, second: str) -> Diagnostic:
    return Diagnostic(
        "case-clash",
        f"`{first}` and `{second}` are one name on the target platform",
        hint="give the module another name, or leave the platform out of the layer's `platforms`",
    )
