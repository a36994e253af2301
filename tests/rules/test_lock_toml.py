"""toml: what is written is what TOML readers read."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from strata_rules.lock import toml

text = st.text(st.characters(exclude_categories=("Cs",)))
values = st.recursive(
    text | st.booleans() | st.integers(-(2**40), 2**40) | st.datetimes() | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(text, values, max_size=4))
def test_round_trip(table: dict[str, Any]) -> None:
    assert tomllib.loads("\n".join(toml.lines(table))) == table
