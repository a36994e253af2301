"""The modules of applications: what they are called, whether they are there, and which files of a folder are shipped.

It must not copy or hash anything: it gives the inputs that the engine captures. A folder is shipped without bytecode
caches and, in a git work tree, without what git ignores and git's own files, and with what its symlinks lead to; a
single file is shipped as it is. Of a folder in it that holds nothing but what is left out only the name is shipped, if
git keeps that: for a `.gitkeep`, say.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from strata_engine.action import Source, SourceTree
from strata_engine.errors import Place
from strata_rules.spec.declared import ApplicationSpec
from strata_rules.spec.fields import Problems
from strata_rules.spec.gitignore import WorkTree, find_work_tree
from strata_rules.spec.load import Layer, Stack


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """A launch or support module."""

    import_name: str
    file_name: str
    """What it is called in `site-packages`: `NAME.py`, or a folder's name."""
    path: Path
    input: Source | SourceTree


class ApplicationModules(msgspec.Struct, frozen=True, kw_only=True):
    """The modules of one application."""

    launch: Module
    support: tuple[Module, ...]
    """Sorted by their paths as the stack file has them."""


def application_modules(
    stack: Stack, read: Callable[[Path], bytes], probe: Callable[[Path], bool]
) -> dict[str, ApplicationModules]:
    """Find the modules of all applications, by environment name. Raises SpecError with all problems.

    `accept` of the folders' inputs reads ignore files through the same functions.
    """
    problems = Problems()
    root = Path(os.path.abspath(stack.root))  # noqa: PTH100 - absolute() would keep `..`
    finder = _Finder(root, find_work_tree(root, read, probe), probe, problems)
    found = {layer.env_name: finder.find(layer) for layer in stack.of("application")}
    problems.stop()
    return {name: modules for name, modules in found.items() if modules is not None}


class _Finder:
    def __init__(
        self, root: Path, work_tree: WorkTree | None, probe: Callable[[Path], bool], problems: Problems
    ) -> None:
        self.root = root
        self.work_tree = work_tree
        self.probe = probe
        self.problems = problems

    def find(self, layer: Layer) -> ApplicationModules | None:
        """Find the modules of one application; None where one of them is wrong."""
        spec = layer.spec
        assert isinstance(spec, ApplicationSpec)
        self._check_names(layer, spec)
        launch = self._module(spec.launch_module, layer.place("launch_module"), "launch module")
        support = [
            self._module(path, layer.place("support_modules", index), "support module")
            for index, path in enumerate(spec.support_modules)
        ]
        # By their text, as venvstacks sorts them: the version of a layer's lock depends on it.
        found = [
            module
            for _, module in sorted(zip(spec.support_modules, support, strict=True), key=lambda it: it[0])
            if module is not None
        ]
        if launch is None or len(found) != len(support):
            return None
        return ApplicationModules(launch=launch, support=tuple(found))

    def _check_names(self, layer: Layer, spec: ApplicationSpec) -> None:
        taken = {Path(spec.launch_module).stem: spec.launch_module}
        for index, path in enumerate(spec.support_modules):
            name = Path(path).stem
            first = taken.setdefault(name, path)
            if name == Path(spec.launch_module).stem:
                message = f"launch module `{name}` conflicts with a support module in application `{layer.name}`"
            elif first != path or path in spec.support_modules[:index]:
                message = f"conflicting support module names in application `{layer.name}`: `{name}`"
            else:
                continue
            place = layer.place("support_modules", index)
            self.problems.error("module-conflict", message, place, notes=[f"`{first}` is imported as `{name}` too"])

    def _module(self, written: str, place: Place, what: str) -> Module | None:
        path = Path(os.path.normpath(self.root / written))
        if not written.strip() or path == self.root or not path.name:
            self.problems.error("bad-module", f"`{written}` is not the path of a {what}", place)
            return None
        if not self.probe(path):
            hint = "paths start from the folder of the stack file"
            self.problems.error("missing-module", f"the {what} `{written}` does not exist", place, hint=hint)
            return None
        if not path.is_dir():
            return Module(import_name=path.stem, file_name=path.name, path=path, input=Source(self._named(path)))
        if self.work_tree is not None and self.work_tree.ignores_folder(path):
            message = f"the {what} `{written}` is a folder that git ignores: nothing of it would be shipped"
            self.problems.error(
                "ignored-module", message, place, hint="bring it back in `.gitignore` with a `!` pattern"
            )
            return None
        accept = accept_shipped(path, self.work_tree)
        tree = SourceTree(self._named(path), accept=accept, follow=True, empty=keep_empty(path, self.work_tree))
        return Module(import_name=path.stem, file_name=path.name, path=path, input=tree)

    def _named(self, path: Path) -> str:
        """Name a path as inputs are: relative to the workspace, absolute outside it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


def accept_shipped(folder: Path, work_tree: WorkTree | None) -> Callable[[str, bool], bool]:
    """Give the filter for a module's folder; it must be asked about folders before what is in them."""

    def accept(path: str, is_folder: bool) -> bool:  # noqa: FBT001 - the signature that SourceTree asks for
        name = path.rpartition("/")[2]
        if name == "__pycache__":
            return False
        if work_tree is None:
            return True
        return not name.startswith(".git") and not work_tree.ignores(folder / path, is_folder=is_folder)

    return accept


def keep_empty(folder: Path, work_tree: WorkTree | None) -> Callable[[str], bool]:
    """Give what tells of a folder in a module, of which nothing is shipped, whether its name is.

    venvstacks ships it always. But a folder in which git keeps nothing is what is left of a package on this machine.
    """
    return lambda path: work_tree is None or work_tree.holds(folder / path)
