"""Of all who have made something, one files it."""

from __future__ import annotations

import threading

from strata_engine.claims import Claim, Who


def test_the_first_has_it_and_keeps_it() -> None:
    claim = Claim()
    assert claim.take(Who.HERE)
    assert not claim.take(Who.REMOTE)
    assert claim.take(Who.HERE)


def test_one_that_is_owned_is_nobody_elses() -> None:
    claim = Claim(Who.AGAIN)
    assert not claim.take(Who.HERE)
    assert claim.take(Who.AGAIN)


def test_of_many_threads_one_kind_has_it() -> None:
    for _ in range(50):
        claim, ready = Claim(), threading.Barrier(4)
        took: list[Who] = []

        def work(who: Who, claim: Claim = claim, ready: threading.Barrier = ready, took: list[Who] = took) -> None:
            ready.wait()
            if claim.take(who):
                took.append(who)

        kinds = (Who.HERE, Who.REMOTE, Who.AGAIN, Who.HERE)
        threads = [threading.Thread(target=work, args=(who,)) for who in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(took)) == 1
