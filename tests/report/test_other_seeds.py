"""Methods with other seeds than most are named wherever numbers are compared: figures and statistics."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report.figures import plot
from bench.report.frame import load_results
from bench.report.html import standing
from bench.report.html.details import Details
from bench.report.marks import most_common
from bench.report.tables import table
from tests.report import made


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods with seeds 1 to 3 and ``safe`` with seed 1 alone, the fastest and best of all."""
    folder = tmp_path_factory.mktemp("results")
    made.grid(folder, ["zero-shot", "tip-adapter", "tip-adapter-f", "coop"], ("birds", "fish"), (1,))
    for dataset in ("birds", "fish"):
        made.one(folder, made.cell("safe", dataset, 1, 1), skill=0.9, seconds=0.01)
    return folder


NOTE = "These have other seeds than most at the same shots: safe at 1 shot (seed 1)."


def test_most_common_prefers_more_seeds() -> None:
    assert most_common({"a": (1,), "b": (1, 2)}) == (["b"], ["a"])
    assert most_common({"a": (1,), "b": (1, 2), "c": (1,)}) == (["a", "c"], ["b"])
    assert most_common({}) == ([], [])


def test_figures_name_them(results: Path) -> None:
    assert NOTE in plot.plot(load_results(results), "shots").notes


def test_they_are_not_ranked(results: Path) -> None:
    """As in tables, where they are neither bold nor underlined."""
    drawn = plot.plot(load_results(results), "cd")
    assert "safe" not in set(drawn.points["series"])
    assert sorted(drawn.points["y"])[0] >= 1 and drawn.points["y"].sum() == 1 + 2 + 3 + 4
    assert "Not ranked, because they have other seeds than most: safe at 1 shot (seed 1)." in drawn.notes


def test_they_are_never_a_best_trade_off(results: Path) -> None:
    drawn = plot.plot(load_results(results), "time")
    assert "safe" in set(drawn.points["series"]) - set(drawn.points[drawn.points["front"]]["series"])
    assert drawn.points["front"].any()
    assert f"{NOTE} They are never a best trade-off." in drawn.notes


def test_equal_seeds_need_no_note(results: Path) -> None:
    frame = load_results(results)
    for kind in ("shots", "cd", "time"):
        drawn = plot.plot(frame[frame["method"] != "safe"], kind)
        assert not any("other seeds" in note for note in drawn.notes)


def test_the_statistics_compare_the_others_and_name_them(results: Path) -> None:
    text = standing.section([table(load_results(results))])
    assert "Tip-Adapter-F" in text and "No two methods" not in text
    assert "Left out, because they have other seeds: SAFE (seed 1)." in text
    assert '<th scope="row">SAFE</th>' not in text


def test_without_two_of_the_same_seeds_there_are_no_statistics(tmp_path: Path) -> None:
    made.grid(tmp_path, ["tip-adapter"], ("birds",), (1,), seeds=(1, 2))
    made.grid(tmp_path, ["safe"], ("birds",), (1,), seeds=(1,))
    text = standing.section([table(load_results(tmp_path))])
    assert "No two methods have results on all datasets with the same seeds." in text


def test_a_missing_interval_says_why(tmp_path: Path) -> None:
    path = made.one(tmp_path, made.cell("safe", "birds", 1, 1))
    made.one(tmp_path, made.cell("coop", "birds", 1, 1))
    frame = load_results(tmp_path)
    path.with_suffix(".npz").unlink()
    details = Details(frame)
    for row in table(frame).rows:
        details.add(row, "birds", row.entries["birds"])
    coop, safe = sorted(details.payload()["cells"], key=lambda cell: str(cell["row"]).lower())
    assert coop["interval"] and "no_interval" not in coop
    assert safe["interval"] is None and "the predictions are gone" in safe["no_interval"]
