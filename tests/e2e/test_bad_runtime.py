"""Runtimes that cannot be trusted or moved: archives that reach out of themselves, Pythons that are no runtime."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from refusals import refused
from runtimes import OWN, interpreters, write_tar
from space import Space

PLACE = f"""\
  --> venvstacks.toml:3:25
   |
 3 | python_implementation = "cpython@{OWN}"
   |                         {"^" * (len(OWN) + 10)}
"""
PYTHON = f"python/bin/python{OWN.rpartition('.')[0]}"
PIN = "requirements/python/runtime.python.json"
DO_NOT = "hint: do not use this archive; get it from its publisher and compare its sha256\n"


def use_archive(space: Space, url: str, sha256: str) -> None:
    text = space.read("venvstacks.toml")
    head, _, rest = text.partition('[tool.strata.runtimes."python"]\n')
    rest = rest[rest.index("[tool.strata.archive]") :]
    table = f'[tool.strata.runtimes."python"]\nprovider = "archive"\nurl = "{url}"\nsha256 = "{sha256}"\n\n'
    space.write("venvstacks.toml", f"{head}{table}{rest}")


BAD = {
    "absolute-link": (
        {PYTHON: b"x"},
        {"python/lib/x": "/etc/passwd"},
        f"error[unsafe-archive]: the archive's member `lib/x` is a symlink to `/etc/passwd`, which is not inside the"
        f" archive\n{PLACE}{DO_NOT}",
    ),
    "escaping-link": (
        {PYTHON: b"x"},
        {"python/lib/x": "../../../etc/passwd"},
        f"error[unsafe-archive]: the archive's member `lib/x` is a symlink to `../../../etc/passwd`, which leads out of"
        f" the archive\n{PLACE}{DO_NOT}",
    ),
    "no-python": (
        {"python/readme": b"x"},
        {},
        f"error[not-a-runtime]: the archive has no Python for this platform: no `bin/python`\n{PLACE}"
        "hint: name an archive for this platform, such as python-build-standalone publishes\n",
    ),
}


def test_bad_archives(built: Space) -> None:
    stack = built.read("venvstacks.toml")
    archive = built.root / "runtime.tar.gz"
    for files, links, said in BAD.values():
        sha256 = write_tar(archive, files, links=links, executables=frozenset({PYTHON}))
        use_archive(built, archive.as_uri(), sha256)
        assert refused(built, "build", "-q", code=2).startswith(said)
    archive.write_bytes(b"no archive at all")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    use_archive(built, archive.as_uri(), sha256)
    assert refused(built, "build", "-q", code=2).startswith(
        f"error[damaged-archive]: the archive cannot be read: truncated header\n{PLACE}"
    )
    use_archive(built, archive.as_uri(), "0" * 64)
    assert refused(built, "build", "-q", code=3).startswith(
        f"error[wrong-sha256]: `runtime.tar.gz` is not the expected file: expected sha256 {'0' * 64},"
        f" got sha256 {sha256}\n{PLACE}note: from {archive.as_uri()}\n"
    )
    archive.unlink()
    assert refused(built, "build", "-q", code=3).startswith(
        f"error[missing-file]: cannot read `{archive.as_uri()}`: No such file or directory\n{PLACE}"
        "hint: put the file where it was, or change what names it\n"
    )
    built.write("venvstacks.toml", stack)
    assert built.build().counts["executed"] == 0


@pytest.fixture
def broken_python(tmp_path: Path) -> Callable[[str], Path]:
    """Give a way to make a Python that works where it is, with an addition to one module of its library."""
    own = interpreters()[0]

    def make(addition: str) -> Path:
        prefix = tmp_path / "prefix"
        library = prefix / "lib" / f"python{own.python}"
        left_out = shutil.ignore_patterns("site-packages", "dist-packages", "test", "tests", "__pycache__", "config-*")
        shutil.copytree(own.stdlib, library, symlinks=False, ignore=left_out, copy_function=_link)
        (prefix / "bin").mkdir()
        python = prefix / "bin" / f"python{own.python}"
        shutil.copy(os.path.realpath(own.executable), python)
        changed = library / "zoneinfo" / "__init__.py"
        text = changed.read_text()
        changed.unlink()
        changed.write_text(f"{text}\n{addition}")
        return python

    return make


def _link(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy(source, target)


def test_a_python_that_cannot_be_moved(built: Space, broken_python: Callable[[str], Path]) -> None:
    python = broken_python("import sys\nif '/prefix/' not in sys.executable + '/': raise ImportError('only at home')\n")
    (built.root / PIN).unlink()
    built.environ["STRATA_PYTHON"] = str(python)
    assert refused(built, "build", "-q", code=3).startswith(
        f"error[runtime-not-relocatable]: CPython {OWN} at `{python}` cannot be made a runtime:"
        f" `import zoneinfo` fails: ImportError: only at home\n{PLACE}"
        'hint: use another Python (`STRATA_PYTHON`), or `provider = "pbs"`\n'
    )
    del built.environ["STRATA_PYTHON"]
    assert built.build().counts["executed"] == 0


def test_pythons_that_do_not_do(built: Space, tmp_path: Path) -> None:
    (built.root / PIN).unlink()
    nothing = tmp_path / "python3"
    nothing.write_text("#!/bin/sh\nexit 3\n")
    nothing.chmod(0o755)
    hint = 'hint: widen `accept`, name an interpreter in `STRATA_PYTHON`, or add `"pbs"` to the providers\n'
    assert refused(built, "build", "-q", code=3, env={"STRATA_PYTHON": str(nothing)}).endswith(
        f": `STRATA_PYTHON` names `{nothing}`: no Python that runs\n{PLACE}{hint}"
    )
    built.replace("venvstacks.toml", f'accept = "=={OWN}"', 'accept = ">=3.98"')
    said = refused(built, "build", "-q", code=3)
    assert said.startswith("error[no-runtime]: no runtime for `python` on ")
    assert f": no CPython here fits `>=3.98`\n{PLACE}note: {OWN} at `" in said
    assert said.endswith(hint)
