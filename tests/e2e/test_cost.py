"""What each change costs: exactly the actions that the change reaches are executed (issue's table)."""

from __future__ import annotations

from space import LAYERS, Space


def test_nothing(built: Space) -> None:
    again = built.build()
    assert again.executed == set()
    assert again.counts["up_to_date"] == len(again.json["actions"]) > len(LAYERS)
