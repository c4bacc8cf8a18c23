"""A baseline of a few kilobytes does not take gigabytes of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.report.frame import load_results
from bench.report.gate import baseline as baselines
from bench.report.gate import cells
from tests.report import made


@pytest.mark.parametrize(
    ("rows", "n", "said"), [(1, 10**9, "<= 10000000"), (60, 10**7, "more images than fit into 1 GiB")]
)
def test_a_small_baseline_that_would_take_much_memory_is_refused(
    tmp_path: Path, rows: int, n: int, said: str
) -> None:
    made.grid(tmp_path, ["safe"], ["birds"], (1,), n=40)
    file = tmp_path / "b.json"
    baselines.save(file, baselines.Baseline(tuple(cells.collect(load_results(tmp_path)))))
    whole = read_json(file)
    whole["cells"] = whole["cells"][:1] * rows
    whole["cells"][0]["top1"].update(n=n)
    write_json(file, whole)
    with pytest.raises(BenchError, match=said):
        baselines.load(file)
