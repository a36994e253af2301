from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from strata_rules.cli.completion import complete_applications, complete_labels, complete_layers
from strata_rules.cli.init import scaffold


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> click.Context:
    scaffold(tmp_path)
    monkeypatch.chdir(tmp_path)
    return click.Context(click.Command("build"))


def test_layers_and_labels(context: click.Context) -> None:
    parameter = click.Option(["--include"])
    assert [item.value for item in complete_layers(context, parameter, "")] == [
        "python",
        "framework-console",
        "app-hello",
    ]
    assert [item.value for item in complete_labels(context, parameter, "app-hello/")] == [
        "app-hello/lock",
        "app-hello/install",
        "app-hello/link",
        "app-hello/archive",
    ]
    assert [item.value for item in complete_applications(context, parameter, "h")] == ["hello"]
    assert [item.type for item in complete_labels(context, parameter, "other.to")] == ["file"]


def test_a_wrong_stack_completes_to_nothing(context: click.Context, tmp_path: Path) -> None:
    (tmp_path / "venvstacks.toml").write_text("= broken")
    assert complete_layers(context, click.Option(["--include"]), "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_reads(shell: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "strata_rules.entry", "completion"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"SHELL": f"/bin/{shell}"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"_STRATA_COMPLETE={shell}_complete" in done.stdout
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=done.stdout, text=True, check=True)


def test_commands_complete(tmp_path: Path) -> None:
    environ = os.environ | {"_STRATA_COMPLETE": "bash_complete", "COMP_WORDS": "strata c", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "strata_rules.entry"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["plain,check", "plain,cache", "plain,completion"]


def test_a_shell_that_cannot_be_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "strata_rules.entry", "completion"],
        cwd=tmp_path, env=os.environ | {"SHELL": "/bin/tcsh"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error[unknown-shell]: ")
