"""The expected seconds of a cell: from earlier records of its kind if there are any, else from the cost
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from bench.cli import run_way
from bench.executors import processes
from bench.plan import estimate, planner
from bench.plan.earlier import Earlier
from bench.plan.request import Request
from bench.plan.todo import Todo, remaining
from bench.records.types import EvaluationRecord, FitRecord
from bench.registry import builtin

POCKET = Path(__file__).resolve().parents[2] / "results" / "pocket"
SAFE, ZERO_SHOT = ("pocket-rn", "safe", 1), ("pocket-rn", "zero-shot", 0)


@pytest.fixture(scope="module")
def todo(tmp_path_factory: pytest.TempPathFactory) -> list[Todo]:
    """Zero-shot, SAFE and SAFE-A at one shot on the digits, of which nothing is recorded."""
    results = tmp_path_factory.mktemp("results")
    request = Request(
        methods=("zero-shot", "safe", "safe-a"),
        datasets=("digits",),
        shots=(1,),
        seeds=(1,),
        backbones=("pocket-rn",),
        prompts=("hand",),
        cache=results / "cache",
        results=results,
    )
    return remaining(planner.make(request, builtin()))[0]


@pytest.fixture(scope="module")
def patterns() -> tuple[FitRecord, EvaluationRecord]:
    """A record of each kind."""
    records = Earlier(POCKET).within(POCKET / "runs" / "pocket-rn" / "digits" / "zero-shot")
    fit, evaluation = (
        next(r for r in records if isinstance(r, kind)) for kind in (FitRecord, EvaluationRecord)
    )
    assert isinstance(fit, FitRecord) and isinstance(evaluation, EvaluationRecord)
    return fit, evaluation


def earlier(
    patterns: tuple[FitRecord, EvaluationRecord],
    fits: Sequence[tuple[estimate.Kind, float]],
    evaluations: Sequence[tuple[estimate.Kind, float]] = (),
) -> Any:
    """Records of these kinds that took these seconds."""

    def cell(kind: estimate.Kind) -> Any:
        backbone, method, shots = kind
        return msgspec.structs.replace(patterns[0].cell, backbone=backbone, method=method, shots=shots)

    def made(pattern: Any, kind: estimate.Kind, seconds: Any) -> Any:
        return msgspec.structs.replace(pattern, cell=cell(kind), seconds=seconds)

    records = [made(patterns[0], kind, {"fit": 0.75 * s, "prepare": 0.25 * s}) for kind, s in fits]
    return SimpleNamespace(records=[*records, *(made(patterns[1], kind, s) for kind, s in evaluations)])


def test_cells_by_cost(tmp_path: Path, todo: list[Todo]) -> None:
    nothing = Earlier(tmp_path)
    modelled = estimate.cells(nothing, todo, "cpu")
    assert list(modelled) == [t.fit.key for t in todo]
    seconds = {guess.kind: guess.seconds for guess in modelled.values()}
    assert not any(guess.recorded for guess in modelled.values())
    assert seconds[SAFE] > 20 * seconds[ZERO_SHOT] > 0, "steps cost, a closed form hardly"
    assert estimate.seconds(nothing, todo, "cpu") is None


def test_cells_by_the_median_of_records(todo: list[Todo], patterns: Any) -> None:
    """SAFE's fits took 2, 4 and 90 s, its evaluations 1 and 3 s; zero-shot's 0.5 s and 0.25 s."""
    known = earlier(
        patterns,
        [(SAFE, 2.0), (SAFE, 90.0), (SAFE, 4.0), (ZERO_SHOT, 0.5)],
        [(SAFE, 1.0), (SAFE, 3.0), (ZERO_SHOT, 0.25)],
    )
    some = [t for t in todo if t.fit.method.name != "safe-a"]
    guesses = {guess.kind: guess for guess in estimate.cells(known, some, "cpu").values()}
    assert [len(t.evaluations) for t in some] == [1, 1] and all(g.recorded for g in guesses.values())
    assert {kind: guess.seconds for kind, guess in guesses.items()} == {SAFE: 6.0, ZERO_SHOT: 0.75}
    assert estimate.seconds(known, some, "cpu") == 6.75
    assert estimate.seconds(known, todo, "cpu") is None, "of SAFE-A there is no record"
    assert estimate.seconds(known, [], "cpu") is None


def test_a_fit_that_is_there_costs_nothing(todo: list[Todo], patterns: Any) -> None:
    (safe,) = (t for t in todo if t.fit.method.name == "safe")
    stored = [replace(safe, stored=patterns[0])]
    assert estimate.seconds(earlier(patterns, [(SAFE, 4.0)], [(SAFE, 2.0)]), stored, "cpu") == 2.0
    assert estimate.seconds(earlier(patterns, [], [(SAFE, 2.0)]), stored, "cpu") == 2.0
    assert estimate.seconds(earlier(patterns, [(SAFE, 4.0)]), stored, "cpu") is None, (
        "no evaluation was timed"
    )


@pytest.mark.parametrize("other", [("RN50", "safe", 1), ("pocket-rn", "safe", 2), ("pocket-rn", "coop", 1)])
def test_records_of_another_kind_say_nothing(other: estimate.Kind, todo: list[Todo], patterns: Any) -> None:
    (safe,) = (t for t in todo if t.fit.method.name == "safe")
    assert estimate.seconds(earlier(patterns, [(other, 4.0)], [(other, 2.0)]), [safe], "cpu") is None
    both = earlier(patterns, [(other, 900.0), (SAFE, 4.0)], [(other, 900.0), (SAFE, 2.0)])
    assert estimate.seconds(both, [safe], "cpu") == 6.0


def test_records_of_another_device_say_nothing(todo: list[Todo], patterns: Any) -> None:
    """What a GPU took is no estimate for a processor; nor is it for cells that are made anew on one."""
    known = earlier(patterns, [(SAFE, 4.0)], [(SAFE, 2.0)])
    on_gpu = [
        msgspec.structs.replace(
            r, provenance=msgspec.structs.replace(r.provenance, device="cuda:0"), seconds=seconds
        )
        for r, seconds in zip(known.records, ({"fit": 0.1}, 0.1), strict=True)
    ]
    both: Any = SimpleNamespace(records=[*on_gpu, *on_gpu, *known.records])
    (safe,) = (t for t in todo if t.fit.method.name == "safe")
    assert estimate.seconds(both, [safe], "cpu") == 6.0
    assert estimate.seconds(both, [safe], "cuda") == pytest.approx(0.2)
    assert estimate.seconds(known, [safe], "cuda") is None


def test_what_is_usual_goes_by_no_clock(
    tmp_path: Path, todo: list[Todo], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many workers begin follows from it, whatever this machine measured and however long cells took."""
    usual = estimate.usual(todo)
    modelled = estimate.cells(Earlier(tmp_path), todo, "cpu")
    assert usual == pytest.approx({key: guess.seconds for key, guess in modelled.items()})
    heard: list[float] = []
    monkeypatch.setattr(processes, "default_jobs", lambda device, seconds: heard.extend(seconds) or 2)
    desk: Any = SimpleNamespace(join=False, session=SimpleNamespace(dense_cache=True, device="cpu"))
    slow = {key: replace(guess, seconds=1e6) for key, guess in modelled.items()}
    assert run_way.usual_jobs(desk, SimpleNamespace(todo=todo, guesses=slow)) == 2  # type: ignore[arg-type]
    assert sum(heard) == pytest.approx(sum(usual.values()))


def test_the_committed_records_know_their_cells(todo: list[Todo]) -> None:
    guesses = estimate.cells(Earlier(POCKET), todo, "cpu")
    assert all(guess.recorded and guess.seconds > 0 for guess in guesses.values())
