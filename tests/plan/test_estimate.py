"""What a cell will take: by earlier records where there are any, else by what it costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.plan import estimate, planner
from bench.plan.earlier import Earlier
from bench.plan.request import Request
from bench.plan.todo import remaining
from bench.registry import builtin

ROOT = Path(__file__).resolve().parents[2]


def test_cells_by_cost_and_by_records(tmp_path: Path) -> None:
    request = Request(
        ("zero-shot", "safe", "safe-a"), ("digits",), (1,), (1,), ("pocket-rn",), results=tmp_path
    )
    todo, _ = remaining(planner.make(request, builtin()))
    modelled = estimate.cells(Earlier(tmp_path), todo)
    assert list(modelled) == [t.fit.key for t in todo]
    seconds = {guess.kind: guess.seconds for guess in modelled.values()}
    assert not any(guess.recorded for guess in modelled.values())
    assert seconds["safe", 1] > 20 * seconds["zero-shot", 0] > 0, "steps cost, a closed form hardly"
    pocket = Earlier(ROOT / "results" / "pocket")
    known = estimate.cells(pocket, todo)
    assert all(guess.recorded for guess in known.values())
    by_kind = {guess.kind: guess.seconds for guess in known.values()}
    least = estimate.seconds(pocket, todo)
    assert least is not None and sum(g.seconds for g in known.values()) == pytest.approx(least, rel=0.5)
    assert by_kind["safe", 1] > by_kind["zero-shot", 0]
