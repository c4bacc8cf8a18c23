"""``--precision`` changes features, keys, records and rows through the image tower; all later steps stay
single.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench.cli import rerun
from bench.cli.app import app
from bench.errors import BenchError
from bench.plan import planner
from bench.plan.request import Request
from bench.records import places, store
from bench.registry import builtin
from bench.report.frame import load_results
from bench.report.gate import baseline as baselines
from bench.report.gate import cells
from bench.report.gate import check as gate
from bench.run import task as tasks
from bench.run.session import Session
from tests.report import made as synthetic
from tests.run.conftest import QUICK, Bench, records

ROOT = Path(__file__).resolve().parents[2]
CELLS = ("--methods", "zero-shot,tip-adapter-f,safe-a")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, images: Path, features: Path) -> Path:
    """Records of the tiny run in single precision and in bf16, in one folder."""
    results = tmp_path_factory.mktemp("both")
    same = (
        "--backbone",
        "pocket-rn",
        "--datasets",
        str(images),
        "--shots",
        "2",
        "--results",
        str(results),
        *QUICK,
    )
    for more in (("--seeds", "1,2"), ("--seeds", "2", "--precision", "bf16")):
        done = CliRunner().invoke(app, ["run", *same, *CELLS, *more, "--cache", str(features), "--jobs", "1"])
        assert done.exit_code == 0, done.output
    return results


def test_features_are_near_and_kept_apart(made: Path, features: Path, images: Path) -> None:
    session = Session("cpu", features, print, workers=0)
    found = []
    for name in ("fp32", "bf16"):
        request = Request(("safe",), (str(images),), (2,), (2,), ("pocket-rn",), precision=name)
        (fit,) = planner.make(request, builtin()).fits
        assert not session.lacks(
            fit.backbone, fit.dataset, fit.dataset.test.paths, "eval", ["dense", "pooled"]
        )
        both = [
            session.features(fit.backbone, fit.dataset, fit.dataset.test.paths, "eval", tap)
            for tap in ("dense", "pooled")
        ]
        found.append([*both, *tasks.text(session, fit, {})[:1]])
    (*single, W), (*half, V) = found
    for x, y in zip(single, half, strict=True):
        assert not torch.equal(x, y)
        assert torch.nn.functional.cosine_similarity(x.flatten(1), y.flatten(1)).min() > 0.999
    assert torch.equal(W, V), "the text tower stays in single precision"


def test_records_are_apart_and_no_table_mixes_them(bench: Bench, made: Path) -> None:
    frame = load_results(made)
    assert set(frame["variant"].map(lambda v: v.split(", ")[-1])) >= {"precision=bf16"}
    half = frame["variant"].str.endswith("precision=bf16")
    assert set(frame[half]["seed"]) == {0, 2} and set(frame[~half]["seed"]) == {0, 1, 2}
    assert not set(frame[half]["fit"]) & set(frame[~half]["fit"])
    for path in frame[half]["path"]:
        evaluation = store.read(Path(path))
        assert evaluation is not None
        assert store.behind(Path(path), evaluation)[0].parts.encode_dtype == "bfloat16"
    table = bench("table", "--results", made, "--variants", "--format", "csv")
    assert table.exit_code == 0, table.output
    assert "zero-shot," in table.output and "zero-shot (precision=bf16)," in table.output
    assert (
        "precision=bf16"
        not in bench("table", "--results", made, "--methods", "zero-shot", "--format", "csv").output
    )


@pytest.mark.slow
def test_a_worker_uses_it_too(bench: Bench, made: Path, tmp_path: Path) -> None:
    arguments = (
        "--methods",
        "tip-adapter-f",
        "--seeds",
        "2",
        "--precision",
        "bf16",
        "--results",
        tmp_path,
        "--jobs",
        "2",
    )
    assert bench("run", *arguments).exit_code == 0
    found, both = records(tmp_path), records(made)
    assert len(found) == 3 and {name: both.get(name) for name in found} == found


def test_unknown_precision(bench: Bench) -> None:
    done = bench("run", *CELLS, "--precision", "fp8", "--dry-run")
    assert isinstance(done.exception, BenchError) and "choose fp32, fp16, bf16, or auto" in str(
        done.exception
    )


def test_default_keys_are_those_of_the_committed_records(tmp_path: Path) -> None:
    request = Request(("zero-shot",), ("digits",), (1,), (1,), ("pocket-rn",), ("hand",), results=tmp_path)
    (fit,) = planner.make(request, builtin()).fits
    assert fit.key.startswith("27af6d4bb7f70353b032")
    where = places.folder(ROOT / "results" / "pocket", fit.backbone.name, fit.dataset.name, fit.method.name)
    assert store.fit(places.fit_path(where, fit.key), fit.key)
    assert store.evaluation(
        places.evaluation_path(where, fit.key, fit.evaluations[0].key), fit.evaluations[0].key
    )


def test_the_gate_compares_precisions_by_accuracy(made: Path) -> None:
    frame = load_results(made)
    single = frame[~frame["variant"].str.endswith("precision=bf16") & frame["seed"].isin([0, 2])]
    old = baselines.Baseline(tuple(cells.collect(single)))
    assert all(g.by_agreement for g in gate.check(old, frame).groups)
    moved = cells.in_precision(old, "bf16")
    assert not any(g.by_agreement for g in gate.check(moved, frame).groups)
    new = baselines.Baseline(tuple(cells.collect(cells.select(frame, moved))))
    assert {k.precision for k in new.kept} == {"bf16"} and len(new.kept) == len(old.kept)
    assert {k.identity for k in cells.in_precision(new, "fp32").kept} == {k.identity for k in old.kept}


def test_a_rerun_keeps_or_changes_the_precision(tmp_path: Path) -> None:
    synthetic.one(tmp_path, synthetic.cell("zero-shot", "digits", 0, 0))
    (kept,) = cells.collect(load_results(tmp_path))
    for own, asked, dtype in (
        ("fp32", None, "float32"),
        ("bf16", None, "bfloat16"),
        ("fp32", "bf16", "bfloat16"),
    ):
        where = rerun.Where(tmp_path / "new", precision=asked)
        (fit,) = rerun.plan_of([replace(kept, precision=own)], builtin(), where).fits
        assert fit.backbone.dtype == fit.parts.encode_dtype == dtype
