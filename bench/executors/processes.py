"""The executor for several processes of this machine.

The parent encodes, in plan order, and hands out portions. A portion is a round (one seed of one dataset) or a
part of one, cut by expected seconds so that all workers have work until the end. With ``--no-dense-cache`` it
is several rounds, so that few passes are made over the test images. Workers begin at once, so that they have
imported, planned and loaded the model when the first features are stored; they fit, evaluate and write
records. One portion is encoded ahead, for the worker that is idle next. A worker says what it is doing before
it begins it. When it dies, that cell is tried once more, alone, and the rest of its portion goes on without
it.

The parent keeps a thread for every core, because workers wait for what it encodes. Its threads sleep while
they wait for each other (OMP_WAIT_POLICY): two of them took 2 % more of the processor's time than one, and 26
% less of the clock's, on two cores that were busy otherwise.

With several GPUs each worker takes one in turn, round and round if there are more workers; the parent encodes
on the first. Features are shared between them: their keys name the kind of device, not which one.
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
_GAIN = 0.8  # one more worker must reduce the expected time to this part of it
_MOST = 4  # workers by default at most; each holds a model and the features of its round
_AHEAD = 1  # portions that are encoded before a worker is idle
_TRIES = 2
_AT = "at this cell"
_LOOK = 1.0  # seconds between looks at what the workers are doing, if somebody watches


def visible(device: str) -> list[str]:
    """Return the devices for workers: every GPU that PyTorch sees for ``cuda``, else the named one."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if device == "cuda" else [device]


def spread(devices: Sequence[str], jobs: int) -> list[str]:
    """Return the device of each of ``jobs`` workers: one after the other, round and round."""
    return [devices[i % len(devices)] for i in range(jobs)]


def sharing(devices: Sequence[str], jobs: int) -> list[tuple[str, int]]:
    """Return the device of each worker and how many processes are on it. The parent is on the first."""
    each = spread(devices, jobs)
    return [(device, each.count(device) + (device == devices[0])) for device in each]


def default_jobs(device: str, seconds: Sequence[float]) -> int:
    """Return how many workers to use if none are asked for.

    ``seconds``: expected seconds of the parts that may run beside each other (``rounds.apart``). On GPUs it
    is one worker per GPU. Two on one card take turns at its kernels, hold the model and the features twice,
    and train in smaller waves. That changes when ``--jobs 2`` takes less time than ``--jobs 1`` on one card
    in the benchmark of the GPU. On a processor it is one per core, if that saves more than a worker's start.
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
    """Run a worker, with one thread: do the cells whose keys come, until nothing more can come.

    It sends what it is doing (Now, and the keys of the cells), a Done for each cell that ended, and at the
    end of a portion None or the error that ended it. ``sharers``: how many processes are on its device.
    ``first``: the key of a fit whose backbone it loads before anything comes.
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
    """Cells for a worker, the time after which no more of them may start, and the number of the try."""

    cells: list[Todo]
    deadline: float | None
    attempt: int = 1

    @property
    def keys(self) -> frozenset[str]:
        """Return the fit keys of its cells."""
        return frozenset(t.fit.key for t in self.cells)


@dataclass
class _Place:
    """The place of a worker: its device, how many processes share it, and its process if there is one.

    ``given``: portions that the worker got and has not been heard to end. ``at``, ``now``: what it last said
    it was doing, as fit keys and in words.
    """

    device: str
    sharers: int
    child: Child | None = None
    given: deque[_Portion] = field(default_factory=deque)
    at: frozenset[str] = frozenset()
    now: str = ""

    @property
    def portion(self) -> _Portion | None:
        """Return the portion that the worker is doing, as far as was heard."""
        return self.given[0] if self.given else None


class _Unheard(Exception):
    """The error of a worker's message that cannot be read, so that nobody listens to the worker any more."""


class Processes:
    """A way that does as many portions at a time as there are workers.

    ``watch`` is told when they get to work and, if ``live``, again and again what each is doing. ``seconds``:
    expected seconds by fit key, for equal shares.
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
        self.said: queue.SimpleQueue[tuple[Child, Any]] = queue.SimpleQueue()  # (worker, what it said)
        self.waiting: deque[_Portion] = deque()  # encoded for the next idle worker, or lost with one
        self.giving = threading.Lock()  # held while a waiting portion goes to a worker
        self.deaths: Counter[str] = Counter()  # fit key -> workers that died at the cell

    def portions(self, todo: list[Todo]) -> list[list[Todo]]:
        """Return rounds or parts of them, with work for every worker, and begin as many workers."""
        found = portions(todo, not self.setup.dense_cache, self.jobs, self.setup.join, self.seconds)
        for place, portion in zip(self.places, found, strict=False):
            self._begin(place, portion[0].fit.key)
        return found

    def room(self) -> bool:
        """Return whether a worker is idle, or another portion may be encoded ahead."""
        return sum(place.portion is None for place in self.places) + _AHEAD > len(self.waiting)

    def busy(self) -> bool:
        """Return whether a portion waits or a worker has one."""
        return bool(self.waiting) or any(place.given for place in self.places)

    def submit(self, portion: list[Todo], deadline: float | None) -> None:
        """Hand a portion to an idle worker, or to the first that will be."""
        if not self.began:
            self.began = True
            self.watch(Now("worker processes are at the first cells"))
        self.waiting.append(_Portion(portion, deadline))
        self._give()

    def _give(self) -> None:
        """Hand what waits to idle workers, and begin another worker where one has died."""
        with self.giving:
            for place in self.places:
                if self.waiting and not place.given:
                    if place.child is None:
                        self._begin(place, self.waiting[0].cells[0].fit.key)
                    self._send(place)

    def _begin(self, place: _Place, first: str) -> None:
        """Begin a worker, which first loads the backbone of the fit with the key ``first``."""
        place.child = Child(serve, self.setup, place.device, place.sharers, first)
        threading.Thread(target=self._listen, args=(place, place.child), daemon=True).start()

    def _send(self, place: _Place) -> None:
        """Give an idle worker the next waiting portion, if there is one. The caller holds ``giving``."""
        if self.waiting and place.child:
            portion = self.waiting.popleft()
            place.given.append(portion)
            place.child.send((portion.keys, portion.deadline))

    def _listen(self, place: _Place, child: Child) -> None:
        """Take, in a thread, what a worker says when it says it, so that no worker ever waits.

        It does not wait for the parent either, which may be encoding: an idle worker gets the next portion at
        once.
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
        except Exception as error:  # such as a method's own object, which cannot be read in this process
            unheard = _Unheard(f"a worker cannot be heard: {type(error).__name__}: {error}")
            unheard.__cause__ = error
            self.said.put((child, unheard))

    def collect(self) -> Iterator[Done]:
        """Wait until a cell has ended; if a worker died, what was lost begins again."""
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
        """Handle a message of a worker, and return a Done if it ended cells.

        If the message is an error that is no cell's, such as a full disk or a bug, it is raised.
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
        """Try what a dead worker was doing once more, each cell alone; the rest of its portion goes on.

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
        """Yield nothing: workers finish by themselves what they are given."""
        return iter(())

    def stop(self) -> Done:
        """End the workers; what they had said before still counts."""
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
        """End the workers without waiting for what they are doing."""
        for place in self.places:
            if place.child:
                place.child.end()


def _death(where: str, died: Died) -> BenchError:
    """Return the error of a cell whose worker died twice."""
    memory = died.code is not None and -died.code == signal.SIGKILL
    mend = "leave that method out, or mend it" if where == _AT and not memory else "try --jobs 1"
    return BenchError(f"its worker process died twice {where} ({died}): {mend}")
