"""Programs for Windows that start a Python script: a launcher, a line that says which interpreter, a zip with the code.

It knows no wheel and no layer. The launchers are those that the `installer` package ships, as pip has them; they
understand an interpreter's path relative to themselves, so that a layer's programs work wherever it is unpacked.

The package is imported when it is called: few layers have such programs.
"""

from __future__ import annotations

import functools
import io
import zipfile
from typing import Literal

KINDS: dict[str, Literal["win-amd64", "win-arm64"]] = {"win_amd64": "win-amd64", "win_arm64": "win-arm64"}
"""What the package calls our platforms."""

_MARK = "strata"


def version() -> str:
    """Give the version of the package that the launchers are of: programs have its bytes."""
    from importlib import metadata  # noqa: PLC0415 - see the docstring at the top

    return metadata.version("installer")


def program(platform: str, interpreter: str, code: bytes, *, gui: bool = False) -> bytes:
    """Make the program that runs `code` with the interpreter at a posix path relative to the program's folder."""
    line = f"#!<launcher_dir>\\{interpreter.replace('/', chr(92))}\n".encode()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_STORED) as archive:
        member = zipfile.ZipInfo("__main__.py")
        member.create_system = 0  # else it tells on which system it was made
        archive.writestr(member, code)
    return _launcher(platform, gui=gui) + line + zipped.getvalue()


@functools.cache
def _launcher(platform: str, *, gui: bool) -> bytes:
    """Take the launcher out of a program that the package makes: it has no other door to it."""
    from installer.scripts import Script  # noqa: PLC0415 - see the docstring at the top

    script = Script("strata", "strata", "strata", "gui" if gui else "console")
    data = script.generate(_MARK, KINDS[platform])[1]
    return data[: data.rindex(f"#!{_MARK}\n".encode())]
