from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from strata_engine.errors import SpecError
from strata_engine.remote.settings import Upload
from strata_rules.cli.given import UPLOADS
from strata_rules.cli.options import AGES, SIZES, quantity
from strata_rules.cli.stack_file import find_stack_file, split_arguments


def strata(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own."""
    clean = {k: v for k, v in os.environ.items() if k not in ("CI", "FORCE_COLOR", "NO_COLOR", "GITHUB_ACTIONS")}
    return subprocess.run(
        [sys.executable, "-m", "strata_rules.entry", *arguments],
        cwd=cwd,
        env=clean | {"PYTHONUTF8": "1", "STRATA_CACHE_DIR": str(cwd / ".store")} | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("10GB", SIZES, 10 * 10**9),
        ("1.5 gib", SIZES, 3 * 2**29),
        ("500", SIZES, 500),
        ("2k", SIZES, 2000),
        ("30d", AGES, 30 * 86400),
        ("2w", AGES, 14 * 86400),
        ("90", AGES, 90),
        ("10 apples", SIZES, None),
        ("-1GB", SIZES, None),
        ("GB", SIZES, None),
        ("1e400GB", SIZES, None),
        ("9" * 400 + "GB", SIZES, None),
    ],
)
def test_quantities(text: str, units: dict[str, int], value: int | None) -> None:
    assert quantity(text, units) == value


def test_the_nearest_stack_file_is_taken(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "strata.toml").touch()
    assert find_stack_file(None, below) == Path("../../strata.toml")
    (tmp_path / "a" / "venvstacks.toml").touch()
    assert find_stack_file(None, below) == Path("../venvstacks.toml")
    assert find_stack_file(None, tmp_path) == Path("strata.toml")
    assert find_stack_file("a", tmp_path) == Path("a/venvstacks.toml")
    assert find_stack_file(str(tmp_path / "a"), below) == tmp_path / "a" / "venvstacks.toml"
    (below / "other.toml").touch()
    assert find_stack_file("other.toml", below) == Path("other.toml")


def test_a_stack_file_that_cannot_be_told(tmp_path: Path) -> None:
    for name in ("strata.toml", "venvstacks.toml"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    for argument, id_ in ((None, "two-stack-files"), ("empty", "no-stack-file"), ("gone.toml", "no-stack-file")):
        with pytest.raises(SpecError) as caught:
            find_stack_file(argument, tmp_path)
        assert caught.value.diagnostics[0].id == id_
        assert caught.value.diagnostics[0].hint


def test_a_stack_in_front_of_labels(tmp_path: Path) -> None:
    (tmp_path / "app-x").mkdir()
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack" / "strata.toml").touch()
    assert split_arguments((), tmp_path) == (None, ())
    # A folder without a stack file may be a layer's own: the word is a label.
    assert split_arguments(("app-x", "py/lock"), tmp_path) == (None, ("app-x", "py/lock"))
    assert split_arguments(("stack", "py/lock"), tmp_path) == ("stack", ("py/lock",))
    assert split_arguments(("other.toml",), tmp_path) == ("other.toml", ())
    assert split_arguments((".", "app-x"), tmp_path) == (".", ("app-x",))
    # A stack file may have any name; a file that is none may be called as a layer is.
    (tmp_path / "my.stack").write_text("[[runtimes]]\n")
    (tmp_path / "python").write_text("#!/bin/sh\nexec python3\n")
    assert split_arguments(("my.stack", "py/lock"), tmp_path) == ("my.stack", ("py/lock",))
    assert split_arguments(("python",), tmp_path) == (None, ("python",))


@pytest.mark.parametrize(
    ("arguments", "stderr"),
    [
        (["buidl"], "error[unknown-command]: there is no command `buidl`\nhint: did you mean `build`?\n"),
        (
            ["frobnicate"],
            "error[unknown-command]: there is no command `frobnicate`\nhint: `strata --help` lists the commands\n",
        ),
        (["check", "--jsn"], "error[usage]: `strata check` has no option `--jsn`\nhint: did you mean `--json`?\n"),
        (
            ["check"],
            "error[no-stack-file]: there is no `venvstacks.toml` or `strata.toml` in `CWD` or above it\n"
            "hint: `strata init` writes a first one\n",
        ),
        (
            ["check", "a.toml", "b.toml"],
            "error[usage]: got unexpected extra argument (b.toml)\nhint: `strata check --help` says how it is used\n",
        ),
    ],
)  # fmt: skip
def test_a_wrong_command_line(arguments: list[str], stderr: str, tmp_path: Path) -> None:
    done = strata(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == stderr.replace("CWD", str(tmp_path))


def test_global_options_stand_anywhere(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for arguments in (["-C", "x", "init"], ["init", "again", "-C", "x", "-q", "--color=never"]):
        assert strata(*arguments, cwd=tmp_path).returncode == 0
    assert (tmp_path / "x" / "venvstacks.toml").is_file()
    assert (tmp_path / "x" / "again" / "venvstacks.toml").is_file()
    painted = strata("check", "gone.toml", "--color", "always", cwd=tmp_path, NO_COLOR="1")
    assert painted.stderr.startswith("\x1b[1;31merror[no-stack-file]\x1b[0m: ")


def test_no_command_and_help(tmp_path: Path) -> None:
    nothing = strata(cwd=tmp_path)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    helped = strata("--help", cwd=tmp_path)
    assert (helped.returncode, helped.stderr) == (0, "")
    for word in ("init", "check", "completion", "Exit codes:", "130  interrupted", "--console"):
        assert word in helped.stdout
    assert strata("--version", cwd=tmp_path).stdout.startswith("strata ")


def test_a_reader_that_went_away_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec 3>&1; { "$0" -m strata_rules.entry --help; echo $? >&3; } | true', sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "3")


def test_a_closed_standard_error_changes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m strata_rules.entry check gone.toml 2>&-', sys.executable],
        cwd=tmp_path,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2


def test_what_a_full_disk_at_standard_output_costs(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    strata("init", cwd=tmp_path)
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m strata_rules.entry check --json > /dev/full', sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("error[host-refused]: No space left on device\n")


def test_json_stays_json_in_a_poor_encoding(tmp_path: Path) -> None:
    folder = tmp_path / "日本😀"
    folder.mkdir()
    (folder / "venvstacks.toml").touch()
    done = strata("check", folder.name, "--json", cwd=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["spec"] == "日本😀/venvstacks.toml"


def test_a_termination_is_an_interrupt(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "import strata_rules.cli.main as main\n"
        "main.run = lambda argv: os.kill(os.getpid(), signal.SIGTERM)\n"
        "from strata_rules.entry import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_the_process_starts_light() -> None:
    heavy = {"click", "msgspec", "rich", "asyncio", "json", "typing"}
    code = f"import sys; had = set(sys.modules); import strata_rules.entry; print(*({heavy} & set(sys.modules) - had))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_what_may_become_of_results_is_what_the_engine_knows() -> None:
    assert tuple(each.value for each in Upload) == UPLOADS
