"""Reading and counting stay in proportion to the records: files once, statistics a column at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.records import codec, outcomes, packed, store
from bench.report import compact, marks
from bench.report.frame import load_results
from bench.report.html.page import report
from bench.report.tables import table
from bench.stats import intervals, ranks
from tests.report.synthetic import grid

METHODS = {"zero-shot": 0.5, "safe": 0.6, "coop": 0.4, "lp": 0.55}


def counting(patch: pytest.MonkeyPatch, where: Any, name: str, by: Callable[..., Any]) -> Counter[Any]:
    """Counts calls of a function by what ``by`` makes of the arguments."""
    calls: Counter[Any] = Counter()
    usual = getattr(where, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        calls[by(*arguments, **named)] += 1
        return usual(*arguments, **named)

    patch.setattr(where, name, counted)
    return calls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    compact.pack(grid(tmp_path / "runs", METHODS), tmp_path / "packed")
    return tmp_path / "packed"


def test_packed_records_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = counting(monkeypatch, codec, "decode", lambda data: bytes(data))
    arrays = counting(monkeypatch, packed, "npz", lambda file, names: file)
    report(load_results(folder))
    assert len(decoded) == sum(1 for _ in store.every(folder))
    assert set(decoded.values()) == {1}
    test_sets = 2  # ants and bees
    assert sum(arrays.values()) == test_sets


def test_predictions_are_checked_once_for_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = counting(monkeypatch, outcomes, "npz", lambda file, *rest: file.with_suffix(".json"))
    frame = load_results(grid(tmp_path, METHODS))
    for _ in range(2):
        table(frame)
    few = frame[frame["shots"] > 0]
    assert {str(path) for path in read} >= set(few["path"])
    assert set(read.values()) == {1}
    report(frame)
    assert max(read.values()) == 2, "the section on classes reads all arrays of the best rows once more"


def test_a_checksum_in_the_bytes_spares_writing_the_record_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [p for p in grid(tmp_path, METHODS).rglob("*.json") if p.parent.name in METHODS]
    anew = counting(monkeypatch, codec, "checksum", lambda record: record.key)
    for path in paths:
        record = store.read(path)
        assert record is not None
        line = codec.encode(record)
        anew.clear()
        assert codec.decode(line) == record
        assert not anew
        other = line.replace(b'"seed":1', b'"seed":3')
        if other != line:
            with pytest.raises(codec.Unreadable, match="not as it was written"):
                codec.decode(other)


def test_statistics_of_a_column_are_taken_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call for each column and dataset of a block, however many methods stand in it."""
    counts = []
    for methods in (3, 9):
        results = grid(tmp_path / str(methods), {f"m{i}": 0.4 + 0.02 * i for i in range(methods)}, shots=(1,))
        frame = load_results(results)
        with monkeypatch.context() as patch:
            calls = counting(patch, intervals, "source_parts", lambda tables, level: tables[0].shape[1:])
            table(frame)
        counts.append(sum(calls.values()))
    assert counts[0] == counts[1] == 4, "two datasets, and the same two for the average"


def test_predictions_behind_an_average_are_put_together_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = load_results(grid(tmp_path, METHODS))
    calls = counting(monkeypatch, marks, "outcomes", lambda entry, metric: (entry.paths, metric))
    table(frame)
    assert calls and set(calls.values()) == {1}


def test_signed_ranks_ask_scipy_once_for_lists_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.normal(size=(9, 12)), columns=[f"m{i}" for i in range(12)])
    calls = counting(monkeypatch, ranks.scipy.stats, "wilcoxon", lambda table, axis: table.shape)
    ranks.wilcoxon_holm(scores)
    assert sum(calls.values()) == 1
