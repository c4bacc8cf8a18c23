"""A rerun makes exactly the cells of a baseline, each fit once, in as many processes as are worthwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.cli import rerun
from bench.executors import processes
from bench.registry import builtin
from bench.report.frame import load_results
from bench.report.gate import cells
from bench.report.gate.baseline import Baseline, Kept
from bench.report.gate.check import check
from tests.report import made
from tests.run.conftest import Bench


def kept(folder: Path, method: str, shots: int, seed: int, **other: str) -> Kept:
    """A cell of digits that was never run."""
    made.one(folder / method, made.cell(method, "digits", shots, seed, **other))
    return cells.collect(load_results(folder / method))[-1]


def test_plans_that_share_no_fit_run_by_themselves(tmp_path: Path) -> None:
    """Zero-shot with prompts of its own does not keep the others in one process."""
    some = [kept(tmp_path, "zero-shot", 0, 0, prompts="coop"), kept(tmp_path, "tip-adapter-f", 1, 2)]
    shares = rerun._shares(rerun._plans(some, builtin(), rerun.Where(tmp_path)))
    assert [request and request.prompts for request, _ in shares] == [("coop",), ("hand",)]
    assert all(request and request.contents for request, _ in shares)
    cells_of = [[(f.cell.method, f.cell.shots, f.cell.seed) for f in plan.fits] for _, plan in shares]
    assert cells_of == [[("zero-shot", 0, 0)], [("tip-adapter-f", 1, 2)]]


def test_a_fit_that_two_plans_need_is_made_once(tmp_path: Path) -> None:
    """A value that acts at inference only is another request for the same fit."""
    plain = kept(tmp_path, "safe", 1, 1)
    swept = replace(plain, overrides={"safe": {"beta": 0.25}}, variant="beta=0.25")
    ((request, plan),) = rerun._shares(rerun._plans([plain, swept], builtin(), rerun.Where(tmp_path)))
    assert request is None
    (fit,) = plan.fits
    assert len(fit.evaluations) == 2 and fit.asked


@pytest.mark.slow
def test_processes_predict_what_one_process_predicts(
    bench: Bench, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = ("--methods", "zero-shot,tip-adapter-f", "--datasets", "digits", "--shots", "1", "--seeds", "1,2")
    done = bench("run", *grid, "--results", tmp_path, data=None)
    assert done.exit_code == 0, done.output
    old = Baseline(tuple(cells.collect(load_results(tmp_path))))
    monkeypatch.setattr(processes, "default_jobs", lambda device, seconds: 2)
    said: list[str] = []
    where = rerun.Where(tmp_path / "again", cache=cache, device="cpu")
    rerun.rerun(old.kept, builtin(), where, said.append)
    assert "2 processes fit side by side" in said
    verdict = check(old, load_results(where.results))
    assert {g.reason for g in verdict.groups} == {"equal predictions"}
