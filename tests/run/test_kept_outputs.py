"""A run keeps of every image what metrics need: with the temperature of its fit, and the logits if asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from scipy.special import log_softmax

from bench.records import outcomes, places, store
from bench.records.types import EvaluationRecord, FitRecord
from tests.run.conftest import COUNTS, Bench, of_type, same_arrays

METHODS = ("--methods", "zero-shot,tip-adapter")


def evaluation(results: Path, method: str) -> tuple[Path, EvaluationRecord]:
    found = [
        (path, record)
        for path, record in store.every(results)
        if isinstance(record, EvaluationRecord) and record.cell.method == method
    ]
    assert len(found) == 1
    return found[0]


def test_logits_are_kept_and_everything_agrees_with_them(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", *METHODS, "--keep-logits", "--results", tmp_path)
    assert done.exit_code == 0, done.output
    assert "logits take at most" in done.output
    for method in ("zero-shot", "tip-adapter"):
        path, record = evaluation(tmp_path, method)
        kept = store.arrays(path, record)
        logits, labels = kept["logits"].astype(float), kept["labels"].astype(int)
        assert logits.shape == (3 * COUNTS["test"], 3)
        logp = log_softmax(logits, 1)
        rows = np.arange(len(labels))
        np.testing.assert_allclose(kept["true_logp"], logp[rows, labels], atol=0.05)  # fp16 of about 30
        T = record.temperature
        assert T is not None and {r.key: r.temperature for r in of_type(tmp_path, FitRecord)}[record.fit] == T
        assert record.metrics["nll"] == pytest.approx(-logp[rows, labels].mean(), abs=0.05)
        at_T = log_softmax(logits / T, 1)[rows, labels]
        assert record.metrics["nll-after"] == pytest.approx(-at_T.mean(), abs=0.05 / T)
        assert record.metrics["top1"] == record.top1
        fit = store.fit_of(path, record)
        assert fit is not None and ("temperature" in fit.seconds) == (method == "tip-adapter")
        assert fit.cost == pytest.approx(fit.seconds["prepare"] + fit.seconds["fit"])
        assert record.per_class is not None and record.per_class.images == [COUNTS["test"]] * 3


@pytest.mark.parametrize("how", [("--jobs", "2"), ("--jobs", "1", "--no-dense-cache")])
def test_logits_are_kept_in_two_processes_and_in_one_pass(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: tuple[str, ...]
) -> None:
    arguments = ("--methods", "zero-shot,safe", "--keep-logits", "--results")
    assert bench("run", *arguments, tmp_path / "one").exit_code == 0
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "features"))
    done = bench("run", *arguments, tmp_path / "other", *how)
    assert done.exit_code == 0, done.output
    for method in ("zero-shot", "safe"):
        path, record = evaluation(tmp_path / "one", method)
        here, other = store.arrays(path, record), store.arrays(*evaluation(tmp_path / "other", method))
        assert [*here] == [*other] and "logits" in other
        for name, x in here.items():
            same_arrays(x, other[name], name)


def test_a_run_says_which_records_lack_logits(bench: Bench, tmp_path: Path) -> None:
    assert bench("run", *METHODS, "--results", tmp_path).exit_code == 0
    again = bench("run", *METHODS, "--keep-logits", "--results", tmp_path)
    assert again.exit_code == 0
    assert "2 recorded evaluations have no logits" in again.output and "--fresh" in again.output
    assert bench("run", *METHODS, "--keep-logits", "--fresh", "--results", tmp_path).exit_code == 0
    assert "have no logits" not in bench("run", *METHODS, "--keep-logits", "--results", tmp_path).output


def test_a_fit_from_before_temperatures_leaves_out_what_needs_one(bench: Bench, tmp_path: Path) -> None:
    methods = ("--methods", "tip-adapter")
    assert bench("run", *methods, "--results", tmp_path).exit_code == 0
    path, record = evaluation(tmp_path, "tip-adapter")
    assert "lse_t" in record.outputs
    fit_path = places.fit_path(path.parent, record.fit)
    fit = store.fit(fit_path, record.fit)
    assert fit is not None and fit.temperature is not None
    store.put(fit_path, replace(fit, temperature=None))
    path.unlink()
    assert bench("run", *methods, "--results", tmp_path).exit_code == 0
    _, record = evaluation(tmp_path, "tip-adapter")
    assert record.temperature is None and "ece" in record.metrics and "ece-after" not in record.metrics
    assert {"lse_t", "squares_t"}.isdisjoint(record.outputs) and {*record.outputs} < {*outcomes.OUTPUTS}


def test_a_sweep_shares_the_temperature_of_its_fit(bench: Bench, tmp_path: Path) -> None:
    arguments = ("--methods", "safe", "--results", tmp_path)
    assert bench("run", *arguments).exit_code == 0
    before = [r.temperature for r in of_type(tmp_path, FitRecord)]
    assert bench("run", *arguments, "--sweep", "safe.beta=0.1,0.9").exit_code == 0
    swept = of_type(tmp_path, EvaluationRecord)
    assert len(swept) >= 2 and {r.temperature for r in swept} == {*before}
    other = tmp_path / "other"
    assert bench("run", *arguments[:2], "--results", other, "--set", "safe.beta=0.9").exit_code == 0
    assert [r.temperature for r in of_type(other, FitRecord)] == before, "no user's value moves it"
