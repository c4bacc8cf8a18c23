"""The simulation itself: its true accuracies are true, and the estimator finds the shares that went in."""

import ast
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tests.stats import simulated
from tests.stats.components import TERMS, terms
from tests.stats.questions import gate
from tests.stats.simulated import REGIMES, Change, Rerun, Shares, rerun, simulate


def test_it_imports_nothing_of_the_program() -> None:
    tree = ast.parse(Path(simulated.__file__).read_text(encoding="utf-8"))
    named = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    named += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    assert named and not [name for name in named if name.split(".")[0] in ("bench", "tests")]


@pytest.mark.parametrize("name", REGIMES)
def test_accuracies_are_the_given_ones(name: str) -> None:
    regime = REGIMES[name]
    given = np.array([regime.accuracy, regime.accuracy - 0.1])
    made = simulate(
        np.random.default_rng(5), regime.shares, given, repetitions=1000, seeds=2, images=60, datasets=2
    )
    # Each repetition gives one independent value of the mean over its draws and images.
    for values_RM in (made.right.mean((0, 3, 4)), made.of_draws.mean(0)):
        error_M = values_RM.std(0) / np.sqrt(len(values_RM))
        assert (np.abs(values_RM.mean(0) - given) < 4 * error_M).all()


def test_one_fit_shares_its_draws_and_nothing_else() -> None:
    shares = REGIMES["seeds dominate"].shares
    for one_fit in (True, False):
        made = simulate(
            np.random.default_rng(6),
            shares,
            [0.6],
            repetitions=1500,
            seeds=1,
            images=20,
            datasets=2,
            one_fit=one_fit,
        )
        alike = np.corrcoef(made.of_draws[:, :, 0])[0, 1]
        assert alike > 0.8 if one_fit else abs(alike) < 0.1


def test_the_estimator_finds_the_shares_that_went_in() -> None:
    shares = Shares(0.15, 0.05, 0.3, 0.1, 0.04, 0.08, 0.03, 0.06)
    rng = np.random.default_rng(7)
    made = simulate(rng, shares, [0.5, 0.6], repetitions=60, seeds=6, images=600, classes=40)
    found = [terms(right, np.arange(600) % 40) for right in made.right[0]]
    for name, true in asdict(shares).items():
        assert np.mean([one[name] for one in found]) == pytest.approx(true, rel=0.1, abs=0.004), name
    assert list(asdict(shares)) == list(TERMS)


def test_a_rerun_flips_what_it_was_told_and_keeps_the_accuracy() -> None:
    rng, change = np.random.default_rng(8), Change(0.005, chaotic={1}, drops={2: 0.03})
    runs = [rerun(rng, REGIMES["typical"], change, methods=3, datasets=2, seeds=3) for _ in range(150)]
    # (repetition, method, dataset, seed, image)
    old, new = (np.array([[[one[i] for one in m] for m in run] for run in runs]) for i in (0, 1))
    right_old, right_new = (top1 == runs[0][0][0].labels for top1 in (old, new))
    assert (old != new)[:, 0].mean() == pytest.approx(0.005, abs=0.001)
    assert (right_old != right_new)[:, 0].mean() == pytest.approx(0.005 * 2 / 3, abs=0.001)
    gap = right_new.mean(-1) - right_old.mean(-1)
    assert gap[:, 1].std() > 0.02 > 4 * gap[:, 0].std()
    for method, true in enumerate((0.0, 0.0, -0.03)):
        of_run = gap[:, method].mean((1, 2))
        assert of_run.mean() == pytest.approx(true, abs=4 * of_run.std() / np.sqrt(len(runs))), method


def test_verdicts_of_the_gate_are_counted() -> None:
    def verdict(runs: list[list[Rerun]]) -> tuple[bool, ...]:
        return tuple(all(np.array_equal(one.old, one.new) for one in method) for method in runs)

    change = Change(flips=0.0, drops={1: 0.1})
    counted = gate(np.random.default_rng(9), verdict, REGIMES["typical"], change, 5, methods=3)
    assert counted == {(True, False, True): 1.0}
