"""Records of another kind of device: a plan counts them, and ``--fresh-device`` makes them anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.executors import on_ray
from bench.plan import planner
from bench.plan.request import Request
from bench.plan.todo import remaining
from bench.records import places, store
from bench.records.types import FitRecord
from bench.registry import builtin
from tests.run.conftest import Bench

FRESH = "--fresh-device"


def moved(results: Path, *methods: str, parts: tuple[str, ...] = ("fit", "evaluation")) -> int:
    """Make the records of these methods a GPU's; how many there were."""
    paths = [p for p, _ in store.every(results) if p.parent.name in methods]
    for path in paths:
        record = store.read(path)
        assert record is not None
        if ("fit" if isinstance(record, FitRecord) else "evaluation") in parts:
            facts = replace(record.provenance, device="cuda:1", device_name="A large GPU")
            store.put(path, replace(record, provenance=facts))
    return len(paths)


def kinds(results: Path) -> dict[str, str]:
    """The device of every record by its file."""
    return {path.name: record.provenance.device for path, record in store.every(results)}


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_what_was_recorded_elsewhere_is_made_anew(bench: Bench, tmp_path: Path, jobs: str) -> None:
    words = ("--methods", "zero-shot,tip-adapter", "--device", "cpu", "--results", tmp_path, "--jobs", jobs)
    assert bench("run", *words).exit_code == 0
    assert "0 cells to do, 2 done, 0 blocked" in bench("run", *words, FRESH, "--dry-run").output
    assert moved(tmp_path, "tip-adapter") == 2
    assert "0 cells to do, 2 done (1 of them on cuda), 0 blocked" in bench("run", *words, "--dry-run").output
    plan = bench("run", *words, FRESH, "--dry-run", "--why").output
    assert "1 cell to do, 1 done, 0 blocked" in plan
    assert "recorded on cuda, and made anew (--fresh-device)" in plan
    run = bench("run", *words, FRESH)
    assert run.exit_code == 0 and "1 fit, 1 evaluation," in run.output, run.output
    assert "mixed conditions" not in run.output
    assert set(kinds(tmp_path).values()) == {"cpu"}
    assert "0 cells to do, 2 done, 0 blocked" in bench("run", *words, FRESH, "--dry-run").output


def test_an_evaluation_alone_and_an_evaluation_of_an_older_fit(bench: Bench, tmp_path: Path) -> None:
    words = ("--methods", "tip-adapter", "--device", "cpu", "--results", tmp_path, "--jobs", "1")
    assert bench("run", *words).exit_code == 0
    moved(tmp_path, "tip-adapter", parts=("evaluation",))
    plan = bench("run", *words, FRESH, "--dry-run", "--why").output
    assert "1 evaluation recorded on cuda, and made anew (--fresh-device)" in plan
    assert "0 fits, 1 evaluation," in bench("run", *words, FRESH).output
    (path, evaluation), (_, fit) = sorted(store.every(tmp_path), key=lambda p: isinstance(p[1], FitRecord))
    assert evaluation.provenance.order > fit.provenance.order
    # as after a run that was stopped between a fit that it made anew and the fit's evaluation
    store.put(path, replace(evaluation, provenance=replace(evaluation.provenance, order=1)))
    later = replace(fit.provenance, order=9)
    store.put(places.fit_path(path.parent, fit.key), replace(fit, provenance=later))
    assert "0 cells to do" in bench("run", *words, "--dry-run").output
    assert "0 fits, 1 evaluation," in bench("run", *words, FRESH).output


def test_what_builds_on_a_fit_of_another_device_is_made_anew(bench: Bench, tmp_path: Path) -> None:
    """SAFE-A reads SAFE's state, on disk too: it is fitted again, and SAFE-A with it."""
    words = ("--methods", "safe-a", "--device", "cpu", "--results", tmp_path, "--jobs", "1")
    assert bench("run", *words).exit_code == 0
    state = {path: path.stat().st_mtime_ns for path in (tmp_path / "states").iterdir()}
    moved(tmp_path, "safe")
    plan = bench("run", *words, FRESH, "--dry-run", "--why").output
    assert "recorded on cpu (what it builds on was not), and made anew" in plan
    run = bench("run", *words, FRESH)
    assert run.exit_code == 0 and "2 fits" in run.output, run.output
    assert set(kinds(tmp_path).values()) == {"cpu"}
    assert {path: path.stat().st_mtime_ns for path in state} != state
    assert "0 cells to do" in bench("run", *words, FRESH, "--dry-run").output


def test_a_task_of_a_cluster_gets_what_counts(bench: Bench, images: Path, tmp_path: Path) -> None:
    words = ("--methods", "zero-shot,tip-adapter", "--device", "cpu", "--results", tmp_path, "--jobs", "1")
    assert bench("run", *words).exit_code == 0
    moved(tmp_path, "tip-adapter")
    request = Request(
        methods=("zero-shot", "tip-adapter"),
        datasets=(str(images),),
        shots=(2,),
        seeds=(1,),
        backbones=("pocket-rn",),
        results=tmp_path,
    )
    todo, _ = remaining(planner.make(request, builtin()), fresh=True)
    every, none = on_ray._known(tmp_path, todo), on_ray._known(tmp_path, todo, True)
    counting = on_ray._known(tmp_path, todo, "cpu")
    assert {Path(name).parent.name for name in every} >= {"zero-shot", "tip-adapter"} and not none
    assert {Path(name).parent.name for name in counting} == {"zero-shot"}
