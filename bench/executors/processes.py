"""The local executor: the cells of a plan in several processes of one machine.

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
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.lazy import torch
from bench.plan.cells import Plan
from bench.plan.planner import make
from bench.plan.request import Request
from bench.plan.rounds import Todo, portions
from bench.records.store import Clock
from bench.run.execute import Outcome, Runner, remaining

_CELLS_PER_JOB = 16  # a worker takes seconds to start: fewer cells than this are not worth one more
_MOST = 4  # each holds a model and the features of its round
_TRIES = 2


@dataclass(frozen=True)
class Setup:
    """What a worker needs to rebuild the plan and run parts of it. ``clock``: of the results folder, as the
    parent found it.
    """

    request: Request
    plugins: tuple[Path, ...]
    device: str
    cache: Path | None
    keep_states: str
    fresh: bool
    dense_cache: bool = True
    join: bool = False
    clock: Clock | None = None


@dataclass
class Part:
    """What a worker did of a round."""

    outcome: Outcome
    labels: list[str]
    messages: list[str] = field(default_factory=list)


def visible(device: str) -> list[str]:
    """The devices that workers may have: every GPU that PyTorch sees for ``cuda``, else the one that is
    named.
    """
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if device == "cuda" else [device]


def spread(devices: Sequence[str], jobs: int) -> list[str]:
    """The device of each of ``jobs`` workers: one after the other, round and round."""
    return [devices[i % len(devices)] for i in range(jobs)]


def default_jobs(device: str, cells: int) -> int:
    """Worker processes when none are asked for: one for each GPU, on a processor one per core for enough
    cells.
    """
    if device != "cpu":
        return max(1, min(len(visible(device)), cells))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _MOST, cells // _CELLS_PER_JOB))


_worker: dict[str, Any] = {}


def _start(setup: Setup, slots: Any, pids: Any) -> None:
    """Runs once in every worker: a device of its own, the plan again (it is a function of the request), one
    thread, no Ctrl-C.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pids.put(os.getpid())
    torch.set_num_threads(1)
    try:
        _prepare(setup, slots)
    except Exception as error:  # the pool would only say that a process died; the first round says why
        _worker["error"] = f"a worker process cannot begin: {type(error).__name__}: {error}"


def _prepare(setup: Setup, slots: Any) -> None:
    from bench.registry import with_plugins
    from bench.run.session import Session

    registry = with_plugins(setup.plugins)
    messages: list[str] = []
    session = Session(slots.get(), setup.cache, messages.append, workers=0, dense_cache=setup.dense_cache)
    runner = Runner(
        session, registry, setup.request.results, setup.keep_states, setup.fresh, setup.join, setup.clock
    )
    _worker.update(plan=make(setup.request, registry), runner=runner, messages=messages, fresh=setup.fresh)


def _round(keys: frozenset[str]) -> Part:
    """Runs in a worker: the cells with these fit keys. Raises BenchError where its plan does not have
    them.
    """
    if "error" in _worker:
        raise BenchError(_worker["error"])
    runner: Runner = _worker["runner"]
    check_plan(_worker["plan"], keys)
    todo = [t for t in remaining(_worker["plan"], _worker["fresh"])[0] if t.fit.key in keys]
    runner.outcome = Outcome()
    labels: list[str] = []
    runner.run(Plan([t.fit for t in todo], []), todo, lambda what, *_: labels.append(what))
    messages = list(_worker["messages"])
    _worker["messages"].clear()
    return Part(runner.outcome, labels, messages)


def check_plan(plan: Plan, keys: frozenset[str]) -> None:
    """Raises BenchError where a worker's plan lacks cells that the parent asks for: something in their keys
    has changed.
    """
    if lost := keys - {fit.key for fit in plan.fits}:
        raise BenchError(
            f"{len(lost)} cells are others by now: a plugin or a dataset was changed during the run; run "
            "again"
        )


class _Pool:
    """Worker processes that can be ended and started again."""

    def __init__(self, setup: Setup, jobs: int) -> None:
        # Workers share the cores by being several: each has one thread, also in NumPy's and scikit-learn's
        # libraries.
        os.environ.update(
            {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        )
        context = multiprocessing.get_context("spawn")
        self.pids, slots = context.SimpleQueue(), context.SimpleQueue()
        for device in spread(visible(setup.device), jobs):
            slots.put(device)
        self.executor = ProcessPoolExecutor(jobs, context, _start, (setup, slots, self.pids))

    def end(self) -> None:
        """End the workers without waiting for what they are at."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        while not self.pids.empty():
            with suppress(ProcessLookupError):
                os.kill(self.pids.get(), signal.SIGTERM)


def run(
    parent: Runner,
    setup: Setup,
    plan: Plan,
    todo: list[Todo],
    jobs: int,
    progress: Callable[[str, int, int], None],
    deadline: float | None = None,
) -> Outcome:
    """``parent.run`` with ``jobs`` worker processes: the same records, in whatever order the rounds end."""
    waiting = deque((group, 1) for group in portions(todo, not setup.dense_cache, jobs, setup.join))
    taps = parent.taps(todo)
    parent.begin(plan, todo)
    total = parent.outcome.cells
    done = total - len(todo)
    pool = _Pool(setup, jobs)
    busy: dict[Future[Part], tuple[list[Todo], int]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                if deadline is not None and time.monotonic() > deadline:
                    parent.outcome.out_of_time = True
                    waiting.clear()
                    break
                group, tries = waiting.popleft()
                group, stopped = parent.encode(group, taps)
                for t, error in stopped:
                    done += 1
                    progress(parent.failed(t, error), done, total)
                if not group:
                    continue
                busy[pool.executor.submit(_round, frozenset(t.fit.key for t in group))] = group, tries
            if not busy:
                break
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                if future not in busy:
                    continue  # was in flight when the pool broke
                group, tries = busy.pop(future)
                try:
                    part = future.result()
                except BrokenProcessPool:
                    for lost, n in [(group, tries), *busy.values()]:
                        if n < _TRIES:
                            waiting.appendleft((lost, n + 1))
                        else:
                            done += len(lost)
                            for t in lost:
                                died = RuntimeError(
                                    "its worker process died twice (out of memory?); try --jobs 1"
                                )
                                progress(parent.failed(t, died), done, total)
                    busy.clear()
                    pool.end()
                    pool = _Pool(setup, jobs)
                    continue
                except BenchError as error:
                    for t in group:
                        done += 1
                        progress(parent.failed(t, error), done, total)
                    continue
                parent.outcome.add(part.outcome)
                for message in part.messages:
                    parent.session.report(message)
                for what in part.labels:
                    done += 1
                    progress(what, done, total)
    finally:
        pool.end()
    return parent.outcome
