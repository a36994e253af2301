"""Who files the result of a label that is made here and asked for elsewhere: whoever is first, and nobody else.

It knows no actions and no remotes. A claim is taken by worker threads just before they would file something; who comes
second files nothing, whatever it has made.
"""

from __future__ import annotations

import threading
from enum import Enum


class Who(Enum):
    """Whose result of a label is filed."""

    REMOTE = "remote"
    HERE = "here"
    AGAIN = "again"
    """Made here because what there was of it is lost."""


class Claim:
    """The claim to one label; for any thread."""

    def __init__(self, owner: Who | None = None) -> None:
        self._lock = threading.Lock()
        self._owner = owner

    def take(self, who: Who) -> bool:
        """Tell whether it is `who`: the first to ask."""
        with self._lock:
            self._owner = self._owner or who
            return self._owner is who


class Unwanted(Exception):  # noqa: N818 - no error: the result has been had from elsewhere
    """Raised where something is made, or asked for, that is not wanted any more."""
