"""Calibration errors: the published fixture, edges, sampling error of a calibrated method."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.metrics import METRICS, reliability
from bench.metrics.calibration import bins, error, excess, influence, mass_bins
from tests.metrics.examples import outputs, told

FIXTURE = Path(__file__).parents[1] / "fixtures" / "parity" / "calibration.npz"


@pytest.mark.parametrize("number", [10, 15])
@pytest.mark.parametrize("which", ["before", "after", "edge"])
def test_left_closed_bins_are_those_of_clip_calibration(which: str, number: int) -> None:
    """Protocol 24.5, with confidences on edges and of exactly 1."""
    with np.load(FIXTURE) as kept:
        labels = kept["edge_label" if which == "edge" else "test_labels"]
        confidence, right = kept[f"{which}_confidence"], kept[f"{which}_prediction"] == labels
        expected = float(kept[f"{which}_ece_{number}"])
    assert 100 * error(confidence, right, bins(confidence, number, "left")) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("which", ["before", "after"])
def test_metric_from_kept_arrays_agrees_with_the_fixture(which: str) -> None:
    """Records hold float32, which moves no confidence of the fixture over an edge."""
    with np.load(FIXTURE) as kept:
        out = outputs(kept[f"test_logits_{which}"], kept["test_labels"])
        expected, confidence = float(kept[f"{which}_ece_10"]), kept[f"{which}_confidence"]
    np.testing.assert_allclose(out.confidence(), confidence, rtol=1e-6)
    assert 100 * METRICS["ece-cal"].value(out) == pytest.approx(expected, rel=1e-5)


def test_an_edge_belongs_to_the_bin_below_or_above() -> None:
    on_edges = np.linspace(0, 1, 11)
    assert bins(on_edges, 10).bin.tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    left = bins(on_edges, 10, "left")
    assert left.bin.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    assert left.inside.tolist() == [True] * 10 + [False]
    with pytest.raises(ValueError, match='"right" or "left", not "up"'):
        bins(on_edges, 10, "up")


def test_the_quirk_counts_sure_images_in_the_weight_alone() -> None:
    # The last of 10 bins has two images at 0.95, one of them right, and one at 1. Its weight is 3 of 4.
    out = told([0.95, 0.95, 1.0, 0.55], [True, False, False, True])
    assert METRICS["ece-cal"].value(out) == pytest.approx(3 / 4 * 0.45 + 1 / 4 * 0.45)
    # Of 15 bins the last one has all three. Two of them are wrong.
    assert METRICS["ece"].value(out) == pytest.approx((0.95 + 0.95 + 1 - 1 + 0.45) / 4)


def test_an_empty_bin_has_no_mean() -> None:
    curve = reliability(told([0.95, 0.52], [True, False]), bins=10)
    assert curve.count.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert curve.accuracy[[5, 9]].tolist() == [0.0, 1.0]
    assert np.isnan(curve.confidence[:5]).all()


def test_a_calibrated_method_is_within_its_sampling_error() -> None:
    """A gap of a calibrated bin is normal, s^2 = sum of p (1 - p), so |gap| is sqrt(2 / pi) s on average."""
    rng = np.random.default_rng(4)
    confidence = rng.beta(3, 1.5, 50_000)
    right = rng.random(50_000) < confidence
    place = np.ceil(15 * confidence).astype(int) - 1
    s = np.sqrt([(confidence * (1 - confidence))[place == b].sum() for b in range(15)]) / 50_000
    expected, spread = np.sqrt(2 / np.pi) * s.sum(), np.sqrt((1 - 2 / np.pi) * (s**2).sum())
    assert abs(error(confidence, right, bins(confidence)) - expected) < 4 * spread
    # A method that claims 5 points too much is told from it.
    claimed = np.minimum(confidence + 0.05, 1.0)
    assert error(claimed, right, bins(claimed)) > expected + 10 * spread


def test_excess_is_large_for_calibrated_and_small_for_wrong_confidences() -> None:
    rng = np.random.default_rng(5)
    confidence = rng.uniform(0.3, 0.9, 400)
    right = rng.random(400) < confidence
    printed = error(confidence, right, bins(confidence))
    assert 0.6 * printed < excess(confidence, right, bins(confidence)) < 1.6 * printed
    sure = np.full(400, 0.99)
    assert excess(sure, right, bins(sure)) < 1e-4 < error(sure, right, bins(sure))
    always = np.ones(10)
    assert excess(always, always < 0, bins(always)) == 0.0
    assert excess(always, always > 0, bins(always)) == 0.0


def test_confidences_that_all_agree_make_one_bin_of_equal_mass() -> None:
    confidence = np.full(30, 0.7)
    right = np.arange(30) < 12
    binned = mass_bins(confidence)
    assert len(set(binned.bin.tolist())) == 1
    assert error(confidence, right, binned) == pytest.approx(0.3)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 20))
def test_errors_are_between_0_and_1_and_forget_the_order(rows: list[tuple[float, bool]], number: int) -> None:
    confidence, right = np.array([c for c, _ in rows]), np.array([r for _, r in rows])
    for make in (bins, lambda c, k: bins(c, k, "left"), mass_bins):
        binned = make(confidence, number)
        there = error(confidence, right, binned)
        assert -1e-12 <= there <= 1 + 1e-12
        back = error(confidence[::-1], right[::-1], make(confidence[::-1], number))
        assert back == pytest.approx(there, abs=1e-12)
        assert influence(confidence, right, binned).shape == confidence.shape
        assert excess(confidence, right, binned) >= 0
