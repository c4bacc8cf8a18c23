"""Shapley values keep their axioms; sampled ones agree with exact ones within the error that they state."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.explain.shapley import Value, absolute_shares, composed, exact, sampled, shapley


def game(parts: int, seed: int, columns: int = 2) -> tuple[Value, np.ndarray]:
    """A random value for every coalition."""
    table = np.random.default_rng(seed).normal(size=(1 << parts, columns))
    return lambda there: table[there @ (1 << np.arange(parts))], table


def by_orders(value: Value, parts: int) -> np.ndarray:
    """The definition: mean gain over all orders."""
    total = 0.0
    orders = list(itertools.permutations(range(parts)))
    for order in orders:
        there = np.array([[p in order[:k] for p in range(parts)] for k in range(parts + 1)])
        gains = np.diff(value(there), axis=0)
        total = total + gains[[order.index(p) for p in range(parts)]]
    return np.asarray(total) / len(orders)


@settings(max_examples=25, deadline=None)
@given(parts=st.integers(1, 5), seed=st.integers(0, 1000))
def test_exact_is_the_mean_over_all_orders_and_efficient(parts: int, seed: int) -> None:
    value, table = game(parts, seed)
    values = exact(value, parts)
    np.testing.assert_allclose(values.phi, by_orders(value, parts), atol=1e-12)
    np.testing.assert_allclose(values.phi.sum(0), table[-1] - table[0], atol=1e-12)
    np.testing.assert_array_equal([values.all, values.none], [table[-1], table[0]])
    assert values.orders is None and not values.se.any()


@settings(max_examples=20, deadline=None)
@given(parts=st.integers(1, 12), seed=st.integers(0, 1000))
def test_sampled_is_efficient_too(parts: int, seed: int) -> None:
    value, table = game(parts, seed)
    values = sampled(value, parts, 7, np.random.default_rng(seed))
    np.testing.assert_allclose(values.phi.sum(0), table[-1] - table[0], atol=1e-12)


def test_a_part_that_adds_nothing_has_value_nothing_and_equal_parts_share() -> None:
    def value(there: np.ndarray) -> np.ndarray:
        return (there[:, :1] & there[:, 2:3]).astype(float)  # parts 0 and 2 count only together, part 1 never

    np.testing.assert_allclose(exact(value, 3).phi[:, 0], [0.5, 0.0, 0.5])


def test_sampled_agrees_with_exact_within_the_stated_error() -> None:
    scores = []
    for seed in range(30):
        value, _ = game(6, seed)
        truth, values = exact(value, 6).phi, sampled(value, 6, 200, np.random.default_rng(seed))
        assert (values.se > 0).all()
        scores.append((values.phi - truth) / values.se)
    z = np.concatenate(scores)
    # the error is neither too small nor too large
    assert np.sqrt((z**2).mean()) == pytest.approx(1.0, abs=0.2)
    assert np.abs(z).max() < 5


def test_more_than_ten_parts_are_sampled_and_each_coalition_is_scored_once() -> None:
    seen: list[tuple[bool, ...]] = []
    inner, _ = game(11, 1)

    def value(there: np.ndarray) -> np.ndarray:
        seen.extend(map(tuple, there.tolist()))
        return inner(there)

    values = shapley(value, 11, permutations=20)
    assert values.orders == 20
    assert len(seen) == len(set(seen)) <= 20 * 10 + 2
    assert shapley(game(10, 1)[0], 10).orders is None
    with pytest.raises(ValueError, match="at least 2"):
        sampled(inner, 11, 1, np.random.default_rng(0))


def test_absent_parts_are_painted_over() -> None:
    pixels = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)
    left = np.array([[True, False], [True, False]])
    painted = composed(
        pixels,
        {"left": left, "right": ~left},
        np.array([[True, True], [False, True]]),
        np.array([9.4, 8.6, 7.0]),
    )
    np.testing.assert_array_equal(painted[0], pixels)
    np.testing.assert_array_equal(painted[1][:, 1], pixels[:, 1])
    assert (painted[1][:, 0] == [9, 9, 7]).all()


def test_absolute_shares() -> None:
    np.testing.assert_allclose(
        absolute_shares(np.array([[3.0, 0.0], [-1.0, 0.0]])), [[0.75, 0.0], [0.25, 0.0]]
    )
