"""What outputs may hold, and the confidences that are read from them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from bench.metrics import Outputs
from tests.metrics.examples import drawn, outputs


@pytest.mark.parametrize("temperature", [0.02, 0.6, 1.0, 3.0])
def test_confidence_is_that_of_the_softmax(temperature: float) -> None:
    out, logits, _ = drawn(4, temperature=temperature)
    np.testing.assert_allclose(out.confidence(), softmax(logits, 1).max(1), rtol=1e-6)
    np.testing.assert_allclose(out.confidence(after=True), softmax(logits / temperature, 1).max(1), rtol=2e-5)


def test_a_confidence_near_1_is_not_rounded_to_1() -> None:
    """A gap of 25 between logits leaves 1.4e-11, which float32 could not tell from 1 as a probability."""
    out = outputs(np.array([[25.0, 0.0], [60.0, 0.0]]), np.array([0, 0]), temperature=0.1)
    assert 1 - out.confidence()[0] == pytest.approx(np.exp(-25), rel=1e-3)
    assert out.confidence(after=True).max() <= 1.0


BAD: list[tuple[dict[str, Any], str]] = [
    ({"labels": np.zeros((3, 2), int)}, "one label per test image"),
    ({"labels": np.zeros(0, int)}, "one label per test image"),
    ({"top1": np.zeros(4, int)}, r"top1 needs one value for each of 300 labels, not \(4,\)"),
    ({"true_logp": np.zeros(4)}, "true_logp needs one value"),
    ({"classes": np.zeros((4, 5), int)}, "classes needs a row for each of 300 labels"),
    ({"classes": np.zeros((300, 3), int)}, "need one shape"),
    ({"labels": np.full(300, 12)}, "labels holds 12 to 12, but the test set has the classes 0 to 11"),
    ({"top1": np.full(300, -1)}, "top1 holds -1"),
    ({"classes": np.full((300, 5), -2)}, "classes holds -2"),
    ({"rank": np.full(300, 12)}, "rank holds 12"),
    ({"top1": np.zeros(300)}, "top1 needs whole numbers, not float64"),
    ({"squares": np.full(300, np.nan)}, "squares holds a NaN"),
    ({"true_logp": np.full(300, 0.5)}, "probability above 1"),
    ({"logp": np.full((300, 5), 0.5)}, "probability above 1"),
    ({"temperature": 0.0}, "a temperature is a positive number, not 0.0"),
    ({"temperature": float("nan")}, "a temperature is a positive number"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_cannot_be_true_is_refused(change: dict[str, Any], message: str) -> None:
    out, _, _ = drawn()
    with pytest.raises(ValueError, match=message):
        replace(out, **change)


def test_what_was_not_kept_is_named() -> None:
    out, _, _ = drawn()
    bare = Outputs(out.labels, out.top1, out.K)
    with pytest.raises(ValueError, match="kept no logp; run it again"):
        bare.confidence()
    with pytest.raises(ValueError, match="kept no temperature; run it again"):
        replace(out, temperature=None).confidence(after=True)
