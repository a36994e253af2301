"""The wheels that a lock selects for a platform that is not here are those that uv would install there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import uv
from conftest import uv_environ

from strata_engine.errors import SpecError
from strata_rules import pylock
from strata_rules.platforms import PLATFORMS, uv_platform

PYTHON = "3.12.9"
PINS = """\
charset-normalizer==3.4.2
colorama==0.4.6 ; sys_platform == 'win32'
cryptography==45.0.7 ; platform_machine != 'ARM64'
markupsafe==3.0.2 ; platform_machine != 'ARM64'
numpy==2.2.6 ; platform_machine != 'ARM64'
pillow==11.3.0
psutil==7.0.0 ; os_name == 'posix' or platform_machine == 'AMD64'
pydantic-core==2.33.2
pywin32==310 ; platform_system == 'Windows'
uvloop==0.21.0 ; sys_platform != 'win32' and implementation_name == 'cpython'
"""
"""Wheels of all kinds: abi3, universal2, several manylinux and macOS versions, some not for ARM64 on Windows."""

_SELECTING = re.compile(r"Selecting: ([\w.-]+)==\S+ \[\w+\] \(([^)]*\.whl)\)")
_MISSING = re.compile(r"Wheels are required for `([^`]+)`")


def run_uv(folder: Path, *arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [uv.find_uv_bin(), *arguments, "--no-config", "--cache-dir", str(folder / "cache")]
    return subprocess.run(command, cwd=folder, env={**uv_environ(), **env}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("selection")
    (made / "pins.txt").write_text(PINS)
    options = ("--no-deps", "--universal", "--format", "pylock.toml", "--python-version", "3.12", "-q")
    done = run_uv(made, "pip", "compile", "pins.txt", "-o", "pylock.toml", *options, env={})
    assert done.returncode == 0, done.stderr
    return made


def dry_run(folder: Path, platform: str, linux: str, macosx: str) -> subprocess.CompletedProcess[str]:
    """Ask uv what it would install; it tells each wheel that it selects."""
    return run_uv(
        folder,
        *("pip", "install", "--dry-run", "-v", "--no-deps", "--only-binary", ":all:", "-r", "pins.txt"),
        *("--python-platform", uv_platform(platform, linux), "--python-version", PYTHON),
        *("--python", sys.executable, "--target", "nowhere"),
        env={"MACOSX_DEPLOYMENT_TARGET": macosx},
    )


def selected(folder: Path, platform: str, linux: str, macosx: str) -> dict[str, str]:
    lock = pylock.parse((folder / "pylock.toml").read_bytes(), "pylock.toml")
    wheels = pylock.select(lock, platform=platform, python_version=PYTHON, linux_target=linux, macosx_target=macosx)
    return {wheel.name: wheel.file for wheel in wheels}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(("linux", "macosx"), [("glibc@2.28", "13.0"), ("glibc@2.17", "11.0")])
def test_the_same_wheels_as_uv(folder: Path, platform: str, linux: str, macosx: str) -> None:
    done = dry_run(folder, platform, linux, macosx)
    assert done.returncode == 0, done.stderr
    found = selected(folder, platform, linux, macosx)
    assert found == dict(_SELECTING.findall(done.stderr))
    assert len(found) >= 5


def test_the_same_wheels_are_missing(folder: Path) -> None:
    done = dry_run(folder, "macosx_arm64", "glibc@2.28", "10.12")
    with pytest.raises(SpecError) as caught:
        selected(folder, "macosx_arm64", "glibc@2.28", "10.12")
    missing = {diagnostic.message.split("`")[1] for diagnostic in caught.value.diagnostics}
    # uv names the first that it comes across.
    found = _MISSING.search(done.stderr)
    assert found is not None
    assert found[1] in missing
