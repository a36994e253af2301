from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest

from strata_engine.errors import ActionError, HostError, InternalError, SpecError, StrataError
from strata_rules.cli.failure import report, wanted_color


def told(error: BaseException, **environ: str) -> tuple[int, str]:
    stream = io.StringIO()
    return report(error, [], stream, environ), stream.getvalue()


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (SpecError.of("bad", "no `x`", hint="use `y`"), 2, "error[bad]: no `x`\nhint: use `y`\n"),
        (HostError.of("offline", "no network"), 3, "error[offline]: no network\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            BaseExceptionGroup("g", [ExceptionGroup("h", [SpecError.of("a", "first")]), HostError.of("b", "second")]),
            2,
            "error[a]: first\nerror[b]: second\n",
        ),
        (BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError()]), 130, "interrupted\n"),
        (BrokenPipeError(), 3, ""),
        (
            OSError(errno.EROFS, "Read-only file system", "/srv/x"),
            3,
            "error[host-refused]: Read-only file system at `/srv/x`\n"
            "hint: choose a store that can be written with `STRATA_CACHE_DIR`\n",
        ),
    ],
)
def test_report(error: BaseException, code: int, text: str) -> None:
    assert told(error) == (code, text)


def test_all_diagnostics_are_shown_and_annotated() -> None:
    one, two = (StrataError.of(name, name).diagnostics[0] for name in ("one", "two"))
    code, text = told(SpecError(one, two), GITHUB_ACTIONS="true")
    assert text.splitlines() == [
        "error[one]: one",
        "::error title=one::one",
        "error[two]: two",
        "::error title=two::two",
    ]
    assert code == 2


def test_the_output_of_a_failed_action() -> None:
    error = ActionError(*StrataError.of("exit", "failed").diagnostics, output="\n".join(map(str, range(30))))
    code, text = told(error)
    assert code == 1
    assert text.splitlines() == ["error[exit]: failed", *(f"  | {n}" for n in range(10, 30))]


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("kind", [ValueError, InternalError])
def test_a_defect_is_kept_in_a_file(kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".strata").mkdir()
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    error = (
        InternalError.of("lost", "at https://me:secret@host/x")
        if kind is InternalError
        else ValueError("at https://me:secret@host/x")
    )
    code, text = told(raised(error))
    [kept] = (tmp_path / ".strata").iterdir()
    assert code == 70
    assert text.splitlines() == [
        f"error[internal-error]: internal error: {kind.__name__}: at https://***@host/x",
        f"note: the details are in `{kept}`",
        "hint: this is a defect of strata: please report it, with these details",
    ]
    assert "Traceback" in kept.read_text()
    assert "secret" not in kept.read_text()
    assert "Traceback" in told(raised(error), STRATA_TRACEBACK="1")[1]


def test_the_colour_of_a_broken_command_line() -> None:
    assert wanted_color(["build", "--color", "never", "--nonsense"]) == "never"
    assert wanted_color(["--color=always"]) == "always"
    assert wanted_color(["run", "x", "--", "--color=always"]) == "auto"
    assert wanted_color(["--color"]) == "auto"
