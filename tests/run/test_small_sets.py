"""No method fails for want of images: two or three classes with one or two shots, under both presets."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.contract.lab import cut
from bench.errors import BenchError
from bench.executors import serial
from bench.names import canonical
from bench.plan import planner
from bench.plan.request import Request
from bench.plan.todo import remaining
from bench.records.types import EvaluationRecord, FitRecord
from bench.registry import Registry, builtin
from bench.run.desk import Desk
from bench.run.session import Session
from tests.run.conftest import CLASSES, Bench, done, draw_images, failures, of_type

WITHOUT_SENTENCES = {"cupl"}  # blocked: nobody gave sentences for these classes
SIZES = {"three classes": (3, 1), "two classes": (2, 1), "two shots": (2, 2)}


def few_steps() -> Registry:
    """Every method; those that train take a few steps."""
    short, whole = Registry(), builtin()
    short.methods = {canonical(name): cut(whole.get(name)) for name in whole.names()}
    return short


def tiny(root: Path, classes: int) -> Path:
    """The first ``classes`` classes with two training images and one to validate on each."""
    draw_images(root, {"train": 2, "val": 1, "test": 2})
    for part in ("train", "val", "test"):
        for name in list(CLASSES)[classes:]:
            for image in (root / part / name).iterdir():
                image.unlink()
            (root / part / name).rmdir()
    return root


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["quick", "paper"])
@pytest.mark.parametrize("size", SIZES)
def test_every_method_fits_a_tiny_set(size: str, preset: str, cache: Path, tmp_path: Path) -> None:
    (classes, shots), registry = SIZES[size], few_steps()
    request = Request(
        tuple(registry.names()),
        (str(tiny(tmp_path / "tiny", classes)),),
        (shots,),
        (1,),
        ("pocket-rn", "pocket-vit"),
        preset=preset,
        results=tmp_path / "results",
    )
    plan = planner.make(request, registry)
    assert {b.method for b in plan.blocked if "towers" not in b.reason} == WITHOUT_SENTENCES
    todo, _ = remaining(plan)
    assert {t.fit.method.name for t in todo} == set(registry.names()) - WITHOUT_SENTENCES
    session = Session("cpu", cache, lambda line: None, workers=0)
    outcome = serial.run(Desk(session, registry, request.results), plan, todo, lambda *_: None)
    assert outcome.failures == []
    assert len(of_type(request.results, EvaluationRecord)) == len(todo)


def test_a_shortened_batch_is_said_and_recorded(bench: Bench, tmp_path: Path) -> None:
    """The user's own batch too; another one is another fit only where other batches are drawn."""
    data = tiny(tmp_path / "tiny", 2)
    command = ("run", "--methods", "safe,safe-a", "--shots", "1", "--results", tmp_path / "r")
    whole = bench(*command, data=data)
    said = "safe, 1 shot: batch 8 -> 3 (2 support images x 2 views = 4 rows)"
    assert whole.exit_code == 0 and f"note on tiny: {said}" in whole.output, whole.output
    fits = {r.cell.method: r for r in of_type(tmp_path / "r", FitRecord)}
    assert fits["safe"].parts.recipe["streams"]["image"]["batch"] == 3
    assert said in fits["safe"].notes and said not in fits["safe-a"].notes
    assert "0 encodes, 0 steps" in bench(*command, data=data).output
    other = bench(*command, "--set", "safe.batch=7", "--dry-run", data=data)
    assert "safe, 1 shot: batch 7 -> 3" in other.output
    none = bench(*command, "--set", "safe.batch=0", "--dry-run", data=data)
    assert isinstance(none.exception, BenchError) and "safe.batch must be a positive" in str(none.exception)


def test_texts_stop_cells_before_an_image_is_encoded(bench: Bench, tmp_path: Path) -> None:
    """Names that are equal in the tokens that the tower reads; another dataset of the run goes on."""
    data = tiny(tmp_path / "long", 2)
    for part in ("train", "val", "test"):
        for name in list(CLASSES)[:2]:
            (data / part / name).rename(data / part / f"{'x y ' * 40}{name}")
    command = ("run", "--shots", "1", "--results", tmp_path / "r")
    run = bench(*command, "--methods", "zero-shot,safe,coop", "--cache", tmp_path / "c", data=data)
    assert run.exit_code == 1 and " 0 fits, 0 evaluations, 0 encodes, 0 steps; 3 failed" in run.output
    assert "2 of 2 prompts are longer than 77 tokens and were cut" in run.output
    found = failures(tmp_path / "r")
    assert set(found) == {"zero-shot", "safe", "coop"}
    for failure in found.values():
        assert failure.stage == "encode"
        assert "they do not differ in the 77 tokens that pocket-rn reads" in failure.error
        assert len(failure.error) < 400
    both = f"{data},{tiny(tmp_path / 'fine', 2)}"
    again = bench(*command, "--methods", "zero-shot", data=both)
    assert again.exit_code == 1 and done(tmp_path / "r") == {("zero-shot", "fine")}
