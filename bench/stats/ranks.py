"""Compare methods over datasets by signed ranks and by average ranks.

Wilcoxon's signed-rank tests come with Holm's correction, Friedman's test with Nemenyi's critical difference.
Scores are a DataFrame with one row per dataset and one column per method; higher is better. Here the datasets
are the sample, unlike in bench.stats.intervals, so few datasets give little power: with 5 datasets no
two-sided Wilcoxon p is below 0.06.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import scipy  # loads its parts at their first use, because scipy.stats takes a second
from numpy.typing import ArrayLike, NDArray

# Up to this many methods a test checks the critical difference against an integral of its definition.
MAX_METHODS = 100
# Up to this many differences with ties SciPy goes through all signs; beyond, it uses a normal approximation.
_ALL_SIGNS = 13


def holm(pvalues: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's step-down adjusted p-values in the given order.

    Raises ValueError for NaN or values outside [0, 1].
    """
    p = np.asarray(pvalues, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values are one list of numbers between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def wilcoxon_holm(scores: pd.DataFrame, reference: str | None = None) -> pd.DataFrame:
    """Run two-sided signed-rank tests of every pair of methods, or of `reference` against each other method.

    The columns are first, second, median_difference (first - second), wins, losses, p, p_holm. A dataset with
    equal scores is left out of a test, as Wilcoxon does. Two methods that are equal everywhere have p = 1.
    """
    _checked(scores, 2)
    if reference is not None and reference not in scores.columns:
        raise ValueError(f"no method {reference!r} among {', '.join(map(str, scores.columns))}")
    names = list(scores.columns)
    pairs = (
        list(combinations(names, 2))
        if reference is None
        else [(reference, m) for m in names if m != reference]
    )
    values = {m: scores[m].to_numpy(dtype=np.float64) for m in names}
    # Rounding makes ties of sums that differ only by the order of their terms.
    gaps = [np.round(values[a] - values[b], 12) for a, b in pairs]
    rows = [
        (a, b, float(np.median(d)), int((d > 0).sum()), int((d < 0).sum()), p)
        for (a, b), d, p in zip(pairs, gaps, _signed_ranks(gaps), strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["first", "second", "median_difference", "wins", "losses", "p"])
    return frame.assign(p_holm=holm(frame["p"]))


def _signed_ranks(gaps: Sequence[NDArray[np.float64]]) -> list[float]:
    """Return Wilcoxon's two-sided p of each list of differences, or 1 if all differences are 0.

    SciPy chooses how to compute p by the length of its table and by whether there are ties anywhere in it.
    Each table is therefore made of lists that are alike in both. For short lists with ties SciPy goes through
    all signs one after the other; here they are computed at once.
    """
    tables: dict[tuple[int, bool], list[int]] = {}
    kept = [d[d != 0] for d in gaps]
    for i, d in enumerate(kept):
        tables.setdefault((len(d), len(np.unique(np.abs(d))) < len(d)), []).append(i)
    p = np.ones(len(gaps))
    for (n, ties), places in tables.items():
        table = np.stack([kept[i] for i in places])
        if ties and n <= _ALL_SIGNS:
            p[places] = _of_all_signs(table)
        elif n:
            p[places] = scipy.stats.wilcoxon(table, axis=-1).pvalue
    return [float(x) for x in p]


def _of_all_signs(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the exact p of each row of (m, n).

    It is twice the share of all sign patterns whose rank sum is at least as far to one side.
    """
    ranks = scipy.stats.rankdata(np.abs(table), axis=-1)
    n = table.shape[-1]
    signs = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    sums, seen = signs @ ranks.T, ((table > 0) * ranks).sum(-1)  # (2^n, m) and (m,)
    one_side: NDArray[np.float64] = np.minimum((sums <= seen).mean(0), (sums >= seen).mean(0))
    return np.minimum(1.0, 2 * one_side)


@dataclass(frozen=True)
class Friedman:
    """The outcome of Friedman's test.

    `ranks`: average ranks, sorted (1 is best). `critical_difference`: Nemenyi's, between two average ranks.
    """

    statistic: float
    p: float
    ranks: pd.Series
    datasets: int
    critical_difference: float
    level: float


def friedman(scores: pd.DataFrame, level: float = 0.95) -> Friedman:
    """Run Friedman's test on average ranks.

    The ranks and the critical difference are those among all columns. So a diagram that shows only some
    methods gives all of them here. Raises ValueError unless 3 to 100 methods have all scores on 2 or more
    datasets.
    """
    _checked(scores, 3)
    if len(scores.columns) > MAX_METHODS:
        raise ValueError(f"{len(scores.columns)} methods are too many to rank; choose at most {MAX_METHODS}")
    values = scores.round(12)
    ranks = values.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    ties_everywhere = (values.nunique(axis=1) == 1).all()
    statistic, p = (
        (0.0, 1.0) if ties_everywhere else scipy.stats.friedmanchisquare(*(values[m] for m in values.columns))
    )
    cd = critical_difference(len(ranks), len(scores), level)
    return Friedman(float(statistic), float(p), ranks, len(scores), cd, level)


def critical_difference(methods: int, datasets: int, level: float = 0.95) -> float:
    """Return Nemenyi's critical difference of two average ranks.

    It comes from the studentised range with infinitely many degrees of freedom.
    """
    q = float(scipy.stats.studentized_range.ppf(level, methods, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * datasets)))


def not_separated(result: Friedman) -> list[tuple[str, ...]]:
    """Return the maximal groups of 2 or more methods within one critical difference.

    They are the bars of a critical difference diagram.
    """
    names, ranks = list(result.ranks.index), result.ranks.to_numpy()
    ends = [int(np.searchsorted(ranks, r + result.critical_difference, side="right")) for r in ranks]
    return [tuple(names[i:e]) for i, e in enumerate(ends) if e - i > 1 and (i == 0 or e > ends[i - 1])]


def _checked(scores: pd.DataFrame, methods: int) -> None:
    if len(scores.columns) < methods or len(scores) < 2:
        raise ValueError(
            f"this test needs at least {methods} methods and 2 datasets, "
            f"not {len(scores.columns)} and {len(scores)}"
        )
    if not scores.columns.is_unique:
        raise ValueError("a method occurs twice among the columns")
    missing = [f"{m} on {d}" for d, row in scores.isna().iterrows() for m, gap in row.items() if gap]
    if missing:
        raise ValueError(f"scores are missing: {', '.join(missing[:10])}; compare on complete rows only")
