"""Records that tell a metric in part: some seeds, no seed, imported ones, temperatures at a bound."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from bench.errors import BenchError
from bench.metrics import METRICS, TEMPERATURES
from bench.records import store
from bench.records.types import EvaluationRecord
from bench.report import measures
from bench.report.compare import compare
from bench.report.figures import plot as figures
from bench.report.frame import load_results
from bench.report.html import classes
from bench.report.html.page import report
from bench.report.outputs import stacked_outputs
from bench.report.table import Row, Score
from bench.report.tables import table
from bench.stats import Interval, mean_interval
from tests.report.confident import one
from tests.report.made import cell

ELSEWHERE = {"prompts": "imported"}


def seeds_of(folder: Path, method: str = "safe", told: tuple[int, ...] = (1,), **more: object) -> None:
    """Three seeds, of which some keep probabilities."""
    for seed in (1, 2, 3):
        one(folder, cell(method, "birds", 16, seed, **more), probabilities=seed in told)


def older(path: Path, least: int) -> None:
    """Make a record an older one, in which the largest class that occurs is ``least``."""
    record = store.read(path)
    assert isinstance(record, EvaluationRecord)
    arrays = store.predictions(path)
    labels = np.minimum(arrays["labels"], 6)
    top1 = np.minimum(arrays["top1"], least)
    kept = store.write_predictions(path, {"top1": top1, "labels": labels, "top5": np.stack([top1] * 5, 1)})
    share = float((top1 == labels).mean())
    store.put(path, structs.replace(record, predictions=kept, top1=share, top5=share, per_class=None))


@pytest.mark.parametrize("name", ["balanced", "macro-f1"])
def test_seeds_of_older_records_that_saw_other_classes(tmp_path: Path, name: str) -> None:
    for method in ("safe", "coop"):
        for seed in (1, 2, 3):
            older(one(tmp_path, cell(method, "birds", 16, seed), probabilities=False), 7 if seed == 1 else 6)
    frame = load_results(tmp_path)
    kept = stacked_outputs(frame[frame["method"] == "safe"]["path"].tolist())
    assert {o.K for o in kept} == {8}
    assert any(e.best for r in table(frame, metric=name).rows for e in r.entries.values())
    assert compare(frame, "safe", "coop", metric=name).verdict
    assert "<h4>Hardest classes" in report(frame)


def test_a_figure_shows_the_seeds_that_keep_probabilities(tmp_path: Path) -> None:
    seeds_of(tmp_path)
    seeds_of(tmp_path, "coop", told=())
    frame = load_results(tmp_path)
    for kind in ("reliability", "risk-coverage"):
        drawn = figures.plot(frame, kind)
        assert "safe: seed 1 of 1, 2 and 3 keeps probabilities." in drawn.notes
        assert any("hold no probabilities: coop" in note for note in drawn.notes)
        assert any("cover other test images alone" in note for note in drawn.notes)


def test_a_comparison_takes_the_seeds_that_tell(tmp_path: Path) -> None:
    seeds_of(tmp_path, told=(1, 2))
    seeds_of(tmp_path, "coop", told=(1, 3))
    frame = load_results(tmp_path)
    got = compare(frame, "safe", "coop", metric="ece")
    (pair,) = got.pairs
    assert (pair.seeds, pair.mute) == ((1,), ((3,), (2,)))
    said = " ".join(got.table.notes)
    assert "safe on birds at 16 shots: seeds 1 and 2 of 1, 2 and 3 keep what the expected calib" in said
    assert "coop on birds at 16 shots: seeds 1 and 3 of 1, 2 and 3 keep" in said
    assert re.search(r"`bench run --methods safe,coop .*--results \S+`", said)
    assert compare(frame, "safe", "coop").pairs[0].seeds == (1, 2, 3), "every record tells its accuracy"


def test_commands_that_mend_name_the_folder_and_the_choice(tmp_path: Path) -> None:
    for method in ("safe", "coop"):
        seeds_of(tmp_path, method, told=())
    frame = load_results(tmp_path)
    with pytest.raises(BenchError, match=r"`bench run --methods safe,coop .*--fresh --results .*` makes"):
        compare(frame, "safe", "coop", metric="nll")


def test_imports_are_mended_by_an_import(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        one(tmp_path, cell("mine", "birds", 16, seed, **ELSEWHERE), probabilities=False, imported="mine.csv")
        one(tmp_path, cell("safe", "birds", 16, seed))
    frame = load_results(tmp_path)
    (note,) = [n for n in table(frame, metric="ece").notes if n.startswith("Imported predictions")]
    assert "mine at 16 shots on birds" in note and "import them again with p_CLASS columns" in note
    (note,) = [n for n in table(frame, metric="ece-after").notes if n.startswith("Imported predictions")]
    assert "An import has no temperature" in note and "again" not in note
    assert not any("--fresh" in n for n in table(frame, metric="ece").notes)
    with pytest.raises(BenchError, match="mine: They were imported without probabilities") as caught:
        compare(frame, "safe", "mine", metric="ece")
    assert "--fresh" not in str(caught.value)
    drawn = figures.plot(frame, "reliability")
    assert any("imported without probabilities: mine; import them again" in n for n in drawn.notes)
    assert any("mine was fitted elsewhere" in n for n in compare(frame, "safe", "mine").table.notes)
    assert not any("elsewhere" in n for n in compare(frame, "mine", "safe", metric="top1").table.notes[:1])


def test_imported_rows_pass_every_choice_of_prompts(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        one(tmp_path, cell("mine", "birds", 16, seed, **ELSEWHERE), imported="mine.csv")
        for prompts in ("hand", "cupl"):
            one(tmp_path, cell("safe", "birds", 16, seed, prompts=prompts))
    frame = load_results(tmp_path)
    assert frame["seconds"].isna().tolist() == frame["imported"].tolist()
    printed = table(frame, prompts=["hand"])
    assert [(r.method, r.key["prompts"]) for r in printed.rows] == [("mine", "imported"), ("safe", "hand")]
    assert {r.method for r in table(frame, prompts=["imported"]).rows} == {"mine"}
    assert len(table(frame, methods=["mine"], prompts=["hand"]).rows) == 1
    with pytest.raises(BenchError, match="no records of prompts 'hnd'"):
        table(frame, prompts=["hnd"])
    assert compare(frame, "safe", "mine", prompts="hand").pairs[0].seeds == (1, 2, 3)
    with pytest.raises(BenchError, match="records of several prompts"):
        compare(frame, "safe", "mine")
    with pytest.raises(BenchError, match="mine has no records with prompts 'hand'"):
        compare(frame, "safe", "mine@hand", prompts="hand")


@pytest.mark.parametrize("bound", TEMPERATURES)
def test_a_temperature_at_its_bound_is_said(tmp_path: Path, bound: float) -> None:
    for seed in (1, 2, 3):
        one(tmp_path, cell("safe", "birds", 16, seed), temperature=bound if seed == 2 else 1.5)
        one(tmp_path, cell("coop", "birds", 16, seed))
    frame = load_results(tmp_path)
    said = f"The temperature of some fits is at its bound of {bound:g}, because validation could not fix it: "
    assert said + "safe at 16 shots on birds." in table(frame, metric="ece-after").notes
    assert (
        said + "safe on birds at 16 shots." in compare(frame, "coop", "safe", metric="nll-after").table.notes
    )
    assert said + "safe at 16 shots." in figures.plot(frame, "reliability").notes
    assert not any("bound" in n for n in table(frame, metric="ece").notes)


def test_a_temperature_that_was_not_fitted_has_no_panel(tmp_path: Path) -> None:
    one(tmp_path, cell("zero-shot", "birds", 0, 0), temperature=1.0)
    for seed in (1, 2):
        one(tmp_path, cell("safe", "birds", 16, seed), temperature=1.0 if seed == 1 else 1.5)
    drawn = figures.plot(load_results(tmp_path), "reliability")
    assert len(drawn.figure.axes) == 3, "safe has both, because one of its seeds was scaled"
    assert any(n.startswith("No temperature was fitted (T = 1)") and "zero-shot" in n for n in drawn.notes)
    assert "It is 1 for methods without validation images" in METRICS["ece-after"].convention


def test_titles_lie_inside_the_figure(tmp_path: Path) -> None:
    """Temperatures that differ between seeds make the longest titles."""
    for method in ("clip-adapter", "tip-adapter-f", "safe-a", "coop"):
        for seed, temperature in ((1, 0.1), (2, 97.25)):
            one(tmp_path, cell(method, "birds", 16, seed), temperature=temperature, n=120)
    figure = figures.plot(load_results(tmp_path), "reliability").figure
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    boxes = [ax.title.get_window_extent() for ax in figure.axes]
    assert all(ax.get_title().count("\n") >= 2 for ax in figure.axes)
    for box in boxes:
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
    for left, right in pairwise(boxes):
        assert left.x1 < right.x0 or left.y0 > right.y1, "titles of one line do not touch"


def test_names_of_metrics_and_small_differences() -> None:
    assert measures.chosen("accuracy") is measures.chosen("TOP1") is measures.ACCURACY
    assert measures.chosen("Macro_F1") is METRICS["macro-f1"] and measures.chosen("ECE") is METRICS["ece"]
    assert METRICS["brier"].digits == METRICS["brier-after"].digits == 4
    assert measures.gap(METRICS["nll"], -0.00004) == "+0.0000"
    assert measures.gap(METRICS["brier"], -0.00126) == "-0.0013"
    assert measures.size(METRICS["nll"], -0.00126) == "0.0013 nats"
    assert measures.gap(METRICS["top1"], 0.0126) == "+1.26"
    whole = Interval(0.0, -0.00001, 0.00001, (), mean_interval(np.ones((2, 3))).parts)
    assert measures.span(METRICS["nll"], whole) == "+0.0000 to +0.0000"


def test_the_best_method_is_not_one_lucky_seed() -> None:
    full = Row(("full",), {"birds": Score(60.0, paths=("a", "b"))})
    lucky = Row(("lucky",), {"birds": Score(90.0, partial=True, paths=("c",))})
    absent = Row(("absent",), {"birds": Score(91.0, paths=("d",))}, absent=(2, 3))
    oracle = Row(("oracle",), {"birds": Score(95.0, paths=("e",))}, oracle=True)
    assert classes._best([lucky, absent, oracle, full], "birds") is full
    assert classes._best([lucky, oracle], "birds") is lucky
