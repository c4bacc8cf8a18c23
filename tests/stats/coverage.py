"""Print how often intervals, p-values, marks and "resolves" are wrong, as Markdown for docs/statistics.md.

``python -m tests.stats.coverage`` prints all tables. With names (``coverage tails marks power targets``) it
prints these only. With R repetitions a share of 5 % has a standard error of 22 / sqrt(R) points.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from tests.stats import questions
from tests.stats.simulated import REGIMES, Regime

Rows = Iterator[list[str]]
SEEDS = (2, 3, 5, 10)
IMAGES = (60, 200, 1000)


def _percent(shares: Iterable[float], digits: int = 1) -> str:
    return " / ".join("-" if np.isnan(share) else f"{100 * share:.{digits}f}" for share in shares)


def _regimes() -> Iterator[tuple[str, Regime]]:
    """Yield all regimes, and typical and very accurate methods with other numbers of images too."""
    for name, regime in REGIMES.items():
        several = IMAGES if name in ("typical", "accuracy 97 %") else (regime.images,)
        if name != "few images":
            yield from ((f"{name}, {n} images", replace(regime, images=n)) for n in several)


def coverage(repetitions: int, rng: np.random.Generator) -> Rows:
    """Yield the coverage of the intervals of an accuracy and of a paired difference."""
    yield ["", "1 seed", *(f"{seeds} seeds" for seeds in SEEDS)]
    for name, regime in _regimes():
        found = (questions.coverage(rng, regime, seeds, repetitions) for seeds in (1, *SEEDS))
        yield [name, *map(_percent, found)]


def tails(repetitions: int, rng: np.random.Generator) -> Rows:
    """Yield how often p-values of equal methods are small."""
    yield ["", *(f"{seeds} seeds" for seeds in SEEDS)]
    for name, regime in _regimes():
        found = [questions.tails(rng, regime, seeds, repetitions) for seeds in SEEDS]
        yield [name, *(f"{_percent(p, 2)}, {_percent([family])}" for p, family in found)]


def marks(repetitions: int, rng: np.random.Generator) -> Rows:
    """Yield how often columns leave an equal best method, and a worse method, unmarked."""
    several = (2, 3, 5)
    yield ["", "datasets", "equal methods", *(f"{seeds} seeds" for seeds in several)]
    for name in ("typical", "seeds dominate"):
        for datasets in (1, 5, 11):
            for equal in (3, 10, 30):
                found = (
                    questions.marks(rng, REGIMES[name], equal, seeds, repetitions, datasets)
                    for seeds in several
                )
                yield [name, str(datasets), str(equal), *map(_percent, found)]


def power(repetitions: int, rng: np.random.Generator) -> Rows:
    """Yield what data claim to resolve, and how often they find a difference of this size."""
    yield ["", "row", *(f"{seeds} seeds" for seeds in SEEDS)]
    for name, regime in REGIMES.items():
        for row, sizes in (
            ("one", {}),
            ("one of 5", {"rows": 5}),
            ("one of 11", {"rows": 11}),
            ("average of 5", {"datasets": 5}),
            ("average of 11", {"datasets": 11}),
        ):
            found = (questions.power(rng, regime, seeds, repetitions, **sizes) for seeds in SEEDS)
            yield [name, row, *(_percent((one.claim, one.at_median)) for one in found)]


def targets(repetitions: int, rng: np.random.Generator) -> Rows:
    """Yield the coverage of averages over targets of one fit."""
    yield ["", *(f"{seeds} seeds" for seeds in SEEDS)]
    for name, regime in REGIMES.items():
        found = (questions.targets_of_one_fit(rng, regime, seeds, repetitions) for seeds in SEEDS)
        yield [name, *map(_percent, found)]


TABLES: dict[str, tuple[str, Callable[[int, np.random.Generator], Rows]]] = {
    "coverage": ("Coverage of 95 % intervals: an accuracy / a paired difference", coverage),
    "tails": ("Equal methods: p below 5 / 1 / 0.1 %, and Holm errs in any of 11 rows", tails),
    "marks": ("Equal best methods and one 5 points worse: an equal one unmarked / the worse unmarked", marks),
    "power": ("Resolves: the median claim in points / how often a difference of this size is found", power),
    "targets": ("Coverage of averages over 4 targets of one fit: an accuracy / a paired difference", targets),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="*", choices=[[], *TABLES], metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--repetitions", type=int, default=2000, help="of every experiment (default: 2000)")
    asked = parser.parse_args()
    for name in asked.tables or TABLES:
        title, rows = TABLES[name]
        print(f"\n{title} (percent)\n")
        for i, row in enumerate(rows(asked.repetitions, np.random.default_rng(17))):
            print(f"| {' | '.join(row)} |", flush=True)
            if not i:
                print("|---" + "|--:" * (len(row) - 1) + "|")


if __name__ == "__main__":
    main()
