"""Move pixels to a tower's device, and results back.

On a GPU both directions run in parallel to the tower: each uses pinned buffers and a stream of its own, and
the process waits only when it reads a result. On a processor nothing is copied.

Shapes: B rows of a batch, H W pixels, C colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bench.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_BUFFERS = 2  # one is filled or copied while the tower reads the other


class Lanes(Protocol):
    """The two directions between this process and a device, for batches of one shape."""

    @property
    def ahead(self) -> int:
        """Return how many batches are started before the results of the first one are asked for."""
        ...

    def buffer(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the place for the next batch's pixels (uint8).

        It is in use until the next but one is asked for.
        """
        ...

    def up(self) -> Tensor:
        """Return the content of the last buffer on the device. It must be read before the next ``up``."""
        ...

    def down(self, found: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """Start to copy tensors to this process, and return a function that waits for them."""
        ...

    def close(self) -> None:
        """Wait until nothing is being copied any more."""
        ...


class Plain:
    """The lanes of a processor, where nothing moves, and of devices other than CUDA's GPUs."""

    ahead = 0
    _rows: np.ndarray

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def buffer(self, shape: tuple[int, ...]) -> np.ndarray:
        self._rows = np.empty(shape, np.uint8)
        return self._rows

    def up(self) -> Tensor:
        return torch.from_numpy(self._rows).to(self._device)

    def down(self, found: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        return lambda: list(found)

    def close(self) -> None:
        pass


class Cuda:
    """The lanes of a GPU.

    The tower's work is queued on the current stream, copies on streams of their own.
    """

    ahead = 1

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # torch gives streams and events no types.
        self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._here: list[Tensor] = []  # pinned buffers of this process
        self._there: list[Tensor] = []  # buffers on the device
        self._arrived = [_event() for _ in range(_BUFFERS)]
        self._turn = -1

    def buffer(self, shape: tuple[int, ...]) -> np.ndarray:
        if not self._here:
            for _ in range(_BUFFERS):
                self._here.append(torch.empty(shape, dtype=torch.uint8, pin_memory=True))
                self._there.append(torch.empty(shape, dtype=torch.uint8, device=self._device))
            # Work that used this memory before may still be queued.
            self._free = torch.cuda.current_stream(self._device).record_event()
        self._turn = (self._turn + 1) % _BUFFERS
        # This normally returns at once, because the copy of the buffer's content ended long ago.
        self._arrived[self._turn].synchronize()
        rows: np.ndarray = self._here[self._turn].numpy()
        return rows

    def up(self) -> Tensor:
        i, work = self._turn, torch.cuda.current_stream(self._device)
        # The batch before the last read this buffer of the device, and all of its work was queued when the
        # last batch came up. Waiting for what is queued now would keep this copy from running beside the last
        # batch.
        self._up.wait_event(self._free)
        self._free = work.record_event()
        with torch.cuda.stream(self._up):
            self._there[i].copy_(self._here[i], non_blocking=True)
            self._arrived[i].record(self._up)
        work.wait_event(self._arrived[i])
        return self._there[i]

    def down(self, found: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        held = list(found)  # keeps them alive, so that torch does not reuse their memory during the copy
        home = [torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in held]
        ready = _event()
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            for x, y in zip(held, home, strict=True):
                y.copy_(x, non_blocking=True)
            ready.record(self._down)

        def wait() -> list[Tensor]:
            ready.synchronize()
            held.clear()
            return home

        return wait

    def close(self) -> None:
        self._up.synchronize()
        self._down.synchronize()


def _event() -> torch.cuda.Event:
    """Make an event whose waiter sleeps instead of spinning, because every core decodes meanwhile."""
    return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]


def of(device: torch.device) -> Lanes:
    """Return the lanes of a device."""
    return Cuda(device) if device.type == "cuda" else Plain(device)
