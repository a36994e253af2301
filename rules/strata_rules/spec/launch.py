"""What an application is started with: warnings about launch and support modules that Python would not find or run.

It must not refuse anything: whatever a file is, it is shipped, and an application may be started in another way than
`python -m NAME`. That a module is there at all is `modules`' to say.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from strata_rules.spec.checks import Declared
from strata_rules.spec.declared import ApplicationSpec
from strata_rules.spec.fields import Problems


def check_launch(layer: Declared, root: Path, probe: Callable[[Path], bool], problems: Problems) -> None:
    """Warn of what `python -m` cannot run, and of modules that the standard library has as well."""
    spec = layer.spec
    assert isinstance(spec, ApplicationSpec)
    places = [layer.place("launch_module")]
    places += [layer.place("support_modules", index) for index in range(len(spec.support_modules))]
    for written, place in zip((spec.launch_module, *spec.support_modules), places, strict=True):
        name = Path(written).stem
        if name in sys.stdlib_module_names:
            message = f"`{written}` of {layer.who} would be imported as `{name}`, a module of the standard library"
            hint = "that one is found first: give yours another name"
            problems.warn("shadowed-module", message, place, hint=hint)
    wrong = _why_not_run(spec.launch_module, root, probe)
    if wrong is not None:
        said = f"`python -m` cannot run the launch module `{spec.launch_module}` of {layer.who}"
        problems.warn("not-runnable", said, layer.place("launch_module"), hint=wrong)


def _why_not_run(written: str, root: Path, probe: Callable[[Path], bool]) -> str | None:
    path = Path(os.path.normpath(root / written))
    if not probe(path):
        return None
    is_file = path.suffix in (".py", ".pyc") and not probe(path / "__init__.py")
    if not is_file and not any(probe(path / f"__main__{suffix}") for suffix in (".py", ".pyc")):
        return "a launch module is a `.py` file, or the folder of a package with a `__main__.py`"
    if "." in path.stem:
        package, _, module = path.stem.rpartition(".")
        return f"it would look for a module `{module}` in a package `{package}`: leave the dots out of the name"
    return None
