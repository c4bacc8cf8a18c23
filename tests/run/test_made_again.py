"""A damaged file is named, and the next run makes it again: the same numbers, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.cli.codes import Code
from bench.records import places, store
from bench.records.types import EvaluationRecord, FitRecord
from bench.report.frame import load_results
from tests.run.conftest import Bench, of_type, records

METHODS = ("--methods", "zero-shot,tip-adapter,tip-adapter-f", "--keep-states", "all")


def files(results: Path, method: str, pattern: str) -> list[Path]:
    return sorted(file for file in (results / "runs").rglob(pattern) if file.parent.name == method)


def test_damaged_records_and_predictions_are_made_again(bench: Bench, tmp_path: Path) -> None:
    results = tmp_path / "results"
    arguments = (*METHODS, "--results", results)
    assert bench("run", *arguments).exit_code == 0
    whole = records(results)
    accuracy = load_results(results).set_index("key")["accuracy"].to_dict()

    (zero,) = files(results, "zero-shot", "*-*.json")
    zero.write_bytes(zero.read_bytes().replace(b'"top1": ', b'"top1": 0.0'))  # its checksum tells
    (tip,) = files(results, "tip-adapter", "*.npz")
    tip.write_bytes(b"")
    (fitted,) = (f for f in files(results, "tip-adapter-f", "*.json") if "-" not in f.stem)
    fitted.write_bytes(fitted.read_bytes()[:100])
    named = [zero, tip, fitted]

    shown = bench("table", "--results", results)
    assert "all records are damaged or incomplete" in str(shown.exception)
    dry = bench("run", *arguments, "--dry-run", "--why")
    assert "3 cells to do, 0 done" in dry.output and dry.exit_code == 0
    assert "3 records are damaged or incomplete" in dry.output
    assert all(file.name in dry.output for file in named), dry.output
    again = bench("run", *arguments)
    assert again.exit_code == 0, again.output
    assert records(results) == whole
    assert load_results(results).set_index("key")["accuracy"].to_dict() == accuracy
    assert "0 cells to do, 3 done" in bench("run", *arguments).output


def test_what_tables_leave_out_is_made_again(bench: Bench, tmp_path: Path) -> None:
    """An evaluation that says another seed than its fit, under a checksum of its own."""
    results = tmp_path / "results"
    arguments = ("--methods", "zero-shot", "--results", results)
    assert bench("run", *arguments).exit_code == 0
    whole = records(results)
    (file,) = files(results, "zero-shot", "*-*.json")
    record = store.read(file)
    assert record is not None
    store.put(file, replace(record, cell=replace(record.cell, seed=7)))
    assert "not those of its fit" in str(bench("table", "--results", results).exception)
    done = bench("run", *arguments)
    assert "a record is damaged or incomplete, so its cell runs again" in done.output
    assert "1 cell to do, 0 done" in done.output and records(results) == whole
    assert bench("table", "--results", results).exit_code == 0


def test_exchanged_predictions_cost_themselves_only(bench: Bench, tmp_path: Path) -> None:
    results = tmp_path / "results"
    arguments = (*METHODS, "--results", results)
    assert bench("run", *arguments).exit_code == 0
    whole = records(results)
    first, second = (files(results, name, "*.npz")[0] for name in ("tip-adapter", "tip-adapter-f"))
    first.write_bytes(second.read_bytes()), second.unlink()
    out = tmp_path / "table.md"
    shown = bench("table", "--results", results, "--out", out)
    assert shown.exit_code == Code.INCOMPLETE, shown.output
    text = out.read_text()
    assert "left out: 2 records that are damaged or incomplete" in text and "Zero-shot" in text
    packed = bench("pack", "--results", results, "--out", tmp_path / "packed")
    assert packed.exit_code == Code.INCOMPLETE and "left out: 2 records" in packed.output
    assert "2 cells to do, 1 done" in bench("run", *arguments).output
    assert records(results) == whole
    assert bench("table", "--results", results, "--out", out).exit_code == 0
    assert "damaged or incomplete" not in out.read_text()


@pytest.mark.parametrize("kind", ["cut", "exchanged", "gone"])
def test_a_damaged_state_is_fitted_again(bench: Bench, tmp_path: Path, kind: str) -> None:
    """Another method builds on it, and has lost its evaluation: both have in the end what they had."""
    results = tmp_path / "results"
    arguments = ("--methods", "safe,safe-a,tip-adapter-f", "--keep-states", "all", "--results", results)
    done = bench("run", *arguments)
    assert done.exit_code == 0, done.output
    whole = records(results)
    fits = {fit.cell.method: fit for fit in of_type(results, FitRecord)}
    first, second = (places.state_path(results, fits[name].key) for name in ("safe", "tip-adapter-f"))
    if kind == "cut":
        first.write_bytes(first.read_bytes()[:-100])
    elif kind == "exchanged":
        first.write_bytes(second.read_bytes())
    else:
        first.unlink()
    for file in (results / "runs").rglob("*-*.*"):
        file.unlink()
    again = bench("run", *arguments)
    assert again.exit_code == 0, again.output
    assert ("is fitted again" in again.output and first.name in again.output) == (kind != "gone")
    assert records(results) == whole
    assert len(of_type(results, EvaluationRecord)) == 3


def test_a_record_that_others_build_on_is_made_again(bench: Bench, tmp_path: Path) -> None:
    """Nobody asked for it, and without it nothing says what the numbers above it were made with."""
    results = tmp_path / "results"
    arguments = ("--methods", "zero-shot,safe-a", "--results", results)
    assert bench("run", *arguments).exit_code == 0
    whole = records(results)
    (below,) = files(results, "safe", "*.json")
    below.write_bytes(below.read_bytes()[:-9])
    shown = bench("table", "--results", results)
    assert shown.exit_code == Code.INCOMPLETE and "one that it builds on" in shown.output
    assert "1 cell to do, 2 done" in bench("run", *arguments).output
    assert records(results) == whole
    assert bench("table", "--results", results).exit_code == 0
