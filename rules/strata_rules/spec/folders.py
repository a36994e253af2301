"""Which folder each layer comes to, and whether two come to one: the checks that need more than the stack file.

Pure. Names alone are judged while a stack file is loaded; here it is known which versions locks have, and which
platforms are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from strata_engine.errors import Diagnostic, SpecError
from strata_rules.spec.checks import folded
from strata_rules.spec.load import Layer, Stack


def install_target(layer: Layer, versions: Mapping[str, int]) -> str:
    """Name the folder that a layer is deployed in; a lock that is not there yet will have version 1."""
    return f"{layer.env_name}@{versions.get(layer.env_name, 1)}" if layer.spec.versioned else layer.env_name


def check_targets(layers: Iterable[Layer], versions: Mapping[str, int]) -> None:
    """Refuse layers that would be deployed in one folder, on any file system. Raises SpecError `shared-target`.

    `versions` are those of the locks of versioned layers, by environment name; what has none yet is passed over, as
    are layers that no platform has.
    """
    seen: dict[str, Layer] = {}
    found = []
    for layer in layers:
        if not layer.platforms or (layer.spec.versioned and layer.env_name not in versions):
            continue
        target = install_target(layer, versions)
        first = seen.setdefault(folded(target), layer)
        if first is not layer:
            said = f"`{first.env_name}` and `{layer.env_name}` would both be deployed in the folder `{target}`"
            versioned = [it.env_name for it in (first, layer) if it.spec.versioned]
            notes = tuple(f"the lock of `{name}` has version {versions[name]}" for name in versioned)
            place = layer.place("name")
            found.append(Diagnostic("shared-target", said, place, notes, "give one of them another name"))
    if found:
        raise SpecError(*found)


def check_platforms(stack: Stack, platforms: Iterable[str], host: str) -> None:
    """Refuse runtimes whose folder would be that of a foreign platform's layers. Raises SpecError `platform-name`.

    Layers for this machine lie beside a folder for each other platform; so such a name is wrong only once one builds
    for that platform.
    """
    foreign = {folded(platform): platform for platform in platforms if platform != host}
    found = [
        Diagnostic(
            "platform-name",
            f"runtime `{layer.name}` is called as the folder of layers for `{foreign[folded(layer.env_name)]}`",
            layer.place("name"),
            hint=f"give it another name, such as `python-{layer.name}`, or do not build for that platform here",
        )
        for layer in stack.of("runtime")
        if folded(layer.env_name) in foreign
    ]
    if found:
        raise SpecError(*found)
