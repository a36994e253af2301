"""The Link action: install tree + what lower layers offer → the layer as it is deployed.

It runs nothing and opens no file of the layer but its own inputs' facts; the texts come from `boot`, the libraries from
`libraries`. The output has `tree/`, the deployed layer, and `libraries.json`, what it offers upward. It is a pure
function of its inputs: the same on every host, for every platform.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal as Choice
from typing import NamedTuple

import msgspec

from strata_engine.action import Action, Execution, Input, Json, Literal, Ref
from strata_engine.errors import Diagnostic, InternalError, Place
from strata_engine.rule import RuleContext
from strata_engine.tree import File, Node, Store, Symlink, Tree, assemble, edit, lookup
from strata_rules.contents import Library, decode, encode
from strata_rules.layout import CONFIG_PATH, DYNLIB_DIR, Layout, is_windows, layout
from strata_rules.link import boot
from strata_rules.link.globs import excluder
from strata_rules.link.libraries import Linked, link_libraries, target_of
from strata_rules.link.names import check_names, check_target, warn_of_sitecustomize
from strata_rules.link.offers import Offers
from strata_rules.providers import InstallInfo, LinkInfo, RuntimeInfo

VERSION = 3

WINDOWS_LAUNCHERS = {
    "python.exe": ("Lib/venv/scripts/nt/venvlauncher.exe", "Lib/venv/scripts/nt/python.exe"),
    "pythonw.exe": ("Lib/venv/scripts/nt/venvwlauncher.exe", "Lib/venv/scripts/nt/pythonw.exe"),
}
"""What `python -m venv` copies into `Scripts`: names since CPython 3.13, and before."""


class Module(msgspec.Struct, frozen=True):
    """A module of the user's: a file or a package folder."""

    name: str
    """By which it is imported."""
    file_name: str
    """What it is called in site-packages."""
    content: Input


class LinkAttrs(msgspec.Struct, frozen=True, kw_only=True):
    """What a Link target is given.

    Its dependencies give the InstallInfo of this layer, the RuntimeInfo, and a LinkInfo for each layer below in the
    order of `sys.path`, the runtime last (for a runtime layer: none).
    """

    layer: str
    install_target: str
    kind: Choice["runtime", "framework", "application"]
    platform: str
    host: str
    """This machine's platform: the one whose labels have no suffix."""
    dynlib: Choice["preload", "launcher"] = "preload"
    """How libraries of lower layers are found: loaded when needed, or on the loader's path for native programs too."""
    dynlib_exclude: tuple[str, ...] = ()
    launch: Module | None = None
    support: tuple[Module, ...] = ()
    place: Place | None = None
    """Where the stack file declares the layer."""


def link(ctx: RuleContext) -> tuple[object, ...]:
    """Add the Link action of one layer on one platform."""
    attrs = ctx.attrs(LinkAttrs)
    label = f"{attrs.layer}/link" + ("" if attrs.platform == attrs.host else f"[{attrs.platform}]")
    installed = next(
        info for info in ctx.all(InstallInfo) if (info.layer, info.platform) == (attrs.layer, attrs.platform)
    )
    runtime = next(info for info in ctx.all(RuntimeInfo) if info.platform == attrs.platform)
    lower = [info for info in ctx.all(LinkInfo) if info.platform == attrs.platform]
    if attrs.kind != "runtime" and (not lower or lower[-1].layer != runtime.layer):
        raise InternalError.of("runtime-not-last", f"`{label}` was not given its runtime after its frameworks")
    ctx.add(link_action(label, attrs, installed, runtime, [] if attrs.kind == "runtime" else lower))
    info = LinkInfo(
        layer=attrs.layer,
        install_target=attrs.install_target,
        platform=attrs.platform,
        tree=Ref(label, "tree"),
        libraries=Ref(label, "libraries.json"),
    )
    return (info,)


def link_action(
    label: str, attrs: LinkAttrs, installed: InstallInfo, runtime: RuntimeInfo, lower: Sequence[LinkInfo]
) -> Action:
    """Make the action; `lower` in the order of `sys.path`, the runtime last."""
    params: dict[str, Json] = {
        "layer": attrs.layer,
        "kind": attrs.kind,
        "platform": attrs.platform,
        "python": runtime.python,
        "version": runtime.version,
        "lower": [info.layer for info in lower],
        "dynlib": attrs.dynlib,
        "dynlib_exclude": list(attrs.dynlib_exclude),
    }
    # By layer, so that a new version is one change wherever the layer is named.
    named = {attrs.layer: attrs.install_target} | {info.layer: info.install_target for info in lower}
    versions: dict[str, Json] = {name: target for name, target in named.items() if name != target}
    if versions:
        params["install_targets"] = versions
    inputs: dict[str, Input] = {
        "install": installed.tree,
        "libraries.json": installed.libraries,
        # Its text is an input and not a part of the rule: a mended script is a changed input of every layer.
        "postinstall.py": Literal(Path(__file__).with_name("postinstall.py").read_bytes()),
    }
    for number, info in enumerate(lower):
        inputs[f"lower/{number:04d}-{info.layer}/libraries.json"] = info.libraries
    if runtime.implementation != "cpython":
        params["implementation"] = runtime.implementation
    if attrs.launch is not None:
        params["launch_module"] = attrs.launch.name
        inputs[f"modules/{attrs.launch.file_name}"] = attrs.launch.content
    for module in attrs.support:
        inputs[f"support/{module.file_name}"] = module.content
    if lower and is_windows(attrs.platform):
        inputs["runtime"] = runtime.tree
    return Action(
        label=label,
        mnemonic="Link",
        version=VERSION,
        params=params,
        inputs=inputs,
        run=run,
        description=f"link {attrs.install_target}",
        place=attrs.place,
    )


class _Wanted(NamedTuple):
    """The parameters, read."""

    target: str
    platform: str
    python: str
    version: str
    lower: tuple[str, ...]
    launcher: bool
    exclude: tuple[str, ...]
    launch_module: str
    places: Layout

    @property
    def windows(self) -> bool:
        return is_windows(self.platform)


def run(execution: Execution) -> Tree:
    """Link one layer. Raises ActionError (`library-conflict`)."""
    store, wanted = execution.store, _wanted(execution.params)
    check_target(wanted.target, wanted.platform)
    installed = execution.node("install")
    assert isinstance(installed, Tree)
    linked = _libraries(execution, wanted, installed)
    for warning in linked.warnings:
        execution.warn(warning)
    changes: dict[str, Node | None] = {
        CONFIG_PATH: _text(store, _config(wanted)),
        "postinstall.py": File(store.put(execution.read("postinstall.py"))),
        **_modules(execution, wanted, installed),
    }
    if not wanted.windows:
        changes |= _links(linked.links)
    if wanted.lower:
        changes |= _windows(execution, wanted.places.site_packages) if wanted.windows else _posix(store, wanted, linked)
    return assemble(
        store,
        {
            "tree": edit(store, installed, changes),
            "libraries.json": File(store.put(encode(linked.offers))),
        },
    )


def _wanted(params: Mapping[str, Json]) -> _Wanted:
    lower, exclude, named = params["lower"], params["dynlib_exclude"], params.get("install_targets", {})
    assert isinstance(lower, list)
    assert isinstance(exclude, list)
    assert isinstance(named, dict)
    platform, python = str(params["platform"]), str(params["python"])
    return _Wanted(
        target=str(named.get(str(params["layer"]), params["layer"])),
        platform=platform,
        python=python,
        version=str(params["version"]),
        lower=tuple(str(named.get(str(layer), layer)) for layer in lower),
        launcher=params["dynlib"] == "launcher",
        exclude=tuple(map(str, exclude)),
        launch_module=str(params.get("launch_module", "")),
        places=layout(platform, python, str(params.get("implementation", "cpython"))),
    )


def _libraries(execution: Execution, wanted: _Wanted, installed: Tree) -> Linked:
    site = wanted.places.site_packages
    target = target_of(wanted.platform)
    if target is None:
        return Linked(Offers(layer=wanted.target, libraries={}, withheld={}, modules={}), {}, {}, ())
    # What a runtime keeps in `lib/` is its interpreter's own: its extension modules find it, and no layer may load it.
    mine = [
        found
        for found in decode(execution.read("libraries.json"), list[Library])
        if found.path.startswith(site + "/") or wanted.lower
    ]
    lower = [decode(execution.read(name), Offers) for name in execution.names("lower/")]
    nodes: dict[str, Node | None] = {}

    def content(path: str) -> Node | None:
        if path not in nodes:
            nodes[path] = lookup(execution.store, installed, path)
        return nodes[path]

    return link_libraries(
        wanted.target,
        mine,
        site,
        lower,
        target,
        launcher=wanted.launcher,
        excluded=excluder(wanted.exclude),
        same=lambda first, second: content(first) == content(second),
    )


def _text(store: Store, value: object) -> File:
    return File(store.put((json.dumps(value, indent=2, sort_keys=True) + "\n").encode()))


def _config(wanted: _Wanted) -> dict[str, object]:
    """Give what a layer says of itself, in venvstacks' words: all paths relative to the layer, as its system's are."""
    places = wanted.places
    libraries = "Library/bin" if wanted.windows else DYNLIB_DIR
    base = f"../{wanted.lower[-1]}/{places.runtime_python}" if wanted.lower else places.runtime_python

    def native(path: str) -> str:
        return path.replace("/", "\\") if wanted.windows else path

    config: dict[str, object] = {
        "py_version": wanted.version,
        "site_dir": native(places.site_packages),
        "pylib_dirs": [native(f"../{layer}/{places.site_packages}") for layer in wanted.lower],
        "dynlib_dirs": [native(f"../{layer}/{libraries}") for layer in wanted.lower],
        "python": native(places.python if wanted.lower else places.runtime_python),
        "base_python": native(base),
    }
    if wanted.launch_module:
        config["launch_module"] = wanted.launch_module
    return config


def _modules(execution: Execution, wanted: _Wanted, installed: Tree) -> dict[str, Node]:
    """Put the user's modules into site-packages, where nothing of theirs may be mixed with a package's."""
    placed: dict[str, Node] = {}
    site = wanted.places.site_packages
    for input_name in [*execution.names("modules/"), *execution.names("support/")]:
        file_name = input_name.partition("/")[2]
        node = execution.node(input_name)
        name = file_name if isinstance(node, Tree) else posixpath.splitext(file_name)[0]
        path = f"{site}/{file_name}"
        is_module = isinstance(node, Tree) or file_name.endswith(".py")
        for other in (f"{site}/{name}", f"{site}/{name}.py") if is_module else (path,):
            if lookup(execution.store, installed, other) is not None:
                execution.warn(
                    Diagnostic(
                        "module-shadows-package",
                        f"the module `{name}` stands in the place of `{other}`, which a package installs",
                        hint="give the module another name",
                        severity="warning",
                    )
                )
        placed[path] = File(node.digest) if isinstance(node, File) else node
    check_names(execution.store, placed, installed, site, wanted.platform)
    return placed


def _links(links: Mapping[str, str]) -> dict[str, Node]:
    up = "../" * len(DYNLIB_DIR.split("/"))
    return {f"{DYNLIB_DIR}/{name}": Symlink(up + path) for name, path in links.items()}


def _posix(store: Store, wanted: _Wanted, linked: Linked) -> dict[str, Node]:
    site = wanted.places.site_packages
    folder, python = posixpath.split(wanted.places.python)
    base = Symlink(f"../../{wanted.lower[-1]}/{wanted.places.runtime_python}")
    files: dict[str, Node] = {
        "pyvenv.cfg": File(store.put(boot.PYVENV_CFG)),
        f"{site}/{boot.PTH_NAME}": File(store.put(boot.pth(site))),
        f"{site}/{boot.BOOT_MODULE}.py": File(store.put(boot.boot(wanted.lower, site, linked.needs))),
        wanted.places.python: base,
        f"{folder}/python_": base,
        f"{folder}/python3": Symlink(python),
        f"{folder}/python{wanted.python}": Symlink(python),
    }
    if tuple(map(int, wanted.python.split("."))) >= (3, 15):
        files[f"{site}/{boot.START_NAME}"] = File(store.put(boot.START))
    if wanted.launcher:
        script = boot.launcher(wanted.lower, DYNLIB_DIR, mac=wanted.platform.startswith("macosx"))
        files[wanted.places.python] = File(store.put(script), executable=True)
    return files


def _windows(execution: Execution, site: str) -> dict[str, Node]:
    """Take the launchers that `python -m venv` would copy; `postinstall.py` writes what must name a place."""
    warn_of_sitecustomize(execution, site)
    runtime = execution.node("runtime")
    assert isinstance(runtime, Tree)
    files: dict[str, Node] = {}
    for name, candidates in WINDOWS_LAUNCHERS.items():
        found = [node for path in candidates if (node := lookup(execution.store, runtime, path)) is not None]
        if found:
            files[f"Scripts/{name}"] = found[0]
    if not files:
        execution.warn(
            Diagnostic(
                "no-venv-launcher",
                "the runtime has no `venv` launcher, so the layer has no `Scripts/python.exe`",
                hint="start the runtime's `python.exe` with the layer's folders on `PYTHONPATH`",
                severity="warning",
            )
        )
    return files
