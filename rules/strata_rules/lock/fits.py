"""Whether a lock that somebody else has made fits what lies below it and the platforms it is for, by content alone.

Pure. A lock of our own need not be asked: its key covers all of this. Said is only what is certain: markers that depend
on the patch release or the machine are given the benefit of the doubt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from strata_rules.lock.markers import Targets
from strata_rules.lock.pins import Pin
from strata_rules.lock.request import Request
from strata_rules.pylock import LockedPackage, LockedWheel, Pylock, best, ranks


def contradictions(pylock: Pylock, below: Sequence[tuple[str, Sequence[Pin]]], targets: Targets) -> list[str]:
    """Say which packages contradict the layers below: other versions, or none where there has to be one."""
    provided: dict[str, list[tuple[str, Pin]]] = {}
    for layer, pins in below:
        for pin in pins:
            provided.setdefault(pin.name, []).append((layer, pin))
    found = []
    for package in pylock.packages:
        for platform in targets.platforms:
            if targets.verdict(package.marker, platform) is False:
                continue
            candidates = list(_candidates(provided.get(package.name, ()), targets, platform))
            said = _contradiction(package, candidates, targets, platform)
            if said is not None and not candidates and package.name in provided:
                said += f" for `{platform}`"
            if said is not None:
                found.append(said)
                break
    return found


def gaps(
    pylock: Pylock, request: Request, platforms: Sequence[str]
) -> list[tuple[LockedPackage, str, LockedWheel | None]]:
    """List the packages that some of these platforms would go without: with no wheel, or one without a SHA-256."""
    found = []
    for platform in platforms:
        rank = ranks(
            platform,
            request.python,
            linux_target=request.linux_target,
            macosx_target=request.macosx_target,
            implementation=request.implementation,
        )
        for package in pylock.packages:
            if package.from_lower_layer or request.targets.verdict(package.marker, platform) is not True:
                continue
            wheel = best(package.wheels, rank)
            if wheel is None or not wheel.sha256:
                found.append((package, platform, wheel))
    return found


def _candidates(
    provided: Sequence[tuple[str, Pin]], targets: Targets, platform: str
) -> Iterator[tuple[str, Pin, bool]]:
    """List what may provide a package on a platform, up to the first that certainly does."""
    for layer, pin in provided:
        verdict = targets.verdict(pin.marker, platform)
        if verdict is not False:
            yield layer, pin, verdict is True
        if verdict:
            return


def _contradiction(
    package: LockedPackage, candidates: Sequence[tuple[str, Pin, bool]], targets: Targets, platform: str
) -> str | None:
    this = f"`{package.name}` {package.version}"
    if any(_meets(package.version, pin.version) for _, pin, _ in candidates):
        return None
    if package.from_lower_layer and candidates:
        layer, pin, _ = candidates[0]
        return f"{this} is to come from a layer below it, and `{layer}` has {pin.version}"
    if package.from_lower_layer:
        return f"{this} is to come from a layer below it, and none has it"
    certain = len(candidates) == 1 and candidates[0][2] and targets.verdict(package.marker, platform) is True
    if certain:
        return f"it has {this}, and `{candidates[0][0]}` below it has {candidates[0][1].version}"
    return None


def _meets(version: str, pinned: str) -> bool:
    """Tell whether a version meets the constraint that a pin below is: `==`, which local versions of it meet too."""
    own = Version(version)
    return own == Version(pinned) or ("+" not in pinned and SpecifierSet(f"=={pinned}").contains(own, prereleases=True))
