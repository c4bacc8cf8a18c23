"""Recording a training step as a CUDA graph, and leaving nothing behind where that fails.

Legend: R replicas.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

WAITS = "the step waits for the device"
# How PyTorch tells of such a step, and what it says of its telling.
_TOLD, _PROTOTYPE = "called a synchronizing CUDA operation", "Synchronization debug mode is a prototype"


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Recording:
    """A recorded step: ``replay`` works on the tensors of its recording, losses (R,) end in ``loss_R``.

    ``release`` gives its memory back; it cannot be replayed afterwards.
    """

    replay: Callable[[], None]
    loss_R: Tensor
    release: Callable[[], None] = _nothing


class Capturer(Protocol):
    """What records steps on a device."""

    def warm(self, step: Callable[[], Tensor]) -> tuple[Tensor, str]:
        """Make a step where recordings will be made; its losses (R,), and why it must not be recorded."""
        ...

    def capture(self, step: Callable[[], Tensor]) -> Recording:
        """Record a step without making it.

        Raises RuntimeError where that fails; all but the step's own tensors is then as it was.
        """
        ...


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """The one stream for recordings: for every stream that it works on, cuBLAS keeps 32 MiB until the end."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch gives it no types


class CudaCapturer:
    """Records on a stream of its own, on which the steps before also ran (PyTorch's notes on CUDA graphs)."""

    def __init__(self, device: torch.device) -> None:
        self.side = _side(device)

    def warm(self, step: Callable[[], Tensor]) -> tuple[Tensor, str]:
        """``step()`` on the side stream, in order with the work before and after it."""
        here = torch.cuda.current_stream(self.side.device)
        self.side.wait_stream(here)
        try:
            with torch.cuda.stream(self.side), _waits_are_told() as told:
                loss_R = step()
        finally:  # also of a step that raises: what it launched may still write where others go on
            here.wait_stream(self.side)
        return loss_R, WAITS if told else ""

    def capture(self, step: Callable[[], Tensor]) -> Recording:
        """Other threads may use the device; raises RuntimeError if the step waits or cannot be recorded."""
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        # The outer stream is put back in any case: ``torch.cuda.graph`` leaves its own one current where a
        # recording cannot be ended (seen in 2.11).
        with torch.cuda.stream(self.side):
            try:
                with (
                    torch.cuda.graph(graph, pool=pool, stream=self.side, capture_error_mode="thread_local"),
                    _sync_mode("error"),  # an error before the device's own one leaves the recording whole
                ):
                    loss_R = step()
            except BaseException:
                _abandon(graph, pool, self.side.device.index)
                raise
        return Recording(graph.replay, loss_R, graph.reset)


def _abandon(graph: torch.cuda.CUDAGraph, pool: tuple[int, int], index: int) -> None:
    """Undo what a recording began that failed: memory goes back, random numbers can be drawn again.

    Newer versions of PyTorch do this in ``reset``. Older ones, when ending a broken recording raises, go on
    to serve the graph's ``pool`` and keep the device's generator in the state of being recorded.
    """
    graph.reset()
    try:
        torch._C._cuda_endAllocateToPool(index, pool)
    except RuntimeError:
        pass  # it was ended, and then ``reset`` released it
    else:
        torch._C._cuda_releasePool(index, pool)
    generator = torch.cuda.default_generators[index]
    generator.graphsafe_set_state(generator.clone_state())  # seed and offset alone; a clone records nothing
    torch.cuda.empty_cache()


@contextmanager
def _sync_mode(mode: int | str) -> Iterator[None]:
    """What PyTorch does about operations that wait for the device; put back at the end."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _waits_are_told() -> Iterator[list[str]]:
    """What waited for the device inside, filled in at the end.

    As warnings rather than errors: a step that an error ended half-way would have to be made again. All other
    warnings are passed on.
    """
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _sync_mode("warn"):
            yield told
    for warning in caught:
        text = str(warning.message)
        if _TOLD in text:
            told.append(text)
        elif _PROTOTYPE not in text:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
