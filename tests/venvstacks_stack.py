"""One stack file with all that layers may have, for both tools, and the wheels that it asks for.

Every layer has a package of its own, so that what an application imports says in which order its layers are searched:
`who.py` is in all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from conftest import WheelMaker
from native import EXTENSION, compiled
from venvstacks import Runtime

from strata_rules.layout import CONFIG_PATH

STACK = """\
[[runtimes]]
name = "python"
python_implementation = "cpython@{version}"
requirements = ["rtlib"]

[[runtimes]]
name = "python-other"
python_implementation = "cpython@{version}"
requirements = []

[[frameworks]]
name = "A"
runtime = "python"
requirements = ["ina", "toolkit[extra]", "native"]
dynlib_exclude = ["native/**/libleft.*"]

[[frameworks]]
name = "B"
frameworks = ["A"]
requirements = ["inb"]

[[frameworks]]
name = "C"
frameworks = ["A"]
requirements = ["inc"]

[[frameworks]]
name = "D"
frameworks = ["B", "C"]
requirements = ["ind"]

[[frameworks]]
name = "E"
frameworks = ["B"]
requirements = ["ine"]

[[frameworks]]
name = "F@1"
frameworks = ["E"]
requirements = ["inf"]

[[frameworks]]
name = "only.windows"
runtime = "python"
platforms = ["win_amd64"]
requirements = ["winonly"]

[[frameworks]]
name = "disabled"
runtime = "python"
platforms = []
requirements = ["nowhere-to-be-found"]

[[frameworks]]
name = "routed"
runtime = "python-other"
requirements = ["inr", "twice"]
package_indexes = {{ twice = "second" }}

[[frameworks]]
name = "counted"
frameworks = ["routed"]
versioned = true
requirements = ["inv>=1"]

[[applications]]
name = "empty"
launch_module = "empty.py"
frameworks = ["D", "F@1"]
requirements = []

[[applications]]
name = "report"
launch_module = "report"
support_modules = ["shared/told.py", "shared/stories"]
frameworks = ["B"]
requirements = ["inx", "usesnative", "winonly; sys_platform == 'win32'", "linuxonly>=1; sys_platform == 'linux'"]

[[applications]]
name = "plain"
launch_module = "plain.py"
frameworks = ["counted"]
versioned = true
requirements = ["iny"]

[[applications]]
name = "bare"
launch_module = "bare.py"
runtime = "python"
requirements = []

[tool.uv]
index = [
    {{ name = "first", url = "http://{first}/simple", default = true }},
    {{ name = "second", url = "http://{second}/simple", explicit = true }},
]

[tool.strata.archive]
level = 0

[tool.strata.runtimes]
python = {{ provider = "archive", url = "{url}", sha256 = "{sha256}" }}
python-other = {{ provider = "archive", url = "{url}", sha256 = "{sha256}" }}
"""

ORDER = {
    "framework-D": ["framework-B", "framework-C", "framework-A"],
    "framework-E": ["framework-B", "framework-A"],
    "framework-F@1": ["framework-E", "framework-B", "framework-A"],
    "app-empty": ["framework-D", "framework-F@1", "framework-E", "framework-B", "framework-C", "framework-A"],
}
"""The example of the C3 linearisation, worked out by hand."""

LAYERS = (
    "python",
    "python-other",
    *(f"framework-{name}" for name in ("A", "B", "C", "D", "E", "F@1", "routed", "counted")),
    *(f"app-{name}" for name in ("empty", "report", "plain", "bare")),
)
"""The layers that this machine builds, by environment name, in the order in which they are built."""

TARGETS = tuple(f"{name}@1" if name in ("framework-counted", "app-plain") else name for name in LAYERS)
"""The folders that they are deployed in."""

PROBE = """\
import importlib.metadata, json, os, sys

root = os.path.realpath(os.environ["LAYERS"])


def place(path):
    return os.path.relpath(path, root) if path.startswith(root) else path


def who(name):
    found = __import__("importlib.util").util.find_spec(name)
    return None if found is None else place(os.path.realpath(found.origin))


packages = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
print(json.dumps({
    "path": [place(os.path.realpath(p)) for p in sys.path],
    "packages": packages,
    "native": __import__("_fooext").value() if who("_fooext") else None,
    "modules": {name: who(name) for name in "who toolkit rtlib linuxonly winonly told stories twice".split()},
    "prefixes": [place(os.path.realpath(getattr(sys, name))) for name in ("prefix", "exec_prefix", "base_prefix")],
    "executable": place(sys.executable),
    "site": [place(p) for p in __import__("site").getsitepackages()],
    "argv": sys.argv[1:],
    "flags": [sys.flags.isolated, sys.flags.no_user_site, sys.flags.safe_path],
    "dunder": [__name__, __package__, os.path.basename(__file__)],
}))
"""
"""What an application sees."""

IGNORED = {
    ".gitignore": "*.log\n!keep.log\n/report/secret/\n",
    "report/.gitignore": "generated*.py\n!generated_kept.py\n",
    "report/notes.log": "ignored",
    "report/keep.log": "negated",
    "report/secret/inner.py": "ignored with its folder",
    "report/generated.py": "ignored",
    "report/generated_kept.py": "KEPT = True\n",
    "report/deep/.gitignore": "*\n!*.py\n!kept/\n",
    "report/deep/__init__.py": "",
    "report/deep/data.bin": "ignored",
    "report/deep/kept/data.bin": "ignored: only its folder is not",
    "report/deep/kept/code.py": "",
    "report/.hidden": "no module, and shipped",
    "report/output/.gitkeep": "left out, and its folder is not",
    "report/assets/icons/small.svg": "in a folder of a folder",
    "shared/stories/__init__.py": "",
    "shared/stories/one.txt": "one",
    "shared/stories/one.log": "ignored",
}
"""Files of the launch package and of a support package, of which git leaves some out."""


def write_sources(root: Path, runtime: Runtime, first: str, second: str) -> None:
    """Write the stack and its modules, in a git repository; `first` and `second` are the indexes' hosts."""
    root.mkdir()
    make_repository(root)
    values = {"version": runtime.version, "url": runtime.url, "sha256": runtime.sha256}
    (root / "venvstacks.toml").write_text(STACK.format(**values, first=first, second=second))
    for path, text in IGNORED.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    for path in ("empty.py", "report/__main__.py", "plain.py", "bare.py"):
        (root / path).write_text(PROBE)
    (root / "report/__init__.py").write_text("")
    (root / "report/inside.txt").symlink_to("keep.log")
    (root / "report/outside.txt").symlink_to("../shared/stories/one.txt")
    (root / "shared/told.py").write_text("TOLD = 'told'\n")


def seen(folder: Path, target: str) -> dict[str, Any]:
    """Run an application as its launcher would, from another folder, and give what it sees."""
    config = json.loads((folder / target / CONFIG_PATH).read_text())
    done = subprocess.run(
        [folder / target / config["python"], "-m", config["launch_module"], "one", "two three"],
        env={"PATH": os.environ["PATH"], "LAYERS": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"},
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def make_repository(root: Path) -> None:
    """Make a folder a git repository, which needs no git."""
    for folder in ("objects", "refs/heads"):
        (root / ".git" / folder).mkdir(parents=True)
    (root / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (root / ".git/config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = false\n")


def write_wheels(first: Path, second: Path) -> None:
    """Make the wheels of the two indexes."""
    one, two = WheelMaker(first), WheelMaker(second)
    for letter in "abcdefrvxy":
        files = {
            f"in{letter}/__init__.py": f"NAME = {letter!r}\n".encode(),
            f"in{letter}/data.txt": letter.encode() * 5000,
            "who.py": f"WHO = {letter!r}\n".encode(),
        }
        one(f"in{letter}", files)
    one("inv", {"inv/__init__.py": b"NAME = 'v'\n", "inv/second.py": b""}, version="2.0")
    one("rtlib", {"rtlib.py": b"NAME = 'rtlib'\n", "rtlib-1.0.data/data/bin/rtlib-program": b"#!/bin/sh\n"})
    one("lonely", {"lonely.py": b""})
    one("twice", {"twice.py": b"INDEX = 'first'\n"}, version="9.0")
    two("twice", {"twice.py": b"INDEX = 'second'\n"}, version="2.0")
    for tag in ("win_amd64", "win_arm64"):
        one("winonly", {"winonly.py": b""}, tag=f"py3-none-{tag}")
    for machine in ("x86_64", "aarch64"):
        one("linuxonly", {"linuxonly.py": b""}, tag=f"py3-none-manylinux_2_17_{machine}")
    _write_toolkit(one)
    _write_native(one)


def _write_toolkit(make: WheelMaker) -> None:
    """Make a wheel with all that a wheel may have."""
    data = "toolkit-1.0.data"
    files = {
        "toolkit/__init__.py": b"def main():\n    print('toolkit')\n",
        "toolkit/run.sh": b"#!/bin/sh\n",
        "toolkit/empty/__init__.py": b"",
        "toolkit/sitecustomize.py": b"OWN = True\n",
        "toolkit/__pycache__/__init__.cpython-311.pyc": b"bytecode",
        "toolkit/.dotted": b"hidden, but not at the top",
        "toolkit_extra.pth": b"import sys; sys.toolkit_extra = True\n",
        f"{data}/scripts/tool": b"#!python\nprint('tool')\n",
        f"{data}/scripts/python-tool": b"#!python\nprint('python-tool')\n",
        f"{data}/data/bin/program": b"#!/bin/sh\n",
        f"{data}/data/share/toolkit/data.txt": b"data",
        f"{data}/data/etc/toolkit.conf": b"conf",
        f"{data}/headers/toolkit.h": b"/* header */",
        f"{data}/purelib/toolkit_pure.py": b"",
        f"{data}/platlib/toolkit_plat.py": b"",
    }
    metadata = "Metadata-Version: 2.1\nName: toolkit\nVersion: 1.0\nProvides-Extra: extra\n"
    replaced = {
        "METADATA": (metadata + 'Requires-Dist: lonely; extra == "extra"\n').encode(),
        "entry_points.txt": b"[console_scripts]\ntoolkit = toolkit:main\n[gui_scripts]\ntoolkit-gui = toolkit:main\n",
        "licenses/LICENSE": b"free",
    }
    make("toolkit", files, modes={"toolkit/run.sh": 0o100755, f"{data}/scripts/tool": 0o100755}, replace=replaced)


def _write_native(make: WheelMaker) -> None:
    """Make a wheel with shared libraries, and one with an extension module that needs one of them."""
    source = "int bar(void) { return 42; }"
    scratch = make.folder.parent / "native"
    plain = compiled(scratch, "libplain.so", source, "-Wl,-soname,libplain.so")
    files = {
        "native/__init__.py": b"",
        "native/libs/libplain.so": plain,
        "native/libs/libleft.so": compiled(scratch, "libleft.so", "int left;", "-Wl,-soname,libleft.so"),
        "native/libs/libnumbered.so.2": compiled(scratch, "a.so", "int two;", "-Wl,-soname,libnumbered.so.2"),
        "native/_ext.abi3.so": compiled(scratch, "_ext.abi3.so", "int extension;"),
    }
    make("native", files)
    extension = compiled(scratch, "_fooext.abi3.so", EXTENSION, f"-L{scratch}", "-lplain")
    make("usesnative", {"_fooext.abi3.so": extension})
