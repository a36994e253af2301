"""How often what went wrong is done again, and for how long is waited."""

from __future__ import annotations

import pytest
from sinks import calm

from strata_engine.remote.backend import Fault, Trouble
from strata_engine.remote.patience import LONGEST_WAIT, Patience


def fault(*, again: bool, wait: float | None = None) -> Fault:
    return Fault(Trouble.FAILING, "x", "y", again=again, wait=wait)


@pytest.mark.parametrize(("again", "calls"), [(True, 3), (False, 1)])
def test_a_call_is_made_as_often_as_may_help(again: bool, calls: int) -> None:
    made: list[None] = []

    def call() -> None:
        made.append(None)
        raise fault(again=again)

    with pytest.raises(Fault):
        Patience(3, 0.0).repeat(call, calm)
    assert len(made) == calls


def test_a_call_that_does_better_is_the_last() -> None:
    made: list[int] = []

    def call() -> int:
        made.append(1)
        if len(made) < 2:
            raise fault(again=True)
        return 7

    assert Patience(3, 0.0).repeat(call, calm) == 7
    assert len(made) == 2


def test_nobody_waits_for_longer_than_is_said() -> None:
    patience = Patience(3, 0.1)
    assert patience.seconds(1, fault(again=True, wait=86400.0)) == LONGEST_WAIT
    assert patience.seconds(1, fault(again=True, wait=0.0)) == 0.0
    assert 0 <= patience.seconds(2, fault(again=True)) <= 0.4
    assert patience.seconds(50, fault(again=True)) <= LONGEST_WAIT


def test_a_wait_ends_when_it_is_cancelled() -> None:
    class Unwanted(BaseException):
        pass

    def check() -> None:
        raise Unwanted

    with pytest.raises(Unwanted):
        Patience(3, 100.0).wait(1, fault(again=True, wait=60.0), check)
