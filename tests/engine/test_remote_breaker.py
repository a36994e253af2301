"""When a remote is left alone, for how long, and who hears of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata_engine.remote.backend import Fault, Trouble
from strata_engine.remote.breaker import (
    LIMIT,
    PROBE,
    REST,
    WINDOW,
    Circuit,
    Closed,
    HalfOpen,
    Open,
    State,
    allowed,
    failed,
    succeeded,
)

DOWN = Trouble.UNREACHABLE


def test_faults_open_it_when_they_come_together() -> None:
    state: State = Closed()
    for at in range(LIMIT - 1):
        state = failed(state, DOWN, float(at))
        assert isinstance(state, Closed)
    assert failed(state, DOWN, float(LIMIT)) == Open(float(LIMIT), DOWN)
    assert failed(state, DOWN, WINDOW + LIMIT) == Closed((WINDOW + LIMIT,))


def test_a_success_forgets_the_faults_before_it() -> None:
    assert succeeded(Closed((1.0, 2.0))) == Closed()


@pytest.mark.parametrize("trouble", [Trouble.REFUSED, Trouble.UNSUPPORTED, Trouble.FULL])
def test_what_asking_again_does_not_mend_opens_it_at_once(trouble: Trouble) -> None:
    assert failed(Closed(), trouble, 5.0) == Open(5.0, trouble)


def test_after_a_rest_one_call_tries_it() -> None:
    state: State = Open(100.0, DOWN)
    assert allowed(state, 100.0 + REST - 1) == (False, state)
    may, state = allowed(state, 100.0 + REST)
    assert (may, state) == (True, HalfOpen(100.0 + REST, DOWN))
    assert allowed(state, 101.0 + REST) == (False, state)
    assert succeeded(state) == Closed()
    assert failed(state, Trouble.STALLED, 200.0) == Open(200.0, Trouble.STALLED)
    assert allowed(state, 100.0 + REST + PROBE)[0]


def test_a_clock_that_was_set_back_does_not_keep_it_open() -> None:
    assert allowed(Open(1000.0, DOWN), 10.0)[0]
    assert allowed(HalfOpen(1000.0, DOWN), 10.0)[0]


def test_calls_that_were_under_way_change_nothing_of_an_open_one() -> None:
    state = Open(5.0, DOWN)
    assert succeeded(state) == state
    assert failed(state, Trouble.BROKEN, 6.0) == state


STEPS = st.lists(st.tuples(st.sampled_from(["ask", "fail", "work"]), st.floats(0, 40)), max_size=40)


@given(STEPS)
def test_it_is_never_left_alone_for_longer_than_a_rest(steps: list[tuple[str, float]]) -> None:
    state, now, refused_since = Closed(), 1000.0, None
    for what, later in steps:
        now += later
        if what == "ask":
            may, state = allowed(state, now)
            refused_since = None if may else (refused_since or now)
            assert refused_since is None or now - refused_since < REST + PROBE
        elif isinstance(state, Closed) or what == "work":
            state = failed(state, DOWN, now) if what == "fail" else succeeded(state)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def fault(trouble: Trouble = DOWN) -> Fault:
    return Fault(trouble, "http://host", "text")


def opened(folder: Path, clock: Clock, trouble: Trouble = DOWN) -> Circuit:
    circuit = Circuit(folder, "http://host", clock=clock)
    for _ in range(LIMIT):
        circuit.failed(fault(trouble))
    assert not circuit.allows()
    return circuit


def test_the_next_build_within_a_minute_does_not_ask_again(tmp_path: Path) -> None:
    clock = Clock()
    opened(tmp_path / "remote", clock)
    assert not Circuit(tmp_path / "remote", "http://host", clock=clock).allows()
    assert Circuit(tmp_path / "remote", "http://other", clock=clock).allows()
    clock.now += REST
    later = Circuit(tmp_path / "remote", "http://host", clock=clock)
    assert later.allows()
    assert not later.allows()
    later.succeeded()
    assert later.state == Closed()
    clock.now = 1000.0
    assert Circuit(tmp_path / "remote", "http://host", clock=clock).allows()
    assert list((tmp_path / "remote").iterdir()) == []


@pytest.mark.parametrize("trouble", [Trouble.REFUSED, Trouble.UNSUPPORTED, Trouble.FULL])
def test_what_may_be_mended_before_the_next_build_is_not_remembered(tmp_path: Path, trouble: Trouble) -> None:
    clock = Clock()
    opened(tmp_path, clock, trouble)
    assert Circuit(tmp_path, "http://host", clock=clock).allows()


def test_a_file_that_cannot_be_believed_closes_it(tmp_path: Path) -> None:
    clock = Clock()
    opened(tmp_path, clock)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    for bad in (b"", good[:-1], good[:20] + b"\xff" + good[21:], bytes(len(good)), b"x" * 10_000):
        path.write_bytes(bad)
        assert Circuit(tmp_path, "http://host", clock=clock).allows()
    path.write_bytes(good)
    assert not Circuit(tmp_path, "http://host", clock=clock).allows()
    other = Circuit(tmp_path, "http://other", clock=clock)
    opened(tmp_path, clock)
    path.rename(tmp_path / other._path.name)
    assert Circuit(tmp_path, "http://other", clock=clock).allows()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    opened(tmp_path / "file" / "below", Clock())
