"""What a comparison says with one seed, with unequal seeds, and over datasets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from bench.errors import BenchError
from bench.report.compare import Comparison, compare
from bench.report.frame import load_results
from bench.report.table import MISSING, Score
from bench.stats import (
    average_difference_interval,
    dataset_interval,
    difference_interval,
    holm,
    p_value,
    resolvable,
)
from tests.report.synthetic import grid, write_cell

FOUR = ("ants", "bees", "cats", "dogs")
BOTH = {"safe": 0.6, "coop": 0.5}


def entries(comparison: Comparison, shots: int = 1) -> dict[str, dict[str, Score]]:
    return {r.heads[0]: r.entries for r in comparison.table.rows if r.shots == shots}


def notes(comparison: Comparison) -> str:
    return " | ".join(comparison.table.notes)


def test_one_seed_has_no_p_over_draws(tmp_path: Path) -> None:
    grid(tmp_path, BOTH, shots=(1,), seeds=(2,))
    comparison = compare(load_results(tmp_path), "safe", "coop")
    assert comparison.p is None and comparison.resolves is None
    for row in entries(comparison).values():
        assert row["p"] == row["resolves"] == Score(text=MISSING)
    assert entries(comparison)["ants"]["McNemar"].text != MISSING
    whole = average_difference_interval([(p.first, p.second) for p in comparison.pairs])
    assert comparison.difference == whole and whole.varies == ("images",)
    assert comparison.verdict.startswith(
        "safe is better than coop by 10.00 points on average over 2 datasets at 1 shot with one seed"
    )
    assert comparison.verdict.endswith(
        "With 1 seed and 200 test images, the interval covers other test images, but no other draws of the "
        "support images. This says nothing about other datasets or other classes."
    )
    assert "They cover other test images of these datasets, but no other draws" in notes(comparison)
    assert (
        "There is no 'p' and no 'resolves', because one seed says nothing about other draws of the"
        in notes(comparison)
    )
    assert "--seeds 1,2,3" in notes(comparison)
    assert "'p' tests" not in notes(comparison) and "'resolves' is" not in notes(comparison)


def test_one_seed_against_a_method_without_labels_has_no_p(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6, "zero-shot": 0.5}, datasets=("ants",), shots=(1,), seeds=(1,))
    assert compare(load_results(tmp_path), "safe", "zero-shot").p is None


def test_mixed_seeds_count_the_fewest(tmp_path: Path) -> None:
    grid(tmp_path, BOTH, datasets=("ants", "bees"), shots=(1,))
    grid(tmp_path, BOTH, datasets=("cats",), shots=(1,), seeds=(1,))
    comparison = compare(load_results(tmp_path), "safe", "coop")
    rows = entries(comparison)
    assert comparison.p is None and comparison.resolves is None
    assert rows["average"]["p"].value is None and rows["cats"]["p"].value is None
    assert "With 1 to 3 seeds and 300 test images, the interval does not cover" in comparison.verdict
    assert "Rows with one seed cover other test images alone." in notes(comparison)
    assert "no 'resolves' on cats at 1 shot, nor for an average that contains it" in notes(comparison)
    # Only two p-values are corrected together, and 'resolves' is at the level of Holm's first step.
    singles = [difference_interval(p.first, p.second) for p in comparison.pairs if len(p.seeds) > 1]
    for name, interval, p in zip(("ants", "bees"), singles, holm([p_value(i) for i in singles]), strict=True):
        assert rows[name]["p"].value == pytest.approx(p)
        assert rows[name]["resolves"].value == pytest.approx(100 * resolvable(interval, rows=2))


def test_resolves_is_at_the_level_of_p(tmp_path: Path) -> None:
    grid(tmp_path, BOTH, datasets=FOUR, shots=(1,))
    comparison = compare(load_results(tmp_path), "safe", "coop")
    rows = entries(comparison)
    for pair in comparison.pairs:
        interval = difference_interval(pair.first, pair.second)
        assert resolvable(interval, rows=4) < 1
        assert rows[pair.dataset]["resolves"].value == pytest.approx(100 * resolvable(interval, rows=4))
        assert resolvable(interval, rows=4) > resolvable(interval)
    whole = average_difference_interval([(p.first, p.second) for p in comparison.pairs])
    assert rows["average"]["resolves"].value == pytest.approx(100 * resolvable(whole))
    assert comparison.resolves == resolvable(whole) and comparison.p == p_value(whole)
    assert ">100" not in notes(comparison)


def test_a_difference_beyond_100_points_is_none(tmp_path: Path) -> None:
    for shots, seed, accuracy in ((1, 1, 0.95), (1, 2, 0.35), (16, 1, 0.9), (16, 2, 0.4)):
        write_cell(tmp_path, "safe", "ants", shots, seed, accuracy)
        write_cell(tmp_path, "coop", "ants", shots, seed, 0.5, noise=1)
    comparison = compare(load_results(tmp_path), "safe", "coop")
    assert comparison.resolves is not None and comparison.resolves > 1
    assert entries(comparison)["ants"]["resolves"] == Score(text=">100")
    assert "no true difference would be found in at least 4 of 5 repetitions" in comparison.verdict
    assert "'>100' means that no difference would be found so often." in notes(comparison)


def test_seeds_without_a_partner_are_named(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6}, shots=(1, 16), seeds=(1, 2, 3, 4, 5))
    grid(tmp_path, {"coop": 0.5}, shots=(1, 16), seeds=(1, 2, 3))
    comparison = compare(load_results(tmp_path), "safe", "coop")
    assert comparison.table.notes[-1] == (
        "Left out: seeds 4 and 5 of safe on ants and bees at 1 and 16 shots, "
        "because coop has no such seeds there."
    )
    grid(tmp_path, {"zero-shot": 0.5}, shots=(1,))
    assert "Left out" not in notes(compare(load_results(tmp_path), "safe", "zero-shot"))


def test_disjoint_seeds_say_the_command_that_mends_it(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6}, shots=(1,), seeds=(1, 2))
    grid(tmp_path, {"coop": 0.5}, shots=(1,), seeds=(3,))
    with pytest.raises(BenchError) as error:
        compare(load_results(tmp_path), "safe", "coop")
    assert str(error.value) == (
        "safe and coop have no seed in common on ants and bees at 1 shot: safe has seeds 1 and 2, "
        "coop has seed 3; run `bench run --methods coop --datasets ants,bees --shots 1 --seeds 1,2 "
        f"--backbone toy-rn --prompts hand --protocol recipe --preset quick --results {tmp_path}`"
    )
    grid(tmp_path, {"coop": 0.5}, datasets=("cats",), shots=(1,), seeds=(3,))
    with pytest.raises(BenchError, match=r"`. Left out: cats at 1 shot \(safe has no records\)\.$"):
        compare(load_results(tmp_path), "safe", "coop")
    write_cell(tmp_path, "coop", "bees", 1, 2, 0.5)
    comparison = compare(load_results(tmp_path), "safe", "coop")
    assert [pair.dataset for pair in comparison.pairs] == ["bees"]
    assert comparison.table.notes[-1] == (
        "Left out: ants at 1 shot (no seed in common: safe has seeds 1 and 2, coop has seed 3); "
        "cats at 1 shot (safe has no records)."
    )


def test_no_number_of_shots_in_common(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6}, shots=(1, 2))
    grid(tmp_path, {"coop": 0.5}, shots=(4,))
    with pytest.raises(BenchError, match="safe has 1 and 2 shots, coop has 4 shots"):
        compare(load_results(tmp_path), "safe", "coop")


def test_the_verdict_counts_what_it_averages(tmp_path: Path) -> None:
    """A dataset whose numbers of shots share no seed is in the table, but in no average over them."""
    grid(tmp_path, BOTH, datasets=("ants", "bees"), shots=(1, 16))
    grid(tmp_path, BOTH, datasets=("cats",), shots=(1,), seeds=(1, 2))
    grid(tmp_path, BOTH, datasets=("cats",), shots=(16,), seeds=(3, 4))
    comparison = compare(load_results(tmp_path), "safe", "coop")
    assert "on average over 2 datasets and over 1 and 16 shots" in comparison.verdict
    assert "With 3 seeds and 200 test images" in comparison.verdict
    assert "The first sentence leaves out cats: no seed was run there at every number" in notes(comparison)
    assert entries(comparison, 16)["cats"]["p"].value is not None


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("four")
    for i, name in enumerate(FOUR):
        grid(folder, {"safe": 0.5 + 0.03 * i, "coop": 0.5}, datasets=(name,), seeds=(1, 2))
        grid(folder, {"copy": 0.5}, datasets=(name,), seeds=(1, 2))
    return load_results(folder)


def test_over_datasets_is_a_t_test_over_their_differences(four: pd.DataFrame) -> None:
    comparison = compare(four, "safe", "coop", over="datasets")
    plain = compare(four, "safe", "coop")
    gaps = [0.0, 0.03, 0.06, 0.09]
    test = stats.ttest_1samp(gaps, 0.0)
    ends = test.confidence_interval(0.95)
    assert (comparison.difference.low, comparison.difference.high) == pytest.approx((ends.low, ends.high))
    assert comparison.difference.estimate == pytest.approx(plain.difference.estimate)
    assert comparison.p == pytest.approx(test.pvalue)
    assert plain.p is not None and plain.p < 0.05 < test.pvalue
    assert comparison.verdict.startswith("safe and coop cannot be told apart on average over 4 datasets")
    assert comparison.verdict.endswith(
        "The interval covers other datasets of the same kind as these 4, with draws and test images of their "
        "own. This says nothing about datasets of another kind."
    )
    assert "Averages treat the datasets as a sample" in notes(comparison)
    ours, theirs = entries(comparison, 16), entries(plain, 16)
    assert {name: ours[name] for name in FOUR} == {name: theirs[name] for name in FOUR}
    assert ours["average"]["p"].value == pytest.approx(test.pvalue)
    assert comparison.resolves == pytest.approx(resolvable(dataset_interval(gaps)))
    assert ours["average"]["resolves"].value == pytest.approx(100 * comparison.resolves)


def test_over_datasets_one_seed_is_enough(tmp_path: Path) -> None:
    """Every dataset has a draw of its own, so their spread shows what other draws do."""
    for i, name in enumerate(FOUR):
        grid(tmp_path, {"safe": 0.5 + 0.03 * i, "coop": 0.5}, datasets=(name,), shots=(1,), seeds=(1,))
    comparison = compare(load_results(tmp_path), "safe", "coop", over="datasets")
    assert comparison.p is not None and entries(comparison)["average"]["p"].value == comparison.p
    assert entries(comparison)["ants"]["p"].value is None
    assert "There is no 'p' and no 'resolves' on single datasets, because one seed" in notes(comparison)


def test_over_datasets_without_draws_speaks_of_none(tmp_path: Path) -> None:
    for i, name in enumerate(FOUR):
        write_cell(tmp_path, "zero-shot", name, 0, 0, 0.5)
        write_cell(tmp_path, "cupl", name, 0, 0, 0.5 + 0.01 * i)
    said = compare(load_results(tmp_path), "cupl", "zero-shot", over="datasets").verdict
    assert "as these 4, with test images of their own." in said


def test_over_datasets_needs_three(four: pd.DataFrame) -> None:
    with pytest.raises(
        BenchError, match="needs at least 3 datasets, and the two methods share 2 at 1 shot: "
    ):
        compare(four, "safe", "coop", datasets=["ants", "bees"], over="datasets")
    with pytest.raises(BenchError, match=r"differ by \+0.00 points on every dataset, so nothing is known"):
        compare(four, "coop", "copy", over="datasets")
    with pytest.raises(BenchError, match="--over images: choose one of draws, datasets"):
        compare(four, "safe", "coop", over="images")
