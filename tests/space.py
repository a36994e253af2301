"""A workspace, a store and the real command line on them: what end-to-end tests are written with.

The template is a small layered stack on wheels made on the spot: runtime `python` → framework `low` (wheels `alpha`,
`beta`) → framework `up` (wheel `gamma`, which needs `alpha`) → applications `hello` (a module, no requirements) and
`world` (a package, wheel `zeta`). Wheels come from the workspace's folder `wheels`, and no index is asked. In that
folder are also an older `alpha`, and `delta`, which needs `epsilon`; nothing of the stack asks for them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from conftest import WheelMaker
from runtimes import OWN

from strata_rules.cli.graph import documents

STACK = f"""\
[[runtimes]]
name = "python"
python_implementation = "cpython@{OWN}"
requirements = []

[[frameworks]]
name = "low"
runtime = "python"
requirements = ["alpha", "beta"]

[[frameworks]]
name = "up"
frameworks = ["low"]
requirements = ["gamma"]

[[applications]]
name = "hello"
launch_module = "hello.py"
frameworks = ["up"]
requirements = []

[[applications]]
name = "world"
launch_module = "world"
frameworks = ["up"]
requirements = ["zeta"]

[tool.uv]
no-index = true
find-links = ["wheels"]

[tool.strata.runtimes."python"]
provider = "local"
accept = "=={OWN}"

[tool.strata.archive]
format = "tar.gz"
level = 1
"""

LAYERS = ("python", "framework-low", "framework-up", "app-hello", "app-world")


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Read standard output as the one document that `--json` writes, which has the form that was promised."""
        document = json.loads(self.stdout)
        form = documents.DOCUMENTS.get(document.get("schema"))
        if form is not None:
            fields = {name: value for name, value in document.items() if name not in ("schema", "version")}
            msgspec.convert(fields, form)
        return document

    @property
    def counts(self) -> dict[str, int]:
        """Give how many actions had each outcome."""
        counts: dict[str, int] = self.json["counts"]
        return counts

    def labels(self, outcome: str) -> set[str]:
        """Give the labels of the actions that had this outcome."""
        return {action["label"] for action in self.json["actions"] if action["outcome"] == outcome}

    @property
    def executed(self) -> set[str]:
        """Give the labels of the actions that were executed."""
        return self.labels("executed")

    @property
    def keys(self) -> dict[str, str]:
        """Give each label's key."""
        return {action["label"]: action["key"] for action in self.json["actions"]}

    def reasons(self, label: str) -> list[tuple[str, str]]:
        """Give code and subject of each reason of an action."""
        [action] = [action for action in self.json["actions"] if action["label"] == label]
        return [(reason["reason"], reason["subject"]) for reason in action["reasons"]]


class Space:
    """A workspace and a store of its own."""

    def __init__(self, root: Path, store: Path) -> None:
        self.root = root
        self.store = store
        self.environ: dict[str, str] = {}
        """Variables for every command, beside the tests' own."""

    # -- files -------------------------------------------------------------------------------------------------------

    def write(self, path: str, content: str | bytes) -> Path:
        """Write a file of the workspace."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def read(self, path: str) -> str:
        """Read a file of the workspace."""
        return (self.root / path).read_text()

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace the one place in a file that reads `old`."""
        text = self.read(path)
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path}"
        self.write(path, text.replace(old, new))

    def wheel(self, name: str, files: Mapping[str, bytes] | None = None, **more: Any) -> Path:
        """Put a wheel into the folder that the stack takes wheels from; by default it has one module of its name."""
        content = files if files is not None else {f"{name}.py": f"NAME = {name!r}\n".encode()}
        return WheelMaker(self.root / "wheels")(name, content, **more)

    def layer(self, name: str) -> Path:
        """Give the folder where a layer is placed."""
        return self.root / "_build" / name

    def site(self, layer: str) -> Path:
        """Give a layer's `site-packages`."""
        [found] = self.layer(layer).glob("lib/python*/site-packages")
        return found

    def forget_snapshots(self) -> None:
        """Let the next build look at everything itself."""
        shutil.rmtree(self.root / ".strata" / "snapshots", ignore_errors=True)

    # -- commands ----------------------------------------------------------------------------------------------------

    def command(self) -> Sequence[str]:
        """Give the command line that starts strata."""
        return (sys.executable, "-m", "strata_rules.entry")

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Give the environment of a command: what asks for other behaviour in the tests' own is left out."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("STRATA_", "UV_", "PYTHON", "PIP_"))}
        for name in ("CI", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "FORCE_COLOR", "NO_COLOR", "COLUMNS"):
            kept.pop(name, None)
        return {**kept, "STRATA_CACHE_DIR": str(self.store), **self.environ, **(more or {})}

    def strata(
        self, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, **more: Any
    ) -> Ran:
        """Run a command in the workspace; `more` goes to `subprocess.run`."""
        done = subprocess.run(
            [*self.command(), *arguments],
            cwd=cwd or self.root,
            env=self.variables(env),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            **more,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, **more: Any) -> Ran:
        """Run a command that must end well."""
        ran = self.strata(*arguments, **more)
        assert ran.code == 0, f"{ran.code}: {ran.stderr}"
        return ran

    def build(self, *arguments: str, **more: Any) -> Ran:
        """Run `strata build --json`, which must end well."""
        return self.ok("build", "--json", *arguments, **more)

    def publish(self, *arguments: str, **more: Any) -> Ran:
        """Run `strata publish --json`, which must end well."""
        return self.ok("publish", "--json", *arguments, **more)

    # -- other places ------------------------------------------------------------------------------------------------

    def copy(self, root: Path, store: Path | None = None, *, state: bool = False, outputs: bool = False) -> Space:
        """Copy the workspace, and the store where a place for it is given; else both use this one."""
        left_out = [
            name
            for name, wanted in ((".strata", state), *((name, outputs) for name in ("_build", "_artifacts", "_export")))
            if not wanted
        ]
        shutil.copytree(self.root, root, symlinks=True, ignore=shutil.ignore_patterns(*left_out))
        if store is not None:
            copy_tree(self.store, store)
        made = Space(root, store or self.store)
        made.environ = dict(self.environ)
        return made


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder as it is, sharing blocks where the file system can."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)


def write_stack(space: Space) -> None:
    """Write the template's sources."""
    space.write("venvstacks.toml", STACK)
    space.write("hello.py", "import alpha, gamma\nprint('hello', alpha.NAME, gamma.NAME)\n")
    space.write("world/__init__.py", "")
    space.write("world/__main__.py", "import beta\nfrom world import names\nprint('world', names.NAME, beta.NAME)\n")
    space.write("world/names.py", "NAME = 'wide'\n")
    space.wheel("alpha")
    space.wheel("alpha", version="0.9")
    space.wheel("beta")
    space.wheel("gamma", requires=["alpha"])
    space.wheel("delta", requires=["epsilon"])
    space.wheel("epsilon")
    space.wheel("zeta")
