"""Where a person has written what actions are made of: parameters by their place in the stack file, or by whose output.

Rules know no stack file, and text for people is in no key; so this is said of their actions afterwards. Subjects are
`FILE#TABLE.NAME.FIELD`, as `venvstacks.toml#frameworks.numeric.requirements`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath

import msgspec
from packaging.utils import canonicalize_name

from strata_engine.action import Action
from strata_rules.lock.request import LOCK_FOLDER
from strata_rules.platforms import PLATFORMS
from strata_rules.runtime.choose import Chosen, LocalChoice
from strata_rules.spec.declared import CATEGORIES
from strata_rules.spec.layers import MACOSX_DEPLOYMENT_TARGET
from strata_rules.spec.load import Layer, Stack

_FOR_PLATFORM = "["

_ATTENDS: dict[str, dict[str, str]] = {
    "Lock": {"linux_target": "platforms", "macosx_target": "platforms"},
    "Link": {"install_targets": "lower"},
}
"""By mnemonic, the parameters that come and go with the value of another one."""


def annotator(stack: Stack, chosen: Mapping[tuple[str, str], Chosen], host: str) -> Callable[[Action], Action]:
    """Give what says of each action of a stack where its parameters come from; `chosen` are the runtimes."""
    origins = _Origins(stack, chosen, host)

    def annotate(action: Action) -> Action:
        layer_name, _, rest = action.label.partition("/")
        layer = origins.layers.get(layer_name)
        if layer is None:
            return action
        known, derived = origins.of(action.mnemonic, layer, rest.partition(_FOR_PLATFORM)[2].rstrip("]"))
        return msgspec.structs.replace(
            action,
            origins=known,
            derived=derived,
            members=origins.members(action.mnemonic, layer),
            # A lock of nothing asks for nothing, so that nothing changes it.
            presence="requirements" if action.mnemonic == "Lock" else "",
            attends=_ATTENDS.get(action.mnemonic, {}),
        )

    return annotate


class _Origins:
    def __init__(self, stack: Stack, chosen: Mapping[tuple[str, str], Chosen], host: str) -> None:
        self._host = host
        self.layers = {layer.env_name: layer for layer in stack.layers}
        self._chosen = chosen
        self._file = PurePath(stack.file).name
        table = stack.uv.table
        uv_file = PurePath(table.document.file).name if table is not None else self._file
        # In a file of its own the settings stand at its top.
        at = ".".join(map(str, table.at)) if table is not None else "tool.uv"
        self._uv = f"{uv_file}#{at}." if at else f"{uv_file}#"
        self._strata = f"{self._file}#tool.strata"

    def of(self, mnemonic: str, layer: Layer, details: str) -> tuple[dict[str, str], dict[str, str]]:
        """Give where the parameters of an action are written, and the labels that others were taken from."""
        match mnemonic:
            case "Lock":
                return self._lock(layer), {}
            case "Install":
                strata = {"entry_points": f"{self._strata}.entry_points", "conflicts": f"{self._strata}.conflicts"}
                return {**strata, "python": self._python(layer, details)}, {"order": f"{layer.env_name}/lock"}
            case "Link":
                versions = {part: f"install_targets.{part.env_name}" for part in (layer, *layer.lower)}
                known = {name: self._field(part, "versioned") for part, name in versions.items()}
                # That there is a version is written down; which one it is, is the lock's.
                derived = {name: f"{part.env_name}/lock" for part, name in versions.items() if part.spec.versioned}
                return {**self._link(layer, details), **known}, derived
            case "Archive":
                format_ = f"{self._strata}.archive"
                return {"format": f"{format_}.format", "level": f"{format_}.level"}, {
                    "prefix": self._linked(layer, details)
                }
            case "Download":
                return {"": self._python(layer, details)}, {}
            case "Unpack" | "Capture":
                return {"version": self._python(layer, details)}, {}
            case _:
                return {}, {}

    def members(self, mnemonic: str, layer: Layer) -> dict[str, str]:
        """Give where it is written which layers' outputs an action reads."""
        folder = {"Lock": "pins", "Link": "lower"}.get(mnemonic)
        return {folder: self._below(layer)} if folder is not None else {}

    def _below(self, layer: Layer) -> str:
        """Say where it is written what a layer stands on."""
        return self._field(layer, "frameworks" if "frameworks" in layer.declared.table.values else "runtime")

    def _field(self, layer: Layer, field: str) -> str:
        key = next(category.key for category in CATEGORIES if category.kind == layer.kind)
        return f"{self._file}#{key}.{layer.name}.{field}"

    def _python(self, layer: Layer, details: str) -> str:
        """Say what decides on a layer's Python: the stack file, or a pin of what this machine has."""
        runtime = layer.runtime
        platform = next((name for name in details.split(",") if name in PLATFORMS), self._host)
        chosen = self._chosen.get((runtime.env_name, platform))
        if isinstance(chosen, LocalChoice) and chosen.tree is not None:
            return f"{LOCK_FOLDER}/{runtime.env_name}/runtime.{runtime.env_name}.json"
        return self._field(runtime, "python_implementation")

    def _lock(self, layer: Layer) -> dict[str, str]:
        python = self._python(layer, "")
        stated = "macosx_target" in layer.declared.table.values
        named = {name: _first_with(layer, "package_indexes", name) for name in layer.package_indexes}
        return {
            "requirements": self._field(layer, "requirements"),
            "platforms": self._field(_first_with(layer, "platforms"), "platforms"),
            "linux_target": self._field(layer, "linux_target"),
            "macosx_target": self._field(layer, "macosx_target") if stated else f"${MACOSX_DEPLOYMENT_TARGET}",
            "python": python,
            "implementation": python,
            "uv.settings": self._uv.rstrip(".#"),
            "uv.index": f"{self._uv}index",
            "uv.sources": f"{self._uv}sources",
            **{
                f"uv.sources.{name}": f"{self._field(where, 'package_indexes')}.{name}" for name, where in named.items()
            },
        }

    def _link(self, layer: Layer, details: str) -> dict[str, str]:
        python = self._python(layer, details)
        return {
            "python": python,
            "version": python,
            "implementation": python,
            "lower": self._below(layer),
            "dynlib": f"{self._strata}.dynlib",
            "dynlib_exclude": self._field(layer, "dynlib_exclude"),
            "launch_module": self._field(layer, "launch_module"),
        }

    def _linked(self, layer: Layer, details: str) -> str:
        """Name the Link of a layer that an archive is made of."""
        platform = next((name for name in details.split(",") if name in PLATFORMS), "")
        return f"{layer.env_name}/link[{platform}]" if platform else f"{layer.env_name}/link"


def _first_with(layer: Layer, field: str, name: str = "") -> Layer:
    """Find who has written a field, or a name in it, that layers have from those below; the runtime if nobody has."""
    for each in (layer, *layer.lower):
        written = each.declared.table.values.get(field)
        names = map(canonicalize_name, written) if name and isinstance(written, Mapping) else ()
        if name in names if name else written is not None:
            return each
    return layer.runtime
