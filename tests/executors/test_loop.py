"""The loop over what is left, with a way that only notes what it is given."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from bench.executors import loop
from bench.executors.loop import Done
from bench.plan.cells import Plan
from bench.run.encoder import Encoded
from bench.run.outcome import Outcome

CELLS = [f"cell {i}" for i in range(6)]  # the loop asks nothing of a cell


class Encoder:
    """Stops the cells that it is told to."""

    def __init__(self, stops: tuple[str, ...] = ()) -> None:
        self.stops = stops

    def begin(self, todo: list[str]) -> None: ...

    def encode(self, portion: list[str]) -> Encoded:
        stopped = [(cell, OSError("unreadable")) for cell in portion if cell in self.stops]
        return Encoded([c for c in portion if c not in self.stops], stopped, encodes=len(portion))  # type: ignore


def desk(stops: tuple[str, ...] = ()) -> Any:
    heard: list[str] = []
    return SimpleNamespace(
        outcome=Outcome(),
        encoder=Encoder(stops),
        recorder=SimpleNamespace(failure=lambda cell, error: f"FAILED {cell}: {error}"),
        session=SimpleNamespace(report=heard.append),
        heard=heard,
    )


@dataclass
class Pairs:
    """Two cells at a time, two portions at once; ``fails``: portions of which nothing comes back."""

    encodes: bool = True
    fails: tuple[str, ...] = ()
    out: list[list[str]] = field(default_factory=list)
    most: int = 0
    calls: list[str] = field(default_factory=list)

    def portions(self, todo: list[str]) -> list[list[str]]:
        return [todo[i : i + 2] for i in range(0, len(todo), 2)]

    def room(self) -> bool:
        return len(self.out) < 2

    def busy(self) -> bool:
        return bool(self.out)

    def submit(self, portion: list[str], deadline: float | None) -> None:
        self.out.append(portion)
        self.most = max(self.most, len(self.out))

    def collect(self) -> Iterator[Done]:
        portion = self.out.pop(0)
        if portion[0] in self.fails:
            yield Done(failed=[(cell, RuntimeError("its worker died")) for cell in portion])  # type: ignore
            return
        for cell in portion:
            yield Done([cell], Outcome(fits=1), [f"{cell} was small"])

    def finish(self) -> None:
        self.calls.append("finish")

    def end(self) -> None:
        self.calls.append("end")


def run(at: Any, way: Pairs, deadline: float | None = None) -> list[tuple[str, int, int]]:
    said: list[tuple[str, int, int]] = []
    plan: Any = Plan([SimpleNamespace(asked=True)] * 8, [])  # type: ignore  # two were recorded before
    loop.run(at, plan, CELLS, way, lambda *what: said.append(what), deadline)  # type: ignore
    return said


def test_every_cell_is_done_and_counted_once() -> None:
    at, way = desk(), Pairs()
    said = run(at, way)
    assert [(what, done) for what, done, _ in said] == [(cell, 3 + i) for i, cell in enumerate(CELLS)]
    assert {total for *_, total in said} == {8} and way.most == 2
    assert (at.outcome.cells, at.outcome.resumed) == (8, 2)
    assert (at.outcome.fits, at.outcome.encodes) == (6, 6)
    assert at.heard == [f"{cell} was small" for cell in CELLS]
    assert way.calls == ["finish", "end"]


def test_what_stops_or_is_lost_is_said_and_costs_nothing_else() -> None:
    at, way = desk(stops=("cell 0", "cell 1", "cell 3")), Pairs(fails=("cell 4",))
    said = [what for what, *_ in run(at, way)]
    assert sorted(said) == [
        "FAILED cell 0: unreadable",
        "FAILED cell 1: unreadable",
        "FAILED cell 3: unreadable",
        "FAILED cell 4: its worker died",
        "FAILED cell 5: its worker died",
        "cell 2",
    ]


def test_workers_that_encode_for_themselves_get_whole_portions() -> None:
    at, way = desk(stops=("cell 0",)), Pairs(encodes=False)
    assert [what for what, *_ in run(at, way)] == CELLS and at.outcome.encodes == 0


def test_nothing_begins_after_the_deadline() -> None:
    at, way = desk(), Pairs()
    assert run(at, way, deadline=time.monotonic() - 1) == []
    assert at.outcome.out_of_time and way.calls == ["finish", "end"]


def test_an_error_of_the_way_lets_go_of_everything() -> None:
    class Broken(Pairs):
        def collect(self) -> Iterator[Done]:
            raise KeyboardInterrupt

    way = Broken()
    with pytest.raises(KeyboardInterrupt):
        run(desk(), way)
    assert way.calls == ["end"]
