"""The classes that move most between two methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchError
from bench.metrics import Outputs
from bench.report import moves as moving
from bench.report.classnames import ClassNames
from bench.report.compare import compare
from bench.report.frame import load_results
from bench.report.moves import moves, notes
from bench.report.pairs import Averaged
from bench.stats import mean_interval
from tests.report.synthetic import grid, write_cell

LABELS = np.array([0, 0, 1, 1, 1, 2, 2, 3])


@pytest.fixture(autouse=True)
def _labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "_names", lambda *_: ClassNames(("ant", "bee", "cat", "dog")))


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "outputs_of", lambda _: Outputs(LABELS, LABELS, 4))


def gaps(*rows: list[int]) -> list[Averaged]:
    return [Averaged("set", tuple(range(len(rows))), np.array(rows, np.float64), True)]


def test_gains_and_losses_by_hand(labels: None) -> None:
    cells = gaps([1, 1, 0, 1, 0, -1, 0, 1], [1, 0, 0, 0, 0, -1, 0, 1])
    found = moves(cells, {"set": "r"}, 2)
    assert [(m.name, m.images) for m in found.gains] == [("ant", 2), ("bee", 3)]
    assert [(m.name, m.images) for m in found.losses] == [("cat", 2)]
    assert [m.difference.estimate for m in found.gains] == pytest.approx([0.75, 1 / 6])
    assert found.losses[0].difference.estimate == pytest.approx(-0.5)
    assert found.classes == 3, "a class of one image shows no spread"


def test_an_image_counts_once_however_many_seeds_saw_it(labels: None) -> None:
    rng = np.random.default_rng(0)
    once = rng.integers(-1, 2, len(LABELS)).tolist()
    once[:2] = [1, 0]
    (few,) = [m for m in moves(gaps(once), {"set": "r"}, 9).gains if m.label == 0]
    (many,) = [m for m in moves(gaps(*[once] * 5), {"set": "r"}, 9).gains if m.label == 0]
    # Five seeds that agree know no more about other images than one.
    assert many.difference.high - many.difference.low >= few.difference.high - few.difference.low - 1e-12
    expected = mean_interval(np.array([once[:2]] * 5, np.float64), bounds=(-1, 1))
    assert (many.difference.low, many.difference.high) == (expected.low, expected.high)


def test_an_interval_that_says_nothing_is_not_printed(labels: None) -> None:
    found = moves(gaps([1, 0, 1, 1, 1, 0, 0, 0]), {"set": "r"})
    ant, bee = sorted(found.gains, key=lambda one: one.label)
    assert ant.difference.high - ant.difference.low > 1
    text = notes(("a", "b"), found)[0]
    assert "ant +50.00 (too few seeds or images for an interval; 2 images of set)" in text
    assert f"bee +100.00 ({100 * bee.difference.low:+.2f} to +100.00; 3 images of set)" in text


def test_no_moves_say_nothing(labels: None) -> None:
    none = moves(gaps([0] * 8), {"set": "r"})
    assert (none.gains, none.losses) == ((), ()) and notes(("a", "b"), none) == []


def test_a_comparison_names_classes_after_its_verdict(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.7, "coop": 0.4}, datasets=("ants", "bees"), shots=(16,))
    frame = load_results(tmp_path)
    comparison = compare(frame, "safe", "coop", classes=1)
    said = comparison.table.notes
    assert said[0] == comparison.verdict
    (best,) = comparison.classes.gains
    assert said[1].startswith(f"safe gains most accuracy against coop on {best.name} ")
    assert f"images of {best.dataset})" in said[1] and "extremes of 10 classes" in " ".join(said)
    assert best.difference.low <= best.difference.estimate <= best.difference.high
    nothing = compare(frame, "safe", "coop", classes=0)
    assert nothing.classes.gains == () and not any("gains most" in note for note in nothing.table.notes)
    by_other = compare(frame, "safe", "coop", classes=1, metric="macro-f1")
    assert by_other.classes == comparison.classes, "classes are compared by accuracy"
    assert by_other.table.notes[1] == f"By accuracy: {said[1]}"
    with pytest.raises(BenchError, match="--classes -1"):
        compare(frame, "safe", "coop", classes=-1)


def test_numbers_of_shots_are_averaged(tmp_path: Path) -> None:
    for shots, accuracy in ((1, 0.5), (16, 0.9)):
        for seed in (1, 2):
            write_cell(tmp_path, "safe", "ants", shots, seed, accuracy, n=50)
            write_cell(tmp_path, "coop", "ants", shots, seed, 0.2, n=50)
    found = compare(load_results(tmp_path), "safe", "coop", classes=5).classes
    mean = np.mean([m.difference.estimate for m in (*found.gains, *found.losses)])
    # Five classes of ten images: their mean is the difference of the accuracies, 50 points.
    assert found.classes == 5 and mean == pytest.approx(0.5)
