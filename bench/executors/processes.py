"""The executor for several worker processes on this machine.

The parent encodes in plan order and hands out portions (``bench.plan.rounds``). The workers fit, evaluate and
write records. They start at once, so that they have imported, planned and loaded the model when the first
features are stored. The parent encodes one portion ahead, for the worker that is idle next.

A worker names a cell before it begins it. When a worker dies, that cell is tried once more, alone, and the
rest of its portion goes to another worker.

The parent keeps a thread for every core, because workers wait for the features that it encodes. Its threads
sleep while they wait for each other (OMP_WAIT_POLICY). On two cores that were busy otherwise, two threads
took 26 % less wall time than one, and 2 % more processor time.

With several GPUs, worker i is on GPU i modulo their number, and the parent encodes on the first. All share
the stored features, because the key of a feature names the kind of device and not its number.
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
_GAIN = 0.8  # one more worker must reduce the expected time to less than this part of it
_MOST = 4  # most workers by default; each holds a model and the features of its portion
_AHEAD = 1  # portions that are encoded before a worker is idle
_TRIES = 2
_AT = "at this cell"
_LOOK = 1.0  # seconds between reports of what the workers are doing, if they are shown live


def visible(device: str) -> list[str]:
    """Return the devices for workers: for ``cuda`` every GPU that PyTorch sees, else the named device."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if device == "cuda" else [device]


def spread(devices: Sequence[str], jobs: int) -> list[str]:
    """Return the device of each of ``jobs`` workers, which take the devices in turn."""
    return [devices[i % len(devices)] for i in range(jobs)]


def sharing(devices: Sequence[str], jobs: int) -> list[tuple[str, int]]:
    """Return the device of each worker and how many processes use it. The parent uses the first."""
    each = spread(devices, jobs)
    return [(device, each.count(device) + (device == devices[0])) for device in each]


def default_jobs(device: str, seconds: Sequence[float]) -> int:
    """Return how many workers to use if none are asked for.

    ``seconds``: expected seconds of the parts that can run in parallel (``rounds.apart``). On GPUs the answer
    is one worker per GPU. Two workers on one card take turns at its kernels, hold the model and the features
    twice, and train in smaller waves. Raise this default once the GPU benchmark shows that two workers on one
    card are faster. On a processor there are up to 4 workers, at most one per core. One more is used if that
    reduces the expected time, with the start of the workers, to less than 0.8 of what it was.
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
    """Run a worker with one thread: do the portions that ``line`` brings, until it is closed.

    The worker sends what it is doing (a Now, and the keys of the cells that it begins), a Done for each cell
    that ended, and at the end of a portion None or the error that ended it. ``sharers``: how many processes
    use its device. ``first``: the key of a fit whose backbone it loads before the first portion comes.
    """
    torch.set_num_threads(1)
    worker: Worker | BenchError
    try:
        worker = Worker(setup, device, setup.request.results, line.send, line.send, sharers)
        worker.load(first)
    except Exception as error:  # sent as the result of the first portion
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
    """Cells for a worker, the time after which none of them may start, and the number of this try."""

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

    ``given``: portions that the worker got and of which no end was reported yet. ``at``, ``now``: what the
    worker does by its last message, as fit keys and in words.
    """

    device: str
    sharers: int
    child: Child | None = None
    given: deque[_Portion] = field(default_factory=deque)
    at: frozenset[str] = frozenset()
    now: str = ""

    @property
    def portion(self) -> _Portion | None:
        """Return the portion that the worker is doing by its last message, or None."""
        return self.given[0] if self.given else None


class _Unheard(Exception):
    """The error for a worker's message that cannot be unpickled. Its later messages are not read either."""


class Processes:
    """A way that does as many portions at a time as there are workers.

    ``watch`` is called when the first portion is submitted and, if ``live``, about every second with what
    each worker is doing. ``seconds``: expected seconds by fit key, by which portions are cut.
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
        # The workers inherit these: each computes with one thread, in NumPy's libraries too.
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        os.environ.update({name: "1" for name in names})
        self.setup, self.jobs, self.seconds = setup, jobs, seconds
        self.watch, self.live, self.began = watch, live, False
        self.places = [_Place(device, n) for device, n in sharing(visible(setup.device), jobs)]
        self.said: queue.SimpleQueue[tuple[Child, Any]] = queue.SimpleQueue()  # (worker, its message)
        self.waiting: deque[_Portion] = deque()  # encoded, and given to no worker that lives
        self.giving = threading.Lock()  # held while a waiting portion goes to a worker
        self.deaths: Counter[str] = Counter()  # fit key -> workers that died at the cell

    def portions(self, todo: list[Todo]) -> list[list[Todo]]:
        """Return the portions, and start a worker for each of them, up to ``jobs``."""
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
        """Hand a portion to an idle worker, or keep it for the worker that is idle next."""
        if not self.began:
            self.began = True
            self.watch(Now("worker processes are at the first cells"))
        self.waiting.append(_Portion(portion, deadline))
        self._give()

    def _give(self) -> None:
        """Hand waiting portions to idle workers, and start another worker where one has died."""
        with self.giving:
            for place in self.places:
                if self.waiting and not place.given:
                    if place.child is None:
                        self._begin(place, self.waiting[0].cells[0].fit.key)
                    self._send(place)

    def _begin(self, place: _Place, first: str) -> None:
        """Start a worker, which first loads the backbone of the fit with the key ``first``."""
        place.child = Child(serve, self.setup, place.device, place.sharers, first)
        threading.Thread(target=self._listen, args=(place, place.child), daemon=True).start()

    def _send(self, place: _Place) -> None:
        """Hand an idle worker the next waiting portion, if there is one. The caller holds ``giving``."""
        if self.waiting and place.child:
            portion = self.waiting.popleft()
            place.given.append(portion)
            place.child.send((portion.keys, portion.deadline))

    def _listen(self, place: _Place, child: Child) -> None:
        """Receive a worker's messages and queue them for ``collect``, until the worker ends.

        This runs in a thread of its own, so that no worker waits until its message is received. When a
        portion has ended, the thread also hands the worker the next one, because the parent may be encoding.
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
        except Exception as error:  # the message holds, for example, an object of a method's own class
            unheard = _Unheard(
                f"the message of a worker process cannot be read: {type(error).__name__}: {error}"
            )
            unheard.__cause__ = error
            self.said.put((child, unheard))

    def collect(self) -> Iterator[Done]:
        """Wait until a cell has ended, and yield its result.

        If a worker dies meanwhile, the cells that are lost are queued again.
        """
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
        """Handle a worker's message, and return a Done if cells or a portion ended by it.

        Raises the message if it is an error of no cell in particular, such as a full disk or a bug.
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
        """Queue the cells of a dead worker's portion again, and return those that fail.

        A cell that the worker was doing (``at``) is tried once more, alone. If the worker died before it
        began a cell, its portion is tried once more as a whole. What dies twice fails.
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
        """Yield nothing, because workers make all evaluations of a portion themselves."""
        return iter(())

    def stop(self) -> Done:
        """End the workers. The cells that they had reported before still count."""
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
        """End the workers at once, whatever they are doing."""
        for place in self.places:
            if place.child:
                place.child.end()


def _death(where: str, died: Died) -> BenchError:
    """Return the error of a cell whose worker died twice."""
    memory = died.code is not None and -died.code == signal.SIGKILL
    mend = "leave that method out, or mend it" if where == _AT and not memory else "try --jobs 1"
    return BenchError(f"its worker process died twice {where} ({died}): {mend}")
