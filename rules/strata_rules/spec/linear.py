"""Orders of layers: which comes after which, and in what order a layer sees those below it. Pure, over names.

It must not know what a layer is. The order below a layer is the C3 linearisation that Python uses for base classes:
each layer keeps the order that it declares, and the orders of the layers below it, or there is none at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class UnmergeableError(Exception):
    """No order keeps all sequences; `remaining` is what is left of each, by its index."""

    def __init__(self, remaining: dict[int, tuple[str, ...]]) -> None:
        super().__init__(remaining)
        self.remaining = remaining


def merge(sequences: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Merge orders into one that keeps them all (the merge of C3). Raises UnmergeableError.

    >>> merge([["d", "b", "c", "a"], ["f", "e", "b", "a"], ["d", "f"]])
    ('d', 'f', 'e', 'b', 'c', 'a')
    """
    left = [list(sequence) for sequence in sequences]
    merged: list[str] = []
    while any(left):
        tails = {name for sequence in left for name in sequence[1:]}
        head = next((sequence[0] for sequence in left if sequence and sequence[0] not in tails), None)
        if head is None:
            raise UnmergeableError({index: tuple(sequence) for index, sequence in enumerate(left) if sequence})
        merged.append(head)
        left = [sequence[1:] if sequence and sequence[0] == head else sequence for sequence in left]
    return tuple(merged)


def dependencies_first(below: Mapping[str, Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Order names so that each follows those below it, else as given; and list each cycle as the way round it.

    What is on a cycle, or above one, is in the order as well, somewhere.
    """
    order: list[str] = []
    cycles: list[list[str]] = []
    done: set[str] = set()
    for start in below:
        # Each entry is a name and those below it that are still to be visited: the names are the way from `start`.
        way: list[tuple[str, list[str]]] = [] if start in done else [(start, list(below[start]))]
        while way:
            name, left = way[-1]
            if not left:
                way.pop()
                done.add(name)
                order.append(name)
                continue
            lower = left.pop(0)
            names = [each for each, _ in way]
            if lower in names:
                cycles.append([*names[names.index(lower) :], lower])
            elif lower in below and lower not in done:
                way.append((lower, list(below[lower])))
    return order, cycles
