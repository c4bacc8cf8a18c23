"""Training steps on a GPU as CUDA graphs: recorded once per shape of batch, then replayed with one launch.

A step is the same function everywhere; a processor calls it. It can be recorded if all that it reads are
tensors. The losses ask the batch for rows, and for random bytes, which lie in memory that is filled before
each step. A step that asks for the step number or for a generator is found out while it warms up, and so is
one that waits for the device. Such steps are launched operation by operation, as is a step whose recording
fails. The record names the reason, and no step is lost.

Legend: R replicas, B rows of one step.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Generator, Tensor

from bench.errors import BenchError, short_of_memory
from bench.interface import Batch, Rows, random_bytes
from bench.train.blocks import Sizes
from bench.train.capture import Capturer, CudaCapturer, Recording

# (positions (B,), rates (R,), rows of each stream, step number) -> losses (R,); parameters change in place.
StepFn = Callable[[Tensor, Tensor, Sizes, int], Tensor]

WARM = 3  # launches before a recording, as PyTorch's notes on CUDA graphs ask; they count as steps of the run
# A run with so many steps is recorded: several are then left to replay. The number is estimated, until
# somebody measures it by `python -m tests.benchmarks.gpu --only bounds`.
WORTH = 8


class Uncapturable(RuntimeError):
    """The error of a step that asked for something which a recording would freeze."""


def _no_noise(step: int) -> Generator:
    raise AssertionError(f"step {step} has no noise")


class Host:
    """The record of what steps ask of the program rather than of tensors.

    While ``closed``, asking is an error. ``noise(step)``: returns a fresh generator for a step. ``drawn``:
    the random bytes of the present step, if they lie in memory that steps share.
    """

    def __init__(self, noise: Callable[[int], Generator] = _no_noise) -> None:
        self.noise = noise
        self.asked: set[str] = set()
        self.closed = False
        self.drawn: Drawn | None = None

    def ask(self, name: str) -> None:
        """Note that a step asks for ``name``. Raises Uncapturable while a step is recorded."""
        self.asked.add(name)
        if self.closed:
            raise Uncapturable(f"the losses read batch.{name}")


class Drawn:
    """The random bytes of a step on the device, request after request. Every replica gets the same.

    When ``begin`` draws those of another step, each request keeps its place in memory.
    """

    def __init__(self, host: Host, step: int, device: torch.device) -> None:
        self.host, self.step, self.device = host, step, device
        self.kept: list[Tensor] = []
        self.generator: Generator | None = None

    def at(self, i: int, n: int) -> Tensor:
        """Return the ``n`` bytes (n,) of request ``i``: an earlier one, or the next."""
        if i == len(self.kept):
            if self.host.closed:
                raise Uncapturable("the losses ask for more bytes than at the first step")
            self.generator = self.generator or self.host.noise(self.step)
            made = random_bytes(n, self.generator, self.pinned)
            # Not blocking, because a copy that waits would count as a step that cannot be recorded.
            self.kept.append(made.to(self.device, non_blocking=True))
        if len(self.kept[i]) != n:
            raise BenchError(
                f"batch.bytes: {n} bytes at request {i + 1} of a step, {len(self.kept[i])} before"
            )
        return self.kept[i]

    @property
    def pinned(self) -> bool:
        """Return whether bytes are drawn into memory from which the device copies by itself."""
        return self.device.type == "cuda"

    def ahead(self, step: int) -> tuple[int, Generator, list[Tensor]]:
        """Draw for ``step`` all that was asked for. This changes nothing here, and may run in a thread."""
        generator = self.host.noise(step)
        return step, generator, [random_bytes(len(x), generator, self.pinned) for x in self.kept]

    def begin(self, step: int, ready: tuple[int, Generator, list[Tensor]] | None = None) -> None:
        """Replace the bytes by those of ``step``, if there are any.

        ``ready`` is what ``ahead`` drew; it is ignored if it was drawn for another step.
        """
        self.step, self.generator = step, None
        if self.kept:
            if ready is None or ready[0] != step or list(map(len, ready[2])) != list(map(len, self.kept)):
                ready = self.ahead(step)
            _, self.generator, parts = ready
            for buffer, part in zip(self.kept, parts, strict=True):
                buffer.copy_(part, non_blocking=True)


class WatchedBatch(Batch):
    """The batch that the engine gives to methods. It makes randomness on demand, and notes what is asked.

    ``piece``: whether it is a part of a step's batch; a part has no randomness.
    """

    _number: int
    _host: Host
    _made: Generator | None
    _drawn: Drawn
    _requests: int
    _piece: bool

    def __init__(
        self,
        rows: Mapping[str, Rows],
        step: int,
        host: Host,
        drawn: Drawn | None = None,
        piece: bool = False,
    ) -> None:
        if drawn is None:
            device = next((r.y.device for r in rows.values()), torch.device("cpu"))
            drawn = host.drawn or Drawn(host, step, device)
        # a frozen dataclass sets nothing
        self.__dict__.update(
            rows=rows, _number=step, _host=host, _made=None, _drawn=drawn, _requests=0, _piece=piece
        )

    @property
    def step(self) -> int:
        """Return the step number."""
        self._host.ask("step")
        return self._number

    @property
    def noise(self) -> Generator:
        """Return the generator of this step."""
        self._random("noise")
        self._host.ask("noise")
        made = self._made or self._host.noise(self._number)
        self.__dict__["_made"] = made
        return made

    def bytes(self, *shape: int) -> Tensor:
        """Return the step's next random bytes."""
        self._random("bytes")
        i = self._requests
        self.__dict__["_requests"] = i + 1
        return self._drawn.at(i, math.prod(shape)).view(shape)

    def _random(self, name: str) -> None:
        """Raise BenchError if this is a piece of a batch."""
        if self._piece:
            raise BenchError(f"the losses read batch.{name} of a batch in pieces; set micro = None")

    def again(self) -> WatchedBatch:
        """Return the same batch as it was before anyone drew from its randomness."""
        return WatchedBatch(self.rows, self._number, self._host, self._drawn, self._piece)

    def pieces(self, most: int | None) -> list[tuple[float, WatchedBatch]]:
        """Return the batch in pieces of at most ``most`` rows, each with its share of the rows.

        If it is not larger, this is the batch itself. It must have one stream.
        """
        if most is None or all(len(rows.y) <= most for rows in self.rows.values()):
            return [(1.0, self)]
        ((name, whole),) = self.rows.items()
        parts = (torch.split(x, most) for x in (whole.x, whole.y, whole.index))
        return [
            (
                len(rows.y) / len(whole.y),
                WatchedBatch({name: rows}, self._number, self._host, self._drawn, True),
            )
            for rows in (Rows(*part) for part in zip(*parts, strict=True))
        ]


def watched(batch: Batch) -> WatchedBatch:
    """Return a batch whose noise can be drawn again and again from where it stands now."""
    if isinstance(batch, WatchedBatch):
        return batch
    return WatchedBatch(batch.rows, batch.step, Host(lambda step: batch.noise.clone_state()))


def capturer(device: torch.device) -> Capturer | None:
    """Return the recorder of steps for a device, or None if its steps are simply called."""
    return CudaCapturer(device) if device.type == "cuda" else None


def obstacle(resident: bool, steps: int) -> str:
    """Return why a run is not recorded, or "", as far as that is known before it starts."""
    if not resident:
        return "features are gathered from another device"
    return f"fewer than {WORTH} steps" if steps < WORTH else ""


class Launcher:
    """The maker of steps: recorded ones by replay, others by call. Its ``with`` block ends with the run.

    ``eager`` says why some steps were not recorded, or is "". ``graphs`` counts recordings. The step's
    batches report to ``host``. Without a ``recorder`` every step is a plain call.
    """

    def __init__(self, step: StepFn, host: Host, recorder: Capturer | None, eager: str = "") -> None:
        self.step, self.host, self.recorder, self.eager = step, host, recorder, eager
        self.graphs = 0
        self.seen: Counter[Sizes] = Counter()
        self.recorded: dict[Sizes, tuple[Recording, Tensor, Tensor]] = {}
        self.drawn: dict[Sizes, Drawn] = {}
        self.thread: ThreadPoolExecutor | None = None
        self.ahead: Future[tuple[int, Generator, list[Tensor]]] | None = None

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *error: object) -> None:
        """Free the memory of recordings, and end the thread."""
        if self.thread:
            self.thread.shutdown(cancel_futures=True)
        self._release()
        self.drawn.clear()
        self.host.drawn = None  # breaks the circle: the two refer to each other

    def __call__(self, index_B: Tensor, lr_R: Tensor, sizes: Sizes, number: int) -> Tensor:
        """Make one step and return its losses (R,), which are valid until the next one."""
        if self.recorder is None or (self.eager and sizes not in self.recorded):
            self.host.drawn = None
            return self.step(index_B, lr_R, sizes, number)
        self._draw(index_B.device, sizes, number)
        if sizes not in self.recorded and self.seen[sizes] == WARM:
            self._record(index_B, lr_R, sizes, number)
        if sizes in self.recorded:
            recording, fixed_B, fixed_R = self.recorded[sizes]
            fixed_B.copy_(index_B)
            fixed_R.copy_(lr_R)
            recording.replay()
            self._draw_ahead(sizes, number + 1)
            return recording.loss_R
        if self.eager:
            return self.step(index_B, lr_R, sizes, number)
        self.seen[sizes] += 1
        loss_R, waits = self.recorder.warm(lambda: self.step(index_B, lr_R, sizes, number))
        # The first step of a shape may also wait for things that are set up once.
        self.eager = waits if self.seen[sizes] > 1 else ""
        if self.host.asked:
            self.eager = f"the losses read batch.{' and batch.'.join(sorted(self.host.asked))}"
        return loss_R

    def _record(self, index_B: Tensor, lr_R: Tensor, sizes: Sizes, number: int) -> None:
        """Record the step for batches of this shape, or note why that failed. Neither computes anything.

        Raises an error that says that memory is short, unless there is one replica: a wave of several then
        begins again with half of them.
        """
        assert self.recorder is not None
        fixed_B, fixed_R = index_B.clone(), lr_R.clone()
        own: list[BaseException] = []  # what the step itself raised

        def step() -> Tensor:
            try:
                return self.step(fixed_B, fixed_R, sizes, number)
            except BaseException as error:
                own.append(error)
                raise

        first: BaseException | None = None
        outer = sys.exception()
        self.host.closed = True
        try:
            self.recorded[sizes] = self.recorder.capture(step), fixed_B, fixed_R
            self.graphs += 1
            return
        except RuntimeError as error:
            first = _root_error(error, own, outer)
        finally:
            self.host.closed = False
            own.clear()
        # Outside the handler: an error that refers to this frame, or to the errors on top of it, would keep
        # alive all that the step held until Python collects circles.
        try:
            if short_of_memory(first) and len(lr_R) > 1:
                raise first
            self.eager = f"recording failed: {_first_line(first)}"
        finally:
            first = None
        # Earlier recordings are on the same stream, whose workspaces PyTorch drops with a broken one.
        self._release()
        if index_B.device.type == "cuda":
            torch.cuda.empty_cache()

    def _draw(self, device: torch.device, sizes: Sizes, number: int) -> None:
        """Bring the bytes of this step to where steps of this shape read them."""
        drawn = self.host.drawn = self.drawn.setdefault(sizes, Drawn(self.host, number, device))
        ready, self.ahead = self.ahead, None
        drawn.begin(number, ready.result() if ready else None)

    def _draw_ahead(self, sizes: Sizes, number: int) -> None:
        """Draw the bytes of the next step, probably of the same shape, while the device works."""
        if self.drawn[sizes].kept:
            self.thread = self.thread or ThreadPoolExecutor(1)
            self.ahead = self.thread.submit(self.drawn[sizes].ahead, number)

    def _release(self) -> None:
        """Free the memory of all recordings."""
        for recording, *_ in self.recorded.values():
            recording.release()
        self.recorded.clear()


def _root_error(
    error: BaseException, own: Sequence[BaseException], outer: BaseException | None = None
) -> BaseException:
    """Return the step's ``own`` error, or else the first one: ending a broken recording raises others on top.

    An error on top counts as the first if it says that memory is short. Errors that the step met and handled
    do not count, nor does ``outer``, which a caller is handling.
    """
    first, met = error, error.__context__
    while first not in own and not short_of_memory(first) and met is not None and met is not outer:
        first, met = met, met.__context__
    return first


def _first_line(error: BaseException) -> str:
    """Return the first line of an error."""
    return (str(error).splitlines() or [type(error).__name__])[0]
