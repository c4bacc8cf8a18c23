"""Several processes of this machine.

The parent encodes, in plan order, and hands out portions: a round (one seed of one dataset) or a part of one,
cut by expected seconds so that all workers have work until the end; with ``--no-dense-cache`` several rounds,
for the sake of few passes over the test images. Workers begin at once, so that they have imported, planned
and loaded the model when the first features are stored; they fit, evaluate and write records. One portion is
encoded ahead, for the worker that is idle next. A worker says what it is at before it begins it: when it
dies, that cell is tried once more, alone, and the rest of its portion goes on without it. The parent keeps a
thread for every core: what it encodes is what workers wait for, and its threads wait asleep for each other
(OMP_WAIT_POLICY), so that two of them took 2 % more of the processor's time than one, and 26 % less of the
clock's, on two cores that were busy otherwise.

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
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

from bench.children import Child, Died, cores, portable
from bench.errors import BenchError
from bench.executors.loop import Done
from bench.executors.worker import Setup, Worker
from bench.lazy import torch
from bench.plan.cells import label
from bench.plan.rounds import UNKNOWN, Seconds, portions
from bench.plan.todo import Todo
from bench.run.outcome import Now, Outcome, Watch, unwatched

_START = 5.0  # seconds until a worker has imported, planned and loaded the model
_GAIN = 0.8  # one more worker must bring the expected time down to this
_MOST = 4  # each holds a model and the features of its round
_AHEAD = 1  # portions that are encoded before a worker is idle
_TRIES = 2
_AT = "at this cell"
_LOOK = 1.0  # seconds between looks at what the workers are at, where somebody watches


def visible(device: str) -> list[str]:
    """The devices of workers: every GPU that PyTorch sees for ``cuda``, else the one that is named."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if device == "cuda" else [device]


def spread(devices: Sequence[str], jobs: int) -> list[str]:
    """The device of each of ``jobs`` workers: one after the other, round and round."""
    return [devices[i % len(devices)] for i in range(jobs)]


def sharing(devices: Sequence[str], jobs: int) -> list[tuple[str, int]]:
    """The device of each worker, and how many processes are on it: the first is the parent's too."""
    each = spread(devices, jobs)
    return [(device, each.count(device) + (device == devices[0])) for device in each]


def default_jobs(device: str, seconds: Sequence[float]) -> int:
    """Worker processes when none are asked for, for parts of these expected ``seconds`` (``rounds.apart``).

    One a GPU: two on one card take turns at its kernels, hold the model and the features twice, and train in
    smaller waves. That changes when ``--jobs 2`` takes less time than ``--jobs 1`` on one card in the
    benchmark of the GPU. On a processor one a core, where that saves more than a worker's start.
    """
    if device != "cpu":
        return max(1, min(len(visible(device)), len(seconds)))
    jobs, wall = 1, sum(seconds)
    for more in range(2, min(cores(), _MOST, len(seconds)) + 1):
        expected = _START + max(*seconds, sum(seconds) / more)
        if expected < _GAIN * wall:
            jobs, wall = more, expected
    return jobs


def serve(line: Connection[Any, Any], setup: Setup, device: str, sharers: int, first: str) -> None:
    """Runs in a worker, with one thread: does the cells whose keys come, until nothing more can come.

    It sends what it is at (Now, and the keys of the cells), a Done for each cell that ended, and at the end
    of a portion None, or the error that ended it. ``sharers``: processes on its device. ``first``: the key of
    a fit whose backbone it loads before anything comes.
    """
    torch.set_num_threads(1)
    worker: Worker | BenchError
    try:
        worker = Worker(setup, device, setup.request.results, line.send, line.send, sharers)
        worker.load(first)
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
    """Where a worker is: its device and how many processes share it, its process while there is one, the
    portions that it was given and has not been heard to end, and what it was last heard to be at.
    """

    device: str
    sharers: int
    child: Child | None = None
    given: deque[_Portion] = field(default_factory=deque)
    at: frozenset[str] = frozenset()
    now: str = ""

    @property
    def portion(self) -> _Portion | None:
        """What it is at, as far as it was heard."""
        return self.given[0] if self.given else None


class _Unheard(Exception):
    """What a worker said cannot be read, so that nobody listens to it any more."""


class Processes:
    """As many portions at a time as there are workers.

    ``watch`` hears when they get to work and, where it is ``live``, again and again what each is at.
    ``seconds``: what cells are expected to take, for equal shares.
    """

    encodes = elsewhere = True

    def __init__(
        self,
        setup: Setup,
        jobs: int,
        watch: Watch = unwatched,
        seconds: Seconds = UNKNOWN,
        live: bool = False,
    ) -> None:
        # Workers share the cores by being several: each has one thread, in NumPy's libraries too.
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        os.environ.update({name: "1" for name in names})
        self.setup, self.jobs, self.seconds = setup, jobs, seconds
        self.watch, self.live, self.began = watch, live, False
        self.places = [_Place(device, n) for device, n in sharing(visible(setup.device), jobs)]
        self.said: queue.SimpleQueue[tuple[Child, Any]] = queue.SimpleQueue()  # by whom, what
        self.waiting: deque[_Portion] = deque()  # encoded for the next idle worker, or lost with one
        self.giving = threading.Lock()  # held while a portion goes from those that wait to a worker
        self.deaths: Counter[str] = Counter()  # by fit key: workers that died at the cell

    def portions(self, todo: list[Todo]) -> list[list[Todo]]:
        """Rounds or parts of them, so that there is work for every worker; as many workers begin."""
        found = portions(todo, not self.setup.dense_cache, self.jobs, self.setup.join, self.seconds)
        for place, portion in zip(self.places, found, strict=False):
            self._begin(place, portion[0].fit.key)
        return found

    def room(self) -> bool:
        """Whether a worker is idle, or another portion may be encoded ahead."""
        return sum(place.portion is None for place in self.places) + _AHEAD > len(self.waiting)

    def busy(self) -> bool:
        """Whether a worker is at something."""
        return bool(self.waiting) or any(place.given for place in self.places)

    def submit(self, portion: list[Todo], deadline: float | None) -> None:
        """Hand a portion to an idle worker, or to the first that will be."""
        if not self.began:
            self.began = True
            self.watch(Now("worker processes are at the first cells"))
        self.waiting.append(_Portion(portion, deadline))
        self._give()

    def _give(self) -> None:
        """Hand what waits to idle workers; where one has died another begins."""
        with self.giving:
            for place in self.places:
                if self.waiting and not place.given:
                    if place.child is None:
                        self._begin(place, self.waiting[0].cells[0].fit.key)
                    self._send(place)

    def _begin(self, place: _Place, first: str) -> None:
        place.child = Child(serve, self.setup, place.device, place.sharers, first)
        threading.Thread(target=self._listen, args=(place, place.child), daemon=True).start()

    def _send(self, place: _Place) -> None:
        """Give an idle worker the next portion that waits, if there is one; ``giving`` is held."""
        if self.waiting and place.child:
            portion = self.waiting.popleft()
            place.given.append(portion)
            place.child.send((portion.keys, portion.deadline))

    def _listen(self, place: _Place, child: Child) -> None:
        """In a thread: take what a worker says when it says it, so that no worker ever waits.

        Nor for the parent, which may be encoding: what waits goes to a worker as soon as it is idle.
        """
        try:
            while True:
                said = child.recv()
                if said is None or isinstance(said, BenchError):  # a portion ended
                    with self.giving:
                        self._send(place)
                self.said.put((child, said))
        except Died as died:
            self.said.put((child, died))
        except Exception as error:  # of an object that a method made, say, which cannot be read here
            unheard = _Unheard(f"a worker cannot be heard: {type(error).__name__}: {error}")
            unheard.__cause__ = error
            self.said.put((child, unheard))

    def collect(self) -> Iterator[Done]:
        """Wait until a cell has ended; where a worker died, what was lost begins again."""
        while self.busy():
            self._give()
            try:
                child, said = self.said.get(timeout=_LOOK if self.live else None)
            except queue.Empty:
                said = child = None
            if self.live and (now := [place.now for place in self.places if place.now]):
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
            lost = self._lost(portion, place.at, said) if portion else None
            place.child, place.at, place.now = None, frozenset(), ""
            place.given.clear()
            return lost
        elif portion and isinstance(said, Done):
            ended = {cell.key for cell in said.ended}
            place.given[0] = replace(portion, cells=[t for t in portion.cells if t.fit.key not in ended])
            place.at -= ended
            return said
        elif portion and isinstance(said, BenchError):
            place.given.popleft()
            return Done(failed=[(t, said) for t in portion.cells])
        elif isinstance(said, Exception):
            raise said
        else:
            place.given.popleft()
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
                self.waiting.append(replace(portion, attempt=portion.attempt + 1))
            else:
                failed = [(t, _death("before it began a cell", died)) for t in rest]
            return Done(failed=failed)
        if rest:
            self.waiting.append(replace(portion, cells=rest))
        for t in portion.cells:
            if t.fit.key in at:
                self.deaths[t.fit.key] += 1
                if self.deaths[t.fit.key] < _TRIES:
                    self.waiting.append(_Portion([t], portion.deadline))
                else:
                    failed.append((t, _death(_AT, died)))
        return Done(failed=failed)

    def finish(self) -> Iterator[Done]:
        """Workers finish what they are given by themselves."""
        return iter(())

    def stop(self) -> Done:
        """End the workers; what these had said before still counts."""
        with self.giving:
            self.waiting.clear()
        self.end()
        done, speaking = Done(), {place.child: place for place in self.places if place.child}
        while speaking:
            child, said = self.said.get()
            if isinstance(said, Died | _Unheard):
                speaking.pop(child, None)
            elif child in speaking and (said is None or isinstance(said, Done | frozenset)):
                done.add(self._heard(speaking[child], said) or Done())
        stopped = {
            t.fit.key: label(t.fit)
            for place in self.places
            for portion in place.given
            for t in portion.cells
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
