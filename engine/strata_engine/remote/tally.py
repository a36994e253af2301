"""What remotes did for a build: counted by many threads, told in one line."""

from __future__ import annotations

import threading
from collections import Counter

import msgspec

from strata_engine.digest import Digest
from strata_engine.remote.backend import Trouble
from strata_engine.words import duration, size

_COUNTED = {
    Trouble.UNREACHABLE: ("failed connection", "failed connections"),
    Trouble.STALLED: ("time-out", "time-outs"),
    Trouble.REFUSED: ("refusal", "refusals"),
    Trouble.BROKEN: ("wrong answer", "wrong answers"),
    Trouble.FULL: ("refusal for lack of room", "refusals for lack of room"),
    Trouble.FAILING: ("error", "errors"),
    Trouble.UNSUPPORTED: ("answer of something else", "answers of something else"),
}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What remotes did for a build."""

    hits: int = 0
    """Actions whose results were taken from a remote."""
    read: int = 0
    """Bytes of blobs that came."""
    written: int = 0
    """Bytes of blobs that went."""
    sent: int = 0
    """Results that went."""
    waiting: int = 0
    """Results that have not gone by the end of the build."""
    saved: float = 0.0
    """Seconds that the hits had taken where they were made, less those that were waited for them here."""
    faults: dict[str, int] = {}
    """What went wrong, by kind."""
    degraded: str = ""
    """Why a remote was left alone, in the words of `Trouble`; empty while all were asked."""

    @property
    def is_nothing(self) -> bool:
        """Tell whether they did nothing, good or bad."""
        return self == Told()

    def __str__(self) -> str:
        """Give the line that closes a build.

        >>> str(Told(hits=3, read=41_000_000, saved=38.2))
        'remote: 41.0 MB read, 3 hits, saved ~38 s'
        """
        parts = [f"{size(self.read)} read", f"{self.hits} hit{'' if self.hits == 1 else 's'}"]
        if self.sent or self.written:
            parts.append(f"{size(self.written)} written")
        if self.waiting:
            parts.append(f"{self.waiting} result{'' if self.waiting == 1 else 's'} still to be sent")
        if self.saved >= 1:
            parts.append(f"saved ~{round(self.saved)} s" if self.saved < 60 else f"saved ~{duration(self.saved)}")
        wrong = [f"{count} {_COUNTED[Trouble(name)][count != 1]}" for name, count in self.faults.items()]
        if self.degraded:
            done = parts if self.hits or self.sent else []
            return f"remote DEGRADED: {', '.join([*(wrong or [self.degraded]), *done, 'local only'])}"
        return f"remote: {', '.join([*parts, *wrong])}"


class Tally:
    """Counts for one build."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._faults: Counter[Trouble] = Counter()
        self._saved: dict[Digest, float] = {}
        self._waited = 0.0
        self._degraded: Trouble | None = None

    def count(self, *, read: int = 0, written: int = 0, sent: int = 0) -> None:
        """Add what was done."""
        with self._lock:
            self._counts.update(read=read, written=written, sent=sent)

    def saved(self, key: Digest, seconds: float) -> None:
        """Add what taking the result of a key has saved; 0 where it had to be made here after all."""
        with self._lock:
            self._saved[key] = seconds

    def waited(self, seconds: float) -> None:
        """Take from what was saved how long blobs took to come."""
        with self._lock:
            self._waited += seconds

    def fault(self, trouble: Trouble) -> None:
        """Add what went wrong."""
        with self._lock:
            self._faults[trouble] += 1

    def degraded(self, trouble: Trouble) -> None:
        """Note that a remote is left alone."""
        with self._lock:
            self._degraded = self._degraded or trouble

    def told(self, hits: int = 0, waiting: int = 0) -> Told:
        """Give what there is to tell, with what others have counted."""
        with self._lock:
            return Told(
                **self._counts,
                hits=hits,
                waiting=waiting,
                saved=round(max(0.0, sum(self._saved.values()) - self._waited), 3),
                faults={trouble.value: count for trouble, count in self._faults.items()},
                degraded=self._degraded.value if self._degraded is not None else "",
            )
