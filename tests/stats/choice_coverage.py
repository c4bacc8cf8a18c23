"""Print how well the choice on folds keeps its word, as Markdown for docs/statistics.md.

``python -m tests.stats.choice_coverage`` simulates every world of ``folds_simulated`` and prints two tables:
the accuracy to expect, and abstention. ``--repetitions 200`` takes about three minutes of one core. With R
repetitions a share of 95 % has a standard error of 22 / sqrt(R) points.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from bench.stats import choose, expected, mean_interval, threshold
from tests.stats.folds_simulated import WORLDS, World, repetition

AT_ERROR = 0.05


@dataclass(frozen=True)
class Found:
    """What one repetition found, and the truth on fresh images; accuracies and errors are fractions.

    `highest`: the accuracy of the best method by its mean, less the true one of that method. `excess` and
    `left`: what the accuracy of the chosen method is above the true one, plain and as expected.
    """

    truth: float
    highest: float
    excess: float
    left: float
    plain_covers: bool
    covers: bool
    refitted: float  # the true accuracy after a refit on all images, less that of four fifths
    refitted_covers: bool
    answered: float  # the share of fresh images above the threshold; 0 without one
    error: float  # the share of wrong answers among them; 0 without one
    naive_answered: float  # the same, where each set is bounded as if it were the only one
    naive_error: float
    refitted_error: float  # of the refitted model, above the threshold


def one_by_one(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    """The threshold of the largest set whose own upper bound is low enough, without a word on the search."""
    order = np.argsort(-confidence)
    wrong, number = np.cumsum(~right[order]), np.arange(1, len(order) + 1)
    bound = np.where(wrong < number, beta.ppf(0.95, wrong + 1, np.maximum(number - wrong, 1)), 1.0)
    passed = np.flatnonzero(bound <= AT_ERROR)
    return float(confidence[order][passed[-1]]) if len(passed) else None


def answers(least: float | None, right: NDArray[np.bool_], sure: NDArray[np.float64]) -> tuple[float, float]:
    """The share of images that a threshold lets answer, and the share of wrong ones among these answers."""
    kept = sure >= (np.inf if least is None else least)
    return float(kept.mean()), float((kept & ~right).sum() / max(kept.sum(), 1))


def simulate(world: World, repetitions: int, rng: np.random.Generator) -> list[Found]:
    """Repeat the choice, the accuracy to expect, and the threshold of the chosen method."""
    found = []
    for _ in range(repetitions):
        rep = repetition(world, rng)
        choice = choose(rep.right, world.methods)
        best, chosen = world.methods.index(choice.best), world.methods.index(choice.chosen)
        right, sure = rep.fresh(chosen)
        truth = float(right.mean())
        plain, interval = mean_interval(rep.right[chosen]), expected(rep.right)

        held_out = rep.confidence[chosen], rep.right[chosen]
        least = threshold(*held_out, AT_ERROR)
        again, sure_again = rep.refitted(chosen)
        found.append(
            Found(
                truth,
                float(rep.right[best].mean()) - rep.truth(best),
                plain.estimate - truth,
                interval.estimate - truth,
                plain.contains(truth),
                interval.contains(truth),
                float(again.mean()) - truth,
                interval.contains(float(again.mean())),
                *answers(least, right, sure),
                *answers(one_by_one(*held_out), right, sure),
                answers(least, again, sure_again)[1],
            )
        )
    return found


def mean(found: list[Found], name: str) -> float:
    """The mean of one number over repetitions, in percent."""
    return 100 * float(np.mean([getattr(one, name) for one in found]))


def held(found: list[Found], name: str = "error") -> float:
    """In how many repetitions at most 5 % of the answers to fresh images are wrong, in percent."""
    return 100 * float(np.mean([getattr(one, name) <= AT_ERROR for one in found]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=200, help="of every world (default: 200)")
    parser.add_argument(
        "worlds", nargs="*", metavar="WORLD", help="such as '8 alike, 100 images'; all of them"
    )
    asked = parser.parse_args()
    accuracy = [
        "| | true | best by mean | chosen | expected | plain interval covers | expected covers "
        "| refit on all | covered |"
    ]
    abstain = [
        "| | each set alone: answered | error held | all sets together: answered | error held | refit: held |"
    ]
    for rows, columns in ((accuracy, 8), (abstain, 5)):
        rows.append("|---" + "|--:" * columns + "|")
    for name in asked.worlds or WORLDS:
        found = simulate(WORLDS[name], asked.repetitions, np.random.default_rng(23))
        excesses = " | ".join(f"{mean(found, key):+.1f}" for key in ("highest", "excess", "left"))
        covers = " | ".join(f"{mean(found, key):.1f}" for key in ("plain_covers", "covers"))
        again = f"{mean(found, 'refitted'):+.1f} | {mean(found, 'refitted_covers'):.1f}"
        accuracy.append(f"| {name} | {mean(found, 'truth'):.1f} | {excesses} | {covers} | {again} |")
        abstain.append(
            f"| {name} | {mean(found, 'naive_answered'):.1f} | {held(found, 'naive_error'):.1f} "
            f"| {mean(found, 'answered'):.1f} | {held(found):.1f} | {held(found, 'refitted_error'):.1f} |"
        )
        print(accuracy[-1], abstain[-1], sep="\n", flush=True)
    print("\nThe accuracy to expect (percent and points)\n", *accuracy, sep="\n")
    print("\nAbstention at an error of 5 % (percent)\n", *abstain, sep="\n")


if __name__ == "__main__":
    main()
