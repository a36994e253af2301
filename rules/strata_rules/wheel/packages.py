"""The rule of a layer's packages: what its lock selects for one platform, fetched, unpacked and installed.

It knows no uv and no stack file. Which wheels there are is known only when the lock is, so the rule adds an expansion
after it, which adds one Fetch and one Wheel per wheel and the Install that it promised. Layers and platforms that
select the same wheel add the same two actions under the same labels, and the graph takes them for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from strata_engine.action import Action, Expansion, Ref
from strata_engine.errors import InternalError, Place
from strata_engine.rule import RuleContext
from strata_rules import layout, pylock
from strata_rules.providers import InstallInfo, LockInfo, RuntimeInfo
from strata_rules.pylock import LockedWheel
from strata_rules.wheel.fetch import Access, fetch_action, names
from strata_rules.wheel.install import install_action
from strata_rules.wheel.unpack import wheel_action


class PackagesAttrs(msgspec.Struct, frozen=True, kw_only=True):
    """What the stack file says of one layer's packages on one platform."""

    layer: str
    """The environment name."""
    platform: str
    """The target platform, `linux_x86_64`."""
    host: str
    """The host's platform: labels name any other."""
    linux_target: str
    macosx_target: str
    lock_folder: Path
    """Where the layer's lock lies: its relative paths start there."""
    lock_file: str
    """The lock as the user would type it, for messages."""
    access: Access
    is_runtime: bool = False
    """Merge the runtime's own tree too."""
    entry_points: bool = False
    refuse_conflicts: bool = False
    contested: frozenset[str] = frozenset()
    """Distributions that layers of the stack may take from different places: see `fetch.names`."""
    place: Place | None = None
    """Where the stack file declares the layer."""


def label_of(layer: str, action: str, platform: str, host: str) -> str:
    """Name an action of a layer; only a platform other than the host's is named (design §4)."""
    return f"{layer}/{action}" if platform == host else f"{layer}/{action}[{platform}]"


def packages(ctx: RuleContext) -> tuple[InstallInfo]:
    """Install what the layer's lock selects. Its target depends on a lock, a runtime and the locks of lower layers."""
    attrs = ctx.attrs(PackagesAttrs)
    runtime = _runtime(ctx.all(RuntimeInfo), attrs)
    locks = {info.layer: info.pylock for info in ctx.all(LockInfo)}
    own = locks.pop(attrs.layer)
    lower = tuple(locks.values())
    install = label_of(attrs.layer, "install", attrs.platform, attrs.host)

    def taken(name: str) -> str | None:
        item = ctx.item(f"fetch/{name}")
        return item.fixed if isinstance(item, Action) else None

    def expand(read: Callable[[Ref], bytes]) -> Iterable[Action]:
        lock = pylock.parse(read(own), attrs.lock_file)
        selected = pylock.select(
            lock,
            platform=attrs.platform,
            python_version=runtime.version,
            implementation=runtime.implementation,
            linux_target=attrs.linux_target,
            macosx_target=attrs.macosx_target,
            place=attrs.place,
        )
        known = [wheel for ref in lower for wheel in _all_wheels(pylock.parse(read(ref), ref.label))]
        named = names([*known, *_all_wheels(lock)], contested=attrs.contested, taken=taken)
        for wheel in selected:
            name = named[wheel]
            yield fetch_action(
                wheel, f"fetch/{name}", lock_folder=attrs.lock_folder, access=attrs.access, place=attrs.place
            )
            yield wheel_action(f"wheel/{name}", wheel.file, Ref(f"fetch/{name}"), attrs.place)
        yield _install(attrs, install, runtime, [(wheel.name, Ref(f"wheel/{named[wheel]}")) for wheel in selected])

    ctx.add(
        Expansion(
            label=label_of(attrs.layer, "packages", attrs.platform, attrs.host),
            after=(own, *lower),
            promises=(install,),
            expand=expand,
        )
    )
    return (
        InstallInfo(
            layer=attrs.layer,
            platform=attrs.platform,
            tree=Ref(install, "tree"),
            packages=Ref(install, "packages.json"),
            libraries=Ref(install, "libraries.json"),
        ),
    )


def _runtime(infos: Iterable[RuntimeInfo], attrs: PackagesAttrs) -> RuntimeInfo:
    for info in infos:
        if info.platform == attrs.platform:
            return info
    raise InternalError.of("missing-provider", f"`{attrs.layer}` has no runtime for `{attrs.platform}`")


def _all_wheels(lock: pylock.Pylock) -> list[LockedWheel]:
    """List the wheels for all platforms, so that labels do not depend on the one that is built."""
    return [wheel for package in lock.packages for wheel in package.wheels]


def _install(attrs: PackagesAttrs, label: str, runtime: RuntimeInfo, wheels: list[tuple[str, Ref]]) -> Action:
    return install_action(
        label,
        wheels=wheels,
        layout=layout.layout(attrs.platform, runtime.python, runtime.implementation),
        python=runtime.python,
        runtime=runtime.tree if attrs.is_runtime else None,
        entry_points=attrs.entry_points,
        refuse_conflicts=attrs.refuse_conflicts,
        ignores_case=layout.ignores_case(attrs.platform),
        windows=attrs.platform if layout.is_windows(attrs.platform) else "",
        place=attrs.place,
    )
