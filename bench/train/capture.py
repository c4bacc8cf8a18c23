"""Record a training step as a CUDA graph, and undo everything if that fails.

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
# The texts of two warnings of PyTorch: an operation waits for the device; this check itself is a prototype.
_WAITED, _PROTOTYPE = "called a synchronizing CUDA operation", "Synchronization debug mode is a prototype"


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Recording:
    """A recorded step.

    ``replay`` makes the step with the tensors that were used while recording, and leaves its losses (R,) in
    ``loss_R``. ``release`` frees the memory. A released recording cannot be replayed.
    """

    replay: Callable[[], None]
    loss_R: Tensor
    release: Callable[[], None] = _nothing


class Capturer(Protocol):
    """A recorder of steps on a device."""

    def warm(self, step: Callable[[], Tensor]) -> tuple[Tensor, str]:
        """Make a step on the stream on which steps are recorded.

        Return its losses (R,), and why it must not be recorded, or "".
        """
        ...

    def capture(self, step: Callable[[], Tensor]) -> Recording:
        """Record a step without making it.

        Raises RuntimeError if that fails. Then only tensors that the step itself made have changed.
        """
        ...


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """Return the stream for recordings, the same at every call.

    There is only one, because cuBLAS keeps 32 MiB for every stream that it has worked on until the process
    ends.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch gives it no types


class CudaCapturer:
    """A recorder with a stream of its own, on which the steps before a recording run too.

    PyTorch's notes on CUDA graphs ask for such a stream and for such steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.side = _side(device)

    def warm(self, step: Callable[[], Tensor]) -> tuple[Tensor, str]:
        """Call ``step`` on the side stream, after earlier and before later work of the current one."""
        here = torch.cuda.current_stream(self.side.device)
        self.side.wait_stream(here)
        try:
            with torch.cuda.stream(self.side), _listing_waits() as waits:
                loss_R = step()
        finally:  # also if the step raises, because kernels that it launched may still write into tensors
            here.wait_stream(self.side)
        return loss_R, WAITS if waits else ""

    def capture(self, step: Callable[[], Tensor]) -> Recording:
        """Record a step. Other threads may use the device meanwhile.

        Raises RuntimeError if the step waits for the device or cannot be recorded.
        """
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        # This restores the current stream. ``torch.cuda.graph`` alone leaves its own stream current if it
        # cannot end a recording (seen in PyTorch 2.11).
        with torch.cuda.stream(self.side):
            try:
                with (
                    torch.cuda.graph(graph, pool=pool, stream=self.side, capture_error_mode="thread_local"),
                    _sync_mode("error"),  # raises before CUDA does, so that the recording can still be ended
                ):
                    loss_R = step()
            except BaseException:
                _abandon(graph, pool, self.side.device.index)
                raise
        return Recording(graph.replay, loss_R, graph.reset)


def _abandon(graph: torch.cuda.CUDAGraph, pool: tuple[int, int], index: int) -> None:
    """Undo a recording that failed: free its memory, and let random numbers be drawn again.

    Newer versions of PyTorch do this in ``reset``. If ending a broken recording raises, older versions keep
    allocating from the graph's ``pool`` and leave the device's generator in its recording state.
    """
    graph.reset()
    try:
        torch._C._cuda_endAllocateToPool(index, pool)
    except RuntimeError:
        pass  # allocation from the pool had ended, and ``reset`` released the pool
    else:
        torch._C._cuda_releasePool(index, pool)
    generator = torch.cuda.default_generators[index]
    # A clone of the state keeps seed and offset, and does not record.
    generator.graphsafe_set_state(generator.clone_state())
    torch.cuda.empty_cache()


@contextmanager
def _sync_mode(mode: int | str) -> Iterator[None]:
    """Set what PyTorch does when an operation waits for the device, and restore the setting at the end."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _listing_waits() -> Iterator[list[str]]:
    """Yield a list that is filled, at the end of the block, with warnings about operations that waited.

    PyTorch is asked for warnings and not for errors, because a step that an error ended half-way would have
    to be made again. All other warnings are passed on.
    """
    waits: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _sync_mode("warn"):
            yield waits
    for warning in caught:
        text = str(warning.message)
        if _WAITED in text:
            waits.append(text)
        elif _PROTOTYPE not in text:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
