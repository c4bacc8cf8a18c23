"""The loop over what is left, with a way that only notes what it is given."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from bench.executors import loop, processes
from bench.executors.loop import Done
from bench.executors.serial import Serial
from bench.plan.cells import Plan
from bench.run.encoder import Encoded
from bench.run.outcome import Ended, Now, Outcome


class Named(str):
    """A cell: the loop asks nothing of it but its key."""

    @property
    def fit(self) -> Any:
        return SimpleNamespace(key=f"key of {self}")


CELLS = [Named(f"cell {i}") for i in range(6)]


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
        note=lambda portion: None,
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
            yield Done([Ended(cell, cell)], Outcome(fits=1), [f"{cell} was small"])

    def finish(self) -> None:
        self.calls.append("finish")

    def end(self) -> None:
        self.calls.append("end")


def run(at: Any, way: Pairs, deadline: float | None = None) -> list[tuple[str, int, int]]:
    said: list[tuple[str, int, int]] = []

    def hear(cell: Ended, done: int, total: int) -> None:
        said.append((cell.said, done, total))

    plan: Any = Plan([SimpleNamespace(asked=True)] * 8, [])  # type: ignore  # two were recorded before
    loop.run(at, plan, CELLS, way, hear, deadline)  # type: ignore
    return said


def test_every_cell_is_done_and_counted_once() -> None:
    at, way = desk(), Pairs()
    said = run(at, way)
    assert [(what, done) for what, done, _ in said] == [(cell, 3 + i) for i, cell in enumerate(CELLS)]
    assert {total for *_, total in said} == {8} and way.most == 2
    assert (at.outcome.cells, at.outcome.resumed, at.outcome.left) == (8, 2, 0)
    assert (at.outcome.fits, at.outcome.encodes) == (6, 6)
    assert at.heard == [f"{cell} was small" for cell in CELLS]
    assert way.calls == ["finish", "end"]


def test_a_store_that_fails_while_images_are_counted_ends_the_way() -> None:
    """A Ray cluster or processes are let go of whatever happens before the first cell."""
    at, way = desk(), Pairs()

    def lacking(todo: Any) -> int:
        raise OSError(5, "Input/output error")

    at.encoder.lacking = lacking
    plan: Any = Plan([SimpleNamespace(asked=True)] * 8, [])  # type: ignore
    with pytest.raises(OSError):
        loop.run(at, plan, CELLS, way, lambda *_: None, images=lambda n: None)  # type: ignore
    assert way.calls == ["end"]
    heard: list[int | None] = []
    at.encoder.lacking = lambda todo: 7
    for way in (Pairs(), Pairs(encodes=False)):
        loop.run(at, plan, CELLS, way, lambda *_: None, images=heard.append)  # type: ignore
    assert heard == [7, None], "where a way's workers encode, it is not known here"


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
    assert (at.outcome.cells, at.outcome.resumed, at.outcome.left) == (8, 2, 6)


def test_an_error_of_the_way_lets_go_of_everything() -> None:
    class Broken(Pairs):
        def collect(self) -> Iterator[Done]:
            raise KeyboardInterrupt

    way = Broken()
    with pytest.raises(KeyboardInterrupt):
        run(desk(), way)
    assert way.calls == ["end"]


def named(dataset: str, seed: int) -> Any:
    """A cell as far as rounds and the serial way look at one."""
    cell = SimpleNamespace(shots=1, seed=seed)
    data = SimpleNamespace(name=dataset, digest=dataset)
    return SimpleNamespace(fit=SimpleNamespace(dataset=data, cell=cell))


def serial_desk(seconds: float = 0.0) -> Any:
    """Notes what is done in which order; a cell takes ``seconds``."""
    at, order = desk(), []

    def do(t: Any) -> Ended:
        time.sleep(seconds)
        order.append(f"{t.fit.dataset.name} {t.fit.cell.seed}")
        return Ended("", "done")

    at.session.dense_cache, at.join, at.do, at.order = False, False, do, order
    at.states = SimpleNamespace(begin=lambda group: None)
    at.waiting = SimpleNamespace(evaluate=lambda: order.append("pass"))
    return at


def test_serial_makes_one_pass_when_a_dataset_is_done_and_before_the_next_is_encoded() -> None:
    at = serial_desk()
    at.encoder.encode = lambda portion: (
        at.order.append(f"encode {portion[0].fit.dataset.name}") or Encoded(portion, [], 0)
    )
    todo: Any = [named(name, seed) for seed in (1, 2) for name in ("fish", "birds")]
    plan: Any = Plan([SimpleNamespace(asked=True)] * 4, [])  # type: ignore
    loop.run(at, plan, todo, Serial(at), lambda *_: None)
    fish = ["encode fish", "fish 1", "encode fish", "fish 2", "pass"]
    assert at.order == [*fish, *(line.replace("fish", "birds") for line in fish), "pass"]


def test_serial_starts_no_cell_after_the_deadline() -> None:
    at = serial_desk(seconds=0.2)
    at.encoder.encode = lambda portion: Encoded(portion, [], 0)
    todo: Any = [named("fish", seed) for seed in range(50)]
    plan: Any = Plan([SimpleNamespace(asked=True)] * 50, [])  # type: ignore
    outcome = loop.run(at, plan, todo, Serial(at), lambda *_: None, time.monotonic() + 0.5)
    assert outcome.out_of_time and 1 <= at.order.index("pass") < 10


class Pool:
    """Worker processes that die as often as they are told to."""

    deaths = 0

    def __init__(self, setup: Any, jobs: int) -> None:
        self.executor = self
        self.ended = False

    def submit(self, work: Any, keys: frozenset[str], deadline: float | None) -> Future[Done]:
        future: Future[Done] = Future()
        if Pool.deaths:
            Pool.deaths -= 1
            future.set_exception(BrokenProcessPool())
        else:
            future.set_result(Done([Ended("", f"{sorted(keys)} {deadline}")]))
        return future

    def end(self) -> None:
        self.ended = True


@pytest.mark.parametrize(("deaths", "said", "failed"), [(0, 2, 0), (1, 2, 0), (2, 2, 0), (4, 0, 2)])
def test_a_portion_is_tried_twice(
    deaths: int, said: int, failed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_Pool", Pool)
    monkeypatch.setattr(Pool, "deaths", deaths)
    way = processes.Processes(SimpleNamespace(dense_cache=True, join=False), 2)  # type: ignore
    for key in ("a", "b"):
        way.submit([SimpleNamespace(fit=SimpleNamespace(key=key))], 7.0)  # type: ignore
    parts: list[Done] = []
    while way.busy():
        parts += way.collect()
    assert sorted(cell.said for part in parts for cell in part.ended) == ["['a'] 7.0", "['b'] 7.0"][:said]
    lost = [(t.fit.key, str(error)) for part in parts for t, error in part.failed]
    assert len(lost) == failed and all("died twice" in error for _, error in lost)


def test_somebody_who_watches_hears_what_workers_are_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_Pool", Pool)
    monkeypatch.setattr(processes, "_LOOK", 0.01)
    heard: list[Now] = []
    way = processes.Processes(SimpleNamespace(dense_cache=True, join=False), 2, heard.append)  # type: ignore
    way.running[late := Future()] = processes._Portion([], None)  # type: ignore
    texts = iter([[], ["fitting a", "fitting b"]])

    def at() -> list[str]:
        said = next(texts, None)
        if said is None:
            late.set_result(Done([Ended("", "done")]))
        return said or []

    way.pool.at = at  # type: ignore
    assert [cell.said for part in way.collect() for cell in part.ended] == ["done"]
    assert heard == [Now("fitting a; fitting b")]
