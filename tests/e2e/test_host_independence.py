"""Unpack, Wheel, Install and Link give the same keys and outputs under every Python, umask, time zone and locale."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import fixed_stack
import msgspec
import pytest
from fixed_stack import Made


class Host(NamedTuple):
    """A way to run a Python."""

    umask: int
    environ: Mapping[str, str]


HERE = Host(0o022, {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"})
ELSEWHERE = Host(0o077, {"TZ": "Pacific/Chatham", "LC_ALL": "C", "PYTHONHASHSEED": "4711", "PYTHONUTF8": "0"})


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    fixed_stack.write_inputs(folder)
    return folder


def made(python: Path, host: Host, inputs: Path, folder: Path) -> dict[str, Made]:
    """Build the fixed stack in `folder`, with a store of its own."""
    (folder / "workspace").mkdir(parents=True)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [str(python), fixed_stack.__file__, str(inputs), str(folder / "workspace")],
        cwd=folder,
        env={**kept, **host.environ, "STRATA_CACHE_DIR": str(folder / "store")},
        umask=host.umask,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=dict[str, Made])


def test_another_python_gives_the_same(other_python: Path, inputs: Path, tmp_path: Path) -> None:
    own = made(Path(sys.executable), HERE, inputs, tmp_path / "own")
    other = made(other_python, ELSEWHERE, inputs, tmp_path / "öther place")
    assert own.keys() == other.keys()
    assert {"Unpack", "Wheel", "Install", "Link", "Compile", "Lock", "Archive"} == {
        each.mnemonic for each in own.values()
    }
    for label, mine in own.items():
        theirs = other[label]
        if mine.mnemonic != "Archive" or mine.tool == theirs.tool:
            assert (label, theirs) == (label, mine)
        else:
            assert (label, theirs.content) == (label, mine.content)
            assert theirs.key != mine.key, "the version of a codec is in the key"


def test_the_same_python_elsewhere_gives_the_same(inputs: Path, tmp_path: Path) -> None:
    own = made(Path(sys.executable), HERE, inputs, tmp_path / "own")
    moved = tmp_path / "moved inputs"
    shutil.copytree(inputs, moved)
    assert made(Path(sys.executable), ELSEWHERE, moved, tmp_path / "öther place") == own
