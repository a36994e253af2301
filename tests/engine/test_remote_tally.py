"""What is told of remotes at the end of a build."""

from __future__ import annotations

import threading

import pytest

from strata_engine.digest import Digest
from strata_engine.remote.backend import Trouble
from strata_engine.remote.tally import _COUNTED, Tally, Told

ONE, OTHER = Digest.of(b"1"), Digest.of(b"2")


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (Told(), "remote: 0 B read, 0 hits"),
        (Told(hits=1, read=999), "remote: 999 B read, 1 hit"),
        (Told(hits=3, read=41_000_000, saved=38.2), "remote: 41.0 MB read, 3 hits, saved ~38 s"),
        (Told(hits=3, saved=0.9), "remote: 0 B read, 3 hits"),
        (Told(saved=125.0), "remote: 0 B read, 0 hits, saved ~2 min 05 s"),
        (Told(sent=2, written=5_000), "remote: 0 B read, 0 hits, 5.0 kB written"),
        (Told(sent=2), "remote: 0 B read, 0 hits, 0 B written"),
        (Told(waiting=1), "remote: 0 B read, 0 hits, 1 result still to be sent"),
        (Told(waiting=2), "remote: 0 B read, 0 hits, 2 results still to be sent"),
        (Told(faults={"stalled": 1}), "remote: 0 B read, 0 hits, 1 time-out"),
        (Told(degraded="unreachable"), "remote DEGRADED: unreachable, local only"),
        (Told(degraded="stalled", faults={"stalled": 3}), "remote DEGRADED: 3 time-outs, local only"),
        (
            Told(degraded="failing", faults={"failing": 2, "broken": 1}, hits=4, read=10),
            "remote DEGRADED: 2 errors, 1 wrong answer, 10 B read, 4 hits, local only",
        ),
    ],
)
def test_it_is_told_in_one_line(told: Told, line: str) -> None:
    assert str(told) == line


@pytest.mark.parametrize("trouble", Trouble)
@pytest.mark.parametrize("count", [1, 2])
def test_every_trouble_has_its_words(trouble: Trouble, count: int) -> None:
    tally = Tally()
    for _ in range(count):
        tally.fault(trouble)
    tally.degraded(trouble)
    assert str(tally.told()) == f"remote DEGRADED: {count} {_COUNTED[trouble][count - 1]}, local only"


def test_the_first_reason_to_leave_one_alone_is_told() -> None:
    tally = Tally()
    tally.degraded(Trouble.STALLED)
    tally.degraded(Trouble.BROKEN)
    assert tally.told().degraded == "stalled"


def test_what_was_made_after_all_has_saved_nothing() -> None:
    tally = Tally()
    tally.saved(ONE, 20.0)
    tally.saved(OTHER, 3.0)
    assert tally.told().saved == 23.0
    tally.saved(ONE, 0.0)
    assert tally.told().saved == 3.0
    tally.saved(ONE, -9.0)
    assert tally.told().saved == 0.0


def test_many_threads_count_together() -> None:
    tally = Tally()

    def work() -> None:
        for _ in range(2000):
            tally.count(read=1, written=2, sent=3)
            tally.fault(Trouble.BROKEN)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = tally.told(7, 1)
    assert (told.hits, told.read, told.written, told.sent, told.waiting) == (7, 8000, 16000, 24000, 1)
    assert told.faults == {"broken": 8000}
