"""Record a training step as a CUDA graph, and leave nothing behind if that fails.

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
# How PyTorch warns of such a step, and how it warns of its warnings.
_TOLD, _PROTOTYPE = "called a synchronizing CUDA operation", "Synchronization debug mode is a prototype"


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Recording:
    """A recorded step.

    ``replay`` works on the tensors of the recording and leaves losses (R,) in ``loss_R``. ``release`` frees
    its memory; it cannot be replayed afterwards.
    """

    replay: Callable[[], None]
    loss_R: Tensor
    release: Callable[[], None] = _nothing


class Capturer(Protocol):
    """A recorder of steps on a device."""

    def warm(self, step: Callable[[], Tensor]) -> tuple[Tensor, str]:
        """Make a step where recordings will be made.

        Returns its losses (R,), and why it must not be recorded, or "".
        """
        ...

    def capture(self, step: Callable[[], Tensor]) -> Recording:
        """Record a step without making it.

        Raises RuntimeError if that fails; then everything but the step's own tensors is as before.
        """
        ...


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream for recordings.

    cuBLAS keeps 32 MiB for every stream that it works on until the process ends, so there is only one.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch gives it no types


class CudaCapturer:
    """A recorder with a stream of its own, on which earlier steps run too.

    PyTorch's notes on CUDA graphs ask for both.
    """

    def __init__(self, device: torch.device) -> None:
        self.side = _side(device)

    def warm(self, step: Callable[[], Tensor]) -> tuple[Tensor, str]:
        """Call ``step`` on the side stream, in order with the work before and after it."""
        here = torch.cuda.current_stream(self.side.device)
        self.side.wait_stream(here)
        try:
            with torch.cuda.stream(self.side), _waits_are_told() as told:
                loss_R = step()
        finally:  # also if the step raises: what it launched may still write where others go on
            here.wait_stream(self.side)
        return loss_R, WAITS if told else ""

    def capture(self, step: Callable[[], Tensor]) -> Recording:
        """Record a step, while other threads may use the device.

        Raises RuntimeError if the step waits for the device or cannot be recorded.
        """
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        # The outer stream is restored in any case: ``torch.cuda.graph`` leaves its own stream current if a
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
    """Undo a recording that failed: free its memory, and let random numbers be drawn again.

    Newer versions of PyTorch do this in ``reset``. Older ones keep serving the graph's ``pool`` if ending a
    broken recording raises, and leave the device's generator in the state of being recorded.
    """
    graph.reset()
    try:
        torch._C._cuda_endAllocateToPool(index, pool)
    except RuntimeError:
        pass  # it was ended, and then ``reset`` released it
    else:
        torch._C._cuda_releasePool(index, pool)
    generator = torch.cuda.default_generators[index]
    generator.graphsafe_set_state(generator.clone_state())  # a clone has seed and offset, and records nothing
    torch.cuda.empty_cache()


@contextmanager
def _sync_mode(mode: int | str) -> Iterator[None]:
    """Set what PyTorch does about operations that wait for the device; restore it at the end."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _waits_are_told() -> Iterator[list[str]]:
    """Yield a list that gets, at the end of the block, the operations in it that waited for the device.

    PyTorch tells of them by warnings, not errors, because a step that an error ended half-way would have to
    be made again. All other warnings are passed on.
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
