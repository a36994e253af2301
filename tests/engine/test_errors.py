from __future__ import annotations

import doctest
import errno

import pytest

import strata_engine.errors
from strata_engine.errors import (
    ActionError,
    Diagnostic,
    HostError,
    InternalError,
    Place,
    SpecError,
    StrataError,
    host_error,
    render,
)

FULL = Diagnostic(
    "unknown-field",
    "`runtimes[0]` has no field `nmae`",
    Place("stacks/a.toml", 12, 3, 4, "\tnmae = 1"),
    ("fields are `name`, `requirements`",),
    "did you mean `name`?",
)


def test_a_diagnostic_in_full() -> None:
    assert render(FULL) == (
        "error[unknown-field]: `runtimes[0]` has no field `nmae`\n"
        "   --> stacks/a.toml:12:3\n"
        "    |\n"
        " 12 |  nmae = 1\n"
        "    |   ^^^^\n"
        "note: fields are `name`, `requirements`\n"
        "hint: did you mean `name`?"
    )


def test_a_diagnostic_without_a_place_or_with_a_file_only() -> None:
    assert render(Diagnostic("x", "m", severity="warning")) == "warning[x]: m"
    assert render(Diagnostic("x", "m", Place("a.toml", 0))) == "error[x]: m\n  --> a.toml"
    # A place of no width still has a caret.
    assert render(Diagnostic("x", "m", Place("a", 1, 1, 0, ""))).endswith("| ^")


@pytest.mark.parametrize(
    ("kind", "code"), [(ActionError, 1), (SpecError, 2), (HostError, 3), (InternalError, 70), (StrataError, 70)]
)
def test_who_is_to_act_decides_the_exit_code(kind: type[StrataError], code: int) -> None:
    error = kind.of("an-id", "what", Place("f", 1), notes=["n"], hint="h")
    assert type(error) is kind
    assert error.exit_code == code
    assert error.diagnostics == (Diagnostic("an-id", "what", Place("f", 1), ("n",), "h"),)
    assert str(error) == "what"


def test_an_error_may_carry_many_diagnostics_and_output() -> None:
    error = ActionError(Diagnostic("a", "one"), Diagnostic("b", "two"), output="said")
    assert str(error) == "one; two"
    assert error.output == "said"


@pytest.mark.parametrize(
    ("number", "id"),
    [
        (errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.EROFS, "not-writable"),
        (errno.EACCES, "not-writable"), (errno.EPERM, "not-writable"), (errno.EIO, "host-error"),
    ],
)  # fmt: skip
def test_what_the_system_refuses_names_the_place(number: int, id: str) -> None:
    for error in (host_error(OSError(number, "refused", "a/file")), host_error(OSError(number, "refused"), "a/file")):
        [diagnostic] = error.diagnostics
        assert diagnostic.id == id
        assert "`a/file`" in diagnostic.message


def test_the_docstring_example() -> None:
    assert doctest.testmod(strata_engine.errors).attempted
    assert not doctest.testmod(strata_engine.errors).failed
