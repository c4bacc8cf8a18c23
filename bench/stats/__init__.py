"""Statistics of repeated few-shot runs.

These are pure functions on numpy arrays and DataFrames that know nothing of runs. Accuracies and differences
are fractions (0.01 is one point). A cell's outcomes are an array of S seeds x n images: every method sees the
same test images in every seed, so images are crossed with seeds, and both are samples that an interval has to
account for. Datasets are fixed: an average speaks about these datasets only.
"""

from bench.stats.best import Mark, column_marks, not_told_from_best
from bench.stats.gate import NonInferiority, non_inferiority
from bench.stats.intervals import (
    Interval,
    average_interval,
    average_intervals,
    mean_interval,
    p_value,
    resolvable,
)
from bench.stats.paired import McNemar, average_difference_interval, difference, difference_interval, mcnemar
from bench.stats.ranks import (
    MAX_METHODS,
    Friedman,
    critical_difference,
    friedman,
    holm,
    not_separated,
    wilcoxon_holm,
)

__all__ = [
    "MAX_METHODS",
    "Friedman",
    "Interval",
    "Mark",
    "McNemar",
    "NonInferiority",
    "average_difference_interval",
    "average_interval",
    "average_intervals",
    "column_marks",
    "critical_difference",
    "difference",
    "difference_interval",
    "friedman",
    "holm",
    "mcnemar",
    "mean_interval",
    "non_inferiority",
    "not_separated",
    "not_told_from_best",
    "p_value",
    "resolvable",
    "wilcoxon_holm",
]
