"""On all test images of a real dataset, a classifier predicts what the record of its cell says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import bench
from bench.data import catalog
from bench.records import store
from bench.records.types import EvaluationRecord

SETS = ("safe.steps=20", "safe.check_every=10", "tip-adapter-f.epochs=2", "coop.max_steps=8")


@pytest.mark.slow
def test_digits(tmp_path: Path) -> None:
    from bench.cli.app import app

    places = ["--results", str(tmp_path / "r"), "--cache", str(tmp_path / "c"), "--backbone", "pocket-rn"]
    methods = ["tip-adapter-f", "gda", "safe", "safe-a", "coop"]
    cell = ["--datasets", "digits", "--shots", "4", "--seeds", "1", "--jobs", "1"]
    sets = [word for item in SETS for word in ("--set", item)]
    run = CliRunner().invoke(app, ["run", "--methods", ",".join(methods), *cell, *sets, *places])
    assert run.exit_code == 0, run.output
    digits = catalog.find("digits", None)
    recorded = {
        r.cell.method: path for path, r in store.every(tmp_path / "r") if isinstance(r, EvaluationRecord)
    }
    assert sorted(recorded) == sorted(methods)
    for method in methods:
        out, read = tmp_path / f"{method}.clf", {method, "safe"} if method == "safe-a" else {method}
        mine = [word for item in SETS if item.split(".")[0] in read for word in ("--set", item)]
        cell = ["--method", method, "--dataset", "digits", "--shots", "4", "--seed", "1"]
        kept = CliRunner().invoke(app, ["keep", *cell, *mine, *places, "--out", str(out)])
        assert kept.exit_code == 0, kept.output
        answers = bench.load(out).answers(digits.source, digits.test.paths)
        predicted = [int(a.logits.argmax()) for a in answers if a.logits is not None]
        with np.load(recorded[method].with_suffix(".npz")) as arrays:
            assert predicted == arrays["top1"].tolist(), method
