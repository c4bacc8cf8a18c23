"""Several processes of this machine.

The parent encodes, in plan order, and hands a round (one seed of one dataset; with ``--no-dense-cache``
several, for the sake of few passes over the test images) to a worker when its features are stored; workers
fit, evaluate and write records. A worker that dies loses only what it was at, which is tried once more.

With several GPUs workers take one each in turn, round and round when they are more; the parent encodes on the
first. Features are shared between them: their keys name the kind of device, not which one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from bench.errors import BenchError
from bench.executors.loop import Done
from bench.executors.worker import Setup, Worker
from bench.lazy import torch
from bench.plan.rounds import portions
from bench.plan.todo import Todo
from bench.run.outcome import Now, Watch

_CELLS_PER_JOB = 16  # a worker takes seconds to start: fewer cells than this are not worth one more
_MOST = 4  # each holds a model and the features of its round
_TRIES = 2
_LOOK = 1.0  # seconds between looks at what the workers are at, where somebody watches
_WORDS = 256  # bytes of it


def visible(device: str) -> list[str]:
    """The devices of workers: every GPU that PyTorch sees for ``cuda``, else the one that is named."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if device == "cuda" else [device]


def spread(devices: Sequence[str], jobs: int) -> list[str]:
    """The device of each of ``jobs`` workers: one after the other, round and round."""
    return [devices[i % len(devices)] for i in range(jobs)]


def default_jobs(device: str, cells: int) -> int:
    """Worker processes when none are asked for: one a GPU, or one a core where cells are enough."""
    if device != "cpu":
        return max(1, min(len(visible(device)), cells))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _MOST, cells // _CELLS_PER_JOB))


_worker: dict[str, Any] = {}  # of this process, where it is a worker: "worker", or the "error" that it met


def _start(setup: Setup, slots: Any, pids: Any, boards: Sequence[Any]) -> None:
    """Runs once in every worker: a device and a board of its own, one thread, no Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pids.put(os.getpid())
    torch.set_num_threads(1)
    try:
        number, device = slots.get()

        def watch(now: Now) -> None:
            boards[number].value = now.what.encode(errors="replace")[: _WORDS - 1]

        _worker["worker"] = Worker(setup, device, setup.request.results, watch)
    except Exception as error:  # the pool would only say that a process died; the first portion says why
        _worker["error"] = f"a worker process cannot begin: {type(error).__name__}: {error}"


def _do(keys: frozenset[str], deadline: float | None) -> Done:
    """Runs in a worker: the cells with these fit keys."""
    if "error" in _worker:
        raise BenchError(_worker["error"])
    worker: Worker = _worker["worker"]
    return worker.do(keys, deadline)


class _Pool:
    """Worker processes that can be ended and started again.

    Each writes what it is at on a board of its own in shared memory. Nobody waits for a board, unlike for a
    queue, and a process that is killed takes nothing with it.
    """

    def __init__(self, setup: Setup, jobs: int) -> None:
        # Workers share the cores by being several: each has one thread, in NumPy's libraries too.
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        os.environ.update({name: "1" for name in names})
        context = multiprocessing.get_context("spawn")
        self.pids, slots = context.SimpleQueue(), context.SimpleQueue()
        for slot in enumerate(spread(visible(setup.device), jobs)):
            slots.put(slot)
        self.boards = [context.RawArray("c", _WORDS) for _ in range(jobs)]
        self.executor = ProcessPoolExecutor(jobs, context, _start, (setup, slots, self.pids, self.boards))

    def at(self) -> list[str]:
        """What each worker was last at, as far as it has said."""
        return [said.decode(errors="replace") for board in self.boards if (said := board.value)]

    def end(self) -> None:
        """End the workers without waiting for what they are at."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        while not self.pids.empty():
            with suppress(ProcessLookupError):
                os.kill(self.pids.get(), signal.SIGTERM)


@dataclass(frozen=True)
class _Portion:
    """Cells that a worker is at, when no more of them may start, and which try it is."""

    cells: list[Todo]
    deadline: float | None
    attempt: int = 1


class Processes:
    """As many portions at a time as there are workers. ``watch`` hears what these are at."""

    encodes = True

    def __init__(self, setup: Setup, jobs: int, watch: Watch | None = None) -> None:
        self.setup, self.jobs, self.watch = setup, jobs, watch
        self.pool = _Pool(setup, jobs)
        self.running: dict[Future[Done], _Portion] = {}
        self.lost: list[_Portion] = []  # what a broken pool did not take

    def portions(self, todo: list[Todo]) -> Iterator[list[Todo]]:
        """Rounds, or as many of them as leave work for every worker."""
        return portions(todo, not self.setup.dense_cache, self.jobs, self.setup.join)

    def room(self) -> bool:
        """Whether a worker is idle."""
        return len(self.running) + len(self.lost) < self.jobs

    def busy(self) -> bool:
        """Whether a worker is at something."""
        return bool(self.running or self.lost)

    def submit(self, portion: list[Todo], deadline: float | None) -> None:
        """Hand a portion to a worker."""
        try:
            self._submit(_Portion(portion, deadline))
        except BrokenProcessPool:  # a worker died meanwhile; ``collect`` hears of what it was at
            self.lost.append(_Portion(portion, deadline))

    def _submit(self, portion: _Portion) -> None:
        keys = frozenset(t.fit.key for t in portion.cells)
        future = self.pool.executor.submit(_do, keys, portion.deadline)
        self.running[future] = portion

    def collect(self) -> Iterator[Done]:
        """Wait for the first workers that are done; where one died, begin what was lost again."""
        if self.lost and not self.running:
            lost, self.lost = self.lost, []
            yield self._again(lost)
            return
        while not (done := wait(self.running, _LOOK if self.watch else None, FIRST_COMPLETED).done):
            if self.watch and (at := self.pool.at()):
                self.watch(Now("; ".join(at)))
        for future in done:
            if future not in self.running:
                continue  # was in flight when the pool broke
            portion = self.running.pop(future)
            try:
                yield future.result()
            except BrokenProcessPool:
                lost = [portion, *self.running.values(), *self.lost]
                self.running.clear()
                self.lost = []
                yield self._again(lost)
            except BenchError as error:
                yield Done(failed=[(t, error) for t in portion.cells])

    def _again(self, lost: list[_Portion]) -> Done:
        """A new pool for what was lost with the old one, but for what was lost before: that has failed."""
        self.pool.end()
        self.pool = _Pool(self.setup, self.jobs)
        failed: list[tuple[Todo, Exception]] = []
        for portion in lost:
            if portion.attempt < _TRIES:
                self._submit(replace(portion, attempt=portion.attempt + 1))
            else:
                died = RuntimeError("its worker process died twice (out of memory?); try --jobs 1")
                failed += [(t, died) for t in portion.cells]
        return Done(failed=failed)

    def finish(self) -> None:
        """Workers finish what they are given by themselves."""

    def end(self) -> None:
        """End the workers without waiting for what they are at."""
        self.pool.end()
