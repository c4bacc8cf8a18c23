"""Count what ``--over datasets`` changes in the committed records, for docs/statistics.md.

``python -m tests.stats.over_datasets`` compares every two methods of results/pocket that have the same
backbone, the same number of shots and the prompts ``hand``, and that have all seeds on all datasets. Each
comparison is made twice, over draws and over datasets. The script prints a Markdown table: how much wider the
interval over datasets is, and how many of the differences that are significant over draws (p < 0.05, without
a correction) are not significant over datasets.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bench.report.frame import load_results, stacked
from bench.stats import average_difference_interval, p_value

ROOT = Path(__file__).parents[2]
Cells = list[NDArray[np.bool_]]  # right or wrong by seed and image (S, n), for each dataset
LEVEL = 0.05


def rivals(frame: pd.DataFrame) -> Iterator[tuple[int, list[Cells]]]:
    """Yield, for each backbone and number of shots, that number and the outcomes of the complete methods."""
    frame = frame[(frame["target"] == frame["dataset"]) & (frame["variant"] == "")]
    frame = frame[(frame["protocol"] == "recipe") & (frame["prompts"] == "hand") & (frame["status"] == "ok")]
    frame = frame[frame["shots"] > 0].sort_values(["dataset", "seed"])
    for (_, shots), block in frame.groupby(["backbone", "shots"]):
        whole = block["dataset"].nunique() * block["seed"].nunique()
        methods = [rows for _, rows in block.groupby("method") if len(rows) == whole]
        yield (
            shots,
            [[stacked(tuple(cell["path"])) for _, cell in rows.groupby("dataset")] for rows in methods],
        )


def compared(first: Cells, second: Cells) -> tuple[float, float, float, float]:
    """Return the widths of the intervals over datasets and over draws, and the p-values of both."""
    gaps = [a.mean() - b.mean() for a, b in zip(first, second, strict=True)]
    draws = average_difference_interval(list(zip(first, second, strict=True)))
    test = stats.ttest_1samp(gaps, 0.0)
    ends = test.confidence_interval(0.95)
    return ends.high - ends.low, draws.high - draws.low, float(test.pvalue), p_value(draws)


def line(name: str, results: Sequence[tuple[float, float, float, float]]) -> str:
    """Write the median ratio of the widths, and the differences that stop being significant, as a row."""
    wide, narrow, p_datasets, p_draws = np.array(results).T
    found = p_draws < LEVEL
    lost = int((found & (p_datasets >= LEVEL)).sum())
    return (
        f"| {name} | {len(results):,} | {np.median(wide / narrow):.1f} | {found.sum():,} | {lost:,} "
        f"({100 * lost / found.sum():.0f} %) |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "pocket")
    by_shots: dict[int, list[tuple[float, float, float, float]]] = {}
    for shots, methods in rivals(load_results(parser.parse_args().results)):
        by_shots.setdefault(shots, []).extend(compared(*two) for two in combinations(methods, 2))
    print("| shots | pairs | times as wide (median) | significant over draws | of these, not over datasets |")
    print("|--:|--:|--:|--:|--:|")
    for shots, results in sorted(by_shots.items()):
        print(line(str(shots), results))
    print(line("all", [one for results in by_shots.values() for one in results]))
