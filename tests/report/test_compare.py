"""Two methods on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.errors import BenchError
from bench.report.compare import compare
from bench.report.frame import load_results
from bench.report.pairs import Pair
from bench.report.sheet import PER_ROW, Picture, flips, seed_of, sheet
from bench.stats import average_difference_interval, mcnemar, wilcoxon_holm
from tests.report.synthetic import K, grid, write_cell

SEVEN = tuple(f"set-{i}" for i in range(7))


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    methods = {"zero-shot": 0.5, "safe": 0.6, "tip-adapter-f": 0.595, "coop": 0.4}
    return load_results(grid(tmp_path_factory.mktemp("r"), methods, datasets=SEVEN))


def test_unequal_cells_are_said(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6, "coop": 0.4}, datasets=("ants", "bees", "cats"), shots=(1, 16))
    grid(tmp_path, {"safe": 0.6, "coop": 0.4}, datasets=("ants",), shots=(4, 8), seeds=(1,))
    notes = " | ".join(compare(load_results(tmp_path), "safe", "coop").table.notes)
    assert "Left out: bees and cats at 4 and 8 shots (neither has records there)." in notes
    assert "averages each dataset over the numbers of shots that both methods have there" in notes
    even = " | ".join(compare(load_results(tmp_path), "safe", "coop", shots=[1, 16]).table.notes)
    assert "averages each dataset" not in even


def test_verdicts(frame: pd.DataFrame) -> None:
    better = compare(frame, "safe", "coop")
    assert better.verdict.startswith(
        "safe is better than coop by 20.00 points on average over 7 datasets and over 1 and 16 shots"
    )
    assert compare(frame, "coop", "safe").verdict.startswith("coop is worse than safe by 20.00 points")
    open_ = compare(frame, "safe", "tip-adapter-f")
    assert open_.difference.low < 0 < open_.difference.high
    assert "cannot be told apart" in open_.verdict
    assert open_.resolves is not None
    assert (
        f"With 3 seeds and 700 test images, a true difference of {100 * open_.resolves:.2f} points would be "
        "found in at least 4 of 5 repetitions, tested at the 5 % level." in open_.verdict
    )
    for comparison in (better, open_):
        assert comparison.verdict.endswith("This says nothing about other datasets or other classes.")
        assert comparison.verdict.count(".  ") == 0 and comparison.table.notes[0] == comparison.verdict


def test_numbers_are_those_of_the_statistics(frame: pd.DataFrame) -> None:
    comparison = compare(frame, "safe", "tip-adapter-f", shots=[16])
    whole = average_difference_interval([(p.first, p.second) for p in comparison.pairs])
    assert comparison.difference == whole
    rows = {r.heads[0]: r.entries for r in comparison.table.rows}
    assert rows["average"]["difference"].value == pytest.approx(100 * whole.estimate)
    scores = pd.DataFrame(
        {"a": [p.first.mean() for p in comparison.pairs], "b": [p.second.mean() for p in comparison.pairs]}
    )
    assert rows["average"]["Wilcoxon"].value == pytest.approx(wilcoxon_holm(scores)["p"].iloc[0])
    first = comparison.pairs[0]
    each = [mcnemar(first.first[i], first.second[i]).p_mid for i in range(3)]
    assert rows[first.dataset]["McNemar"].text == "  ".join(
        "<0.001" if p < 0.0005 else f"{p:.3f}" for p in each
    )


def test_a_method_without_seeds_meets_every_number_of_shots(frame: pd.DataFrame) -> None:
    comparison = compare(frame, "zero-shot", "safe", datasets=["set-0"])
    assert [(p.shots, p.first.shape[0], p.second.shape[0]) for p in comparison.pairs] == [
        (1, 1, 3),
        (16, 1, 3),
    ]
    assert comparison.table.rows[0].entries["difference"].text == "-10.00"


def test_two_methods_without_seeds(tmp_path: Path) -> None:
    write_cell(tmp_path, "zero-shot", "ants", 0, 0, 0.5)
    write_cell(tmp_path, "cupl", "ants", 0, 0, 0.7)
    comparison = compare(load_results(tmp_path), "cupl", "zero-shot")
    assert "on ants at zero-shot" in comparison.verdict
    assert comparison.p is not None and comparison.p < 0.05 and comparison.resolves is not None
    assert "With 100 test images, a true difference" in comparison.verdict  # no seed took part
    assert "They cover other test images of these datasets. |" in " | ".join(comparison.table.notes)


def test_only_common_seeds_and_complete_cells(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6}, shots=(1,))
    grid(tmp_path, {"coop": 0.4}, shots=(1, 4), seeds=(2, 3, 4), datasets=("ants",))
    write_cell(tmp_path, "coop", "bees", 1, 1, 0.4)
    write_cell(tmp_path, "coop", "bees", 1, 2, 0.4, fail="it broke")
    comparison = compare(load_results(tmp_path), "safe", "coop")
    (pair,) = comparison.pairs
    assert (pair.dataset, pair.shots, pair.seeds) == ("ants", 1, (2, 3))
    assert comparison.table.notes[-3:] == [
        "Left out: seed 1 of safe on ants at 1 shot, because coop has no such seed there.",
        "Left out: seed 4 of coop on ants at 1 shot, because safe has no such seed there.",
        "Left out: bees at 1 shot (coop failed).",
    ]


def test_variants_and_prompt_sets(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6}, shots=(1,))
    grid(tmp_path, {"safe": 0.4}, shots=(1,), changed={"steps": 5, "lr": [0.1]})
    grid(tmp_path, {"safe": 0.7}, shots=(1,), prompts="cupl")
    frame = load_results(tmp_path)
    assert compare(frame, "safe@hand", "safe:lr=0.1,steps=5").difference.estimate == pytest.approx(0.2)
    assert compare(frame, "safe@cupl", "safe@hand").difference.estimate == pytest.approx(0.1)
    with pytest.raises(BenchError, match=r"\(plain\); lr=0.1, steps=5"):
        compare(frame, "safe", "safe:steps=6")


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (("safe", "safe"), "against itself"),
        (("safe", "sfae"), "did you mean 'safe'"),
        (("safe", "coop@cupl"), "no records with prompts"),
    ],
)
def test_errors_name_the_mend(frame: pd.DataFrame, names: tuple[str, str], word: str) -> None:
    with pytest.raises(BenchError, match=word):
        compare(frame, *names)


def test_nothing_in_common(tmp_path: Path) -> None:
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.5)
    write_cell(tmp_path, "coop", "bees", 1, 1, 0.5)
    says = r"with `bench run`. Left out: ants at 1 shot \(coop has no records\); bees at 1 shot"
    with pytest.raises(BenchError, match=says):
        compare(load_results(tmp_path), "safe", "coop")


def test_predictions_pair_by_image(tmp_path: Path) -> None:
    write_cell(tmp_path, "safe", "ants", 1, 1, 0.5, n=100)
    write_cell(tmp_path, "coop", "ants", 1, 1, 0.5, n=50)
    with pytest.raises(BenchError, match="its labels are not those of other records of the test set"):
        compare(load_results(tmp_path), "safe", "coop")


def pair(first: list[list[int]], second: list[list[int]]) -> Pair:
    right = np.array(first, bool), np.array(second, bool)
    return Pair("ants", 1, (1, 2), (("a",), ("b",)), *right, right)


def test_flips_are_ordered_by_consistency() -> None:
    both = pair([[1, 1, 0, 0, 1]], [[1, 0, 1, 0, 0], [1, 1, 1, 0, 0]])
    assert flips(both).only_first == (4, 1)
    assert flips(both).only_second == (2,)
    assert seed_of(both, 2) == 0
    assert seed_of(pair([[1], [1]], [[1], [0]]), 0) == 1


def test_sheet_has_every_picture() -> None:
    red = Picture(
        Image.new("RGB", (40, 30), "red"),
        ("a very long class name that cannot fit below the picture", "safe: b"),
    )
    one, two = (sheet("title", [("only a", [red] * n), ("only b", [])]) for n in (PER_ROW, PER_ROW + 1))
    assert two.height > one.height and two.width == one.width
    reds = [(np.asarray(s) == (255, 0, 0)).all(-1).sum() for s in (one, two)]
    assert reds == [40 * 30 * PER_ROW, 40 * 30 * (PER_ROW + 1)]


@dataclass
class Fake:
    """A dataset of grey images."""

    digest: str

    @property
    def classnames(self) -> tuple[str, ...]:
        return tuple("abcde"[:K])

    @property
    def test(self) -> Fake:
        return self

    @property
    def labels(self) -> list[int]:
        return [i % K for i in range(100)]

    @property
    def paths(self) -> list[str]:
        return [str(i) for i in range(100)]

    @property
    def source(self) -> Fake:
        return self

    def open(self, path: str) -> Image.Image:
        return Image.new("RGB", (20, 20), (int(path),) * 3)


def test_contact_sheet_needs_the_recorded_images(frame: pd.DataFrame) -> None:
    from bench.cli.compare import contact_sheet

    comparison = compare(frame, "safe", "coop", datasets=["set-0"], shots=[1])
    image = contact_sheet(comparison.pairs[0], comparison, Fake("set-0"), 4)  # type: ignore[arg-type]
    assert image.width > 500
    with pytest.raises(BenchError, match="its images changed since the records were made"):
        contact_sheet(comparison.pairs[0], comparison, Fake("other"), 4)  # type: ignore[arg-type]
