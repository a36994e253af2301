"""A script that calls `venvstacks` calls `strata` instead: the same options, folders, selection and documents.

What is shown is compared with the real venvstacks; what is done, with what its documentation says.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from refusals import here
from space import LAYERS, STACK, Space
from venvstacks import Venvstacks

from strata_rules.cli.main import COMMANDS, strata

MANY = """
import contextlib, io, json, sys
from venvstacks.cli import main
ran = []
for line in json.load(sys.stdin):
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(line)
        except SystemExit as stop:
            code = stop.code
    ran.append([code, said.getvalue()])
print(json.dumps(ran))
"""

OPTIONS = """
import json, typer
from venvstacks.cli import _cli
commands = typer.main.get_command(_cli).commands
named = lambda command: [name for option in command.params for name in option.opts + option.secondary_opts]
print(json.dumps({name: named(command) for name, command in commands.items()}))
"""

MORE_LAYERS = """
[[frameworks]]
name = "side"
runtime = "python"
requirements = ["beta"]
versioned = true

[[frameworks]]
name = "other"
runtime = "python"
requirements = []
platforms = ["win_amd64"]

[[frameworks]]
name = "off"
runtime = "python"
requirements = []
platforms = []

[[applications]]
name = "wide"
launch_module = "hello.py"
frameworks = ["side", "up"]
requirements = []

"""


class Both(NamedTuple):
    """One workspace that both tools look at."""

    tool: Venvstacks
    space: Space

    def theirs(self, lines: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
        """Run command lines of venvstacks, all in one process."""
        return [(code, text) for code, text in json.loads(self.script(MANY, json.dumps(lines)))]

    def script(self, code: str, given: str = "") -> str:
        """Run Python where venvstacks is."""
        environ = {**os.environ, "COLUMNS": "400", "NO_COLOR": "1", "PYTHONUTF8": "1"}
        return subprocess.run(
            [self.tool.python, "-I", "-X", "utf8", "-c", code],
            cwd=self.space.root, env=environ, input=given, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def both(venvstacks: Venvstacks, template: Space, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Give the template with more layers, which have no lock; it is not changed by anything here."""
    space = template.copy(tmp_path_factory.mktemp("both") / "workspace")
    space.replace("venvstacks.toml", "[tool.uv]\n", f"{MORE_LAYERS}[tool.uv]\n")
    return Both(venvstacks, space)


def test_every_option_is_accepted(both: Both) -> None:
    theirs = json.loads(both.script(OPTIONS))
    for command, options in theirs.items():
        assert command in COMMANDS
        context = click.Context(strata)
        found = strata.get_command(context, command)
        assert found is not None
        ours = {name for option in found.get_params(context) for name in (*option.opts, *option.secondary_opts)}
        assert {name for name in options if name.startswith("-")} <= ours, command
        assert {"-v", "--verbose", "-q", "--quiet"} <= ours


def test_the_tree_is_the_same(both: Both, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    look(both, monkeypatch)
    lines = [
        ["show", "venvstacks.toml"],
        ["show", "venvstacks.toml", "--include", "framework-side"],
        ["lock", "venvstacks.toml", "--show-only", "--include", "framework-low", "--reset-lock", "app-*"],
        ["publish", "venvstacks.toml", "--show-only", "--include", "app-w*", "--publish-dependencies"],
    ]
    for line, (code, text) in zip(lines, both.theirs(lines), strict=True):
        ours = here(capsys, *line)
        assert (ours.code, ours.stdout) == (code, text)
        assert ours.stderr == "* no valid lock\n"
    assert here(capsys, "show", "-q").stderr == ""


def look(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(both.space.root)
    monkeypatch.setenv("STRATA_CACHE_DIR", str(both.space.store))


def random_lines(number: int) -> Iterator[list[str]]:
    """Make command lines that select all kinds of layers; the seed is fixed, and so are they."""
    rnd = random.Random(3)
    names = [*LAYERS, "framework-side", "framework-other", "framework-off", "app-wide", "app-*", "*-[lu]*", "nope"]

    def flags(*some: str) -> list[str]:
        return [flag for flag in some if rnd.random() < 0.5]

    def patterns(option: str, *most: int) -> list[str]:
        return [word for name in rnd.sample(names, rnd.choice(most)) for word in (option, name)]

    related = ("--publish-dependencies", "--publish-derived")
    for _ in range(number):
        command = rnd.choice(["lock", "build", "build", "publish", "local-export", "show"])
        line = [command, "venvstacks.toml", "--json", *patterns("--include", 0, 1, 1, 2, 3), *flags("--allow-missing")]
        if command in ("lock", "build"):
            line += [*flags("--lock-dependencies"), *patterns("--reset-lock", 0, 0, 1)]
        if command == "lock":
            line += flags("--if-needed")
        if command == "build":
            # Without a word about locks, `build` locks here and does not there: a test of its own.
            line += [rnd.choice(["--no-lock", "--lock", "--lock-if-needed"])]
            line += flags("--no-build", "--build-dependencies", "--build-derived")
            line += rnd.choice([[], [], ["--include-dependencies"], ["--no-include-dependencies"]])
        if command in ("build", "publish", "local-export"):
            line += flags(*related)
        yield line if command == "show" else [*line, "--show-only"]


def test_the_same_is_selected(both: Both, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    look(both, monkeypatch)
    lines = list(random_lines(100))
    codes = set()
    for line, (code, text) in zip(lines, both.theirs(lines), strict=True):
        ours = here(capsys, *line)
        codes.add((code, ours.code))
        if code == 0:
            document = ours.json
            assert (document.pop("schema"), document.pop("version")) == ("strata.show", 2)
            assert document == json.loads(text), line
        else:
            assert ours.stdout == ""
            assert ("conflicting-selection" in ours.stderr) == ("Conflicting" in text), line
    # A command line that cannot be followed is 2 here and 1 there.
    assert codes == {(0, 0), (1, 2)}


def test_a_build_locks_what_needs_it(
    both: Both, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look(both, monkeypatch)
    line = ["build", "venvstacks.toml", "--include", "app-hello", "--show-only", "--json"]
    [(_, text)] = both.theirs([line])
    [theirs] = json.loads(text)["applications"]
    [ours] = here(capsys, *line).json["applications"]
    assert theirs["selected_operations"] == ["build", "publish"]
    assert ours["selected_operations"] == ["lock-if-needed", "build", "publish"]


# -- what is done ----------------------------------------------------------------------------------------------------


def folders(path: Path) -> set[str]:
    """Name what stands in a folder."""
    return {each.name for each in path.iterdir()} if path.is_dir() else set()


def test_folders_start_from_the_stack_file_and_home(space: Space, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home")}
    script = [
        "lock workspace/venvstacks.toml --if-needed --clean --index",
        "build workspace/venvstacks.toml --lock --build-dir ../made --no-tag-outputs --local-wheels wheels",
        "publish ./workspace/venvstacks.toml --build-dir=../made --output-dir=~/out --force",
        "-q show workspace/venvstacks.toml --build-dir ../made",
    ]
    for line in script:
        space.ok(*line.split(), cwd=tmp_path, env=home)
    assert folders(tmp_path / "made") == {*LAYERS}
    assert folders(tmp_path / "home" / "out") == {*(f"{name}.tar.gz" for name in LAYERS), "__venvstacks__"}
    assert not (space.root / "_build").exists()
    shutil.move(space.root / "venvstacks.toml", space.root / "stack.any")
    (tmp_path / "home").joinpath("link").symlink_to(space.root)
    assert space.strata("build", "~/link/stack.any", "-q", env=home) == (0, "", "")
    said = space.strata("build", "~nobody-of-that-name/x.toml", env=home)
    assert (said.code, said.stderr.splitlines()[0]) == (
        2,
        "error[no-stack-file]: there is no stack file `~nobody-of-that-name/x.toml`",
    )


def test_only_what_is_selected_is_built_and_published(space: Space) -> None:
    space.ok("build", "--publish", "--include", "framework-up")
    # What it stands on is brought up to date with it, or it would not work.
    assert folders(space.root / "_build") == {"python", "framework-low", "framework-up"}
    assert folders(space.root / "_artifacts") == {"framework-up.tar.gz", "__venvstacks__"}
    space.ok("publish", "--include", "framework-up", "--publish-dependencies", "--publish-derived")
    assert folders(space.root / "_artifacts") == {*(f"{name}.tar.gz" for name in LAYERS), "__venvstacks__"}
    assert folders(space.root / "_build") == {"python", "framework-low", "framework-up"}
    space.ok("build", "--include", "framework-up", "--build-derived")
    assert folders(space.root / "_build") == {*LAYERS}


def test_what_is_not_selected_is_not_locked_for_its_version(space: Space) -> None:
    counted = 'name = "side"\nruntime = "python"\nversioned = true\nrequirements = ["zeta"]\n'
    space.replace("venvstacks.toml", "[tool.uv]\n", f"[[frameworks]]\n{counted}\n[tool.uv]\n")
    space.ok("build", "--locked", "--include", "app-hello")
    assert not (space.root / "requirements" / "framework-side").exists()
    assert space.strata("build", "--locked", "--include", "framework-side").code == 2
    space.ok("build", "--include", "framework-side")
    assert "framework-side@1" in folders(space.root / "_build")


def test_no_build_only_locks(space: Space) -> None:
    space.replace("venvstacks.toml", 'requirements = ["zeta"]', 'requirements = ["zeta", "delta"]')
    assert space.strata("build", "--no-build", "--no-lock").code == 2
    ran = space.build("--no-build")
    assert ran.executed == {"app-world/lock"}
    assert not (space.root / "_build").exists()
    space.ok("build", "--no-build", "--publish", "--include", "app-world")
    assert folders(space.root / "_artifacts") == {"app-world.tar.gz", "__venvstacks__"}
    assert not (space.root / "_build").exists()


def locked(space: Space, layer: str) -> dict[str, str]:
    """Give the versions that a lock has, but for those that a lower layer brings."""
    lines = space.read(f"requirements/{layer}/packages-{layer}.txt").partition("Shared")[0].splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_locks_are_made_anew_where_it_is_asked_for(space: Space) -> None:
    space.wheel("zeta", version="2.0")
    space.wheel("beta", version="2.0")
    assert space.ok("lock", "--json").counts["executed"] == 3  # the folder of wheels that they choose from has changed
    assert (locked(space, "framework-low")["beta"], locked(space, "app-world")["zeta"]) == ("1.0", "1.0")
    # Only layers that are locked lose their pins.
    space.ok("lock", "--include", "framework-low", "--if-needed", "--reset-lock", "app-*")
    space.ok("build", "--no-lock", "--reset-lock", "*")
    assert (locked(space, "framework-low")["beta"], locked(space, "app-world")["zeta"]) == ("1.0", "1.0")
    space.ok("build", "--reset-lock", "app-world")
    assert (locked(space, "framework-low")["beta"], locked(space, "app-world")["zeta"]) == ("1.0", "2.0")
    ran = space.ok("lock", "--upgrade", "--include", "framework-low", "--json")
    # With it, what stands on it.
    assert ran.executed >= {"framework-low/lock", "framework-up/lock", "app-hello/lock", "app-world/lock"}
    assert "python/lock" not in ran.executed
    assert locked(space, "framework-low")["beta"] == "2.0"


def test_clean_trusts_nothing_that_stands_there(built: Space) -> None:
    code = next(built.layer("framework-low").rglob("alpha.py"))
    code.chmod(0o644)
    code.write_text("NAME = 'edited'\n")
    built.ok("build")  # only the root of an output is looked at, as with any build tool
    assert "edited" in code.read_text()
    ran = built.build("--clean")
    assert ran.counts["executed"] == 0
    assert code.read_text() == "NAME = 'alpha'\n"
    assert built.build("--clean", "--include", "app-hello").executed == set()


def test_a_pattern_that_matches_nothing(built: Space) -> None:
    refused = built.strata("build", "--include", "nope", "--reset-lock", "zzz")
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.stderr.count("error[unmatched-pattern]") == 2
    for command in ("build", "lock", "publish"):
        ran = built.ok(command, "--include", "nope", "--allow-missing")
        warning, hint, end = ran.stderr.splitlines()
        assert warning == "warning[unmatched-pattern]: no layer matches `nope`"
        assert hint == "hint: layers are `python`, `framework-low`, `framework-up`, `app-hello`, `app-world`"
        assert end.startswith("0 actions")
    assert not (built.root / "_artifacts" / "python.tar.gz").exists()
    shown = built.ok("show", "--include", "nope", "--allow-missing")
    assert shown.stdout.splitlines()[1:] == ["├── Runtimes", "├── Frameworks", "└── Applications"]


def test_show_and_go_on(built: Space) -> None:
    ran = built.ok("build", "--show")
    assert ran.stdout.splitlines()[0] == str(built.root / "venvstacks.toml")
    assert "python (lock-if-needed, build, publish)" in ran.stdout
    assert " up to date in " in ran.stderr
    document = built.build("--show", "--include", "app-hello").json
    assert document["schema"] == "strata.build"
    assert document["counts"]["up_to_date"]
    [application] = document["stack"]["applications"]
    assert application["name"] == "app-hello"
    # Shown only, nothing is done.
    only = built.ok("publish", "--show-only", "--json", "--show").json
    assert only["schema"] == "strata.show"
    assert not (built.root / "_artifacts").exists()


def test_what_publish_would_write(built: Space) -> None:
    built.ok("publish")
    built.write("hello.py", "print('changed')\n")
    told = built.ok("publish", "--dry-run")
    archives = [f"_artifacts/{name}.tar.gz" for name in LAYERS]
    wanted = [f"{path}  {'would be written' if 'hello' in path else 'up to date'}" for path in archives]
    assert told.stdout.splitlines() == wanted
    layers = built.publish("--dry-run").json["layers"]
    manifest: dict[str, Any] = json.loads(built.read("_artifacts/__venvstacks__/venvstacks.json"))["layers"]
    [hello, world] = layers["applications"]
    [old, same] = manifest["applications"]
    assert world == same
    assert layers["runtimes"] == manifest["runtimes"]
    made = {"archive_size", "archive_hashes"}
    changed = {"app_launch_module_hash"}
    assert hello.keys() == old.keys() - made
    assert {name for name in hello if hello[name] != old[name]} == changed
    # What a lock will say is not known before it is made.
    built.replace("venvstacks.toml", 'requirements = ["zeta"]', 'requirements = ["zeta", "delta"]')
    world = built.publish("--dry-run").json["layers"]["applications"][1]
    assert "requirements_hash" not in world
    assert world["archive_name"] == "app-world.tar.gz"


def test_names_with_brackets_are_never_lost(space: Space) -> None:
    renamed = STACK.replace('name = "low"', 'name = "low[red]"').replace('["low"]', '["low[red]"]')
    space.write("venvstacks.toml", renamed)
    assert "*framework-low[red]\n" in space.ok("show").stdout
    document = space.ok("show", "--json", "--include", "framework-low[red]").json
    assert [layer["name"] for layer in document["frameworks"]] == ["framework-low[red]", "framework-up"]
    assert document["frameworks"][1]["dependencies"][0]["name"] == "framework-low[red]"
