"""Files that a slip, a merge or malice has changed anywhere: whatever is in them becomes a diagnostic, never a defect.

A few hundred changes are tried each time, always the same ones; `STRATA_MUTATIONS=5000` tries that many, from a seed
that is printed, or from `STRATA_SEED`.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from mutations import ODD_JSON, ODD_TOML, mutated
from space import Space

from strata_rules.entry import guarded

TIMES = int(os.environ.get("STRATA_MUTATIONS", "20"))
SEED = os.environ.get("STRATA_SEED") or (str(random.randrange(10**9)) if "STRATA_MUTATIONS" in os.environ else "strata")

pytestmark = pytest.mark.timeout(0 if "STRATA_MUTATIONS" in os.environ else 300)

PLACE = re.compile(r"^ *--> \S+:\d+:\d+$", re.MULTILINE)

MORE = """
[[frameworks]]
name = "ünlike.others@1"
frameworks = ["up", "low"]
requirements = ["beta>=0 ; sys_platform == 'linux'", "Alpha"]
versioned = true
platforms = ["linux_x86_64", "win_amd64"]
linux_target = "glibc@2.31"
macosx_target = "13.0"
dynlib_exclude = ["a/**/b*", "*"]
package_indexes = { beta = "one" }
index_overrides = { one = "two" }
priority_indexes = ["two"]

[[applications]]
name = "late"
launch_module = "world"
support_modules = ["hello.py"]
runtime = "python"
requirements = []

[tool.uv.sources]
alpha = { index = "one" }

[[tool.uv.index]]
name = "one"
url = "https://one.invalid/simple"
explicit = true

[[tool.uv.index]]
name = "two"
url = "https://two.invalid/simple"
"""


def outcome(space: Space, *arguments: str) -> tuple[int, str]:
    """Run a command in this process and give its exit code and what it said."""
    said = io.TextIOWrapper(raw := io.BytesIO(), "utf-8", write_through=True)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = guarded([*arguments, str(space.root / "venvstacks.toml")])
    return code, raw.getvalue().decode()


def check(space: Space, path: Path, values: Sequence[str], commands: Sequence[Sequence[str]]) -> None:
    """Change a file many times, and try the commands after each change."""
    sound = path.read_bytes()
    for number in range(TIMES):
        seed = f"{SEED} {path.name} {number}"
        chance = random.Random(seed)
        path.write_bytes(changed := mutated(chance, sound, values=values, times=chance.choice((1, 1, 2, 4))))
        for command in commands:
            code, said = outcome(space, *command)
            assert code in (0, 1, 2, 3, 4), f"{seed}: {command}\n{changed!r}\n{said}"
            assert code in (0, 4) or "error[" in said, f"{seed}: {command}\n{said}"
            if command == ("check",):
                assert said.count("error[") <= len(PLACE.findall(said)), f"{seed}:\n{changed!r}\n{said}"
    path.write_bytes(sound)


@pytest.fixture
def inside(space: Space, plain_environment: None, monkeypatch: pytest.MonkeyPatch) -> Space:
    monkeypatch.setenv("STRATA_CACHE_DIR", str(space.store))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(space.root)
    return space


def test_a_stack_file(inside: Space) -> None:
    text = inside.read("venvstacks.toml").replace("[tool.uv]\n", "[tool.uv]\nprerelease = 'allow'\n")
    path = inside.write("venvstacks.toml", text.replace("no-index = true\n", "") + MORE)
    assert outcome(inside, "check")[0] == 0
    check(inside, path, ODD_TOML, [("check",), ("show", "--json"), ("lock", "--check", "--no-index")])


def test_settings_of_uv(inside: Space) -> None:
    text = inside.read("venvstacks.toml").replace('[tool.uv]\nno-index = true\nfind-links = ["wheels"]\n', "")
    inside.write("venvstacks.toml", text)
    table = MORE[MORE.index("[tool.uv.sources]") :].replace("tool.uv.", "")
    path = inside.write(
        "venvstacks.uv.toml", f'no-index = true\nfind-links = ["wheels"]\nexclude-newer = "2026-01-01"\n{table}'
    )
    check(inside, path, ODD_TOML, [("check",), ("lock", "--check")])


@pytest.mark.parametrize("layer", ["python", "framework-low", "app-world"])
def test_a_lock(inside: Space, layer: str) -> None:
    path = inside.root / f"requirements/{layer}/pylock.{layer}.toml"
    commands = [("show", "--json"), ("lock", "--check"), ("build", "--check"), ("publish", "--dry-run", "--json")]
    check(inside, path, ODD_TOML, commands)


@pytest.mark.parametrize("layer", ["python", "framework-low"])
def test_what_is_recorded_of_a_lock(inside: Space, layer: str) -> None:
    path = inside.root / f"requirements/{layer}/pylock.{layer}.meta.json"
    commands = [("show", "--json"), ("lock", "--check"), ("build", "--check"), ("publish", "--dry-run", "--json")]
    check(inside, path, ODD_JSON, commands)


def test_the_pin_of_a_runtime(inside: Space) -> None:
    check(inside, inside.root / "requirements/python/runtime.python.json", ODD_JSON, [("build", "--check"), ("show",)])
