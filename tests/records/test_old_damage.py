"""Damaged records of schema 1, and files that are no records, are named in a line; all others count."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.records import outcomes, store
from bench.records.types import EvaluationRecord
from bench.records.upgrade import upgrade
from bench.records.whole import Bad
from bench.report.compact import pack
from bench.report.frame import correct, load_results
from bench.report.tables import table
from tests.fixtures.hostile import in_time

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "schema-1"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "results"))


def evaluation(results: Path) -> Path:
    return next(f for f in sorted((results / "runs").rglob("*-*.json")) if f.with_suffix(".npz").is_file())


def test_packing_them_is_refused_and_spoils_no_earlier_pack(old: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed"
    with pytest.raises(BenchError, match="bench convert"):
        pack(old, out)
    assert not out.exists()
    upgrade(old)
    pack(old, out)
    texts = [
        re.sub(r"\(the record is .*?\)", "", table(load_results(folder)).text("json")).replace(
            str(folder), ""
        )
        for folder in (out, old)
    ]
    assert texts[0] == texts[1]


def test_their_top5_is_counted_again(old: Path) -> None:
    file = evaluation(old)
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({**fields, "top5": 1.0}))
    bad = load_results(old).attrs["bad"]
    assert file.stem in bad and "they give a top5 accuracy" in bad
    with pytest.raises(BenchError, match="they give a top5 accuracy"):
        upgrade(old)


@pytest.mark.parametrize("deep", ["", "a", "a/b/c/d"])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_record_at_another_depth(
    old: Path, monkeypatch: pytest.MonkeyPatch, deep: str, absolute: bool
) -> None:
    monkeypatch.chdir(old.parent)
    results = old if absolute else Path(old.name)
    source = evaluation(results)
    file = results / "runs" / deep / source.name
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = len(load_results(results))
    shutil.copy(source, file)
    frame = load_results(results)
    assert len(frame) == whole
    assert str(file) in frame.attrs["bad"] and "not a place of a record" in frame.attrs["bad"]


def test_a_file_that_cannot_be_read_costs_itself(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, read = evaluation(old), Path.read_bytes

    def denied(self: Path) -> bytes:
        if self == closed:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", denied)
    frame = load_results(old)
    assert len(frame) and f"{closed} (not readable (Permission denied)" in frame.attrs["bad"]
    assert store.outdated(old)
    bad: list[Bad] = []
    assert store.evaluation(closed, "", bad) is None and bad


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        pytest.param(
            getattr(os, "mkfifo", None),
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among the files"),
        ),
    ],
    ids=["a folder", "a pipe"],
)
def test_what_is_called_like_a_record_and_is_no_file(old: Path, make: Callable[[Path], None]) -> None:
    make(old / "runs" / "0.json")
    with in_time():
        assert store.outdated(old)
        upgrade(old)
        assert not store.outdated(old)
        assert len(load_results(old))


def test_counted_predictions_take_little_memory(old: Path) -> None:
    file = evaluation(old)
    record = store.read(file)
    assert isinstance(record, EvaluationRecord)
    counted = outcomes.of_file(file.with_suffix(".npz"), record)
    assert len(counted.bits) <= record.n // 8 + 1
    arrays = store.named(file, ("top1", "labels"))
    assert (correct(file) == (arrays["top1"] == arrays["labels"])).all()
