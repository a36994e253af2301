"""What a word was probably meant to be. On its own, for every command may have to say it, and few read a stack file."""

from __future__ import annotations

from collections.abc import Iterable


def near(word: str, candidates: Iterable[str]) -> str | None:
    """Find the candidate that `word` was probably meant to be."""
    import difflib  # noqa: PLC0415 - only who has mistyped something waits for it

    known = list(candidates)
    if found := difflib.get_close_matches(word, known, n=1, cutoff=0.6):
        return found[0]
    folded = {name.casefold().replace("-", "_"): name for name in known}
    return folded.get(word.casefold().replace("-", "_"))


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """Give `near` as a hint."""
    found = near(word, candidates)
    return f"did you mean `{found}`?" if found is not None else None
