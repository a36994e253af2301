"""The seal of local state: it tells damage from content, and proves nothing about where content comes from.

The only door to xxhash, apart from `digest` because a null build needs this and no SHA-256 (design §6).
"""

from __future__ import annotations

import xxhash


def seal(data: bytes) -> bytes:
    """Give the 16-byte xxh3-128 of state that stays on this machine (never authenticity)."""
    return xxhash.xxh3_128_digest(data)
