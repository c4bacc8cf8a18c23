"""The table of metrics: names, what each needs, values per image and their variance."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bench.metrics import METRICS, Outputs, confusions, metric, values
from bench.metrics.calibration import bins, error, mass_bins
from tests.metrics.examples import Array, drawn, outputs
from tests.metrics.simulated import FORMULAS, Answers

MEANS = ("top1", "top5", "nll", "nll-after", "brier", "brier-after")


def test_names() -> None:
    listed = "top1 top5 balanced macro-f1 nll nll-after brier brier-after ece ece-after ece-cal ece-mass aurc"
    assert list(METRICS) == listed.split()
    assert all(name == one.name for name, one in METRICS.items())
    better_high = {name for name, one in METRICS.items() if not one.lower_is_better}
    assert better_high == {"top1", "top5", "balanced", "macro-f1"}
    assert {one.unit for one in METRICS.values()} == {"%", "nats", ""}
    assert metric("ece") is METRICS["ece"]
    assert (metric("ece").scale, metric("nll").scale) == (100.0, 1.0)


def test_an_unknown_name_says_the_nearest() -> None:
    with pytest.raises(ValueError, match="no metric 'macro_f1'; did you mean macro-f1"):
        metric("macro_f1")
    with pytest.raises(ValueError, match=r"no metric 'x' \(metrics: top1, top5"):
        metric("x")


@pytest.mark.parametrize(("said", "meant"), [("f1", "macro-f1"), ("auc", "aurc"), ("accuracy", "top1")])
def test_other_words_name_the_metric(said: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {meant}"):
        metric(said)


def test_what_was_not_kept_cannot_be_told() -> None:
    out, _, _ = drawn()
    assert set(values(out)) == set(METRICS)
    bare = Outputs(out.labels, out.top1, out.K)
    assert set(values(bare)) == {"top1", "balanced", "macro-f1"}
    assert not METRICS["ece"].can(bare)
    with pytest.raises(ValueError, match="ece-after needs logp, lse_t, temperature, which this evaluation"):
        METRICS["ece-after"].value(bare)
    without_t = replace(out, temperature=None)
    assert set(METRICS) - set(values(without_t)) == {"nll-after", "brier-after", "ece-after"}


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_needs_exactly_what_it_names(name: str) -> None:
    out, _, _ = drawn()
    one = METRICS[name]
    kept = {field: getattr(out, field) for field in one.needs}
    assert one.value(Outputs(out.labels, out.top1, out.K, **kept)) == one.value(out)


def test_temperature_1_changes_nothing() -> None:
    got = values(drawn(2, temperature=1.0)[0])
    for name in ("nll", "brier", "ece"):
        assert got[f"{name}-after"] == pytest.approx(got[name], rel=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.6, 20.0])
def test_after_scaling_is_what_the_scaled_logits_give(temperature: float) -> None:
    out, logits, labels = drawn(3, temperature=temperature)
    scaled = values(outputs(logits / temperature, labels))
    for name in ("nll", "brier", "ece"):
        assert values(out)[f"{name}-after"] == pytest.approx(scaled[name], rel=1e-4), name


@pytest.mark.parametrize("K", [1, 2, 4])
def test_fewer_than_five_classes(K: int) -> None:
    out, _, _ = drawn(1, n=60, K=K)
    got = values(out)
    assert set(got) == set(METRICS)
    assert got["top5"] == 1.0
    assert all(np.isfinite(value) for value in got.values())


@pytest.mark.parametrize("name", METRICS)
def test_values_per_image_have_the_metric_as_their_mean(name: str) -> None:
    one = METRICS[name]
    seeds = [drawn(0)[0], drawn(0, temperature=0.7)[0]]
    table = one.per_image(seeds)
    assert table.shape == (2, 300)
    assert table.mean(1) == pytest.approx([one.value(out) for out in seeds])
    assert one.excess(seeds) == pytest.approx(np.mean([one.excess([out]) for out in seeds]))
    assert (one.excess(seeds) > 0) == name.startswith("ece")


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_images_changes_nothing(name: str) -> None:
    out, logits, labels = drawn(6)
    order = np.random.default_rng(0).permutation(len(labels))
    moved = outputs(logits[order], labels[order], out.temperature)
    table = METRICS[name].per_image([out])
    np.testing.assert_allclose(METRICS[name].per_image([moved]), table[:, order], rtol=1e-9, atol=1e-9)


def without(formula: Callable[[Answers], float], logp: Array, labels: Array) -> Array:
    """What leaving out each image changes: (n - 1) x (mean - value without it)."""
    n, K = logp.shape
    kept = ~np.eye(n, dtype=bool)
    each = np.array([formula(Answers(logp[k], np.eye(K)[labels[k]])) for k in kept])
    return np.asarray((n - 1) * (each.mean() - each))


@pytest.mark.parametrize("name", ["balanced", "macro-f1", "ece", "aurc", "nll", "brier"])
def test_values_per_image_move_as_leaving_an_image_out_does(name: str) -> None:
    """The formulas are those of the simulation, which share no code with the program.

    The method is overconfident, so that no bin's gap changes its sign with one image.
    """
    _, logits, labels = drawn(9, n=300, K=6)
    logits *= 4
    out = outputs(logits, labels)
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert METRICS[name].value(out) == pytest.approx(
        FORMULAS[name](Answers(logp, np.eye(6)[labels])), rel=1e-5
    )
    row = METRICS[name].per_image([out])[0]
    moves, left = row - row.mean(), without(FORMULAS[name], logp, labels)
    assert np.corrcoef(moves, left)[0, 1] > 0.99
    assert moves.std() == pytest.approx(left.std(), rel=0.03)
    if name == "macro-f1":  # it is the jackknife itself
        np.testing.assert_allclose(moves, left, rtol=1e-6, atol=1e-9)


def test_the_quirk_has_derivatives_too() -> None:
    """Weights as copies: all images twice, then one image once less, is a step of its weight."""
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.uniform(0.5, 1.0, 60), np.ones(6)])
    right = rng.random(66) < 0.6
    row = METRICS["ece-cal"].image_values(_of(confidence, right))
    copies = 400

    def less(i: int) -> float:
        times = np.full(66, copies)
        times[i] -= 1
        c, r = np.repeat(confidence, times), np.repeat(right, times)
        return error(c, r, bins(c, 10, "left"))

    whole = error(confidence, right, bins(confidence, 10, "left"))
    for i in (0, 20, 65):
        assert row[i] - whole == pytest.approx(66 * copies * (whole - less(i)), abs=2e-3)


def _of(confidence: Array, right: Array) -> Outputs:
    labels = (~right).astype(np.uint16)
    return Outputs(labels, np.zeros(len(labels), np.uint16), 2, logp=np.log(confidence)[:, None])


def test_a_perfect_method_has_equal_values() -> None:
    """So the statistics recognise outcomes that do not vary, as they do those of an accuracy."""
    labels = np.random.default_rng(0).integers(0, 7, 50)
    out = outputs(30.0 * np.eye(7)[labels], labels)
    for name in ("top1", "balanced", "macro-f1", "aurc"):
        row = METRICS[name].per_image([out])[0]
        assert (row == row[0]).all(), name


def test_single_images_of_a_class_are_compared_with_each_other() -> None:
    labels, top1 = np.arange(6), np.array([0, 1, 2, 3, 0, 0])
    row = METRICS["balanced"].per_image([Outputs(labels, top1, 6)])[0]
    assert row.mean() == pytest.approx(4 / 6)
    assert row.var() == pytest.approx(np.var([1, 1, 1, 1, 0, 0], ddof=1))


def test_seeds_need_the_same_images() -> None:
    with pytest.raises(ValueError, match="only if their test images are the same"):
        METRICS["top1"].per_image([drawn(0)[0], drawn(1)[0]])
    with pytest.raises(ValueError, match="at least one seed"):
        METRICS["top1"].per_image([])


def test_equal_mass_bins_stay_where_they_are() -> None:
    out, _, _ = drawn(2)
    confidence = out.confidence()
    row = METRICS["ece-mass"].per_image([out])[0]
    binned = mass_bins(confidence)
    gap = confidence - out.right
    sign = np.array([np.sign(gap[binned.bin == b].sum()) for b in binned.bin])
    np.testing.assert_allclose(row, sign * gap)


def test_confusions_count_an_image_once() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    first = Outputs(labels, np.array([1, 1, 0, 1, 0, 2], np.uint16), 3)
    second = Outputs(labels, np.array([1, 2, 0, 1, 1, 0], np.uint16), 3)
    rows = [tuple(row) for row in confusions([first, second])]
    # label, taken for, times, images, share of the predictions for images of the label
    assert rows == [(0, 1, 3, 2, 3 / 6), (0, 2, 1, 1, 1 / 6), (1, 0, 1, 1, 1 / 4), (2, 0, 1, 1, 1 / 2)]
    assert confusions([Outputs(labels, labels, 3)]) == []
