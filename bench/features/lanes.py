"""How pixels reach a tower's device and how results come back.

On a GPU both ways run beside its work: pinned buffers, a stream for each way, and nobody waits before a
result is read. A processor reads them where they are.

Shapes: B rows of a batch, H W pixels, C colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bench.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_BUFFERS = 2  # one is filled or travels while the tower reads the other


class Lanes(Protocol):
    """The ways between here and a device, for batches of one shape."""

    @property
    def ahead(self) -> int:
        """How many batches are under way before the first one's results are asked for."""
        ...

    def buffer(self, shape: tuple[int, ...]) -> np.ndarray:
        """Where the next batch's pixels go (uint8); in use until the next but one is asked for."""
        ...

    def up(self) -> Tensor:
        """What the last buffer was filled with, on the device; to be read before the next ``up``."""
        ...

    def down(self, found: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """Start to bring tensors home. What it returns waits for them."""
        ...

    def close(self) -> None:
        """Wait until nothing is under way any more."""
        ...


class Plain:
    """A processor's, where nothing moves, and those of devices that are no GPU of CUDA's."""

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
    """A GPU's: what the tower does is queued on the current stream, copies on streams of their own."""

    ahead = 1

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # torch gives streams and events no types
        self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._here: list[Tensor] = []  # pinned
        self._there: list[Tensor] = []
        self._arrived = [_event() for _ in range(_BUFFERS)]
        self._turn = -1

    def buffer(self, shape: tuple[int, ...]) -> np.ndarray:
        if not self._here:
            for _ in range(_BUFFERS):
                self._here.append(torch.empty(shape, dtype=torch.uint8, pin_memory=True))
                self._there.append(torch.empty(shape, dtype=torch.uint8, device=self._device))
            # What used this memory before may still be queued.
            self._free = torch.cuda.current_stream(self._device).record_event()
        self._turn = (self._turn + 1) % _BUFFERS
        self._arrived[self._turn].synchronize()  # what it held before has left it long since
        rows: np.ndarray = self._here[self._turn].numpy()
        return rows

    def up(self) -> Tensor:
        i, work = self._turn, torch.cuda.current_stream(self._device)
        # The buffer on the device was read by the batch before the last, all of which was queued when the
        # last one came up. To wait for what is queued now would keep this copy from running beside the last.
        self._up.wait_event(self._free)
        self._free = work.record_event()
        with torch.cuda.stream(self._up):
            self._there[i].copy_(self._here[i], non_blocking=True)
            self._arrived[i].record(self._up)
        work.wait_event(self._arrived[i])
        return self._there[i]

    def down(self, found: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        held = list(found)  # until they are here: their memory would be given to others while it is read
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
    """An event whose waiter sleeps instead of spinning: every core decodes meanwhile."""
    return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]


def of(device: torch.device) -> Lanes:
    """The lanes of a device."""
    return Cuda(device) if device.type == "cuda" else Plain(device)
