"""This room computes statistics of repeated few-shot runs: intervals, paired tests, ranks.

It holds pure functions of numpy arrays and DataFrames. It imports no other part of bench and knows nothing of
runs, records or tables. It never reads or writes a file.

Accuracies and differences are fractions (0.01 is one point). The outcomes of a cell are an array of S seeds x
n images: right or wrong, or the values of another metric (``Metric.per_image`` of bench.metrics).
Every method sees the same test images in every seed, so images are crossed with seeds. Both are samples, and
an interval has to account for both. Datasets are no sample, but for ``dataset_interval`` and the ranks: an
average speaks about these datasets only.
"""

from bench.stats.abstain import threshold
from bench.stats.best import Mark, column_marks, critical_value, not_told_from_best
from bench.stats.choice import Choice, Standing, choose, commonest, expected
from bench.stats.curve import MoreLabels, more_labels
from bench.stats.gate import NonInferiority, non_inferiority
from bench.stats.intervals import (
    Interval,
    average_interval,
    average_intervals,
    corrected,
    dataset_interval,
    lowered,
    mean_interval,
    p_value,
    resolvable,
)
from bench.stats.paired import (
    McNemar,
    average_difference_interval,
    difference,
    difference_bounds,
    difference_interval,
    mcnemar,
)
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
    "Choice",
    "Friedman",
    "Interval",
    "Mark",
    "McNemar",
    "MoreLabels",
    "NonInferiority",
    "Standing",
    "average_difference_interval",
    "average_interval",
    "average_intervals",
    "choose",
    "column_marks",
    "commonest",
    "corrected",
    "critical_difference",
    "critical_value",
    "dataset_interval",
    "difference",
    "difference_bounds",
    "difference_interval",
    "expected",
    "friedman",
    "holm",
    "lowered",
    "mcnemar",
    "mean_interval",
    "more_labels",
    "non_inferiority",
    "not_separated",
    "not_told_from_best",
    "p_value",
    "resolvable",
    "threshold",
    "wilcoxon_holm",
]
