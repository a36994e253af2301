"""Pins: what the layers below provide, and the constraints that follow from it for a layer above.

Each lock gives the pins of its own packages only; a layer reads those of all layers below it, the runtime first, then
the frameworks in their order. It knows no files and no uv. The hard part is shadowing: on each platform the first
layer that provides a name is the one that counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import msgspec

from strata_engine.errors import InternalError
from strata_rules.lock.markers import Targets, both
from strata_rules.pylock import Pylock


class Pin(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """One package that a layer provides."""

    name: str
    version: str
    marker: str | None = None

    def __str__(self) -> str:
        return f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")


def pins_of(pylock: Pylock) -> list[Pin]:
    """List what the layer of a lock provides itself."""
    own = [package for package in pylock.packages if not package.from_lower_layer]
    return sorted((Pin(p.name, p.version, p.marker) for p in own), key=str)


def dump(pins: Iterable[Pin]) -> bytes:
    """Write `pins.json`, canonically."""
    return json.dumps(msgspec.to_builtins(list(pins)), sort_keys=True, separators=(",", ":")).encode() + b"\n"


def load(data: bytes) -> list[Pin]:
    """Read a `pins.json`, which one of our own actions has made."""
    try:
        return msgspec.json.decode(data, type=list[Pin])
    except msgspec.DecodeError as error:
        raise InternalError.of("bad-pins", f"the pins of a lower layer cannot be read: {error}") from error


class Lower:
    """The packages of the layers below, as the targets see them."""

    def __init__(self, layers: Sequence[Sequence[Pin]], targets: Targets) -> None:
        self._targets = targets
        self._provided: dict[tuple[str, str], str] = {}
        self._conditional: set[Pin] = set()
        self.constraints: list[str] = []
        """Requirement strings that hold an upper layer to the versions below it."""
        for layer in layers:
            for pin in layer:
                self._add(pin)

    def _add(self, pin: Pin) -> None:
        verdicts = {platform: self._targets.verdict(pin.marker, platform) for platform in self._targets.platforms}
        if None in verdicts.values():
            self._conditional.add(pin)
            self.constraints.append(str(pin))
            return
        wanted = {platform for platform, holds in verdicts.items() if holds}
        new = {platform for platform in wanted if (pin.name, platform) not in self._provided}
        for platform in new:
            self._provided[pin.name, platform] = pin.version
        if not new:
            return
        if new == set(self._targets.platforms):
            self.constraints.append(f"{pin.name}=={pin.version}")
        elif new == wanted:
            self.constraints.append(str(pin))
        else:
            self.constraints.append(str(Pin(pin.name, pin.version, both(pin.marker, self._targets.only(new)))))

    def provides(self, pin: Pin, platform: str) -> bool:
        """Tell whether exactly this package is there already on a platform."""
        return self._provided.get((pin.name, platform)) == pin.version or pin in self._conditional
