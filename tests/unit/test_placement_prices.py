"""Prices of sizes: what every dual of the cutting-stock problem must be, and cases known by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.jobs.prices import residual_values, size_prices

mixes = st.dictionaries(st.integers(1, 100).map(lambda tens: tens * 10), st.floats(0.01, 100), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("demand", "prices"),
    [
        ({}, {}),
        ({1000: 5}, {1000: 1}),
        ({500: 3}, {500: 1 / 2}),
        ({501: 3}, {501: 1}),  # two of them do not share a device
        ({334: 1}, {334: 1 / 2}),
        ({810: 9, 160: 1}, {810: 1, 160: 0}),  # the small one goes where nothing else would
        ({320: 1, 650: 1e-3}, {320: 1 / 3, 650: 2 / 3}),  # the rare size gives way to the common pattern
    ],
)
def test_prices_known_by_hand(demand: dict[int, float], prices: dict[int, float]) -> None:
    assert size_prices(demand) == pytest.approx(prices, abs=1e-6)


@given(mixes)
def test_no_device_can_be_filled_for_more_than_its_own_price(demand: dict[int, float]) -> None:
    values = residual_values(size_prices(demand))
    assert values[1000] <= 1 + 1e-6
    assert values == sorted(values)
    assert values[0] == 0


@given(mixes)
def test_no_other_prices_that_hold_this_are_higher_in_sum(demand: dict[int, float]) -> None:
    """Duality: of all feasible prices the right ones sum to the most over the demand. Two feasible ones are known."""
    prices = size_prices(demand)
    found = sum(prices[size] * weight for size, weight in demand.items())
    by_volume = sum(size / 1000 * weight for size, weight in demand.items())
    by_halves = sum((size > 500) * weight + (size == 500) * weight / 2 for size, weight in demand.items())
    slack = 1e-4 * sum(demand.values())  # demands are moved apart a little, so that no choice is a tie
    assert found >= by_volume - slack
    assert found >= by_halves - slack
