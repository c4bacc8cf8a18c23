"""The Ray executor: groups of cells as tasks on the nodes of a cluster; the driver alone writes records.

A task is all cells of one (seed, dataset, shots), so that methods which read each other's states meet in one
place. It works in a folder of its own and sends its files back; what came back is recorded at once, so a node
that dies costs only the tasks it was at, which Ray starts again elsewhere. Data, plugins and weights are read
by path and must be there on every node; features come from ``--cache`` where that is a shared path (the
driver encodes), else every node encodes what it needs. With ``--no-dense-cache``, where each task makes a
pass over the test images, and with ``--join`` a task is as many such groups of a dataset as leave work for
every slot. That is the trade-off: fewer passes, and more that trains together, but all that a larger task had
done is begun again when its node dies, and its files come back, through memory, in one piece.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.executors import scratch
from bench.executors.processes import Part, Setup, check_plan
from bench.files import write_bytes
from bench.plan.cells import Plan
from bench.plan.planner import make
from bench.plan.rounds import Todo, by_shots, chain, gathered, rounds
from bench.records import places
from bench.run.execute import Outcome, Runner, remaining

_RETRIES = 3
Files = dict[str, bytes]  # path below the results folder -> content


@dataclass
class Sent:
    """What a task sends back."""

    part: Part
    files: Files


def tasks(todo: list[Todo], streamed: bool, slots: int, join: bool) -> Iterator[list[Todo]]:
    """The cells of one (seed, dataset, shots), in plan order; several where test features are ``streamed`` or
    fits join.
    """
    groups = (part for _, together in rounds(todo, join=join) for part in by_shots(together))
    return gathered(groups, slots) if streamed or join else groups


def run(
    parent: Runner,
    setup: Setup,
    plan: Plan,
    todo: list[Todo],
    address: str | None,
    progress: Callable[[str, int, int], None],
    deadline: float | None = None,
) -> Outcome:
    """``parent.run`` on a Ray cluster: the one at ``address``, else one on this machine. The same records.

    Raises BenchError when Ray is not installed or the cluster cannot be reached.
    """
    ray = _connected(address)
    busy: dict[Any, list[Todo]] = {}
    try:
        setup, gpus, slots = _resources(ray, parent, setup)
        waiting, taps = deque(tasks(todo, not setup.dense_cache, slots, setup.join)), parent.taps(todo)
        parent.begin(plan, todo)
        total = parent.outcome.cells
        done = total - len(todo)
        # as other machines' clocks count
        until = None if deadline is None else time.time() + deadline - time.monotonic()
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(_work)
        while waiting or busy:
            # Two tasks for each slot: none waits for the driver, and few hold memory for what they are to
            # begin with.
            while waiting and len(busy) < 2 * slots:
                if deadline is not None and time.monotonic() > deadline:
                    parent.outcome.out_of_time = True
                    waiting.clear()
                    break
                group = waiting.popleft()
                if setup.cache is not None:
                    group, stopped = parent.encode(group, taps)
                    for t, error in stopped:
                        done += 1
                        progress(parent.failed(t, error), done, total)
                    if not group:
                        continue
                known = {} if setup.fresh else _known(setup.request.results, group)
                busy[task.remote(setup, os.getcwd(), frozenset(t.fit.key for t in group), known, until)] = (
                    group
                )
            if not busy:
                break
            (ready, *_), _ = ray.wait(list(busy), num_returns=1)
            group = busy.pop(ready)
            try:
                sent: Sent = ray.get(ready)
            except ray.exceptions.RayError as error:
                for t in group:
                    done += 1
                    progress(parent.failed(t, _reason(ray, error)), done, total)
                continue
            _write(setup.request.results, sent.files)
            parent.outcome.add(sent.part.outcome)
            for message in sent.part.messages:
                parent.session.report(message)
            for what in sent.part.labels:
                done += 1
                progress(what, done, total)
    finally:
        for reference in busy:
            ray.cancel(reference, force=True)
        ray.shutdown()
        scratch.clear()
    return parent.outcome


def _resources(ray: Any, parent: Runner, setup: Setup) -> tuple[Setup, int, int]:
    """The setup for tasks, the GPUs of each, and how many the cluster runs at a time.

    A task with a GPU sees that one only, as cuda:0, whatever it is to the driver; Ray starts a new process
    for each, since CUDA keeps to the devices that a process saw first. Raises BenchError where no task could
    ever start.
    """
    device, _, number = setup.device.partition(":")
    gpus = int(device == "cuda")
    if gpus and number:
        parent.session.report(
            f"--device {setup.device}: what this process does itself; Ray chooses the GPU of each task"
        )
    name = "GPU" if gpus else "CPU"
    slots = int(ray.cluster_resources().get(name, 0))
    if not slots:
        mend = "start its nodes with --num-gpus, or use --device cpu" if gpus else "add a node to it"
        raise BenchError(f"the Ray cluster offers no {name}: {mend}")
    return replace(setup, device=device), gpus, slots


def _reason(ray: Any, error: Exception) -> Exception:
    """Why the cells of a task fail: an error of its own, which another try would meet again, or a death once
    too often.
    """
    reason: Exception
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause
        said = str(cause) if isinstance(cause, BenchError) else f"{type(cause).__name__}: {cause}"
        reason = BenchError(f"on a node of the cluster: {said}")
    else:
        reason = RuntimeError(f"its Ray task ended {_RETRIES + 1} times: {str(error).splitlines()[-1]}")
    reason.__cause__ = error  # its text holds the traceback of the node
    return reason


def _connected(address: str | None) -> Any:
    try:
        import ray
    except ImportError as error:
        raise BenchError("--executor ray needs Ray: pip install 'fewshot-clip-bench[ray]'") from error
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BenchError(
            f"no Ray cluster at {address or 'this machine'} ({reason}): check --ray-address"
        ) from error
    return ray


def _known(results: Path, group: list[Todo]) -> Files:
    """The records and states that are there already of the group's fits and of those they read."""
    found: Files = {}
    for fit in {f.key: f for t in group for f in chain(t.fit)}.values():
        for path in (places.fit_path(fit.where, fit.key), places.state_path(results, fit.key)):
            if path.is_file():
                found[str(path.relative_to(results))] = path.read_bytes()
        for e in fit.evaluations:
            path = places.evaluation_path(fit.where, fit.key, e.key)
            for part in (path, path.with_suffix(".npz")):
                if part.is_file():
                    found[str(part.relative_to(results))] = part.read_bytes()
    return found


def _write(results: Path, files: Files) -> None:
    """States and predictions first: a record is what makes them count."""
    for name in sorted(files, key=lambda name: name.endswith(".json")):
        write_bytes(results / name, files[name])


_node: dict[str, Any] = {}


def _work(setup: Setup, where: str, keys: frozenset[str], known: Files, until: float | None) -> Sent:
    """Runs in a Ray worker: the cells with these fit keys, in a folder that only this process sees.

    ``where`` is the driver's working directory, which relative paths are meant from; no cell starts after
    ``until`` (time.time).
    """
    with suppress(FileNotFoundError):
        os.chdir(where)
    if _node.get("setup") != setup:
        _prepare(setup)
    folder: Path = _node["folder"]
    runner: Runner = _node["runner"]
    labels: list[str] = []
    with scratch.own(folder):
        _write(folder, known)
        runner.outcome = Outcome()
        check_plan(_node["plan"], keys)
        todo = [t for t in remaining(_node["plan"], setup.fresh)[0] if t.fit.key in keys]
        deadline = None if until is None else time.monotonic() + until - time.time()
        runner.run(Plan([t.fit for t in todo], []), todo, lambda what, *_: labels.append(what), deadline)
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for part in ("runs", "states")
            for path in sorted((folder / part).rglob("*"))
            if path.is_file()
        }
    messages = list(_node["messages"])
    _node["messages"].clear()
    return Sent(Part(runner.outcome, labels, messages), {n: b for n, b in files.items() if known.get(n) != b})


def _prepare(setup: Setup) -> None:
    """Once in every worker process: the plan again, with results in a folder of its own, and one thread as
    for one CPU.
    """
    from bench.lazy import torch
    from bench.registry import with_plugins
    from bench.run.session import Session

    torch.set_num_threads(1)  # NumPy's libraries heed OMP_NUM_THREADS, which Ray sets to a task's CPUs
    scratch.clear()
    folder = scratch.path()
    messages: list[str] = []
    registry = with_plugins(setup.plugins)
    session = Session(setup.device, setup.cache, messages.append, workers=0, dense_cache=setup.dense_cache)
    runner = Runner(session, registry, folder, setup.keep_states, setup.fresh, setup.join, setup.clock)
    plan = make(replace(setup.request, results=folder), registry)
    _node.update(setup=setup, folder=folder, plan=plan, runner=runner, messages=messages)
