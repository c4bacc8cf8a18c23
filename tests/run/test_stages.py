"""A run says what it is doing while it works, and knows before the first cell how much it will encode."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.clip import backbone as backbones
from bench.executors import serial
from bench.plan import planner
from bench.plan.request import Request
from bench.plan.todo import remaining
from bench.registry import builtin
from bench.run.desk import Desk
from bench.run.outcome import Ended, Now
from bench.run.session import Session


def test_stages_and_images(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(
        ("zero-shot", "tip-adapter"), (str(images),), (2,), (1,), ("pocket-rn",), results=tmp_path / "r"
    )
    made = planner.make(request, builtin())
    todo, _ = remaining(made)
    session = Session("cpu", tmp_path / "features", lambda line: None, workers=0)
    heard: list[Now] = []
    ended: list[Ended] = []
    session.watch = heard.append
    desk = Desk(session, builtin(), request.results)
    with monkeypatch.context() as patched:
        patched.setattr(backbones, "load", lambda *_: pytest.fail("does not load"))
        desk.encoder.begin(todo)
        patched.setattr(backbones, "load", _broken)
        assert desk.encoder.lacking(todo) is None
        patched.setattr(backbones, "load", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            desk.encoder.lacking(todo)
    before = desk.encoder.lacking(todo)
    outcome = serial.run(desk, made, todo, lambda cell, *_: ended.append(cell))
    assert before == outcome.encodes > 15 and desk.encoder.lacking(todo) == 0
    begun = [now for now in heard if now.total and not now.done]
    assert [now.what for now in begun] == ["encoding shapes"] * 2, "test images, then those of the draw"
    assert sum(now.total for now in begun) == before
    assert {now.done for now in heard if now.total} >= {now.total for now in begun}, "to the end"
    cell = "tip-adapter shapes 2-shot seed 1 (pocket-rn, hand)"
    at = [now.what for now in heard if not now.total]
    assert at[-2:] == [f"fitting {cell}", f"evaluating {cell}"]
    assert [cell.key for cell in ended] == [t.fit.key for t in todo]
    assert ended[0].seconds is None, "the first pays for what is loaded"
    assert all(cell.seconds is not None and cell.seconds > 0 for cell in ended[1:])


def _broken(*_: object) -> None:
    raise ValueError("damaged weights")
