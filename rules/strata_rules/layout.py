"""Where things lie inside a layer, per platform family. Pure.

POSIX layers are laid out as a virtual environment is, with the runtime in a folder beside them; the names are
venvstacks' (reference/venvstacks.md §3, §4.9).
"""

from __future__ import annotations

import re
from typing import NamedTuple

CONFIG_PATH = "share/venv/metadata/venvstacks_layer.json"
"""Where a layer says what it is made of, relative to the layer."""

METADATA_FOLDER = "__venvstacks__"
"""What stands beside the layers in an output folder, and says what they are."""

DYNLIB_DIR = "share/venv/dynlib"
"""Where a POSIX layer keeps links to the shared libraries that upper layers may need."""


class Layout(NamedTuple):
    """Paths relative to the layer's folder, posix. Wheels are installed by scheme, so each scheme has a key."""

    purelib: str
    platlib: str
    scripts: str
    data: str
    headers: str
    """The folder that holds one folder per distribution."""
    python: str
    """The layer's interpreter."""
    runtime_python: str
    """The interpreter of a runtime layer."""

    @property
    def site_packages(self) -> str:
        """The folder that is on `sys.path`."""
        return self.purelib


def is_windows(platform: str) -> bool:
    """Tell whether a target platform lays layers out as Windows does."""
    return platform.startswith("win_")


def ignores_case(platform: str) -> bool:
    """Tell whether file systems of a target platform take `A` and `a` for one name, as they come."""
    return platform.startswith(("win_", "macosx_"))


_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL)
_NOT_IN_NAMES = frozenset('<>:"|?*\\') | {chr(code) for code in range(32)}


def why_not_on_windows(name: str) -> str:
    """Say why Windows cannot have a file or folder of this name; empty where it can."""
    if _DEVICE.fullmatch(name):
        return f"`{name}` is the name of a device"
    if wrong := sorted(_NOT_IN_NAMES.intersection(name)):
        return f"`{name}` has {wrong[0]!r} in it"
    if name.endswith((".", " ")):
        return f"`{name}` ends with a {'dot' if name.endswith('.') else 'space'}"
    return ""


def layout(platform: str, python: str, implementation: str = "cpython") -> Layout:
    """Give the layout for a target platform (`linux_x86_64`) and a Python version `X.Y`."""
    if is_windows(platform):
        site = "Lib/site-packages"
        return Layout(site, site, "Scripts", "", "Include", "Scripts/python.exe", "python.exe")
    # PyPy names the folder after itself; on Windows neither does.
    name = "python" if implementation == "cpython" else implementation
    site = f"lib/{name}{python}/site-packages"
    return Layout(site, site, "bin", "", f"include/site/python{python}", "bin/python", "bin/python")
