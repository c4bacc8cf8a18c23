"""Figures of reliability, confusion and risk show what bench.metrics computes, and say what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchError
from bench.metrics import METRICS, confusions, reliability, risk_coverage
from bench.report.figures import plot as figures
from bench.report.figures import risk
from bench.report.frame import load_results
from bench.report.outputs import stacked_outputs
from bench.stats import mean_interval
from tests.report import confident, made

KINDS = ("reliability", "confusion", "risk-coverage")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods whose logits are twice too large."""
    folder = tmp_path_factory.mktemp("results")
    return confident.grid(folder, {"zero-shot": 1.2, "safe": 1.6, "safe-a": 2.0}, n=240)


def outputs(results: Path, method: str) -> list:
    frame = load_results(results)
    return stacked_outputs(frame[frame["method"] == method].sort_values("seed")["path"].tolist())


def test_reliability_shows_bins_and_errors_before_and_after(results: Path) -> None:
    drawn = figures.plot(load_results(results), "reliability", methods=["safe"])
    before, after = (ax.get_title() for ax in drawn.figure.axes)
    every = outputs(results, "safe")
    for title, name in ((before, "ece"), (after, "ece-after")):
        error = 100 * np.mean([METRICS[name].value(one) for one in every])
        assert title.endswith(f"\nECE {error:.1f} %")
    assert "T = 2.00" in after and "T =" not in before
    for stage, is_after in (("before", False), ("after", True)):
        bins = drawn.points[drawn.points["series"] == stage]
        assert bins["share"].sum() == pytest.approx(100)
        pooled = (bins["share"] * bins["y"]).sum() / 100
        assert pooled == pytest.approx(100 * np.mean([one.right.mean() for one in every]))
        counts = sum(reliability(one, after=is_after).count for one in every)
        assert len(bins) == (counts > 0).sum()
        sure = (bins["share"] * bins["confidence"]).sum() / 100
        assert sure == pytest.approx(100 * np.mean([one.confidence(is_after).mean() for one in every]))


def test_a_fit_without_a_temperature_has_one_panel(results: Path, tmp_path: Path) -> None:
    confident.one(tmp_path, made.cell("safe", "birds", 16, 1), scaled=False)
    drawn = figures.plot(load_results(tmp_path), "reliability")
    assert len(drawn.figure.axes) == 1
    assert any("only before: safe" in note for note in drawn.notes)
    assert any("other test images alone" in note for note in drawn.notes)


def test_risk_is_that_of_the_curve_and_its_area_stands_in_the_legend(results: Path) -> None:
    drawn = figures.plot(load_results(results), "risk-coverage")
    every = outputs(results, "safe")
    own = drawn.points[drawn.points["series"] == "safe"].set_index("x")
    n = every[0].n
    for x in (10.0, 50.0, 100.0):
        expected = np.mean([risk_coverage(one)[1][round(n * x / 100) - 1] for one in every])
        assert own.loc[x, "y"] == pytest.approx(100 * expected)
        assert own.loc[x, "low"] <= own.loc[x, "y"] <= own.loc[x, "high"]
    whole = mean_interval(np.stack([~one.right for one in every]))
    assert own.loc[100.0, ["low", "high"]].tolist() == pytest.approx([100 * whole.low, 100 * whole.high])
    area = 100 * np.mean([METRICS["aurc"].value(one) for one in every])
    legend = [text.get_text().replace("\n", " ") for text in drawn.figure.legends[0].get_texts()]
    assert any(text.startswith("SAFE (AURC") and f"{area:.2f}" in text for text in legend)


def test_without_an_error_the_interval_is_that_of_the_answered_images(results: Path) -> None:
    """A risk of 0 among 24 of 240 images is as uncertain as 24 right answers, not as 240."""
    (one, *_) = outputs(results, "safe-a")
    sure = one.confidence() >= np.sort(one.confidence())[-24]
    perfect = type(one)(**{**vars(one), "top1": np.where(sure, one.labels, one.top1)})
    interval = risk.interval_at([perfect], 0.1)
    assert interval.estimate == 0 and interval.low == 0
    assert interval.high == pytest.approx(mean_interval(np.zeros((1, 24))).high)


def test_confusion_draws_the_most_frequent_pairs_with_their_intervals(results: Path, tmp_path: Path) -> None:
    confident.grid(tmp_path, {"safe": 2.0}, n=240, alike=0.9)
    drawn = figures.plot(load_results(tmp_path), "confusion")
    every = outputs(tmp_path, "safe")
    pairs = confusions(every)
    first = drawn.points.iloc[0]
    assert first["pair"] == "class 0 → class 1"
    assert len(drawn.points) == min(15, len(pairs))
    assert drawn.points["y"].tolist() == pytest.approx([100 * p.share for p in pairs[:15]])
    mine = every[0].labels == 0
    interval = mean_interval(np.stack([one.top1[mine] == 1 for one in every]))
    assert (first["low"], first["high"]) == pytest.approx((100 * interval.low, 100 * interval.high))
    assert [t.get_text() for t in drawn.figure.axes[0].get_yticklabels()] == drawn.points["pair"].tolist()


def test_confusion_of_several_methods_and_of_older_records(results: Path, tmp_path: Path) -> None:
    made.grid(tmp_path, ["zero-shot", "safe"], ["birds"], shots=(4,), n=60)
    drawn = figures.plot(load_results(tmp_path), "confusion")
    assert set(drawn.points["series"]) == {"zero-shot", "safe"}
    legend = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
    assert legend == ["Zero-shot CLIP", "SAFE"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_records_give_the_same_bytes_with_labels_and_units(results: Path, kind: str) -> None:
    frame = load_results(results)
    one, other = (figures.encode(figures.plot(frame, kind), "svg") for _ in range(2))
    assert one == other
    axes = figures.plot(frame, kind).figure.axes
    assert any(ax.get_xlabel().endswith("(%)") for ax in axes)
    assert all(ax.get_ylabel() for ax in axes[:1])


@pytest.mark.parametrize("kind", ["reliability", "risk-coverage"])
def test_records_without_probabilities_are_left_out_and_refused(tmp_path: Path, kind: str) -> None:
    confident.one(tmp_path, made.cell("tip-adapter", "birds", 16, 1), probabilities=False)
    with pytest.raises(BenchError, match=r"hold no probabilities: tip-adapter; `bench run .*--fresh"):
        figures.plot(load_results(tmp_path), kind)
    confident.one(tmp_path, made.cell("safe", "birds", 16, 1))
    drawn = figures.plot(load_results(tmp_path), kind)
    assert any("hold no probabilities: tip-adapter" in note for note in drawn.notes)
    assert set(drawn.points["series"]) & {"safe", "before"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_choice_that_is_left_open_is_refused(tmp_path: Path, kind: str) -> None:
    made.grid(tmp_path, ["safe"], ["birds", "fish"], shots=(1, 4), seeds=(1,), n=30)
    frame = load_results(tmp_path)
    with pytest.raises(BenchError, match=r"birds, fish.*--datasets"):
        figures.plot(frame, kind)
    with pytest.raises(BenchError, match=r"1 and 4 shots.*--shots"):
        figures.plot(frame, kind, datasets=["birds"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_prompts_are_drawn_and_what_is_left_out_is_said(kind: str, tmp_path: Path) -> None:
    for method, shots, prompts in (
        ("zero-shot", 0, "hand"),
        ("zero-shot", 0, "coop"),
        ("safe", 16, "hand"),
        ("safe-a", 16, "hand"),
    ):
        confident.one(tmp_path, made.cell(method, "birds", shots, 1, prompts=prompts))
    frame = load_results(tmp_path)
    usual = figures.plot(frame, kind).notes
    assert "Prompt set: hand." in usual
    assert "Left out: prompts coop of zero-shot; --prompts chooses others." in usual
    other = figures.plot(frame, kind, methods=["zero-shot", "safe"], prompts=["coop"]).notes
    assert "Prompt set: coop." in other
    lost = "Left out: safe, which has no records of unchanged settings with prompts coop here."
    assert lost in other and not any("safe-a" in note for note in other)


def test_of_two_methods_each_has_its_worst_pairs_in_turn(results: Path) -> None:
    drawn = figures.plot(load_results(results), "confusion", methods=["zero-shot", "safe-a"])
    shown = drawn.points.sort_values("x")["pair"].unique().tolist()
    worst = [
        max(confusions(outputs(results, method)), key=lambda one: (one.times, -one.label, -one.taken_for))
        for method in ("zero-shot", "safe-a")
    ]
    texts = [f"class {one.label} → class {one.taken_for}" for one in worst]
    assert len(shown) == 10 and shown[: len(set(texts))] == list(dict.fromkeys(texts))
    assert any("the worst of each method in turn" in note for note in drawn.notes)
