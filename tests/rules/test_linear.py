import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata_rules.spec.linear import UnmergeableError, dependencies_first, merge

STACKS = st.lists(st.lists(st.integers(0, 6), unique=True, max_size=4), min_size=1, max_size=7).map(
    lambda rows: {f"n{index}": [f"n{lower}" for lower in row if lower < index] for index, row in enumerate(rows)}
)


@given(STACKS)
def test_layers_are_ordered_as_python_orders_base_classes(below):
    classes, orders = {}, {}
    for name, lower in below.items():
        if any(each not in classes for each in lower):
            continue
        try:
            classes[name] = type(name, tuple(classes[each] for each in lower) or (object,), {})
        except TypeError:
            with pytest.raises(UnmergeableError):
                merge([*([each, *orders[each]] for each in lower), lower])
            continue
        orders[name] = merge([*([each, *orders[each]] for each in lower), lower])
        assert list(orders[name]) == [base.__name__ for base in classes[name].__mro__[1:-1]]


def test_what_is_left_of_orders_that_contradict_is_told():
    with pytest.raises(UnmergeableError) as caught:
        merge([["x", "a", "b"], ["y", "b", "a"], ["x", "y"]])
    assert caught.value.remaining == {0: ("a", "b"), 1: ("b", "a")}


def test_each_name_follows_those_below_it_and_else_the_order_stays():
    order, cycles = dependencies_first({"top": ["c", "a"], "a": [], "b": ["a"], "c": ["b", "gone"]})
    assert (order, cycles) == (["a", "b", "c", "top"], [])


def test_every_cycle_is_told_once_as_the_way_round():
    below = {"above": ["a"], "a": ["b"], "b": ["c", "d"], "c": ["a"], "d": [], "self": ["self"]}
    order, cycles = dependencies_first(below)
    assert cycles == [["a", "b", "c", "a"], ["self", "self"]]
    assert sorted(order) == sorted(below)


def test_a_long_chain_needs_no_recursion():
    below = {f"n{index}": [f"n{index + 1}"] for index in range(5000)} | {"n5000": []}
    order, cycles = dependencies_first(below)
    assert (order[0], order[-1], cycles) == ("n5000", "n0", [])
