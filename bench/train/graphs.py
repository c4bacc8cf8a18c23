"""Run training steps on a GPU as CUDA graphs: recorded once per shape of batch, then replayed in one launch.

A processor calls the same step function directly. A step can be recorded if it reads nothing but tensors.
Those are the batch's rows and its random bytes (``batch.bytes``), which lie in memory that is filled before
each step. The first steps of each shape are not recorded but watched. If one of them asks for the step number
or for a generator, or waits for the device, nothing more is recorded, and steps of all shapes without a
recording are launched operation by operation. If a recording fails, all recordings are dropped and every step
is launched so. The fit's record names the reason, and no step is lost.

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

# (positions (B,), rates (R,), rows of each stream, step number) -> losses (R,). Parameters change in place.
StepFn = Callable[[Tensor, Tensor, Sizes, int], Tensor]

# Steps of a shape before its recording, as PyTorch's notes on CUDA graphs ask. They are steps of the run.
WARM = 3
# A run is recorded if it has at least this many steps, so that several are left to replay. The number is an
# estimate: `python -m tests.benchmarks.gpu --only bounds` can measure it.
WORTH = 8


class Uncapturable(RuntimeError):
    """The error of a step that asks, while it is recorded, for something that every replay would repeat."""


def _no_noise(step: int) -> Generator:
    raise AssertionError(f"step {step} has no noise")


class Host:
    """A record of what steps ask for besides tensors: their number, a generator, random bytes.

    While ``closed`` (a step is being recorded), such a request raises Uncapturable. ``noise(step)`` returns a
    fresh generator for a step. ``drawn``: the random bytes of the present step, if they lie in memory that
    steps share.
    """

    def __init__(self, noise: Callable[[int], Generator] = _no_noise) -> None:
        self.noise = noise
        self.asked: set[str] = set()
        self.closed = False
        self.drawn: Drawn | None = None

    def ask(self, name: str) -> None:
        """Note that a step asks for ``batch.<name>``. Raises Uncapturable while a step is recorded."""
        self.asked.add(name)
        if self.closed:
            raise Uncapturable(f"the losses read batch.{name}")


class Drawn:
    """The random bytes of a step on the device, one tensor for each request. Every replica gets the same.

    ``begin`` fills the same memory with the bytes of another step, so that a recording can read them.
    """

    def __init__(self, host: Host, step: int, device: torch.device) -> None:
        self.host, self.step, self.device = host, step, device
        self.kept: list[Tensor] = []
        self.generator: Generator | None = None

    def at(self, i: int, n: int) -> Tensor:
        """Return the ``n`` bytes (n,) of request ``i``, which was made before or is the next new one."""
        if i == len(self.kept):
            if self.host.closed:
                raise Uncapturable("the losses ask for more bytes than at the first step")
            self.generator = self.generator or self.host.noise(self.step)
            made = random_bytes(n, self.generator, self.pinned)
            # A blocking copy would make the step count as one that waits for the device.
            self.kept.append(made.to(self.device, non_blocking=True))
        if len(self.kept[i]) != n:
            raise BenchError(
                f"batch.bytes: {n} bytes at request {i + 1} of a step, {len(self.kept[i])} before"
            )
        return self.kept[i]

    @property
    def pinned(self) -> bool:
        """Return whether bytes are drawn into pinned memory, from which a GPU copies by itself."""
        return self.device.type == "cuda"

    def ahead(self, step: int) -> tuple[int, Generator, list[Tensor]]:
        """Draw the bytes of ``step`` for all requests so far.

        This changes nothing in the object, so it may run in a thread.
        """
        generator = self.host.noise(step)
        return step, generator, [random_bytes(len(x), generator, self.pinned) for x in self.kept]

    def begin(self, step: int, ready: tuple[int, Generator, list[Tensor]] | None = None) -> None:
        """Replace the bytes of all requests so far by those of ``step``.

        ``ready`` is the result of ``ahead``. It is ignored if it is for another step or other requests.
        """
        self.step, self.generator = step, None
        if self.kept:
            if ready is None or ready[0] != step or list(map(len, ready[2])) != list(map(len, self.kept)):
                ready = self.ahead(step)
            _, self.generator, parts = ready
            for buffer, part in zip(self.kept, parts, strict=True):
                buffer.copy_(part, non_blocking=True)


class WatchedBatch(Batch):
    """The batch that the engine gives to methods. It makes randomness on demand and notes each request.

    ``piece``: whether it is only a part of a step's batch. A part has no randomness.
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
        # The dataclass is frozen, so attributes are set through its dictionary.
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
        """Raise BenchError if this is a piece of a batch, which has no randomness."""
        if self._piece:
            raise BenchError(f"the losses read batch.{name} of a batch in pieces; set micro = None")

    def again(self) -> WatchedBatch:
        """Return the same batch with its randomness at the beginning."""
        return WatchedBatch(self.rows, self._number, self._host, self._drawn, self._piece)

    def pieces(self, most: int | None) -> list[tuple[float, WatchedBatch]]:
        """Return pieces of at most ``most`` rows, each behind its share of the batch's rows.

        A batch that is not larger is the only piece. A larger one must have one stream.
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
    """Return a batch whose noise can be drawn repeatedly, each time from its present state."""
    if isinstance(batch, WatchedBatch):
        return batch
    return WatchedBatch(batch.rows, batch.step, Host(lambda step: batch.noise.clone_state()))


def capturer(device: torch.device) -> Capturer | None:
    """Return the recorder of steps for a device, or None if steps are only called there."""
    return CudaCapturer(device) if device.type == "cuda" else None


def obstacle(resident: bool, steps: int) -> str:
    """Return the reason, known before the run starts, why its steps are not recorded, or ""."""
    if not resident:
        return "features are gathered from another device"
    return f"fewer than {WORTH} steps" if steps < WORTH else ""


class Launcher:
    """The caller of a run's steps, which records them and replays the recordings. Use it as a ``with`` block.

    ``eager``: why some steps were not recorded, or "". ``graphs``: the number of recordings. ``host`` notes
    the requests of the step's batches. Without a ``recorder`` every step is a plain call.
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
        self.host.drawn = None  # breaks a reference cycle

    def __call__(self, index_B: Tensor, lr_R: Tensor, sizes: Sizes, number: int) -> Tensor:
        """Make one step and return its losses (R,), which are valid until the next step."""
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
        # The first step of a shape may wait for something that is set up once, so its waits do not count.
        self.eager = waits if self.seen[sizes] > 1 else ""
        if self.host.asked:
            self.eager = f"the losses read batch.{' and batch.'.join(sorted(self.host.asked))}"
        return loss_R

    def _record(self, index_B: Tensor, lr_R: Tensor, sizes: Sizes, number: int) -> None:
        """Record the step for batches of this shape, or note why that failed. The step itself is not made.

        If memory is too short and there are several replicas, the error is raised, because their wave then
        begins again with half of them.
        """
        assert self.recorder is not None
        fixed_B, fixed_R = index_B.clone(), lr_R.clone()
        own: list[BaseException] = []  # the errors that the step itself raised

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
        # This stands outside the handler: an error that refers to this frame, or to later errors, would keep
        # the step's tensors alive until Python collects reference cycles.
        try:
            if short_of_memory(first) and len(lr_R) > 1:
                raise first
            self.eager = f"recording failed: {_first_line(first)}"
        finally:
            first = None
        # Earlier recordings use workspaces of the same stream, which PyTorch frees with a broken recording.
        self._release()
        if index_B.device.type == "cuda":
            torch.cuda.empty_cache()

    def _draw(self, device: torch.device, sizes: Sizes, number: int) -> None:
        """Draw the bytes of this step into the memory from which steps of this shape read them."""
        drawn = self.host.drawn = self.drawn.setdefault(sizes, Drawn(self.host, number, device))
        ready, self.ahead = self.ahead, None
        drawn.begin(number, ready.result() if ready else None)

    def _draw_ahead(self, sizes: Sizes, number: int) -> None:
        """Draw the bytes of the next step in a thread, while the device works.

        The next step probably has the same shape. If not, its bytes are drawn again.
        """
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
    """Return the error that made a recording fail. Ending a broken recording raises further errors after it.

    The chain of contexts is followed from ``error``, the latest, to an error that the step itself raised
    (``own``) or that says that memory is short, or else to the earliest. Errors that the step raised and
    handled are not returned, nor is ``outer``, which a caller is handling.
    """
    found, earlier = error, error.__context__
    while found not in own and not short_of_memory(found) and earlier is not None and earlier is not outer:
        found, earlier = earlier, earlier.__context__
    return found


def _first_line(error: BaseException) -> str:
    """Return the first line of an error."""
    return (str(error).splitlines() or [type(error).__name__])[0]
