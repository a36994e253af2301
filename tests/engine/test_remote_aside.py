"""Blocking calls that may be given up: what they find, what they raise, and that nobody is left waiting."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from strata_engine.remote.aside import Hands, aside


class Unwanted(BaseException):
    """What a build raises."""


def never(idle: float) -> None:
    """Watch, and be content."""


def test_what_is_found_comes_in_its_order_and_none_is_a_thing_too() -> None:
    def work(hands: Hands[int | None]) -> None:
        for index in (1, None, 3, *range(100)):
            hands.give(index)

    assert list(aside([work], never)) == [1, None, 3, *range(100)]
    assert sorted(map(str, aside([work] * 5, never))) == sorted(map(str, [1, None, 3, *range(100)] * 5))
    assert list(aside([], never)) == []


def test_the_first_error_ends_all() -> None:
    ended = threading.Event()

    def waits(hands: Hands[int]) -> None:
        try:
            while True:
                hands.check()
                time.sleep(0.001)
        finally:
            ended.set()

    def fails(hands: Hands[int]) -> None:
        hands.give(1)
        raise ValueError("mine")

    found = []
    with pytest.raises(ValueError, match="mine"):
        found.extend(aside([waits, fails], never))
    assert ended.wait(10)


def test_a_call_that_hears_nothing_is_left_alone() -> None:
    released = threading.Event()
    start = time.monotonic()

    def watch(idle: float) -> None:
        if time.monotonic() - start > 0.2:
            raise Unwanted

    try:
        with pytest.raises(Unwanted):
            list(aside([lambda hands: released.wait(60) and None], watch))
    finally:
        released.set()


def test_whoever_stops_taking_stops_those_who_give() -> None:
    given: list[int] = []
    ended = threading.Event()

    def work(hands: Hands[int]) -> None:
        try:
            for index in range(1000):
                hands.give(index)
                given.append(index)
        finally:
            ended.set()

    with contextlib.closing(aside([work], never)) as things:
        assert next(things) == 0
    assert ended.wait(10)
    # What is handed over is few things at a time.
    assert len(given) < 10


def test_the_watch_is_told_for_how_long_nothing_has_moved() -> None:
    told: list[float] = []

    def watch(idle: float) -> None:
        told.append(idle)
        if idle > 0.3:
            raise Unwanted

    released = threading.Event()

    def work(hands: Hands[int]) -> None:
        for index in range(5):
            time.sleep(0.1)
            hands.give(index)
        released.wait(60)

    found = []
    try:
        with pytest.raises(Unwanted):
            found.extend(aside([work], watch))
    finally:
        released.set()
    assert told[-1] > 0.3
