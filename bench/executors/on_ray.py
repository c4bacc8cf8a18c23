"""The Ray executor: groups of cells as tasks on the nodes of a cluster. Only the driver writes records.

A task is all cells of one (seed, dataset, shots), so that methods which read each other's states meet in one
place. Each slot of the cluster holds an actor: a process that imports, plans, loads the model and finds its
GPU once, and then does task after task. It works in a folder of its own and sends its files back. The driver
records at once what comes back, so a node that dies costs only the tasks that it was doing; an actor
elsewhere begins these again. A task with which two actors died is cut into its cells, so that a cell that
ends every process costs only itself. A slot whose actors die before they are up, twice in a row, is left out,
and no task loses a try by that.

Data, plugins and weights are read by path and must exist on every node. Features come from ``--cache`` if
that is a shared path (then the driver encodes); otherwise every node encodes what it needs.

With ``--no-dense-cache``, where each task makes a pass over the test images, and with ``--join`` a task is as
many such groups of a dataset as leave work for every slot. That is the trade-off: there are fewer passes, and
more fits train together. But all that a larger task had done is begun again when its node dies, and its files
come back, through memory, in one piece.
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
_DEPTH = 2  # tasks of an actor while there are many, so that it never waits for the driver
_SEND = 10.0  # seconds that a task has to send back what it had done, when its time is over


@dataclass(frozen=True)
class _Task:
    """Cells to do, the time after which no more of them may start, and the number of the try."""

    cells: list[Todo]
    deadline: float | None
    attempt: int = 1


@dataclass
class _Slot:
    """A place in the cluster: its actor if there is one, and the actor's tasks.

    ``begun``: a call that ends when the actor is up. ``given``: what each task will send, in the order in
    which the actor does them. ``starts``: how many actors in a row died before they were up.
    """

    actor: Any = None
    begun: Any = None  # None: the actor is up
    given: deque[tuple[Any, _Task]] = field(default_factory=deque)
    starts: int = 0

    def up(self) -> None:
        """Note that the actor has begun."""
        self.begun, self.starts = None, 0


def tasks(
    todo: list[Todo], streamed: bool, slots: int, join: bool, seconds: Seconds = UNKNOWN
) -> list[list[Todo]]:
    """Divide the cells into tasks of one (seed, dataset, shots) each.

    A task is several of these if features are ``streamed`` or fits join. If that leaves slots without work,
    tasks are cut.
    """
    groups = [part for _, together in rounds(todo, join=join) for part in by_shots(together)]
    if streamed or join:
        return list(gathered(groups, slots, join, seconds))
    halved(groups, slots, join, seconds)
    return groups


class OnRay:
    """A way that sends tasks to a Ray cluster: the one at ``address``, or else one on this machine.

    ``report`` is told if the named device holds for this process alone. ``stop``: when tasks are stopped
    (time.monotonic). ``seconds``: expected seconds by fit key. Raises BenchError if Ray is not installed, the
    cluster cannot be reached, or no task could ever start.
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
        self.waiting: deque[_Task] = deque()  # for an actor that has room
        self.left = 0  # portions that were not submitted yet
        self.closed: BenchError | None = None  # why no actor can begin any more
        self.stopping, self.seconds = stop, seconds
        try:
            self.setup, gpus, self.slots = _resources(self.ray, setup, report)
            self.encodes = setup.cache is not None  # else every node encodes what it needs
            if gpus and self.encodes:  # an actor on the driver's GPU gets its part of the memory
                self.setup = replace(self.setup, card=devices.card(setup.device))
            options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
            self.node = self.ray.remote(**options)(Node)
        except BaseException:
            self.end()
            raise
        self.elsewhere = True

    def portions(self, todo: list[Todo]) -> list[list[Todo]]:
        """Return the cells of each task, and begin as many actors as have work."""
        found = tasks(todo, not self.setup.dense_cache, self.slots, self.setup.join, self.seconds)
        self.left = len(found)
        self.places = [_Slot() for _ in found[: self.slots]]
        for place, portion in zip(self.places, found, strict=False):
            self._begin(place, portion[0].fit.key)
        return found

    def _begin(self, place: _Slot, first: str) -> None:
        """Begin an actor, which loads the backbone of the fit with the key ``first``."""
        place.actor = self.node.remote(self.setup, os.getcwd())
        place.begun = place.actor.begin.remote(first)

    def _depth(self) -> int:
        """Return how many tasks an actor gets: one near the end, when another may be idle first."""
        return _DEPTH if self.left > self.slots else 1

    def room(self) -> bool:
        """Return whether an actor has room for another task, even if it is not up yet.

        If no actor can begin any more there is always room: every task then fails at once.
        """
        free = sum(max(0, self._depth() - len(p.given)) for p in self.places)
        return self.closed is not None or free > len(self.waiting)

    def busy(self) -> bool:
        """Return whether tasks are waiting or sent."""
        return bool(self.waiting) or any(place.given for place in self.places)

    def submit(self, portion: list[Todo], deadline: float | None) -> None:
        """Send a task, or keep it for the first actor that has room."""
        self.left -= 1
        self.waiting.append(_Task(portion, deadline))
        self._give()

    def _give(self) -> None:
        """Send what waits to actors that have room, and begin another actor where one has died."""
        for place in self.places:
            if self.waiting and place.actor is None:
                self._begin(place, self.waiting[0].cells[0].fit.key)
        if starting := {p.begun: p for p in self.places if p.begun is not None}:
            for begun in self.ray.wait(list(starting), num_returns=len(starting), timeout=0)[0]:
                with suppress(self.ray.exceptions.RayError):  # ``collect`` meets the error again
                    self.ray.get(begun)
                    starting[begun].up()
        while self.waiting:
            up = [p for p in self.places if p.actor is not None and p.begun is None]
            up = [p for p in up if len(p.given) < self._depth()]
            if not up:
                return
            self._send(min(up, key=lambda p: len(p.given)), self.waiting.popleft())

    def _send(self, place: _Slot, task: _Task) -> None:
        """Send a task with the records and states that its cells need, and with its limits as wall time."""
        known = _known(self.setup.request.results, task.cells, self.setup.fresh)
        until = None if task.deadline is None else time.time() + task.deadline - time.monotonic()
        stop = None if self.stopping is None else time.time() + self.stopping - _SEND - time.monotonic()
        keys = frozenset(t.fit.key for t in task.cells)
        place.given.append((place.actor.do.remote(keys, known, until, stop), task))

    def collect(self) -> Iterator[Done]:
        """Wait for the first task and write what it sends; if an actor died, its task begins again."""
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
        """Return the result of the task that an actor was doing."""
        reference, task = place.given.popleft()
        said = self._sent(reference, task)
        return said if isinstance(said, Done) else self._lost(place, task, said)

    def _sent(self, reference: Any, task: _Task) -> Done | Exception:
        """Return what a task that has ended sends, after writing it; or the error if its actor died."""
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
        """Note that an actor died as it began: another is tried, and then the slot is left out."""
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
        self.ray.kill(place.actor)  # if it is only out of reach, nothing else may start on its processor
        place.actor = place.begun = None

    def _lost(self, place: _Slot, task: _Task, error: Exception) -> Done:
        """Try the task of an actor that died once more, then each of its cells, twice.

        Tasks that the actor had not begun go to others unchanged.
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
        """Yield nothing: tasks finish by themselves what they are given."""
        return iter(())

    def stop(self) -> Done:
        """Return what tasks did before they stopped themselves; name the others, which ``end`` cancels."""
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
        """End the actors and what they are doing, and leave the cluster."""
        try:
            for place in self.places:
                if place.actor is not None:
                    self.ray.kill(place.actor)
        finally:
            self.ray.shutdown()
            scratch.clear()


def _resources(ray: Any, setup: Setup, report: Callable[[str], None]) -> tuple[Setup, int, int]:
    """Return the setup for tasks, the number of GPUs of each, and how many tasks the cluster runs at a time.

    An actor with a GPU sees only that one, as cuda:0, whatever its number for the driver. Raises BenchError
    if no task could ever start.
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
    """Return the last line of an error of Ray: the cause, below the traceback of a node."""
    said = str(error).strip()
    return said.splitlines()[-1].strip() if said else type(error).__name__


def _failed(error: Any) -> Exception:
    """Return why the cells of a task fail if it raised; another try would meet the same error."""
    cause = error.cause
    said = str(cause) if isinstance(cause, BenchError) else f"{type(cause).__name__}: {cause}"
    reason = BenchError(f"on a node of the cluster: {said}")
    reason.__cause__ = error  # its text holds the traceback of the node
    return reason


def _connected(address: str | None) -> Any:
    """Return Ray, connected. It sends no usage statistics, and takes no signal from this program."""
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
        # Ray takes SIGTERM for itself, and aborts the process if it comes while the program is in Ray.
        if threading.current_thread() is threading.main_thread():
            for number, handler in ends.items():
                if handler is not None:
                    signal.signal(number, handler)
    return ray


def _known(results: Path, group: list[Todo], fresh: Fresh = False) -> Files:
    """Return the records and states that exist already of the group's fits and of those that they read.

    ``fresh``: which records do not count.
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
