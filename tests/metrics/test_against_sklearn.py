"""The metrics against scikit-learn, and against examples that are computed by hand."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from bench.metrics import METRICS, Outputs, per_class, reliability, values
from tests.metrics.examples import drawn, outputs, told


@pytest.mark.parametrize("K", [2, 3, 12])
@pytest.mark.parametrize("after", [False, True])
def test_likelihood_and_brier(K: int, after: bool) -> None:
    out, logits, labels = drawn(K, K=K, temperature=1.7)
    p = softmax(logits / (1.7 if after else 1.0), axis=1)
    end = "-after" if after else ""
    assert METRICS[f"nll{end}"].value(out) == pytest.approx(sk.log_loss(labels, p, labels=range(K)), rel=1e-5)
    squares = ((p - np.eye(K)[labels]) ** 2).sum(1).mean()
    assert METRICS[f"brier{end}"].value(out) == pytest.approx(squares, rel=1e-5)
    if K == 2:  # the usual score of yes-or-no questions is half of it
        assert squares == pytest.approx(2 * sk.brier_score_loss(labels, p[:, 1]))


def test_classes() -> None:
    out, logits, labels = drawn(3, n=90, K=12)
    assert METRICS["macro-f1"].value(out) == pytest.approx(sk.f1_score(labels, out.top1, average="macro"))
    assert METRICS["balanced"].value(out) == pytest.approx(sk.balanced_accuracy_score(labels, out.top1))
    assert METRICS["top1"].value(out) == pytest.approx(sk.accuracy_score(labels, out.top1))
    five = sk.top_k_accuracy_score(labels, logits, k=5, labels=range(12))
    assert METRICS["top5"].value(out) == pytest.approx(five)
    without_rank = Outputs(out.labels, out.top1, 12, classes=out.classes)
    assert METRICS["top5"].value(without_rank) == pytest.approx(five)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_classes_without_an_image_or_without_a_prediction() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2])
    top1 = np.array([0, 3, 1, 1, 4, 0])  # 2 is never predicted, 3 and 4 never true, 5 neither
    out = Outputs(labels, top1, 6)
    f1 = sk.f1_score(labels, top1, average="macro", zero_division=0)
    assert METRICS["macro-f1"].value(out) == pytest.approx(f1)
    assert f1 == pytest.approx((1 / 2 + 4 / 5) / 5)
    balanced = sk.balanced_accuracy_score(labels, top1)
    assert METRICS["balanced"].value(out) == pytest.approx(balanced) == (1 / 2 + 2 / 3 + 0) / 3


def test_counts_by_class() -> None:
    out, _, labels = drawn(5, n=90, K=12)
    images, right, predicted = per_class(out.top1, out.labels, 12)
    table = sk.confusion_matrix(labels, out.top1, labels=range(12))
    assert images.tolist() == table.sum(1).tolist()
    assert right.tolist() == table.diagonal().tolist()
    assert predicted.tolist() == table.sum(0).tolist()


@pytest.mark.parametrize("after", [False, True])
def test_reliability_is_the_calibration_curve(after: bool) -> None:
    out, logits, _ = drawn(7, n=500, temperature=0.6)
    confidence = softmax(logits / (0.6 if after else 1.0), axis=1).max(1)
    accuracy, mean = calibration_curve(out.right, confidence, n_bins=15)
    curve = reliability(out, after)
    there = curve.count > 0
    assert np.isnan(curve.accuracy[~there]).all()
    np.testing.assert_allclose(curve.accuracy[there], accuracy)
    np.testing.assert_allclose(curve.confidence[there], mean, rtol=1e-6)
    counts, _ = np.histogram(confidence, np.linspace(0, 1, 16))  # no confidence lies on an edge here
    assert curve.count.tolist() == counts.tolist()
    ece = (counts[there] / 500 * np.abs(accuracy - mean)).sum()
    assert METRICS["ece-after" if after else "ece"].value(out) == pytest.approx(ece, rel=1e-5)


def test_equal_mass_bins_are_the_quantile_strategy() -> None:
    out, logits, _ = drawn(8, n=450)
    accuracy, mean = calibration_curve(
        out.right, softmax(logits, axis=1).max(1), n_bins=15, strategy="quantile"
    )
    assert METRICS["ece-mass"].value(out) == pytest.approx(np.abs(accuracy - mean).mean(), rel=1e-5)


def test_an_example_by_hand() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.32, 0.58], [0.2, 0.18, 0.62]])
    out = outputs(np.log(p), np.array([0, 1, 2, 0]), temperature=0.5)
    got = values(out)
    assert got["top1"] == 0.5
    assert got["top5"] == 1.0
    # class 0: one of two right, class 1: none of one, class 2: one of one
    assert got["balanced"] == pytest.approx((1 / 2 + 0 + 1) / 3)
    # class 0: 2 images and 2 predictions, one in common; class 1: 1 and 0; class 2: 1 and 2, one in common
    assert got["macro-f1"] == pytest.approx((2 / 4 + 0 + 2 / 3) / 3)
    assert got["nll"] == pytest.approx(-np.log([0.7, 0.4, 0.58, 0.2]).mean(), rel=1e-6)
    brier = [0.09 + 0.04 + 0.01, 0.25 + 0.36 + 0.01, 0.01 + 0.1024 + 0.1764, 0.64 + 0.0324 + 0.3844]
    assert got["brier"] == pytest.approx(np.mean(brier), rel=1e-6)
    # T = 0.5 squares the probabilities: 0.49, 0.04, 0.01 over 0.54, and so on
    sharp = p**2 / (p**2).sum(1, keepdims=True)
    assert got["nll-after"] == pytest.approx(-np.log(sharp[range(4), [0, 1, 2, 0]]).mean(), rel=1e-5)
    # 0.7 right, 0.62 wrong, 0.58 right, 0.5 wrong: each in a bin of its own, of a width of a fifteenth
    assert got["ece"] == pytest.approx((0.3 + 0.62 + 0.42 + 0.5) / 4, rel=1e-6)
    assert got["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)


def test_a_method_that_is_always_sure() -> None:
    out = told([1.0] * 10, [True] * 7 + [False] * 3)
    assert METRICS["ece"].value(out) == pytest.approx(0.3)
    assert METRICS["ece-mass"].value(out) == pytest.approx(0.3)
    assert (
        METRICS["ece-cal"].value(out) == 0.0
    )  # the quirk of protocol 24.5: nothing is in the last bin's means
    assert METRICS["aurc"].value(out) == pytest.approx(0.3)
