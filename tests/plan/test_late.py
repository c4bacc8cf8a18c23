"""What failed or was stopped is tried again after everything else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.plan import planner
from bench.plan.cells import Plan
from bench.plan.request import Request
from bench.plan.rounds import rounds
from bench.plan.todo import remaining
from bench.records import places
from bench.records.types import Failure
from bench.registry import builtin
from bench.run.recorder import Recorder
from tests.run.conftest import Bench, draw_images, of_type


def cell(dataset: str, seed: int, late: bool) -> Any:
    fit = SimpleNamespace(dataset=SimpleNamespace(digest=dataset), cell=SimpleNamespace(seed=seed, shots=1))
    return SimpleNamespace(fit=fit, late=late)


def test_rounds_of_what_failed_come_last() -> None:
    todo = [cell("a", 1, True), cell("a", 1, False), cell("b", 1, True), cell("b", 2, False)]
    for by_dataset in (False, True):
        said = [(digest, [t.late for t in group]) for digest, group in rounds(todo, by_dataset)]
        assert said == [("a", [False]), ("b", [False]), ("a", [True]), ("b", [True])]


def planned(images: Path, results: Path) -> Plan:
    methods = ("zero-shot", "tip-adapter")
    request = Request(methods, (str(images),), (1,), (1,), ("pocket-rn",), results=results)
    return planner.make(request, builtin())


def late(plan: Plan) -> dict[str, bool]:
    return {t.fit.method.name: t.late for t in remaining(plan)[0]}


def test_a_failure_or_a_stop_makes_a_cell_late_until_it_ends(bench: Bench, tmp_path: Path) -> None:
    images, results = draw_images(tmp_path / "shapes", {"train": 3, "test": 2}), tmp_path / "results"
    plan = planned(images, results)
    assert late(plan) == {"zero-shot": False, "tip-adapter": False}
    fit = next(f for f in plan.fits if f.method.name == "tip-adapter")
    Recorder.stopped(None, fit)  # type: ignore[arg-type]  # it needs nothing of a recorder
    assert late(plan) == {"zero-shot": False, "tip-adapter": True}
    broken = next((images / "test").rglob("*.png"))
    whole = broken.read_bytes()
    words = ("run", "--datasets", images, "--results", results, "--shots", "1", "--seeds", "1", "--jobs", "1")
    broken.write_bytes(b"")
    assert bench(*words, "--methods", "zero-shot,tip-adapter").exit_code == 1 and of_type(results, Failure)
    assert late(planned(images, results)) == {"zero-shot": True, "tip-adapter": True}
    broken.write_bytes(whole)
    assert bench(*words, "--methods", "zero-shot,tip-adapter").exit_code == 0
    assert not late(planned(images, results))
    assert not places.stopped_path(fit.where, fit.key).exists()
