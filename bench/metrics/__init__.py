"""This room computes metrics of one evaluation: accuracies, likelihoods, calibration, classes, risk.

It holds pure functions of numpy arrays. It imports no other part of bench and knows nothing of runs, records
or tables. ``Outputs`` holds what a fit said about the test images; a ``Metric`` turns it into a number, and
into values per image for the intervals of bench.stats. docs/metrics.md defines each metric.
"""

from bench.metrics.calibration import Reliability, reliability
from bench.metrics.classes import Confusion, PerClass, confusions, per_class
from bench.metrics.curves import risk_coverage
from bench.metrics.outputs import TEMPERATURES, Outputs
from bench.metrics.registry import METRICS, SCALING, Metric, metric, values

__all__ = [
    "METRICS",
    "SCALING",
    "TEMPERATURES",
    "Confusion",
    "Metric",
    "Outputs",
    "PerClass",
    "Reliability",
    "confusions",
    "metric",
    "per_class",
    "reliability",
    "risk_coverage",
    "values",
]
