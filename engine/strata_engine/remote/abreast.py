"""Many small calls side by side, each on a thread, with one check for all of them.

The check may only be made on the thread that it was given to (it asks what scope that thread works for), so that thread
waits and asks, and the others are told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from strata_engine.remote.backend import Check
from strata_engine.remote.patience import TURN

WIDTH = 8
"""Threads of one call."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Abandoned(Exception):  # noqa: N818 - no error: another call ended this one
    """The calls beside this one have failed, or are no longer wanted."""


def abreast(
    items: Iterable[Item], work: Callable[[Item, Check], Answer], check: Check, *, width: int = WIDTH
) -> list[Answer]:
    """Do `work` on every item and give the answers in order; the first error ends all and is raised."""
    wanted = list(items)
    if len(wanted) <= 1:
        return [work(item, check) for item in wanted]
    ended = threading.Event()

    def told() -> None:
        if ended.is_set():
            raise Abandoned

    with ThreadPoolExecutor(min(width, len(wanted)), thread_name_prefix="remote") as pool:
        futures = [pool.submit(work, item, told) for item in wanted]
        try:
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, TURN, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                check()
        except BaseException:
            ended.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]
