"""Environment markers, asked about whole target platforms and a Python `X.Y`.

It knows no packages. The hard part is that a lock is for all patch releases of a Python and all machines of a
platform, so there is a third answer: it depends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from strata_rules.platforms import marker_environment
from strata_rules.pylock import holds

_UNSETTLED = re.compile(r"\b(python_full_version|implementation_version|platform_release|platform_version)\b")


class Targets:
    """The platforms that a layer is for, with its Python: what markers are asked about."""

    def __init__(self, platforms: Iterable[str], python: str, implementation: str = "cpython") -> None:
        self.platforms = tuple(platforms)
        self.python = python
        self.implementation = implementation
        self._environments = {
            platform: marker_environment(platform, f"{python}.0", implementation) for platform in self.platforms
        }

    def verdict(self, marker: str | None, platform: str) -> bool | None:
        """Tell whether a marker holds on a platform; None where that depends on the patch release or the machine."""
        if marker is None:
            return True
        return None if _UNSETTLED.search(marker) else holds(marker, self._environments[platform])

    def only(self, platforms: Iterable[str]) -> str:
        """Give a marker that holds on these platforms and on none of the others."""
        wanted = sorted(platforms)
        return " or ".join(_one(self._environments[platform], group=len(wanted) > 1) for platform in wanted)


def both(first: str | None, second: str) -> str:
    """Give the marker that holds where both do."""
    return second if first is None else f"{_grouped(first)} and {_grouped(second)}"


def _one(environment: dict[str, str], *, group: bool) -> str:
    text = " and ".join(f"{name} == '{environment[name]}'" for name in ("sys_platform", "platform_machine"))
    return f"({text})" if group else text


def _grouped(marker: str) -> str:
    return f"({marker})" if re.search(r"\bor\b", marker) else marker
