"""Two datasets of one name in one results folder: what is made of the table's rows keeps them apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.report.frame import load_results
from bench.report.gate import baseline as baselines
from bench.report.gate import cells
from bench.report.gate import check as gate
from bench.report.html.details import Details
from bench.report.render import render
from bench.report.tables import table
from tests.report import made

PLACES = {"aaaaaaaa": 0.3, "bbbbbbbb": 0.7}
NAMES = ["pets-aaaaaa", "pets-bbbbbb"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for place, skill in PLACES.items():
        for seed in (1, 2):
            made.one(folder, made.cell("safe", "pets", 1, seed), 200, skill, place=place)
    return folder


def test_a_baseline_has_both_and_the_next_check_finds_them(results: Path, tmp_path: Path) -> None:
    frame = load_results(results)
    kept = tuple(cells.chosen(frame, None, {}))
    assert sorted({k.cell["dataset"] for k in kept}) == sorted({k.target for k in kept}) == NAMES
    baselines.save(tmp_path / "b.json", baselines.Baseline(kept))
    verdict = gate.check(baselines.load(tmp_path / "b.json"), frame)
    assert verdict.passed and [(g.cells, g.agreement) for g in verdict.groups] == [(4, 1.0)]
    assert len(cells.chosen(frame, baselines.Baseline(kept), {})) == 4, "the same cells, to be kept anew"


def test_details_say_which_one(results: Path) -> None:
    frame = load_results(results)
    printed = table(frame)
    assert printed.columns[:2] == NAMES, render(printed, "csv")
    details = Details(frame)
    row = printed.rows[0]
    for name in NAMES:
        details.add(row, name, row.entries[name])
    seeds = [cell["seeds"][0] for cell in details.payload()["cells"]]
    assert [details.shared[seed["cell"]]["dataset"] for seed in seeds] == NAMES


def test_the_name_alone_asks_which(results: Path) -> None:
    with pytest.raises(BenchError, match="several datasets: choose pets-aaaaaa or pets-bbbbbb"):
        table(load_results(results), datasets=("pets",))
