"""Tables and comparisons of other metrics than accuracy."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.metrics import METRICS
from bench.records import store
from bench.records.types import EvaluationRecord
from bench.report import measures
from bench.report.compact import pack
from bench.report.compare import compare
from bench.report.frame import load_results
from bench.report.outputs import outputs_of, stacked_outputs
from bench.report.table import MISSING, Row, Table
from bench.report.tables import table
from bench.stats import average_difference_interval, not_told_from_best
from tests.report import confident, made, synthetic
from tests.report.confident import one
from tests.report.made import cell

SHARP = {"zero-shot": 1.0, "safe": 2.0, "coop": 1.9, "tip-adapter": 1.2}


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return load_results(confident.grid(tmp_path_factory.mktemp("sure"), SHARP))


def row(printed: Table, method: str, shots: int = 16) -> Row:
    (hit,) = [r for r in printed.rows if r.method == method and r.shots == shots]
    return hit


def values(frame: pd.DataFrame, method: str, metric: str) -> np.ndarray:
    """The values behind a row, computed without the code of tables."""
    rows = frame[frame["method"] == method].sort_values("seed")
    return METRICS[metric].per_image([outputs_of(path) for path in rows["path"]])


@pytest.mark.parametrize("name", [name for name in METRICS if name != "top1"])
def test_numbers_and_marks_are_those_of_the_metric(frame: pd.DataFrame, name: str) -> None:
    metric = METRICS[name]
    printed = table(frame, metric=name)
    few = [m for m in SHARP if m != "zero-shot"]
    expected = {m: values(frame, m, name) for m in few}
    for method, behind in expected.items():
        entry = row(printed, method).entries["birds"]
        assert entry.value == pytest.approx(metric.scale * behind.mean())
        assert entry.text == f"{metric.scale * behind.mean():.{metric.digits}f}"
    sign = -1 if metric.lower_is_better else 1
    best = max(expected, key=lambda m: round(sign * metric.scale * expected[m].mean(), metric.digits))
    assert row(printed, best).entries["birds"].best
    tied = not_told_from_best(
        {m: [sign * expected[m]] for m in few}, bounds=(-np.inf, np.inf)
    )  # the interval of a difference contains 0 or not, wherever it is cut
    marked = {m for m in few if row(printed, m).entries["birds"].tied}
    assert marked == {m for m in tied if not row(printed, m).entries["birds"].best}


def test_the_lowest_is_best_where_lower_is_better(frame: pd.DataFrame) -> None:
    printed = table(frame, metric="nll")
    numbers = {m: row(printed, m).entries["birds"] for m in SHARP if m != "zero-shot"}
    best = min(numbers, key=lambda m: numbers[m].value or 0.0)
    assert [m for m in numbers if numbers[m].best] == [best]
    assert printed.title == "Few-shot negative log-likelihood (nats)"
    said = " | ".join(printed.notes)
    assert "The numbers are in nats: the negative log-likelihood on" in said and "lower is better" in said
    assert "Bold: the best (lowest) number" in said


def test_the_convention_stands_under_the_table(frame: pd.DataFrame) -> None:
    printed = table(frame, metric="ece")
    assert printed.title == "Few-shot expected calibration error (%)"
    assert "ECE has 15 bins of equal width, closed on the right" in " | ".join(printed.notes)
    assert "temperature" in " | ".join(table(frame, metric="ece-after").notes)


def test_accuracy_says_nothing_of_metrics(frame: pd.DataFrame) -> None:
    plain, named = table(frame), table(frame, metric="top1")
    for form in ("console", "md", "latex", "csv", "html", "json"):
        assert plain.text(form) == named.text(form)
    assert "metric" not in json.loads(plain.text("json"))


def test_exports_name_metric_and_unit(frame: pd.DataFrame) -> None:
    printed = table(frame, metric="nll")
    whole = json.loads(printed.text("json"))
    assert whole["metric"] == {
        "name": "nll",
        "title": "negative log-likelihood",
        "unit": "nats",
        "lower_is_better": True,
    }
    (first, *_) = csv.DictReader(io.StringIO(printed.text("csv")))
    assert (first["metric"], first["unit"]) == ("nll", "nats") and float(first["birds"]) > 0
    compared = json.loads(compare(frame, "safe", "coop", metric="ece").table.text("json"))
    assert compared["metric"]["unit"] == "%"


def test_the_frame_has_every_metric(frame: pd.DataFrame) -> None:
    assert {*METRICS, "temperature", "per_class"} <= set(frame.columns)
    assert (frame["top1"] == frame["accuracy"]).all() and (frame["temperature"] == 2.0).all()
    first = frame.iloc[0]
    outputs = outputs_of(first["path"])
    assert measures.filled(frame, METRICS["ece"])["value"].iloc[0] == pytest.approx(
        100 * METRICS["ece"].value(outputs)
    )
    assert list(first["per_class"].images) == np.bincount(outputs.labels, minlength=outputs.K).tolist()


def test_old_records_have_a_dash_and_say_so(tmp_path: Path) -> None:
    synthetic.grid(tmp_path, {"zero-shot": 0.5, "safe": 0.6, "coop": 0.4}, datasets=("ants", "bees"))
    old = load_results(tmp_path)
    assert old["ece"].isna().all() and old["balanced"].isna().all() and old["temperature"].isna().all()
    again = "`bench run --methods zero-shot,coop,safe --datasets ants,bees --prompts hand --shots 1,16 "
    again += f"--backbone toy-rn --seeds 1,2,3 --fresh --results {tmp_path}` makes them again"
    with pytest.raises(BenchError, match=re.escape(again)):
        table(old, metric="ece")
    (tmp_path / "packed").mkdir()
    pack(tmp_path, tmp_path / "packed")
    beside = f"--seeds 1,2,3 --results {tmp_path}/packed-again` makes them again"
    with pytest.raises(BenchError, match=re.escape(beside)):
        table(load_results(tmp_path / "packed"), metric="ece")


def test_some_old_records_have_a_dash_and_say_so(tmp_path: Path) -> None:
    synthetic.grid(tmp_path, {"zero-shot": 0.5, "safe": 0.6, "coop": 0.4}, datasets=("ants", "bees"))
    old = load_results(tmp_path)
    old.loc[old["method"] == "zero-shot", "ece"] = 12.5
    printed = table(old, metric="ece")
    dashes = {e.text for r in printed.rows if r.shots for e in r.entries.values()}
    assert dashes == {MISSING}
    (note,) = [n for n in printed.notes if "do not keep what" in n]
    assert "expected calibration error" in note and "--fresh" in note and "all rows at 1 and 16 shots" in note
    assert not any(n.startswith("Incomplete") for n in printed.notes), "the cells are there"
    balanced = table(old, metric="balanced")
    # 20 images of each class: the balanced accuracy is the accuracy.
    assert row(balanced, "safe", 1).entries["ants"].text == "60.00"
    assert row(balanced, "safe", 1).entries["ants"].best


def test_top5_of_old_records_can_be_compared(tmp_path: Path) -> None:
    made.grid(tmp_path, ("safe", "tip-adapter"), datasets=("birds",), shots=(4,))
    old = load_results(tmp_path)
    assert row(table(old, metric="top5"), "safe", 4).entries["birds"].best
    assert outputs_of(old["path"].iloc[0]).classes is not None


def test_numbers_without_images_have_no_marks(tmp_path: Path) -> None:
    for method in ("safe", "coop"):
        for seed in (1, 2, 3):
            path = one(tmp_path, cell(method, "birds", 16, seed), probabilities=method == "safe")
            if method == "coop":
                stated = store.read(path)
                assert isinstance(stated, EvaluationRecord)
                record = {name: getattr(stated, name) for name in stated.__struct_fields__}
                store.put(path, EvaluationRecord(**{**record, "metrics": {"ece": 0.125}}))
    partly = load_results(tmp_path)
    printed = table(partly, metric="ece")
    assert row(printed, "coop").entries["birds"].text == "12.50"
    assert not any(e.best or e.tied for r in printed.rows for e in r.entries.values())
    (note,) = [n for n in printed.notes if n.startswith("No marks on birds")]
    assert "coop at 16 shots" in note and "safe" not in note
    with pytest.raises(BenchError, match="records of coop do not keep what it needs"):
        compare(partly, "safe", "coop", metric="ece")
    assert any(e.best for r in table(partly, metric="balanced").rows for e in r.entries.values())


def test_seeds_that_cannot_tell_are_named(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        one(tmp_path, cell("safe", "birds", 16, seed), probabilities=seed == 1)
    printed = table(load_results(tmp_path), metric="nll")
    entry = row(printed, "safe").entries["birds"]
    assert entry.text.endswith("(1/3)") and len(entry.untold) == 2
    assert any(
        "do not keep what the negative log-likelihood needs: those of safe at 16 shots on birds "
        "(seeds 2 and 3)." in n
        for n in printed.notes
    )
    assert not any(n.startswith("Fewer seeds") for n in printed.notes), "the seeds are there"
    one(tmp_path, cell("safe", "fish", 16, 4))
    notes = table(load_results(tmp_path), metric="nll").notes
    assert "Fewer seeds: safe has seeds 1, 2 and 3, but not 4, on birds at 16 shots." in notes


@pytest.mark.parametrize("which", ["1", "3"])
def test_published_numbers_are_accuracies(frame: pd.DataFrame, which: str) -> None:
    with pytest.raises(BenchError, match="--metric ece: published numbers are accuracies"):
        table(frame, which, against="paper", metric="ece")
    with pytest.raises(BenchError, match="--metric ece: table 2"):
        table(frame, "2", metric="ece")
    with pytest.raises(BenchError, match="did you mean ece"):
        table(frame, metric="ecee")


def test_comparisons_by_a_metric(frame: pd.DataFrame) -> None:
    by_nll = compare(frame, "safe", "tip-adapter", metric="nll")
    first, second = values(frame, "safe", "nll"), values(frame, "tip-adapter", "nll")
    expected = average_difference_interval([(first, second)], bounds=(0.0, np.inf))
    assert by_nll.difference == expected
    word = "better" if expected.estimate < 0 else "worse"
    assert by_nll.verdict.startswith(
        f"By negative log-likelihood (lower is better), safe is {word} than tip-adapter "
        f"by {abs(expected.estimate):.4f} nats on birds at 16 shots"
    )
    (line,) = by_nll.table.rows
    assert line.entries["safe"].text == f"{first.mean():.3f}"
    assert "McNemar" not in by_nll.table.columns
    said = " | ".join(by_nll.table.notes)
    assert "Differences and 95 % intervals are in nats" in said and "McNemar" not in said


def test_what_a_difference_can_be_at_most(frame: pd.DataFrame) -> None:
    assert measures.widest(METRICS["top1"]) == 1 and measures.widest(METRICS["brier"]) == 2
    assert measures.widest(METRICS["nll"]) == np.inf
    brier = compare(frame, "safe", "coop", metric="brier")
    assert -2 <= brier.difference.low <= brier.difference.high <= 2
    assert "points" not in brier.verdict


def test_the_ablation_of_a_metric(tmp_path: Path) -> None:
    made.sweep(tmp_path, targets=("birds",))
    printed = table(load_results(tmp_path), "ablation", metric="macro-f1")
    assert printed.title == "Ablation: macro-F1 (%)"
    start, *others = printed.rows
    assert start.entries["change"].text == "start"
    for other in others:
        behind = [measures.outcomes(r.entries["birds"].paths, METRICS["macro-f1"]) for r in (other, start)]
        interval = average_difference_interval([(behind[0], behind[1])])
        assert other.entries["change"].text == f"{100 * interval.estimate:+.2f}"
        assert other.entries["interval"].text == f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"


def test_changes_of_numbers_without_images_are_not_known(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        for prompts in ("hand", "cupl"):
            path = one(tmp_path, cell("safe", "birds", 16, seed, prompts=prompts), probabilities=False)
            stated = store.read(path)
            assert isinstance(stated, EvaluationRecord)
            record = {name: getattr(stated, name) for name in stated.__struct_fields__}
            store.put(path, EvaluationRecord(**{**record, "metrics": {"nll": 0.25}}))
    printed = table(load_results(tmp_path), "ablation", metric="nll")
    start, other = printed.rows
    assert (start.entries["birds"].text, other.entries["birds"].text) == ("0.250", "0.250")
    assert other.entries["change"].text == other.entries["p"].text == MISSING
    assert any(n.startswith("No change for safe") for n in printed.notes)


def test_shifted_test_sets_by_a_metric(tmp_path: Path) -> None:
    made.sweep(tmp_path)
    printed = table(load_results(tmp_path), "3", metric="balanced")
    assert printed.title == "Shifted test sets of birds: balanced accuracy (%)"
    (line,) = printed.rows
    behind = measures.outcomes(line.entries["birds-v2"].paths, METRICS["balanced"])
    assert line.entries["birds-v2"].value == pytest.approx(100 * behind.mean())


def test_an_infinite_value_is_no_comparison(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = frame[frame["method"] == "safe"]["path"].tolist()
    every = stacked_outputs(paths)
    true = np.array(every[0].true_logp)
    true[0] = -np.inf
    broken = [replace(every[0], true_logp=true), *every[1:]]
    monkeypatch.setattr(measures, "stacked_outputs", lambda _: broken)
    with pytest.raises(BenchError, match="infinite"):
        measures.outcomes(paths, METRICS["nll"])
