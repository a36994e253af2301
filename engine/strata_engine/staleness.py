"""Why an action must run: reasons as data, found by comparing two keys structurally.

Because Actions, Commands and Directories are kept in the store, a key is its own explanation (design §3): nothing
else is recorded to explain a rebuild, so the explanation cannot disagree with the key.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ReasonCode(StrEnum):
    """The closed set of design §8."""

    FIRST_BUILD = "first-build"
    DEFINITION_CHANGED = "definition-changed"
    RULE_CHANGED = "rule-changed"
    TOOL_CHANGED = "tool-changed"
    PARAMETER_CHANGED = "parameter-changed"
    ENV_CHANGED = "env-changed"
    PLATFORM_CHANGED = "platform-changed"
    INPUT_CHANGED = "input-changed"
    INPUT_ADDED = "input-added"
    INPUT_REMOVED = "input-removed"
    UPSTREAM_CHANGED = "upstream-changed"
    OUTPUT_MISSING = "output-missing"
    OUTPUT_TAMPERED = "output-tampered"
    FORCED = "forced"
    VOLATILE = "volatile"
    SALT_CHANGED = "salt-changed"
    CACHE_ENTRY_MISSING = "cache-entry-missing"
    CACHE_ENTRY_CORRUPT = "cache-entry-corrupt"
    CACHE_BLOB_LOST = "cache-blob-lost"
    CACHE_UNTRUSTED = "cache-untrusted"
    EVICTED = "evicted"
    PREVIOUS_FAILED = "previous-failed"
    RACY_INPUT = "racy-input"


class Reason(msgspec.Struct, frozen=True):
    """One reason: what about which subject, from what to what."""

    reason: ReasonCode
    subject: str = ""
    """A workspace-relative path, `path#key`, variable, tool or label."""
    old: str | None = None
    new: str | None = None

    def __str__(self) -> str:
        text = f"{self.reason} {self.subject}".rstrip()
        if self.old is None and self.new is None:
            return text
        return f"{text}: {self.old or '(none)'} → {self.new or '(none)'}"
