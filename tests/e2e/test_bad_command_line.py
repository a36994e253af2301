"""Bad command lines: each says what was meant, or where to look, and does nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import here, refused, stamps
from space import Space

NO_STACK = "hint: `strata init` writes a first one\n"
LABELS = "hint: `strata graph show` lists the labels\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("biuld", "error[unknown-command]: there is no command `biuld`\nhint: did you mean `build`?\n"),
        (
            "build --ofline",
            "error[usage]: `strata build` has no option `--ofline`\nhint: did you mean `--offline`?\n",
        ),
        (
            "build -j abc",
            "error[usage]: invalid value for `-j` / `--jobs`: `abc` is not a whole number\n"
            "hint: `strata build --help` says how it is used\n",
        ),
        (
            "build -j 99999999999999999999",
            "error[usage]: invalid value for `-j` / `--jobs`: 99999999999999999999 is not in the range 0<=x<=1024\n"
            "hint: `strata build --help` says how it is used\n",
        ),
        (
            "build --include nothing*",
            "error[unmatched-pattern]: no layer matches `nothing*`\n"
            "hint: layers are `python`, `framework-low`, `framework-up`, `app-hello`, `app-world`\n",
        ),
        (
            "build --include app-helo",
            "error[unmatched-pattern]: no layer matches `app-helo`\nhint: did you mean `app-hello`?\n",
        ),
        (
            "build app-helo",
            "error[unknown-label]: nothing in this stack is called `app-helo`\nhint: did you mean `app-hello`?\n",
        ),
        (
            "build framework-low/lnk",
            "error[unknown-label]: nothing in this stack is called `framework-low/lnk`\n"
            "hint: did you mean `framework-low/link`?\n",
        ),
        (
            "build wheel/alfa-1.0-py3-none-any.whl",
            "error[unknown-label]: nothing in this stack is called `wheel/alfa-1.0-py3-none-any.whl`\n"
            "hint: did you mean `wheel/alpha-1.0-py3-none-any.whl`?\n",
        ),
        ("build zzz", f"error[unknown-label]: nothing in this stack is called `zzz`\n{LABELS}"),
        ("run helo", "error[unknown-application]: there is no application `helo`\nhint: did you mean `hello`?\n"),
        (
            "run low",
            "error[unknown-application]: there is no application `low`\nhint: applications are `hello`, `world`\n",
        ),
        (
            "run",
            "error[usage]: Missing argument `APP`\nhint: `strata run --help` says how it is used\n".replace("M", "m"),
        ),
        (
            "build gone.toml",
            "error[no-stack-file]: there is no stack file `gone.toml`\n"
            "hint: give a path that ends in `.toml` or a folder, or leave it out to take the nearest stack file\n",
        ),
        (
            "build --local-wheels gone",
            "error[missing-folder]: `--local-wheels` names the folder `gone`, which is not at `{root}/gone`\n"
            "hint: make it, even if it is empty, or name no such folder\n",
        ),
        (
            "publish --format rar",
            "error[usage]: invalid value for `--format`: `rar` is not one of `tar.xz`, `tar.zst`, `tar.gz`, `zip`,"
            " `dir`\nhint: `strata publish --help` says how it is used\n",
        ),
    ],
)
def test_what_was_meant_is_said(
    template: Space,
    line: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    plain_environment: None,
) -> None:
    monkeypatch.chdir(template.root)
    monkeypatch.setenv("STRATA_CACHE_DIR", str(template.store))
    before = stamps(template.root)
    assert here(capsys, *line.split()) == (2, "", said.replace("{root}", str(template.root)))
    assert stamps(template.root) == before


def test_a_stack_file_that_cannot_be_told(space: Space, tmp_path: Path) -> None:
    space.write("strata.toml", "")
    assert refused(space, "build", code=2) == (
        f"error[two-stack-files]: `{space.root}` has both `venvstacks.toml` and `strata.toml`\n"
        "hint: say which one is meant, as in `strata build venvstacks.toml`\n"
    )
    assert space.strata("build", "strata.toml", "-q") == (0, "", "")
    (tmp_path / "elsewhere").mkdir()
    assert refused(space, "build", code=2, cwd=tmp_path / "elsewhere") == (
        f"error[no-stack-file]: there is no `venvstacks.toml` or `strata.toml` in `{tmp_path}/elsewhere` or above it\n"
        f"{NO_STACK}"
    )


def test_init_where_nothing_can_be_written(space: Space) -> None:
    space.write("file", "")
    assert refused(space, "init", "file/inside", code=3) == (
        "error[host-error]: cannot use `file/inside`: Not a directory\n"
        "hint: a file stands where a folder is needed, or a folder where a file is\n"
    )
