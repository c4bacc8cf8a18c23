"""A packed results folder reads like the folder it was made of."""

from __future__ import annotations

import lzma
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace

from bench import files
from bench.errors import BenchError
from bench.records import store
from bench.records.packed import PREDICTIONS, RECORDS
from bench.records.types import EvaluationRecord
from bench.report.compact import pack
from bench.report.frame import correct, load_results
from bench.report.tables import table
from tests.report.synthetic import grid, write_cell


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = grid(tmp_path_factory.mktemp("runs"), {"zero-shot": 0.5, "safe": 0.6, "tip-adapter-f": 0.595})
    write_cell(root, "lp", "ants", 1, 1, 0.0, fail="it broke")
    below = write_cell(root, "base", "ants", 1, 1, 0.5)
    write_cell(root, "on-top", "ants", 1, 1, 0.6, after={"base": below})
    write_cell(root, "safe", "ants", 16, 1, 0.6, target="ants-v2", n=30)
    return root


@pytest.fixture(scope="module")
def packed(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed")
    pack(runs, out)
    return out


def test_two_files_hold_everything(runs: Path, packed: Path) -> None:
    assert sorted(p.name for p in packed.iterdir()) == [PREDICTIONS, RECORDS]
    one, two = load_results(runs), load_results(packed)
    pd.testing.assert_frame_equal(one.drop(columns="path"), two.drop(columns="path"))
    for a, b in zip(one["path"], two["path"], strict=True):
        if Path(a).with_suffix(".npz").is_file():
            np.testing.assert_array_equal(correct(a), correct(b))
    loose, dense = table(one).text("json"), table(two).text("json")
    shown = re.search(rf"`{runs}/(runs/[^`]*)`", loose)
    assert shown and (runs / shown[1]).is_file(), "a note names the record of a failed cell"
    assert loose.replace(shown[0], f"`{shown[1]}` in `{packed / RECORDS}`") == dense


def test_predictions_are_the_same_classes(runs: Path, packed: Path) -> None:
    for path in (runs / "runs").rglob("*.npz"):
        record = path.with_suffix(".json")
        whole = store.predictions(record)
        small = store.predictions(packed / record.relative_to(runs), ("top1", "top5", "labels"))
        np.testing.assert_array_equal(whole["top1"], small["top1"])
        np.testing.assert_array_equal(whole["labels"], small["labels"])
        assert "top5" not in small
        assert small["top1"].dtype == np.uint8


def test_classes_beyond_a_byte(tmp_path: Path) -> None:
    write_cell(tmp_path / "a", "safe", "ants", 1, 1, 0.5)
    path = next((tmp_path / "a" / "runs").rglob("*-*.json"))
    top1 = np.arange(100) * 9
    record = store.read(path)
    assert isinstance(record, EvaluationRecord)
    record = replace(record, top1=1.0, top5=1.0)
    kept = store.write_predictions(path, {"top1": top1, "top5": np.stack([top1] * 5, 1), "labels": top1})
    store.put(path, replace(record, predictions=kept))
    pack(tmp_path / "a", tmp_path / "b")
    np.testing.assert_array_equal(
        store.predictions(tmp_path / "b" / path.relative_to(tmp_path / "a"))["top1"], top1
    )


def test_the_same_records_give_the_same_bytes(runs: Path, packed: Path, tmp_path: Path) -> None:
    pack(runs, tmp_path / "again")
    pack(packed, tmp_path / "from-packed")
    for name in (RECORDS, PREDICTIONS):
        assert (tmp_path / "again" / name).read_bytes() == (packed / name).read_bytes()
        assert (tmp_path / "from-packed" / name).read_bytes() == (packed / name).read_bytes()


def test_no_traceback_is_kept(packed: Path) -> None:
    text = lzma.decompress((packed / RECORDS).read_bytes()).decode()
    assert "it broke" in text
    assert "traceback" not in text


def test_replaced_records_are_left_out(tmp_path: Path) -> None:
    grid(tmp_path / "a", {"safe": 0.6}, shots=(1,))
    for seed in (1, 2, 3):
        write_cell(tmp_path / "a", "safe", "ants", 1, seed, 0.7, version=2)
    done = pack(tmp_path / "a", tmp_path / "b")
    assert (done.fits, done.evaluations, done.left_out) == (3, 3, 12)
    assert load_results(tmp_path / "b").attrs["notes"] == []


def test_the_limit_holds(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--limit"):
        pack(runs, tmp_path / "out", limit=100)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_ends_it_leaves_no_half_of_it(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Nothing is in its place then, and what lies beside it is called so that the next run sweeps it."""
    seen: list[str] = []

    def stop(*_: object) -> None:
        seen.extend(p.name for p in tmp_path.iterdir())
        raise error

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(type(error)):
        pack(runs, tmp_path)
    assert len(seen) == 2 and all(files._TEMPORARY.fullmatch(name) for name in seen)
    assert list(tmp_path.iterdir()) == []
    assert getattr(error, "filename", None) in (None, str(tmp_path / RECORDS))


def test_missing_predictions_are_an_error(tmp_path: Path) -> None:
    grid(tmp_path / "a", {"safe": 0.6}, shots=(1,), keep_predictions=False)
    with pytest.raises(BenchError, match="the predictions are gone"):
        pack(tmp_path / "a", tmp_path / "b")


def test_files_beside_the_pack_count_in_its_place(runs: Path, tmp_path: Path) -> None:
    pack(runs, tmp_path)
    write_cell(tmp_path, "zero-shot", "ants", 0, 0, 0.9)  # the same cell and key, another outcome
    write_cell(tmp_path, "coop", "ants", 1, 1, 0.4)
    frame = load_results(tmp_path)
    assert set(frame["method"]) == {"zero-shot", "safe", "tip-adapter-f", "lp", "base", "on-top", "coop"}
    zero = frame[(frame["method"] == "zero-shot") & (frame["dataset"] == "ants")]
    assert list(zero["accuracy"]) == [pytest.approx(90.0)]


def test_resuming_knows_packed_cells(runs: Path, packed: Path) -> None:
    path = next((runs / "runs").rglob("*-*.json"))
    stored = store.read(path)
    assert isinstance(stored, EvaluationRecord)
    there = packed / path.relative_to(runs)
    record = store.evaluation(there, stored.key)
    assert record is not None
    same = {"predictions": {}, "checksum": ""}  # packed predictions have no top five
    assert replace(record, **same) == replace(stored, **same)
    assert store.evaluation(there, "another key") is None
    assert store.read(there.with_name("none.json")) is None
    assert store.read(Path("x.json")) is None


def test_a_damaged_pack_is_an_error(packed: Path, tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_bytes((packed / RECORDS).read_bytes()[:-20])
    with pytest.raises(BenchError, match="not readable packed records"):
        load_results(tmp_path)
