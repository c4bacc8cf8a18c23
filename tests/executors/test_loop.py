"""The loop over what is left to do, with a way that only notes what it is given."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from bench.executors import loop
from bench.executors.loop import Done
from bench.executors.serial import Serial
from bench.plan.cells import Plan
from bench.run.encoder import Encoded
from bench.run.outcome import Ended, Outcome


class Named(str):
    """A cell: the loop asks nothing of it but its key."""

    @property
    def fit(self) -> Any:
        return SimpleNamespace(key=f"key of {self}", said=str(self))


@pytest.fixture(autouse=True)
def labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "label", lambda fit: fit.said)


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
        recorder=SimpleNamespace(
            failure=lambda cell, error: f"FAILED {cell}: {error}",
            stopped=lambda fit: heard.append(f"stopped {fit.said}"),
        ),
        session=SimpleNamespace(report=heard.append),
        note=lambda portion: None,
        heard=heard,
    )


@dataclass
class Pairs:
    """Two cells at a time, two portions at once; ``fails``: portions of which nothing comes back."""

    encodes: bool = True
    elsewhere: bool = False
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

    def finish(self) -> Iterator[Done]:
        self.calls.append("finish")
        return iter(())

    def stop(self) -> Done:
        return Done()

    def end(self) -> None:
        self.calls.append("end")


def run(
    at: Any, way: Pairs, deadline: float | None = None, stop: float | None = None
) -> list[tuple[str, int, int]]:
    said: list[tuple[str, int, int]] = []

    def hear(cell: Ended, done: int, total: int) -> None:
        said.append((cell.said, done, total))

    plan: Any = Plan([SimpleNamespace(asked=True)] * 8, [])  # type: ignore  # two were recorded before
    loop.run(at, plan, CELLS, way, hear, deadline, stop=stop)  # type: ignore
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


def test_the_device_gets_back_what_encoding_took_where_others_do_the_cells() -> None:
    """Its memory after every portion, and the model after the last; it is kept where cells are done here."""
    for elsewhere, expected in ((True, [False, False, True]), (False, [])):
        at, released = desk(), list[bool]()
        at.session.release = lambda models, released=released: released.append(models)
        run(at, Pairs(elsewhere=elsewhere))
        assert released == expected


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


def named(dataset: str, seed: int, late: bool = False) -> Any:
    """A cell as far as rounds and the serial way look at one."""
    cell = SimpleNamespace(shots=1, seed=seed)
    data = SimpleNamespace(name=dataset, digest=dataset)
    return SimpleNamespace(fit=SimpleNamespace(dataset=data, cell=cell), late=late)


def serial_desk(seconds: float = 0.0) -> Any:
    """Notes what is done in which order; a cell takes ``seconds``."""
    at, order = desk(), []

    def do(t: Any) -> Ended:
        time.sleep(seconds)
        order.append(f"{t.fit.dataset.name} {t.fit.cell.seed}")
        return Ended("", "done")

    at.session.dense_cache, at.join, at.do, at.order = False, False, do, order
    at.states = SimpleNamespace(begin=lambda group: None)
    at.waiting = SimpleNamespace(cells=dict)
    at.evaluate = lambda: order.append("pass")
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


def test_what_runs_on_after_the_budget_is_stopped_and_named() -> None:
    class Hangs(Pairs):
        def collect(self) -> Iterator[Done]:
            if len(self.out) == 1:
                time.sleep(60)
            yield from super().collect()

        def stop(self) -> Done:
            self.calls.append("stop")
            return Done([Ended("", "cell 4")], Outcome(stopped={"key of cell 5": "cell 5"}))

    at, way, before = desk(), Hangs(), signal.getsignal(signal.SIGALRM)
    began = time.monotonic()
    said = run(at, way, stop=began + 0.3)
    assert time.monotonic() - began < 10 and signal.getsignal(signal.SIGALRM) is before
    assert [what for what, *_ in said][-1] == "cell 4" and way.calls == ["stop", "end"]
    assert at.outcome.out_of_time and [*at.outcome.stopped.values()] == ["cell 5"] and at.outcome.left == 1
    assert at.heard[-1] == "stopped cell 5", "the next run does it last"


def test_encoding_that_runs_on_after_the_budget_is_stopped() -> None:
    at, way = desk(), Pairs()
    at.encoder.encode = lambda portion: time.sleep(60)
    assert run(at, way, stop=time.monotonic() + 0.3) == []
    assert at.outcome.left == 6 and [*at.outcome.stopped.values()] == ["encoding for cell 0"]
