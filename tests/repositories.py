"""A git repository with several stacks that share wheels: what tests of `//` labels are written with.

`apps/one` is the template's stack. `apps/two` has one application on the same wheels, `libs/three` one that has a wheel
of its own and one of the same name as another stack's with other content.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from runtimes import OWN
from space import Space

SMALL = f"""\
[[runtimes]]
name = "python"
python_implementation = "cpython@{OWN}"
requirements = []

[[applications]]
name = "APP"
launch_module = "APP.py"
runtime = "python"
requirements = [REQUIREMENTS]

[tool.uv]
no-index = true
find-links = ["WHEELS"]

[tool.strata.runtimes."python"]
provider = "local"
accept = "=={OWN}"

[tool.strata.archive]
format = "tar.gz"
level = 1
"""


def small_stack(app: str, wheels: str, *requirements: str) -> str:
    """Write a stack of a runtime and one application."""
    listed = ", ".join(f'"{each}"' for each in requirements)
    return SMALL.replace("APP", app).replace("WHEELS", wheels).replace("REQUIREMENTS", listed)


class Repository(Space):
    """The repository's root; its stacks are `Space`s with the same store."""

    def stack(self, folder: str) -> Space:
        """Give a stack's folder."""
        found = Space(self.root / folder, self.store)
        found.environ = self.environ
        return found

    def git(self, *arguments: str) -> str:
        """Run git in the repository."""
        who = ("-c", "user.name=Tests", "-c", "user.email=tests@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.root, capture_output=True, text=True, check=True, env=self.variables()
        )
        return done.stdout

    def commit(self) -> None:
        """Commit all of it."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "state")


def write_repository(template: Space, root: Path, store: Path) -> Repository:
    """Make the repository from the template; wheels and locks of its own stack are the template's."""
    one = template.copy(root / "apps" / "one", store)
    made = Repository(root, one.store)
    made.git("init", "--quiet")
    made.write(".gitignore", "_build/\n_artifacts/\n.strata/\nignored/\n")
    two, three = made.stack("apps/two"), made.stack("libs/three")
    # Other content than the template's, which the store does not know yet.
    one.wheel("zeta", {"zeta.py": b"NAME = 'zeta of this repository'\n"})
    three.write("three.py", "import beta\nprint('three', beta.NAME)\n")
    two.write("venvstacks.toml", small_stack("two", "../one/wheels", "alpha", "zeta"))
    two.write("two.py", "import zeta\nprint('two', zeta.NAME)\n")
    three.wheel("eta")
    three.wheel("beta", {"beta.py": b"NAME = 'another beta'\n"})
    three.write("strata.toml", small_stack("three", "wheels", "beta", "eta"))
    made.write("ignored/venvstacks.toml", "this is no stack")
    made.write(".hidden/venvstacks.toml", "nor is this")
    return made
