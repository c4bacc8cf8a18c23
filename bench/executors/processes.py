"""Several processes of this machine.

The parent encodes, in plan order, and hands a round (one seed of one dataset; with ``--no-dense-cache``
several, for the sake of few passes over the test images) to a worker when its features are stored; workers
fit, evaluate and write records. A worker says what it is at before it begins it: when it dies, that cell is
tried once more, alone, and the rest of its round goes on without it.

With several GPUs workers take one each in turn, round and round when they are more; the parent encodes on the
first. Features are shared between them: their keys name the kind of device, not which one.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from bench.children import Child, Died, portable
from bench.errors import BenchError
from bench.executors.loop import Done
from bench.executors.worker import Setup, Worker
from bench.lazy import torch
from bench.plan.cells import label
from bench.plan.rounds import portions
from bench.plan.todo import Todo
from bench.run.outcome import Now, Outcome, Watch

_CELLS_PER_JOB = 16  # a worker takes seconds to start: fewer cells than this are not worth one more
_MOST = 4  # each holds a model and the features of its round
_TRIES = 2
_AT = "at this cell"
_LOOK = 1.0  # seconds between looks at what the workers are at, where somebody watches


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


def serve(line: Connection[Any, Any], setup: Setup, device: str) -> None:
    """Runs in a worker, with one thread: does the cells whose keys come, until nothing more can come.

    It sends what it is at (Now, and the keys of the cells), a Done for each cell that ended, and at the end
    of a portion None, or the error that ended it.
    """
    torch.set_num_threads(1)
    worker: Worker | BenchError
    try:
        worker = Worker(setup, device, setup.request.results, line.send, line.send)
    except Exception as error:  # the first portion says why
        worker = BenchError(f"a worker process cannot begin: {type(error).__name__}: {error}")
    while True:
        keys, deadline = line.recv()
        try:
            if isinstance(worker, BenchError):
                raise worker
            worker.do(keys, deadline, line.send)
        except Exception as error:
            line.send(portable(error))
        else:
            line.send(None)


@dataclass(frozen=True)
class _Portion:
    """Cells that a worker is at, when no more of them may start, and which try it is."""

    cells: list[Todo]
    deadline: float | None
    attempt: int = 1

    @property
    def keys(self) -> frozenset[str]:
        """The fit keys of its cells."""
        return frozenset(t.fit.key for t in self.cells)


@dataclass
class _Place:
    """Where a worker is: its device, its process while there is one, and what it was last heard to be at."""

    device: str
    child: Child | None = None
    portion: _Portion | None = None
    at: frozenset[str] = frozenset()
    now: str = ""


class Processes:
    """As many portions at a time as there are workers. ``watch`` hears what these are at."""

    encodes = True

    def __init__(self, setup: Setup, jobs: int, watch: Watch | None = None) -> None:
        # Workers share the cores by being several: each has one thread, in NumPy's libraries too.
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        os.environ.update({name: "1" for name in names})
        self.setup, self.jobs, self.watch = setup, jobs, watch
        self.places = [_Place(device) for device in spread(visible(setup.device), jobs)]
        self.said: queue.SimpleQueue[tuple[Child, Any]] = queue.SimpleQueue()  # by whom, what
        self.again: deque[_Portion] = deque()  # what was lost with a worker
        self.deaths: Counter[str] = Counter()  # by fit key: workers that died at the cell

    def portions(self, todo: list[Todo]) -> Iterator[list[Todo]]:
        """Rounds, or as many of them as leave work for every worker."""
        return portions(todo, not self.setup.dense_cache, self.jobs, self.setup.join)

    def room(self) -> bool:
        """Whether a worker is idle."""
        return sum(place.portion is None for place in self.places) > len(self.again)

    def busy(self) -> bool:
        """Whether a worker is at something."""
        return bool(self.again) or any(place.portion for place in self.places)

    def submit(self, portion: list[Todo], deadline: float | None) -> None:
        """Hand a portion to an idle worker."""
        self._give(_Portion(portion, deadline))

    def _give(self, portion: _Portion) -> None:
        place = next(place for place in self.places if place.portion is None)
        if place.child is None:
            place.child = Child(serve, self.setup, place.device)
            threading.Thread(target=self._listen, args=(place.child,), daemon=True).start()
        place.portion, place.at = portion, frozenset()
        place.child.send((portion.keys, portion.deadline))

    def _listen(self, child: Child) -> None:
        """In a thread: take what a worker says when it says it, so that no worker ever waits."""
        try:
            while True:
                self.said.put((child, child.recv()))
        except Died as died:
            self.said.put((child, died))

    def collect(self) -> Iterator[Done]:
        """Wait until a cell has ended; where a worker died, what was lost begins again."""
        while self.busy():
            while self.again and any(place.portion is None for place in self.places):
                self._give(self.again.popleft())
            try:
                child, said = self.said.get(timeout=_LOOK if self.watch else None)
            except queue.Empty:
                said = child = None
            if self.watch and (now := [place.now for place in self.places if place.now]):
                self.watch(Now("; ".join(now)))
            place = next((place for place in self.places if child and place.child is child), None)
            if place and (done := self._heard(place, said)):
                yield done
                return

    def _heard(self, place: _Place, said: Any) -> Done | None:
        """Take in what a worker said; where that ends cells, they are given. Raises what is no cell's error.

        Such an error is a full disk, or a bug.
        """
        portion = place.portion
        if isinstance(said, Now):
            place.now = said.what
        elif isinstance(said, frozenset):
            place.at = said
        elif isinstance(said, Died):
            place.child, place.portion, place.now = None, None, ""
            return self._lost(portion, place.at, said) if portion else None
        elif portion and isinstance(said, Done):
            ended = {cell.key for cell in said.ended}
            place.portion = replace(portion, cells=[t for t in portion.cells if t.fit.key not in ended])
            place.at -= ended
            return said
        elif portion and isinstance(said, BenchError):
            place.portion = None
            return Done(failed=[(t, said) for t in portion.cells])
        elif isinstance(said, Exception):
            raise said
        else:
            place.portion = None
            return Done()
        return None

    def _lost(self, portion: _Portion, at: frozenset[str], died: Died) -> Done:
        """A worker died: what it was at is tried once more, each cell alone, and the rest goes on.

        A portion of which no cell had begun is tried once more as a whole.
        """
        failed: list[tuple[Todo, Exception]] = []
        rest = [t for t in portion.cells if t.fit.key not in at]
        if len(rest) == len(portion.cells):
            if portion.attempt < _TRIES:
                self.again.append(replace(portion, attempt=portion.attempt + 1))
            else:
                failed = [(t, _death("before it began a cell", died)) for t in rest]
            return Done(failed=failed)
        if rest:
            self.again.append(replace(portion, cells=rest))
        for t in portion.cells:
            if t.fit.key in at:
                self.deaths[t.fit.key] += 1
                if self.deaths[t.fit.key] < _TRIES:
                    self.again.append(_Portion([t], portion.deadline))
                else:
                    failed.append((t, _death(_AT, died)))
        return Done(failed=failed)

    def finish(self) -> Iterator[Done]:
        """Workers finish what they are given by themselves."""
        return iter(())

    def stop(self) -> Done:
        """End the workers; what these had said before still counts."""
        self.end()
        done, speaking = Done(), {place.child: place for place in self.places if place.child}
        while speaking:
            child, said = self.said.get()
            if isinstance(said, Died):
                speaking.pop(child, None)
            elif child in speaking and isinstance(said, Done | frozenset):
                done.add(self._heard(speaking[child], said) or Done())
        stopped = {
            t.fit.key: label(t.fit)
            for place in self.places
            for t in (place.portion.cells if place.portion else ())
            if t.fit.key in place.at
        }
        done.add(Done(outcome=Outcome(stopped=stopped)))
        return done

    def end(self) -> None:
        """End the workers without waiting for what they are at."""
        for place in self.places:
            if place.child:
                place.child.end()


def _death(where: str, died: Died) -> BenchError:
    memory = died.code is not None and -died.code == signal.SIGKILL
    mend = "leave that method out, or mend it" if where == _AT and not memory else "try --jobs 1"
    return BenchError(f"its worker process died twice {where} ({died}): {mend}")
