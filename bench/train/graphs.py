"""Training steps on a GPU as CUDA graphs: recorded once per shape of batch, then replayed with one launch.

A step is the same function everywhere; a processor calls it. It may be recorded if all it reads are tensors:
the losses ask the batch for rows only. One that asks for the step number or for noise is found out while it
warms up and is launched operation by operation, as is one whose recording fails; both are reported, none is
lost.

Legend: R replicas, B rows of one step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from bench.interface import Batch, Rows
from bench.train.blocks import Sizes

# (positions (B,), rates (R,), rows of each stream, step number) -> losses (R,); parameters change in place.
StepFn = Callable[[Tensor, Tensor, Sizes, int], Tensor]

WARM = 3  # launches before a recording, as PyTorch's notes on CUDA graphs ask; they are steps like any other
WORTH = 32  # a recording takes as long as a few dozen steps


class Uncapturable(RuntimeError):
    """A step asked for something that a recording would freeze."""


class Host:
    """What steps asked of the program rather than of tensors. While ``closed``, asking is an error."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.closed = False

    def ask(self, name: str) -> None:
        """Take note; raises Uncapturable while a step is recorded."""
        self.asked.add(name)
        if self.closed:
            raise Uncapturable(f"the losses read batch.{name}")


class WatchedBatch(Batch):
    """The batch that the engine hands out: noise is made when first asked for, and what is asked is noted."""

    _number: int
    _make: Callable[[], Generator]
    _host: Host
    _made: Generator | None

    def __init__(
        self, rows: Mapping[str, Rows], step: int, make: Callable[[], Generator], host: Host
    ) -> None:
        # a frozen dataclass sets nothing
        self.__dict__.update(rows=rows, _number=step, _make=make, _host=host, _made=None)

    @property
    def step(self) -> int:
        """The step number."""
        self._host.ask("step")
        return self._number

    @property
    def noise(self) -> Generator:
        """The generator of this step."""
        self._host.ask("noise")
        made = self._made or self._make()
        self.__dict__["_made"] = made
        return made

    def again(self) -> WatchedBatch:
        """The same batch before anyone drew from its noise."""
        return WatchedBatch(self.rows, self._number, self._make, self._host)


def watched(batch: Batch) -> WatchedBatch:
    """A batch whose noise can be met again and again from where it stands now."""
    if isinstance(batch, WatchedBatch):
        return batch
    return WatchedBatch(batch.rows, batch.step, batch.noise.clone_state, Host())


@dataclass(frozen=True)
class Recording:
    """A recorded step: ``replay`` works on the tensors of its recording, losses (R,) end in ``loss_R``."""

    replay: Callable[[], None]
    loss_R: Tensor


class Capturer(Protocol):
    """What records steps on a device."""

    def warm(self, step: Callable[[], Tensor]) -> Tensor:
        """Make a step where recordings will be made."""
        ...

    def capture(self, step: Callable[[], Tensor]) -> Recording:
        """Record a step without making it."""
        ...


class CudaCapturer:
    """Records on a stream of its own, on which the steps before also ran (PyTorch's notes on CUDA graphs)."""

    def __init__(self, device: torch.device) -> None:
        self.side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch gives it no types

    def warm(self, step: Callable[[], Tensor]) -> Tensor:
        """``step()`` on the side stream, in order with the work before and after it."""
        here = torch.cuda.current_stream(self.side.device)
        self.side.wait_stream(here)
        with torch.cuda.stream(self.side):
            loss_R = step()
        here.wait_stream(self.side)
        return loss_R

    def capture(self, step: Callable[[], Tensor]) -> Recording:
        """Other threads may use the device; raises RuntimeError if the step waits or cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.side, capture_error_mode="thread_local"):
            loss_R = step()
        return Recording(graph.replay, loss_R)


def capturer(device: torch.device) -> Capturer | None:
    """What records steps on this device; None where steps are simply called."""
    return CudaCapturer(device) if device.type == "cuda" else None


def obstacle(fuse: bool, resident: bool, steps: int) -> str:
    """Why a run is not recorded, as far as can be known before it starts; empty if nothing prevents it."""
    if not fuse:
        return "replicas are trained one after the other"
    if not resident:
        return "features are gathered from another device"
    return f"fewer than {WORTH} steps" if steps < WORTH else ""


class Launcher:
    """Makes steps: recorded ones by replay, the others by call.

    ``eager`` says why some were not recorded, or is empty. ``host`` is what the step's batches report to.
    Without a ``recorder`` every step is a plain call.
    """

    def __init__(self, step: StepFn, host: Host, recorder: Capturer | None, eager: str = "") -> None:
        self.step, self.host, self.recorder, self.eager = step, host, recorder, eager
        self.seen: Counter[Sizes] = Counter()
        self.recorded: dict[Sizes, tuple[Recording, Tensor, Tensor]] = {}

    def __call__(self, index_B: Tensor, lr_R: Tensor, sizes: Sizes, number: int) -> Tensor:
        """One step; its losses (R,), valid until the next one."""
        if self.recorder is None:
            return self.step(index_B, lr_R, sizes, number)
        if sizes not in self.recorded and not self.eager and self.seen[sizes] == WARM:
            self._record(index_B, lr_R, sizes, number)
        if sizes in self.recorded:
            recording, fixed_B, fixed_R = self.recorded[sizes]
            fixed_B.copy_(index_B)
            fixed_R.copy_(lr_R)
            recording.replay()
            return recording.loss_R
        if self.eager:
            return self.step(index_B, lr_R, sizes, number)
        self.seen[sizes] += 1
        loss_R = self.recorder.warm(lambda: self.step(index_B, lr_R, sizes, number))
        if self.host.asked:
            self.eager = f"the losses read batch.{' and batch.'.join(sorted(self.host.asked))}"
        return loss_R

    def _record(self, index_B: Tensor, lr_R: Tensor, sizes: Sizes, number: int) -> None:
        """Record the step for batches of this shape, or note why that failed; either computes nothing."""
        assert self.recorder is not None
        fixed_B, fixed_R = index_B.clone(), lr_R.clone()
        self.host.closed = True
        try:
            made = self.recorder.capture(lambda: self.step(fixed_B, fixed_R, sizes, number))
        except RuntimeError as error:
            self.eager = f"recording failed: {_first(error)}"
        else:
            self.recorded[sizes] = made, fixed_B, fixed_R
        finally:
            self.host.closed = False


def _first(error: BaseException) -> str:
    """The first line of the first error: ending a broken recording raises an error of its own on top."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0]
