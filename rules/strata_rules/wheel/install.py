"""The rule Install: the unpacked wheels of a layer, merged in lock order into the layer's layout.

It runs nothing of the target and opens no file but those that describe a distribution, so that every platform can be
installed on every host. The output has `tree/` (for a runtime layer the runtime with its packages), `packages.json` and
`libraries.json`.

It equals what `uv pip install` puts into the same places, but for:

* `INSTALLER` says `strata`, so that another installer knows whose files these are;
* `REQUESTED` is left out: a lock does not tell what was asked for from what came along;
* `direct_url.json` and `uv_cache.json` are left out: they tell of a path and a time of the machine that installed;
* `RECORD` lists exactly what is installed, sorted, with the hash of what is really there where wheels conflict;
* scripts, and what a wheel's `data` puts among them, are left out unless the layer asks for `entry_points`; then
  scripts start the interpreter that lies beside them, on Windows through the launchers that pip has;
* nothing may take the place of the interpreter or of the links to it;
* where wheels conflict the later one in lock order wins; with uv, which installs in parallel, any of them may.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from strata_engine.action import Action, Execution, Input, Json, Ref
from strata_engine.errors import Diagnostic, Place, SpecError
from strata_engine.tree import (
    EMPTY_TREE,
    Conflict,
    File,
    MergeError,
    Node,
    Store,
    Tree,
    assemble,
    case_clashes,
    edit,
    entries,
    lookup,
    merge,
)
from strata_rules.contents import (
    DATA,
    HEADERS,
    PLATLIB,
    PURELIB,
    SCRIPTS,
    InstalledPackage,
    Library,
    WheelContents,
    decode,
    encode,
    libraries,
)
from strata_rules.layout import Layout, why_not_on_windows
from strata_rules.wheel import launchers, record
from strata_rules.wheel.beside import divide, lands_among, refuse_interpreters
from strata_rules.wheel.scripts import script_files

VERSION = 4

INSTALLER = b"strata\n"
RUNTIME = "the runtime"
"""What a runtime's own files are called in messages."""

_SHOWN = 20
"""Paths of one conflict that are listed."""


class _Wheel(NamedTuple):
    """An unpacked wheel and where its parts go."""

    contents: WheelContents
    root: str
    """The folder in the layer that its root goes to."""
    parts: tuple[tuple[str, Tree], ...]
    """(folder in the layer, tree), the root scheme first, as installers copy."""
    libraries: tuple[Library, ...]
    """By their paths in the layer."""

    @property
    def name(self) -> str:
        return self.contents.name


class _Merged(NamedTuple):
    """A layer before its RECORDs are written."""

    tree: Tree
    winners: dict[str, str]
    """For each path that two sources gave different content, whose it is."""


def install_action(
    label: str,
    *,
    wheels: Sequence[tuple[str, Ref]],
    layout: Layout,
    python: str,
    runtime: Ref | None = None,
    entry_points: bool = False,
    refuse_conflicts: bool = False,
    ignores_case: bool = False,
    windows: str = "",
    place: Place | None = None,
) -> Action:
    """Make the action that merges `wheels`: (distribution name, unpacked wheel), in lock order.

    `runtime` is given for a runtime layer. `ignores_case` says that the target takes `A` and `a` for one name, and
    `windows` which platform it is where it is one of Windows'.
    """
    programs = bool(windows and entry_points)
    schemes: dict[str, Json] = {
        PURELIB: layout.purelib,
        PLATLIB: layout.platlib,
        SCRIPTS: layout.scripts,
        DATA: layout.data,
        HEADERS: layout.headers,
    }
    params: dict[str, Json] = {
        "order": [name for name, _ in wheels],
        "schemes": schemes,
        "python": python,
        "interpreter": layout.python if runtime is None else layout.runtime_python,
        "entry_points": entry_points,
        "conflicts": "error" if refuse_conflicts else "warn",
        "ignores_case": ignores_case,
        "windows": bool(windows),
    }
    if programs:
        params["programs_for"] = windows
    inputs: dict[str, Input] = {f"wheels/{name}": ref for name, ref in wheels}
    if runtime is not None:
        inputs["runtime"] = runtime
    return Action(
        label=label,
        mnemonic="Install",
        version=VERSION,
        params=params,
        inputs=inputs,
        platform={"tool:installer": launchers.version()} if programs else {},
        run=run,
        description=f"install {len(wheels)} package{'' if len(wheels) == 1 else 's'}",
        place=place,
    )


def run(execution: Execution) -> Tree:
    """Merge the wheels. Raises SpecError: `wheel-conflict`, `case-clash`."""
    store, params = execution.store, execution.params
    order = params["order"]
    assert isinstance(order, list)
    wheels = [_wheel(execution, str(name)) for name in order]
    runtime = _tree(execution.node("runtime")) if "runtime" in execution.names("runtime") else None
    if params["windows"]:
        _refuse_names(store, wheels)
    merged = _merge(execution, wheels, runtime)
    changes: dict[str, Node | None] = {}
    packages: list[InstalledPackage] = []
    for wheel in wheels:
        execution.check_cancelled()
        described, files = _describe(store, wheel, merged)
        changes |= files
        packages.append(described)
    tree = edit(store, merged.tree, changes)
    if params["ignores_case"]:
        _refuse_case_clashes(store, tree, runtime or EMPTY_TREE)
    packages.sort(key=lambda package: package.name)
    native = _runtime_libraries(store, runtime) + _libraries(wheels, merged)
    native.sort(key=lambda entry: (entry.path, entry.machine))
    return assemble(
        store,
        {
            "tree": tree,
            "packages.json": File(store.put(encode(packages))),
            "libraries.json": File(store.put(encode(native))),
        },
    )


def _tree(node: Node | None) -> Tree:
    assert isinstance(node, Tree)
    return node


def _read(store: Store, tree: Tree, path: str) -> bytes:
    node = lookup(store, tree, path)
    assert isinstance(node, File)
    return store.get(node.digest)


def _wheel(execution: Execution, name: str) -> _Wheel:
    """Read what an unpacked wheel says of itself, and give its parts their places in the layer."""
    store, params = execution.store, execution.params
    unpacked = _tree(execution.node(f"wheels/{name}"))
    contents = decode(_read(store, unpacked, "wheel.json"), WheelContents)
    found = decode(_read(store, unpacked, "libraries.json"), list[Library])
    folders = _folders(params, name)
    parts: list[tuple[str, Tree]] = []
    for scheme in sorted(folders, key=lambda scheme: (scheme != contents.root, scheme)):
        part = lookup(store, unpacked, scheme)
        if isinstance(part, Tree) and scheme == DATA:
            parts += _data(execution, name, part, folders)
        elif isinstance(part, Tree) and scheme != SCRIPTS:
            parts.append((folders[scheme], part))
    if params["entry_points"]:
        own = lookup(store, unpacked, SCRIPTS)
        parts += _scripts(execution, contents, own if isinstance(own, Tree) else EMPTY_TREE, folders[SCRIPTS])
    return _Wheel(contents, folders[contents.root], tuple(parts), tuple(_native(params, found, folders)))


def _folders(params: Mapping[str, Json], name: str) -> dict[str, str]:
    schemes = params["schemes"]
    assert isinstance(schemes, dict)
    folders = {scheme: str(folder) for scheme, folder in schemes.items()}
    folders[HEADERS] = posixpath.join(folders[HEADERS], name)
    return folders


def _data(execution: Execution, name: str, part: Tree, folders: Mapping[str, str]) -> list[tuple[str, Tree]]:
    """Place what a wheel has for the layer's own folder. Raises SpecError: `reserved-script`."""
    store, params, scripts = execution.store, execution.params, folders[SCRIPTS]
    ignores_case = bool(params["ignores_case"])
    divided = divide(store, part, scripts, ignores_case=ignores_case)
    if not params["entry_points"]:
        divided = divided._replace(programs=())
    refuse_interpreters(store, name, divided, scripts, str(params["interpreter"]), ignores_case=ignores_case)
    return [(folders[DATA], divided.rest), *((scripts, programs) for programs in divided.programs)]


def _native(params: Mapping[str, Json], found: Iterable[Library], folders: Mapping[str, str]) -> Iterator[Library]:
    """Give a wheel's libraries their places in the layer."""
    scripts = folders[SCRIPTS]
    for entry in found:
        scheme, _, inner = entry.path.partition("/")
        path = posixpath.join(folders[scheme], inner)
        head, _, rest = path.partition("/")
        if lands_among(head, scripts, ignores_case=bool(params["ignores_case"])):
            if not params["entry_points"] or not rest:
                continue
            path = f"{scripts}/{rest}"
        yield msgspec.structs.replace(entry, path=path)


def _scripts(execution: Execution, contents: WheelContents, own: Tree, folder: str) -> list[tuple[str, Tree]]:
    interpreter = posixpath.relpath(str(execution.params["interpreter"]), folder)
    made = script_files(
        execution.store,
        contents,
        own,
        interpreter,
        windows=str(execution.params.get("programs_for", "")),
        ignores_case=bool(execution.params["ignores_case"]),
    )
    return [(folder, assemble(execution.store, made))] if made else []


def _merge(execution: Execution, wheels: Iterable[_Wheel], runtime: Tree | None) -> _Merged:
    """Merge all parts, the later one winning. Raises SpecError where a conflict is refused or cannot be resolved."""
    store = execution.store
    sources = [] if runtime is None else [(RUNTIME, runtime)]
    for wheel in wheels:
        sources += [(wheel.name, assemble(store, {at: part}) if at else part) for at, part in wheel.parts]
    try:
        merged = merge(store, sources, lambda _conflict, _earlier, later: later)
    except MergeError as error:
        raise SpecError(*(_unmergeable(conflict) for conflict in error.conflicts)) from None
    # A wheel may give one path twice, from its root and from its `.data`: that is its own affair, as with uv.
    found = [conflict for conflict in merged.conflicts if conflict.first != conflict.second]
    refused = execution.params["conflicts"] == "error"
    diagnostics = [_conflict(pair, paths, refused=refused) for pair, paths in _by_pair(found).items()]
    if refused and diagnostics:
        raise SpecError(*diagnostics)
    for diagnostic in diagnostics:
        execution.warn(diagnostic)
    return _Merged(merged.tree, {conflict.path: conflict.second for conflict in merged.conflicts})


def _by_pair(conflicts: Iterable[Conflict]) -> dict[tuple[str, str], list[str]]:
    pairs: dict[tuple[str, str], list[str]] = {}
    for conflict in conflicts:
        pairs.setdefault((conflict.first, conflict.second), []).append(conflict.path)
    return pairs


def _conflict(pair: tuple[str, str], paths: Sequence[str], *, refused: bool) -> Diagnostic:
    """Say that two wheels install the same files: one sentence a pair, for some pairs share hundreds."""
    first, second = (name if name == RUNTIME else f"`{name}`" for name in pair)
    what = f"`{paths[0]}`" if len(paths) == 1 else f"{len(paths)} files, such as `{paths[0]}`"
    shown = tuple(f"`{path}`" for path in paths[:_SHOWN]) if len(paths) > 1 else ()
    more = (f"and {len(paths) - _SHOWN} more",) if len(paths) > _SHOWN else ()
    return Diagnostic(
        "wheel-conflict",
        f"{first} and {second} both install {what}, with different content",
        None,
        shown + more + (() if refused else (f"the layer has the content of {second}, which comes later in the lock",)),
        'require only one of them, or accept it with `[tool.strata] conflicts = "warn"`'
        if refused
        else "require only one of them",
        "error" if refused else "warning",
    )


def _unmergeable(conflict: Conflict) -> Diagnostic:
    first, second = (name if name == RUNTIME else f"`{name}`" for name in (conflict.first, conflict.second))
    return Diagnostic(
        "wheel-conflict",
        f"{first} and {second} both install `{conflict.path}`, one as a file and one as a folder",
        hint="require only one of them in this layer",
    )


def _describe(store: Store, wheel: _Wheel, merged: _Merged) -> tuple[InstalledPackage, dict[str, Node | None]]:
    """Write a distribution's RECORD and INSTALLER, and say what it is."""
    root, dist_info = wheel.root, posixpath.join(wheel.root, wheel.contents.dist_info)
    installed: dict[str, File] = {}
    for at, part in wheel.parts:
        for path, node in entries(store, part, at):
            if isinstance(node, File):
                there = lookup(store, merged.tree, path) if path in merged.winners else node
                assert isinstance(there, File)
                installed[path] = there
    own = f"{dist_info}/RECORD"
    installed[f"{dist_info}/INSTALLER"] = File(store.put(INSTALLER))
    installed.pop(own, None)
    rows = [record.row(posixpath.relpath(path, root), file.digest) for path, file in installed.items()]
    written = record.render([*rows, record.row(posixpath.relpath(own, root))])
    described = InstalledPackage(
        name=wheel.name,
        version=wheel.contents.version,
        dist_info=dist_info,
        files=len(installed),
        bytes=sum(file.digest.size for file in installed.values()),
        top_level=wheel.contents.top_level,
    )
    return described, {own: File(store.put(written)), f"{dist_info}/INSTALLER": installed[f"{dist_info}/INSTALLER"]}


def _libraries(wheels: Iterable[_Wheel], merged: _Merged) -> list[Library]:
    """List the native files of the wheels that are in the layer: not those that another wheel's file replaced."""
    found: dict[tuple[str, str], Library] = {}
    for wheel in wheels:
        for entry in wheel.libraries:
            if merged.winners.get(entry.path, wheel.name) == wheel.name:
                found[entry.path, entry.machine] = entry
    return list(found.values())


def _runtime_libraries(store: Store, runtime: Tree | None) -> list[Library]:
    """List the shared libraries that a runtime keeps in `lib/`; its extension modules find them by themselves."""
    folder = None if runtime is None else lookup(store, runtime, "lib")
    found: list[Library] = []
    for file in store.load(folder.root).files if isinstance(folder, Tree) else ():
        if ".so" in file.name or file.name.endswith(".dylib"):
            with store.open(file.digest) as stream:
                found += libraries(f"lib/{file.name}", stream)
    return found


def _refuse_names(store: Store, wheels: Iterable[_Wheel]) -> None:
    """Refuse files that cannot be unpacked on Windows."""
    wrong = [
        Diagnostic(
            "name-on-windows",
            f"`{wheel.name}` installs `{path}`, which Windows cannot have: {why}",
            hint="leave the package out on this platform, or the platform out of the layer",
        )
        for wheel in wheels
        for at, part in wheel.parts
        for path, _ in entries(store, part, at)
        if (why := why_not_on_windows(posixpath.basename(path)))
    ]
    if wrong:
        raise SpecError(*wrong)


def _refuse_case_clashes(store: Store, tree: Tree, runtime: Tree) -> None:
    """Refuse a layer that would lose files where case does not count; a runtime's own files are its own affair."""
    clashes = [pair for pair in case_clashes(store, tree) if any(lookup(store, runtime, path) is None for path in pair)]
    if clashes:
        raise SpecError(
            *(
                Diagnostic(
                    "case-clash",
                    f"`{first}` and `{second}` are one name on the target platform",
                    hint="leave one of the two packages out on this platform, or the platform out of the layer",
                )
                for first, second in clashes
            )
        )
