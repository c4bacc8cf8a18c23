"""A failed recording leaves nothing behind: on a stand-in for PyTorch's CUDA, and on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.train import capture

HERE = SimpleNamespace(device=torch.device("cuda:0"), waited=[])


class Generator:
    """A device's generator: its state says whether it is being recorded, a clone's never does."""

    def __init__(self, seed: int = 7) -> None:
        self.state = {"seed": seed, "recorded": False}

    def clone_state(self) -> Generator:
        return Generator(self.state["seed"])

    def graphsafe_set_state(self, other: Generator) -> None:
        self.state = other.state


class Old:
    """``torch`` as the recorder meets it, where ending a broken recording raises and mends nothing (2.11)."""

    def __init__(self) -> None:
        self.current: Any = HERE
        self.mode, self.modes, self.streams = 0, [], 0
        self.pools: dict[tuple[int, int], int] = {}  # held pools: how often
        self.serving: list[tuple[int, int]] = []  # pools that allocations go to
        self.broken, self.cached = False, 0
        generators = (Generator(),)
        self.cuda = SimpleNamespace(
            Stream=self.stream_made,
            stream=self.stream,
            current_stream=lambda device: self.current,
            CUDAGraph=lambda: Graph(self),
            graph_pool_handle=lambda: (0, 1),
            graph=self.graph,
            default_generators=generators,
            get_sync_debug_mode=lambda: self.mode,
            set_sync_debug_mode=self.set_mode,
            empty_cache=self.emptied,
        )
        self._C = SimpleNamespace(_cuda_endAllocateToPool=self.end, _cuda_releasePool=self.release)
        self.generator = generators[0]

    def stream_made(self, device: torch.device) -> Any:
        self.streams += 1
        return SimpleNamespace(device=device, waited=[], wait_stream=lambda other: None)

    def set_mode(self, mode: int | str) -> None:
        self.mode = {"default": 0, "warn": 1, "error": 2}.get(mode, mode)  # type: ignore[call-overload]
        self.modes.append(self.mode)

    def emptied(self) -> None:
        self.cached = sum(self.pools.values())

    def end(self, index: int, pool: tuple[int, int]) -> None:
        if pool not in self.serving:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.serving.remove(pool)

    def release(self, index: int, pool: tuple[int, int]) -> None:
        self.pools[pool] -= 1
        assert self.pools[pool] >= 0, "released twice"

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph: Graph, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        before, self.current = self.current, stream
        self.pools[pool] = self.pools.get(pool, 0) + 1
        self.serving.append(pool)
        self.generator.state["recorded"] = True
        graph.pool = pool
        try:
            yield
        finally:
            self.ended(graph)
            self.current = before

    def ended(self, graph: Graph) -> None:
        if self.broken:
            raise RuntimeError("operation failed due to a previous error during capture")
        self.serving.remove(graph.pool)
        self.generator.state["recorded"] = False
        graph.held = True


class New(Old):
    """Where ending a broken recording undoes all but the pool, which ``reset`` gives back (2.15)."""

    def ended(self, graph: Graph) -> None:
        self.serving.remove(graph.pool)
        self.generator.state["recorded"], graph.held = False, True
        if self.broken:
            raise RuntimeError("operation failed due to a previous error during capture")


class Graph:
    def __init__(self, torch: Old) -> None:
        self.torch, self.held, self.replays = torch, False, 0
        self.pool = (0, 0)

    def replay(self) -> None:
        assert self.held
        self.replays += 1

    def reset(self) -> None:
        if self.held:
            self.held = False
            self.torch.release(0, self.pool)


@pytest.fixture(params=[Old, New])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Old]:
    made: Old = request.param()
    monkeypatch.setattr(capture, "torch", made)
    HERE.wait_stream = lambda other: None
    capture._side.cache_clear()
    yield made
    capture._side.cache_clear()


def clean(fake: Old) -> bool:
    """Whether all is as before any recording."""
    return (
        fake.current is HERE
        and fake.mode == 0
        and not fake.serving
        and not any(fake.pools.values())
        and not fake.generator.state["recorded"]
        and fake.generator.state["seed"] == 7
    )


def test_a_recording_is_replayed_and_released(fake: Old) -> None:
    recorder = capture.CudaCapturer(torch.device("cuda:0"))

    def step() -> torch.Tensor:
        assert fake.current is recorder.side and fake.mode == 2, "what waits is an error"
        return torch.ones(2)

    made = recorder.capture(step)
    assert fake.current is HERE and fake.mode == 0 and not fake.serving and sum(fake.pools.values()) == 1
    made.replay()
    made.release()
    assert clean(fake) and made.loss_R.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("broken", [False, True], ids=["the recording is whole", "the recording is broken"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_recording_leaves_nothing(fake: Old, broken: bool, error: type[BaseException]) -> None:
    recorder = capture.CudaCapturer(torch.device("cuda:0"))
    fake.broken = broken

    def step() -> torch.Tensor:
        raise error("of the step")

    with pytest.raises(RuntimeError if broken else error) as caught:
        recorder.capture(step)
    assert clean(fake) and fake.cached == 0, "what was held is given back"
    assert str(caught.value.__context__ if broken else caught.value) == "of the step"
    fake.broken = False
    recorder.capture(lambda: torch.ones(1)).release()
    assert clean(fake)


def test_the_side_stream_is_one_for_all_runs(fake: Old) -> None:
    sides = {id(capture.CudaCapturer(torch.device("cuda:0")).side) for _ in range(40)}
    assert fake.streams == len(sides) == 1
    capture.CudaCapturer(torch.device("cuda:1"))
    assert fake.streams == 2


@pytest.mark.parametrize("waits", [False, True])
def test_steps_that_wait_are_noticed_and_made_once(fake: Old, waits: bool) -> None:
    recorder, calls = capture.CudaCapturer(torch.device("cuda:0")), []

    def step() -> torch.Tensor:
        calls.append(fake.mode)
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)
        warnings.warn("a warning of the method", stacklevel=2)
        if waits:
            warnings.warn("called a synchronizing CUDA operation (Triggered internally at ...)", stacklevel=2)
        return torch.ones(3)

    with pytest.warns(UserWarning) as seen:
        loss_R, why = recorder.warm(step)
    assert (calls, fake.mode, fake.current) == ([1], 0, HERE)
    assert why == ("the step waits for the device" if waits else "") and loss_R.tolist() == [1.0] * 3
    assert [str(w.message) for w in seen] == ["a warning of the method"]


def test_a_warming_step_that_fails_is_waited_for_and_the_mode_put_back(fake: Old) -> None:
    waits: list[Any] = []
    HERE.wait_stream = waits.append
    with pytest.raises(ZeroDivisionError):
        capture.CudaCapturer(torch.device("cuda:0")).warm(lambda: 1 / 0)  # type: ignore[return-value]
    assert clean(fake) and waits == [capture._side(torch.device("cuda:0"))]


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.cuda
@NEEDS_CUDA
@pytest.mark.parametrize("kind", ["waits", "waits unnoticed", "asks", "is short of memory"])
def test_cuda_a_failed_recording_leaves_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    recorder, here = capture.CudaCapturer(device), torch.cuda.current_stream()
    x = torch.ones(1 << 26, device=device)
    total = torch.cuda.get_device_properties(device).total_memory
    if kind == "waits unnoticed":  # breaks the recording itself
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)

    def step() -> torch.Tensor:
        y = x * 2
        if kind == "asks":
            raise RuntimeError("the losses read batch.step")
        if kind == "is short of memory":
            torch.empty(2 * total, dtype=torch.uint8, device=device)
        return y.sum()[None] if float(y.sum()) else y

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    held, mode = torch.cuda.memory_reserved(), torch.cuda.get_sync_debug_mode()
    with pytest.raises(RuntimeError):
        recorder.capture(step)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= held + (2 << 20)
    assert torch.cuda.current_stream() == here and torch.cuda.get_sync_debug_mode() == mode
    torch.manual_seed(3)
    first = torch.rand(5, device=device)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(5, device=device), first)
    made = recorder.capture(lambda: x.sum()[None])
    made.replay()
    assert made.loss_R.tolist() == [float(1 << 26)]
    made.release()


@pytest.mark.cuda
@NEEDS_CUDA
def test_cuda_warming_notices_what_waits_and_runs_leave_no_memory() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    w = torch.ones(64, 64, device=device)

    def run() -> None:
        recorder = capture.CudaCapturer(device)
        assert recorder.warm(lambda: (w @ w).sum()[None])[1] == ""
        made = recorder.capture(lambda: (w @ w).sum()[None])
        made.replay()
        assert made.loss_R.tolist() == [64.0**3]
        made.release()

    run()
    assert capture.CudaCapturer(device).warm(lambda: w[:1, 0] * float(w.sum()))[1] == capture.WAITS
    held = torch.cuda.memory_allocated()
    for _ in range(40):
        run()
    assert torch.cuda.memory_allocated() <= held
