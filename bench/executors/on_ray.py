"""The Ray executor sends cells as tasks to the nodes of a cluster. Only the driver writes records.

A Ray task does one portion, usually the cells of one (seed, dataset, shots). So methods that read each
other's states are in the same task. Each slot of the cluster (a GPU, or else a CPU) holds an actor: a process
that imports, plans and loads the model once, and then does one task after the other. An actor writes into a
temporary folder and sends the files back when a task ends. The driver writes them into the results folder at
once.

When a node dies, only the tasks that it was doing are lost, and other actors do them again. If a second actor
dies at the same task, each cell of the task becomes a task of its own. So a cell that kills its process
fails alone. A slot whose actors die twice in a row while they start is given up. Such a death does not count
as a try of any task.

Data, plugins and weights are read by path and must exist on every node. With ``--cache``, which must then be
a path that all nodes share, the driver encodes the features. Otherwise every node encodes what it needs.

With ``--no-dense-cache`` each task makes a pass over the test images. With it, and with ``--join``, a task is
larger: as many (seed, dataset, shots) of a dataset as leave work for every slot. Then fewer passes are made
and more fits train together. But when the node dies, the whole task begins again, and all its files are sent
at once, through memory.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.executors import scratch
from bench.executors.loop import Done
from bench.executors.node import Files, Node, Sent, write
from bench.executors.worker import Setup
from bench.plan.cells import chain, label
from bench.plan.rounds import UNKNOWN, Seconds, by_shots, gathered, halved, rounds
from bench.plan.todo import Fresh, Todo, left
from bench.records import places
from bench.run import devices

_TRIES = 2
_DEPTH = 2  # tasks that an actor has at a time while there are many, so that it never waits for the driver
_SEND = 10.0  # a task stops so many seconds before the time budget does, so that it can send what it did


@dataclass(frozen=True)
class _Task:
    """Cells to do, the time after which none of them may start, and the number of this try (from 1)."""

    cells: list[Todo]
    deadline: float | None
    attempt: int = 1


@dataclass
class _Slot:
    """A place for one actor in the cluster: the actor if there is one, and its tasks.

    ``begun``: the reference of a call that ends when the actor has started; None if it has started.
    ``given``: the actor's tasks, in the order in which it does them, each behind the reference of its result.
    ``starts``: how many actors in a row died while they started.
    """

    actor: Any = None
    begun: Any = None
    given: deque[tuple[Any, _Task]] = field(default_factory=deque)
    starts: int = 0

    def up(self) -> None:
        """Note that the actor has started."""
        self.begun, self.starts = None, 0


def tasks(
    todo: list[Todo], streamed: bool, slots: int, join: bool, seconds: Seconds = UNKNOWN
) -> list[list[Todo]]:
    """Divide the cells into tasks, one for each (seed, dataset, shots).

    If features are ``streamed`` or fits join, a task is several of these. If there are fewer tasks than
    ``slots``, the largest are cut in two.
    """
    groups = [group for _, whole in rounds(todo, join=join) for group in by_shots(whole)]
    if streamed or join:
        return list(gathered(groups, slots, join, seconds))
    halved(groups, slots, join, seconds)
    return groups


class OnRay:
    """A way that sends tasks to the Ray cluster at ``address``, or (None) to one on this machine.

    ``report`` is called with a line for the user if ``--device`` names a GPU by number, because the number
    holds for this process alone. ``stop``: when tasks are stopped (time.monotonic). ``seconds``: expected
    seconds by fit key. Raises BenchError if Ray is not installed, the cluster cannot be reached, or the
    cluster has no CPU or GPU for a task.
    """

    def __init__(
        self,
        setup: Setup,
        address: str | None,
        report: Callable[[str], None],
        stop: float | None = None,
        seconds: Seconds = UNKNOWN,
    ) -> None:
        self.ray = _connected(address)
        self.places: list[_Slot] = []
        self.waiting: deque[_Task] = deque()  # tasks that no actor has yet
        self.left = 0  # portions that were not submitted yet
        self.closed: BenchError | None = None  # why no actor can start any more
        self.stopping, self.seconds = stop, seconds
        try:
            self.setup, gpus, self.slots = _resources(self.ray, setup, report)
            self.encodes = setup.cache is not None
            if gpus and self.encodes:  # an actor on the driver's GPU takes only its part of the memory
                self.setup = replace(self.setup, card=devices.card(setup.device))
            options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
            self.node = self.ray.remote(**options)(Node)
        except BaseException:
            self.end()
            raise
        self.elsewhere = True

    def portions(self, todo: list[Todo]) -> list[list[Todo]]:
        """Return the cells of each task, and start an actor for each task, up to the number of slots."""
        found = tasks(todo, not self.setup.dense_cache, self.slots, self.setup.join, self.seconds)
        self.left = len(found)
        self.places = [_Slot() for _ in found[: self.slots]]
        for place, portion in zip(self.places, found, strict=False):
            self._begin(place, portion[0].fit.key)
        return found

    def _begin(self, place: _Slot, first: str) -> None:
        """Start an actor, which loads the backbone of the fit with the key ``first``."""
        place.actor = self.node.remote(self.setup, os.getcwd())
        place.begun = place.actor.begin.remote(first)

    def _depth(self) -> int:
        """Return how many tasks an actor has at a time.

        Near the end it has one, so that the actor that is idle first gets the next task.
        """
        return _DEPTH if self.left > self.slots else 1

    def room(self) -> bool:
        """Return whether an actor, started or not, has room for another task.

        If no actor can start any more, there is always room, because every task then fails at once.
        """
        free = sum(max(0, self._depth() - len(p.given)) for p in self.places)
        return self.closed is not None or free > len(self.waiting)

    def busy(self) -> bool:
        """Return whether a task waits or an actor has one."""
        return bool(self.waiting) or any(place.given for place in self.places)

    def submit(self, portion: list[Todo], deadline: float | None) -> None:
        """Send a task, or keep it for the first actor that has room."""
        self.left -= 1
        self.waiting.append(_Task(portion, deadline))
        self._give()

    def _give(self) -> None:
        """Send waiting tasks to actors that have room, and start another actor where one has died."""
        for place in self.places:
            if self.waiting and place.actor is None:
                self._begin(place, self.waiting[0].cells[0].fit.key)
        if starting := {p.begun: p for p in self.places if p.begun is not None}:
            for begun in self.ray.wait(list(starting), num_returns=len(starting), timeout=0)[0]:
                with suppress(self.ray.exceptions.RayError):  # ``collect`` gets the error again
                    self.ray.get(begun)
                    starting[begun].up()
        while self.waiting:
            up = [p for p in self.places if p.actor is not None and p.begun is None]
            up = [p for p in up if len(p.given) < self._depth()]
            if not up:
                return
            self._send(min(up, key=lambda p: len(p.given)), self.waiting.popleft())

    def _send(self, place: _Slot, task: _Task) -> None:
        """Send a task with the records and states that its cells need.

        Its time limits are sent as time.time, because time.monotonic differs between machines.
        """
        known = _known(self.setup.request.results, task.cells, self.setup.fresh)
        until = None if task.deadline is None else time.time() + task.deadline - time.monotonic()
        stop = None if self.stopping is None else time.time() + self.stopping - _SEND - time.monotonic()
        keys = frozenset(t.fit.key for t in task.cells)
        place.given.append((place.actor.do.remote(keys, known, until, stop), task))

    def collect(self) -> Iterator[Done]:
        """Wait until a task has ended, write the files that it sends, and yield its result.

        If its actor died, the task is sent again.
        """
        while self.busy():
            if self.closed is not None:
                lost: list[tuple[Todo, Exception]]
                lost = [(t, self.closed) for task in self.waiting for t in task.cells]
                self.waiting.clear()
                yield Done(failed=lost)
                return
            self._give()
            waited = {p.begun: p for p in self.places if p.begun is not None}
            waited |= {p.given[0][0]: p for p in self.places if p.given}
            (ready, *_), _ = self.ray.wait(list(waited), num_returns=1)
            place = waited[ready]
            if place.begun is None:
                yield self._ended(place)
                return
            try:
                self.ray.get(ready)
                place.up()
            except self.ray.exceptions.RayError as error:
                self._died_at_start(place, error)

    def _ended(self, place: _Slot) -> Done:
        """Return the result of the task that an actor has ended."""
        reference, task = place.given.popleft()
        said = self._sent(reference, task)
        return said if isinstance(said, Done) else self._lost(place, task, said)

    def _sent(self, reference: Any, task: _Task) -> Done | Exception:
        """Write the files of a task that has ended, and return its result.

        If its actor died, return the error.
        """
        try:
            sent: Sent = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            reason = _failed(error)
            return Done(failed=[(t, reason) for t in task.cells])
        except self.ray.exceptions.RayError as error:
            return error  # type: ignore[no-any-return]
        write(self.setup.request.results, sent.files)
        return sent.done

    def _died_at_start(self, place: _Slot, error: Exception) -> None:
        """Note that an actor died while it started; give up its slot if that happened twice in a row."""
        self._release(place)
        place.starts += 1
        if place.starts < _TRIES:
            return
        self.places.remove(place)
        if not self.places:
            self.closed = BenchError(
                f"no worker can begin on the cluster: {_last_line(error)}; "
                "this program must be installed on its nodes as it is here"
            )
            self.closed.__cause__ = error
            self.encodes = False  # nothing will read features

    def _release(self, place: _Slot) -> None:
        """Kill a slot's actor."""
        self.ray.kill(place.actor)  # it may live out of reach: free its processor for the next actor
        place.actor = place.begun = None

    def _lost(self, place: _Slot, task: _Task, error: Exception) -> Done:
        """Return the result of a task whose actor died, and queue what is to be tried again.

        The task is tried a second time as a whole, and then cell by cell. A single cell fails after two
        tries. Tasks that the actor had not begun are queued unchanged.
        """
        self._release(place)
        self.waiting.extendleft(other for _, other in reversed(place.given))
        place.given.clear()
        if task.attempt < _TRIES:
            self.waiting.appendleft(replace(task, attempt=task.attempt + 1))
        elif len(task.cells) > 1:
            self.waiting.extend(_Task([t], task.deadline) for t in task.cells)
        else:
            reason = BenchError(f"its Ray task ended {_TRIES} times: {_last_line(error)}")
            reason.__cause__ = error
            return Done(failed=[(t, reason) for t in task.cells])
        return Done()

    def finish(self) -> Iterator[Done]:
        """Yield nothing, because every task makes all its evaluations itself."""
        return iter(())

    def stop(self) -> Done:
        """Return what the tasks that have ended did.

        ``outcome.stopped`` names the tasks that had not ended. ``end`` kills their actors.
        """
        done = Done()
        for place in self.places:
            while place.given:
                reference, task = place.given[0]
                ready, _ = self.ray.wait([reference], num_returns=1, timeout=0)
                said = self._sent(reference, task) if ready else None
                if not isinstance(said, Done):
                    first = task.cells[0].fit
                    done.outcome.stopped[first.key] = f"the Ray task of {label(first)}"
                    break
                done.add(said)
                place.given.popleft()
        return done

    def end(self) -> None:
        """Kill the actors with their tasks, and disconnect from the cluster."""
        try:
            for place in self.places:
                if place.actor is not None:
                    self.ray.kill(place.actor)
        finally:
            self.ray.shutdown()
            scratch.clear()


def _resources(ray: Any, setup: Setup, report: Callable[[str], None]) -> tuple[Setup, int, int]:
    """Return the setup for tasks, the GPUs of each (0 or 1), and how many tasks the cluster runs at a time.

    An actor with a GPU sees only this GPU, as cuda:0, whatever its number is for the driver. Raises
    BenchError if the cluster has no CPU or GPU for a task.
    """
    device, _, number = setup.device.partition(":")
    gpus = int(device == "cuda")
    if gpus and number:
        report(f"--device {setup.device} holds for this process alone; Ray chooses the GPU of each task")
    name = "GPU" if gpus else "CPU"
    slots = int(ray.cluster_resources().get(name, 0))
    if not slots:
        mend = "start its nodes with --num-gpus, or use --device cpu" if gpus else "add a node to it"
        raise BenchError(f"the Ray cluster offers no {name}: {mend}")
    return replace(setup, device=device), gpus, slots


def _last_line(error: Exception) -> str:
    """Return the last line of an error of Ray, which names the cause. A node's traceback stands above it."""
    said = str(error).strip()
    return said.splitlines()[-1].strip() if said else type(error).__name__


def _failed(error: Any) -> Exception:
    """Return the error for the cells of a task that raised. Another try would raise it again."""
    cause = error.cause
    said = str(cause) if isinstance(cause, BenchError) else f"{type(cause).__name__}: {cause}"
    reason = BenchError(f"on a node of the cluster: {said}")
    reason.__cause__ = error  # the text of this error holds the node's traceback
    return reason


def _connected(address: str | None) -> Any:
    """Connect to the cluster and return the module ``ray``.

    Ray is kept from sending usage statistics and from replacing this program's signal handlers. Raises
    BenchError if Ray is not installed or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise BenchError("--executor ray needs Ray: pip install 'fewshot-clip-bench[ray]'") from error
    ends = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BenchError(
            f"no Ray cluster at {address or 'this machine'} ({reason}): check --ray-address"
        ) from error
    finally:
        # Ray's own handler of SIGTERM aborts the process if the signal comes during a call of Ray.
        if threading.current_thread() is threading.main_thread():
            for number, handler in ends.items():
                if handler is not None:
                    signal.signal(number, handler)
    return ray


def _known(results: Path, group: list[Todo], fresh: Fresh = False) -> Files:
    """Return the existing records, predictions and states of the group's fits and of the fits that they read.

    ``fresh``: which records do not count (``todo.Fresh``); these are left out.
    """
    files: Files = {}
    for fit in {f.key: f for t in group for f in chain(t.fit)}.values():
        anew = left(fit, fresh) if fresh else None
        if anew is not None and anew.stored is None:
            continue
        for path in (places.fit_path(fit.where, fit.key), places.state_path(results, fit.key)):
            if path.is_file():
                files[str(path.relative_to(results))] = path.read_bytes()
        for e in fit.evaluations:
            if anew is not None and e in anew.evaluations:
                continue
            path = places.evaluation_path(fit.where, fit.key, e.key)
            for part in (path, path.with_suffix(".npz")):
                if part.is_file():
                    files[str(part.relative_to(results))] = part.read_bytes()
    return files
