"""The risk-coverage curve and its area."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.metrics import METRICS, Outputs, risk_coverage
from tests.metrics.examples import drawn, told

ROWS = st.lists(st.tuples(st.sampled_from([0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=6)


def test_area_by_hand() -> None:
    out = told([0.9, 0.6, 0.8, 0.7], [True, False, False, True])
    coverage, risk = risk_coverage(out)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    # in the order of confidence: right, wrong, right, wrong
    assert risk == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])
    assert METRICS["aurc"].value(out) == pytest.approx((1 / 2 + 1 / 3 + 2 / 4) / 4)


def test_area_is_lowest_if_errors_are_least_sure() -> None:
    right = [True] * 6 + [False] * 4
    falling, rising = list(np.linspace(0.95, 0.55, 10)), list(np.linspace(0.55, 0.95, 10))
    best, worst = (METRICS["aurc"].value(told(c, right)) for c in (falling, rising))
    tied = METRICS["aurc"].value(told([0.7] * 10, right))
    assert best < tied < worst
    assert tied == pytest.approx(0.4)


@given(ROWS)
def test_ties_are_the_mean_over_all_their_orders(rows: list[tuple[float, bool]]) -> None:
    orders = [order for order in permutations(rows) if all(a[0] >= b[0] for a, b in pairwise(order))]
    risks = [
        [sum(not right for _, right in order[: k + 1]) / (k + 1) for k in range(len(rows))]
        for order in orders
    ]
    out = told([c for c, _ in rows], [r for _, r in rows])
    np.testing.assert_allclose(risk_coverage(out)[1], np.mean(risks, axis=0), atol=1e-12)
    assert METRICS["aurc"].value(out) == pytest.approx(np.mean(risks), abs=1e-12)


def test_no_probabilities_no_curve() -> None:
    out, _, _ = drawn()
    with pytest.raises(ValueError, match="kept no logp; run it again"):
        risk_coverage(Outputs(out.labels, out.top1, out.K))
