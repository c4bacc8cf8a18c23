"""Write bench/stats/studentised_range.csv: upper 5 % points of the studentised range, from SciPy.

Run it with ``python -m tests.stats.studentised_range``. SciPy needs a tenth of a second for one of these
numbers and a second for its import, which is too slow for a table that has dozens of columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import stats

FILE = Path(__file__).resolve().parents[2] / "bench/stats/studentised_range.csv"
METHODS = (*range(2, 13), 14, 16, 18, 20, 25, 30, 40, 50, 60, 80, 100)
DEGREES = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20, 30, 60, 120, np.inf)


def rows() -> list[str]:
    """Return the lines of the file: the number of methods, then a number for each degree of freedom."""
    lines = [",".join(["methods", *(f"{df:g}" for df in DEGREES)])]
    for k in METHODS:
        points = [stats.studentized_range.ppf(0.95, k, df) for df in DEGREES]
        lines.append(",".join([str(k), *(f"{point:.5g}" for point in points)]))
    return lines


if __name__ == "__main__":
    FILE.write_text("\n".join(rows()) + "\n", encoding="utf-8")
