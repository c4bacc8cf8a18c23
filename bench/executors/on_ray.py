"""The Ray executor: groups of cells as tasks on the nodes of a cluster; the driver alone writes records.

A task is all cells of one (seed, dataset, shots), so that methods which read each other's states meet in one
place. It works in a folder of its own and sends its files back; what came back is recorded at once, so a node
that dies costs only the tasks it was at, which Ray starts again elsewhere. A task that dies twice is cut into
its cells, so that one that ends every process costs only itself. Data, plugins and weights are read
by path and must be there on every node; features come from ``--cache`` where that is a shared path (the
driver encodes), else every node encodes what it needs. With ``--no-dense-cache``, where each task makes a
pass over the test images, and with ``--join`` a task is as many such groups of a dataset as leave work for
every slot. That is the trade-off: fewer passes, and more that trains together, but all that a larger task had
done is begun again when its node dies, and its files come back, through memory, in one piece.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.executors import scratch
from bench.executors.loop import Done
from bench.executors.worker import Setup, Worker
from bench.files import write_bytes
from bench.lazy import torch
from bench.plan.cells import chain, label
from bench.plan.rounds import by_shots, gathered, rounds
from bench.plan.todo import Fresh, Todo, left
from bench.records import places

_RETRIES = 1
_SEND = 10.0  # seconds that a task has to send back what it had done, when its time is over
Files = dict[str, bytes]  # path below the results folder -> content


@dataclass
class Sent:
    """What a task sends back."""

    done: Done
    files: Files


def tasks(todo: list[Todo], streamed: bool, slots: int, join: bool) -> Iterator[list[Todo]]:
    """The cells of one (seed, dataset, shots), or several where features are ``streamed`` or fits join."""
    groups = (part for _, together in rounds(todo, join=join) for part in by_shots(together))
    return gathered(groups, slots) if streamed or join else groups


class OnRay:
    """Tasks on a Ray cluster: the one at ``address``, else one on this machine.

    Raises BenchError when Ray is not installed, the cluster cannot be reached, or no task could ever start.
    ``report`` hears where the device that was named is this process's alone. ``stop``: when tasks are
    stopped (time.monotonic).
    """

    def __init__(
        self, setup: Setup, address: str | None, report: Callable[[str], None], stop: float | None = None
    ) -> None:
        self.ray = _connected(address)
        self.running: dict[Any, tuple[list[Todo], float | None]] = {}  # cells, and their deadline
        self.stopping = stop
        try:
            self.setup, gpus, self.slots = _resources(self.ray, setup, report)
            self.task = self.ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(_work)
        except BaseException:
            self.end()
            raise
        self.encodes = setup.cache is not None  # else every node encodes what it needs

    def portions(self, todo: list[Todo]) -> Iterator[list[Todo]]:
        """The cells of each task."""
        return tasks(todo, not self.setup.dense_cache, self.slots, self.setup.join)

    def room(self) -> bool:
        """Two tasks for each slot: none waits for the driver, and few hold memory before they begin."""
        return len(self.running) < 2 * self.slots

    def busy(self) -> bool:
        """Whether tasks are out."""
        return bool(self.running)

    def submit(self, portion: list[Todo], deadline: float | None) -> None:
        """Send a task, with the records and states that it needs, and the ends of its time as wall time."""
        known = _known(self.setup.request.results, portion, self.setup.fresh)
        until = None if deadline is None else time.time() + deadline - time.monotonic()
        stop = None if self.stopping is None else time.time() + self.stopping - _SEND - time.monotonic()
        keys = frozenset(t.fit.key for t in portion)
        task = self.task.remote(self.setup, os.getcwd(), keys, known, until, stop)
        self.running[task] = portion, deadline

    def collect(self) -> Iterator[Done]:
        """Wait for the first task, and write what it sends."""
        (ready, *_), _ = self.ray.wait(list(self.running), num_returns=1)
        portion, deadline = self.running.pop(ready)
        if done := self._sent(ready, portion):
            yield done
        else:
            for t in portion:
                self.submit([t], deadline)

    def _sent(self, task: Any, portion: list[Todo]) -> Done | None:
        """What a task that has ended sends, written; None where it died and its cells may be tried alone."""
        try:
            sent: Sent = self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            if len(portion) > 1 and not isinstance(error, self.ray.exceptions.RayTaskError):
                return None
            reason = _reason(self.ray, error)
            return Done(failed=[(t, reason) for t in portion])
        _write(self.setup.request.results, sent.files)
        return sent.done

    def finish(self) -> Iterator[Done]:
        """Tasks finish what they are given by themselves."""
        return iter(())

    def stop(self) -> Done:
        """Tasks have stopped themselves and sent what they had done; others are cancelled at the end."""
        done = Done()
        if not self.running:
            return done
        ready, stopped = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        for task in ready:
            portion, _ = self.running[task]
            if sent := self._sent(task, portion):
                done.add(sent)
                del self.running[task]
            else:
                stopped.append(task)
        firsts = [self.running[task][0][0].fit for task in stopped]
        done.outcome.stopped |= {fit.key: f"the Ray task of {label(fit)}" for fit in firsts}
        return done

    def end(self) -> None:
        """Cancel what is out, and leave the cluster."""
        for reference in self.running:
            self.ray.cancel(reference, force=True)
        self.ray.shutdown()
        scratch.clear()


def _resources(ray: Any, setup: Setup, report: Callable[[str], None]) -> tuple[Setup, int, int]:
    """The setup for tasks, the GPUs of each, and how many the cluster runs at a time.

    A task with a GPU sees that one only, as cuda:0, whatever it is to the driver; Ray starts a new process
    for each, since CUDA keeps to the devices that a process saw first. Raises BenchError where no task could
    ever start.
    """
    device, _, number = setup.device.partition(":")
    gpus = int(device == "cuda")
    if gpus and number:
        report(f"--device {setup.device}: what this process does itself; Ray chooses the GPU of each task")
    name = "GPU" if gpus else "CPU"
    slots = int(ray.cluster_resources().get(name, 0))
    if not slots:
        mend = "start its nodes with --num-gpus, or use --device cpu" if gpus else "add a node to it"
        raise BenchError(f"the Ray cluster offers no {name}: {mend}")
    return replace(setup, device=device), gpus, slots


def _reason(ray: Any, error: Exception) -> Exception:
    """Why the cells of a task fail: an error that another try would meet again, or one death too many."""
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause
        said = str(cause) if isinstance(cause, BenchError) else f"{type(cause).__name__}: {cause}"
        reason = BenchError(f"on a node of the cluster: {said}")
    else:
        reason = BenchError(f"its Ray task ended {_RETRIES + 1} times: {str(error).splitlines()[-1]}")
    reason.__cause__ = error  # its text holds the traceback of the node
    return reason


def _connected(address: str | None) -> Any:
    """Ray, connected. It says nothing of this run to its makers, and takes no signal from this program."""
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
        # Ray takes SIGTERM for itself, and aborts the process where it comes while the program is in Ray
        if threading.current_thread() is threading.main_thread():
            for number, handler in ends.items():
                if handler is not None:
                    signal.signal(number, handler)
    return ray


def _known(results: Path, group: list[Todo], fresh: Fresh = False) -> Files:
    """The records and states that are there already of the group's fits and of those they read.

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


def _write(results: Path, files: Files) -> None:
    """States and predictions first: a record is what makes them count."""
    for name in sorted(files, key=lambda name: name.endswith(".json")):
        write_bytes(results / name, files[name])


_node: dict[str, Any] = {}  # of this process, where it does tasks


def _work(
    setup: Setup,
    where: str,
    keys: frozenset[str],
    known: Files,
    until: float | None,
    stop: float | None = None,
) -> Sent:
    """Runs in a Ray worker: the cells with these fit keys, in a folder that only this process sees.

    ``where`` is the driver's working directory, which relative paths are meant from; no cell starts after
    ``until`` and none runs after ``stop`` (time.time).
    """
    with suppress(FileNotFoundError):
        os.chdir(where)
    if _node.get("setup") != setup:
        _prepare(setup)
    folder: Path = _node["folder"]
    worker: Worker = _node["worker"]
    with scratch.own(folder):
        _write(folder, known)
        done, since = Done(), time.monotonic() - time.time()
        ends = [None if end is None else end + since for end in (until, stop)]
        worker.do(keys, ends[0], done.add, ends[1])
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for part in ("runs", "states")
            for path in sorted((folder / part).rglob("*"))
            if path.is_file()
        }
    return Sent(done, {name: content for name, content in files.items() if known.get(name) != content})


def _prepare(setup: Setup) -> None:
    """Once in every worker process: a worker with results in a folder of its own, one thread for one CPU."""
    torch.set_num_threads(1)  # NumPy's libraries heed OMP_NUM_THREADS, which Ray sets to a task's CPUs
    scratch.clear()
    folder = scratch.path()
    _node.update(setup=setup, folder=folder, worker=Worker(setup, setup.device, folder))
