"""The events that guard the buffers of a GPU's lanes, tested on a stand-in that does all work as late as it
may.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.features import lanes

SHAPE, JUNK = (2, 4, 4, 3), 77


class Step:
    """Something that a stream has to do, after all that it waits for."""

    def __init__(self, do: Callable[[], None], after: list[Step]) -> None:
        self.do, self.after, self.done = do, after, False

    def run(self) -> None:
        if not self.done:
            self.done = True
            for step in self.after:
                step.run()
            self.do()


class Stream:
    """Work in order; nothing of it is done before somebody waits for it, or for what waits for it."""

    def __init__(self, device: Any = None) -> None:
        self.last, self.waits = Step(lambda: None, []), list[Step]()

    def give(self, do: Callable[[], None]) -> Step:
        self.last = Step(do, [self.last, *self.waits])
        self.waits = []
        return self.last

    def record_event(self) -> Event:
        event = Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event.at is not None:
            self.waits.append(event.at)

    def wait_stream(self, other: Stream) -> None:
        self.wait_event(other.record_event())

    def synchronize(self) -> None:
        self.last.run()


class Event:
    def __init__(self, blocking: bool = False) -> None:
        self.at: Step | None = None

    def record(self, stream: Stream) -> None:
        self.at = stream.give(lambda: None)

    def synchronize(self) -> None:
        if self.at is not None:
            self.at.run()


class Tensor:
    """Numbers here or on the device; who reads them does so when its stream comes to it."""

    def __init__(self, gpu: Gpu, shape: tuple[int, ...], dtype: Any) -> None:
        self.gpu, self.shape, self.dtype = gpu, shape, dtype
        self.rows = np.full(shape, JUNK, np.uint8)

    def numpy(self) -> np.ndarray:
        return self.rows

    def copy_(self, other: Tensor, non_blocking: bool) -> None:
        assert non_blocking
        source, into = other.rows, self.rows
        self.gpu.current.give(lambda: into.__setitem__(..., source))


class Gpu:
    """``torch`` as the lanes meet it."""

    uint8 = torch.uint8

    def __init__(self) -> None:
        self.current = self.work = Stream()
        self.cuda = SimpleNamespace(
            Stream=Stream, Event=Event, current_stream=lambda device: self.current, stream=self.stream
        )

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def empty(
        self, shape: tuple[int, ...], dtype: Any, pin_memory: bool = False, device: Any = None
    ) -> Tensor:
        made = Tensor(self, shape, dtype)
        if not pin_memory:  # what had this memory before still writes to it
            self.current.give(lambda: made.rows.fill(JUNK))
        return made

    def tower(self, x: Any) -> Tensor:
        """Queued work that reads ``x``; its results stay as long as somebody holds them."""
        made = Tensor(self, x.shape, x.dtype)
        found = weakref.ref(made)

        def do() -> None:
            if (here := found()) is not None:
                here.rows[:] = 2 * x.rows + 1

        self.work.give(do)
        return made


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    monkeypatch.setattr(lanes, "torch", made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [0, 1, 6])
def test_every_batch_comes_home_as_it_was_however_late_everything_is(gpu: Gpu, ahead: int) -> None:
    lane: Any = lanes.Cuda(torch.device("cuda:0"))
    under_way: list[Callable[[], list[Any]]] = []
    home: list[int] = []

    def first_home() -> None:
        (rows,) = (y.rows for y in under_way.pop(0)())
        assert len(np.unique(rows)) == 1
        home.append(int(rows.flat[0]))

    for i in range(7):
        lane.buffer(SHAPE)[:] = i  # written at once
        found = gpu.tower(lane.up())
        under_way.append(lane.down([found]))
        del found
        gc.collect()
        if len(under_way) > ahead:
            first_home()
    while under_way:
        first_home()
    assert home == [2 * i + 1 for i in range(7)]
    assert not [*gpu.work.waits] and len(lane._here) == 2 == len(lane._there)


def test_results_are_held_until_they_are_here_and_no_longer(gpu: Gpu) -> None:
    lane: Any = lanes.Cuda(torch.device("cuda:0"))
    lane.buffer(SHAPE)[:] = 5
    found = gpu.tower(lane.up())
    held = weakref.ref(found)
    wait = lane.down([found])
    del found
    gc.collect()
    assert held() is not None, "else its memory would be given away while it is read"
    assert wait()[0].rows.flat[0] == 11
    gc.collect()
    assert held() is None


def test_nothing_is_under_way_once_the_lanes_are_closed(gpu: Gpu) -> None:
    lane: Any = lanes.Cuda(torch.device("cuda:0"))
    lane.buffer(SHAPE)[:] = 5
    lane.down([gpu.tower(lane.up())])
    lane.close()
    assert lane._up.last.done and lane._down.last.done
