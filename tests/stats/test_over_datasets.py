"""The script behind the numbers on ``--over datasets`` in docs/statistics.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.report.frame import load_results
from bench.stats import average_difference_interval, dataset_interval, p_value
from tests.report.synthetic import grid, write_cell
from tests.stats.over_datasets import compared, line, rivals


def test_only_complete_methods_are_compared(tmp_path: Path) -> None:
    grid(tmp_path, {"safe": 0.6, "coop": 0.5, "zero-shot": 0.4}, shots=(1, 16))
    write_cell(tmp_path, "linear-probe", "ants", 16, 1, 0.5)
    assert [(shots, len(methods)) for shots, methods in rivals(load_results(tmp_path))] == [(1, 2), (16, 2)]


def test_both_intervals_of_a_pair() -> None:
    rng = np.random.default_rng(0)
    first, second = ([rng.random((3, 50)) < share for _ in range(4)] for share in (0.7, 0.5))
    wide, narrow, p_datasets, p_draws = compared(first, second)
    over = dataset_interval([a.mean() - b.mean() for a, b in zip(first, second, strict=True)])
    draws = average_difference_interval(list(zip(first, second, strict=True)))
    assert (wide, p_datasets) == pytest.approx((over.high - over.low, p_value(over)))
    assert (narrow, p_draws) == pytest.approx((draws.high - draws.low, p_value(draws)))


def test_a_row_counts_what_is_no_longer_significant() -> None:
    some = [(4.0, 1.0, 0.2, 0.01), (2.0, 1.0, 0.01, 0.01), (3.0, 1.0, 0.01, 0.2)]
    assert line("1", some) == "| 1 | 3 | 3.0 | 2 | 1 (50 %) |"
