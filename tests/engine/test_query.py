from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata_engine.errors import SpecError
from strata_engine.graph import Relations
from strata_engine.query import FUNCTIONS, Labels, evaluate, parse

#   lock ── fetch ── wheel ─┬─ a/install ── a/link ── a/archive[win_amd64,zip]
#                           └─ b/install ── b/link
NEEDS = {
    "lock": (),
    "fetch/x-1+2": ("lock",),
    "wheel": ("fetch/x-1+2",),
    "a/install": ("wheel",),
    "a/link": ("a/install",),
    "a/archive[win_amd64,zip]": ("a/link",),
    "b/install": ("wheel",),
    "b/link": ("b/install",),
}


class Made:
    """A small world."""

    def labels(self) -> Labels:
        return frozenset(NEEDS)

    def relations(self) -> Relations:
        return Relations(NEEDS)

    def match(self, pattern: str) -> Labels:
        found = frozenset(label for label in NEEDS if label == pattern or fnmatchcase(label, pattern))
        if not found:
            raise SpecError.of("unknown-label", f"nothing is called `{pattern}`")
        return found

    def attributes(self, label: str) -> Mapping[str, Sequence[str]]:
        kind = {"fetch/x-1+2": "Fetch", "lock": "Lock"}.get(label, "Other")
        return {"kind": [kind], "layer": [label[0]], "input": ["src/app.py"] if label == "a/link" else []}

    def state(self, name: str, argument: str | None) -> Labels:
        if argument == "never":
            raise SpecError.of("no-such-build", "no build is called `never`")
        return frozenset({"lock"} if argument is None else {"wheel"})


def ask(text: str) -> list[str]:
    return sorted(evaluate(parse(text), Made(), text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lock", ["lock"]),
        ("*/link", ["a/link", "b/link"]),
        ("'*/link'", ["a/link", "b/link"]),
        ("a/archive[win_amd64,zip]", ["a/archive[win_amd64,zip]"]),
        ('"a/archive[[]win_amd64,zip]"', ["a/archive[win_amd64,zip]"]),
        ("fetch/x-1+2", ["fetch/x-1+2"]),
        ("a/* - */link", ["a/archive[win_amd64,zip]", "a/install"]),
        ("*/link | */install & a/*", ["a/install", "a/link", "b/link"]),
        ("(*/link|*/install)&a/*", ["a/install", "a/link"]),
        ("lock | wheel - wheel | b/link", ["b/link", "lock"]),
        ("deps(a/install)", ["a/install", "fetch/x-1+2", "lock", "wheel"]),
        ("deps(a/install, 1)", ["a/install", "wheel"]),
        ("deps(a/install, 0)", ["a/install"]),
        ("rdeps(b/*, wheel)", ["b/install", "b/link", "wheel"]),
        ("rdeps(*, wheel, 1)", ["a/install", "b/install", "wheel"]),
        ("rdeps(b/link, wheel)", ["wheel"]),
        ("allpaths(b/link, fetch*)", ["b/install", "b/link", "fetch/x-1+2", "wheel"]),
        ("somepath(*/link, lock)", ["a/install", "a/link", "fetch/x-1+2", "lock", "wheel"]),
        ("somepath(lock, b/link)", []),
        ("kind(Fetch)", ["fetch/x-1+2"]),
        ("kind(Other, b/*)", ["b/install", "b/link"]),
        ("attr(layer, b)", ["b/install", "b/link"]),
        ("input(src/*.py)", ["a/link"]),
        ("ran()", ["lock"]),
        ("rdeps(*, ran(yesterday)) & */link", ["a/link", "b/link"]),
    ],
)
def test_what_an_expression_means(text: str, expected: list[str]) -> None:
    assert ask(text) == expected


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "an empty query asks for nothing"),
        ("  ", 1, "an empty query asks for nothing"),
        ("a/link b/link", 8, "`b/link` is not expected here"),
        ("a/link |", 9, "something is missing here"),
        ("| a/link", 1, "`|` is not expected here"),
        ("(a/link", 1, "this `(` is not closed"),
        ("deps(a/link lock)", 13, "`lock` is not expected here"),
        ("deps(a/link", 5, "this `(` is not closed"),
        ("a/link)", 7, "`)` is not expected here"),
        ("'a/link", 1, "`'` has no end"),
        ("dep(a/link)", 1, "there is no function `dep`"),
        ("lock | deps()", 8, "it is `deps(X[, DEPTH])`"),
        ("deps(lock, x)", 12, "`x` is no number of steps"),
        ("deps(lock, -1)", 12, "`-1` is no number of steps"),
        ("kind(deps(lock))", 6, "a plain word is expected here, not a set"),
        ("lock & nothing/here", 8, "nothing is called `nothing/here`"),
        ("lock | ran(never)", 8, "no build is called `never`"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, column: int, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        ask(text)
    [diagnostic] = caught.value.diagnostics
    assert diagnostic.place is not None
    assert (diagnostic.message, diagnostic.place.column) == (message, column)
    assert diagnostic.place.text == text


@given(st.text(alphabet="ab/*[]()|&,-' \"0\t", max_size=30))
@settings(max_examples=300, deadline=None)
def test_whatever_is_written_has_an_answer_or_a_place(text: str) -> None:
    columns = []
    try:
        assert evaluate(parse(text), Made(), text) <= frozenset(NEEDS)
    except SpecError as error:
        columns = [each.place.column if each.place is not None else 0 for each in error.diagnostics]
    assert all(1 <= column <= len(text) + 1 for column in columns)


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(SpecError, match="nested"):
        parse("(" * 300 + "lock" + ")" * 300)


def test_too_long_is_an_error_and_no_crash() -> None:
    with pytest.raises(SpecError, match="more than 1000"):
        parse(" | ".join(["lock"] * 5000))
    assert ask(" | ".join(["lock"] * 400)) == ["lock"]


def test_every_function_says_how_it_is_used() -> None:
    assert all(function.usage.startswith(f"{name}(") for name, function in FUNCTIONS.items())
