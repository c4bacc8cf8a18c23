"""``--executor ray`` with a stand-in for Ray: the records are the same, even if an actor dies under its
task.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import BenchError
from bench.executors import on_ray, worker
from bench.executors.node import Node, Sent
from bench.records.types import EvaluationRecord, Failure
from bench.run import onepass
from bench.run.session import Session
from tests.executors.on_ray_parts import FOUR, GRID, PLAIN, local, temporary
from tests.run.conftest import Bench, agree, failure_paths, named_records, of_type, records

__all__ = ["local", "temporary"]


class Tasks:
    """A stand-in for Ray whose actors live in this process; a call runs when its result is asked for."""

    class exceptions:
        RayError = type("RayError", (Exception,), {})
        RayTaskError = type("RayTaskError", (RayError,), {"cause": None})

    def __init__(self, **resources: float) -> None:
        self.resources = resources
        self.options: dict[str, Any] = {}
        self.actors: list[Node] = []
        self.sent: list[tuple[Any, ...]] = []
        self.killed: list[Any] = []

    def remote(self, **options: Any) -> Any:
        self.options = options
        return lambda cls: SimpleNamespace(remote=functools.partial(self.actor, cls))

    def actor(self, cls: type[Node], *arguments: Any) -> Any:
        self.actors.append(made := cls(*arguments))
        calls = {"begin": made.begin, "do": functools.partial(self.called, made)}
        methods = {
            name: SimpleNamespace(remote=functools.partial(functools.partial, call))
            for name, call in calls.items()
        }
        return SimpleNamespace(**methods)

    def called(self, actor: Node, *arguments: Any) -> Any:
        self.sent.append(arguments)
        return actor.do(*arguments)

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def wait(
        self, waiting: list[Any], num_returns: int, timeout: float | None = None
    ) -> tuple[list[Any], list[Any]]:
        return waiting[-1:], waiting[:-1]

    def get(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raised = self.exceptions.RayTaskError("what the node printed")
            raised.cause = error
            raise raised from error

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)

    def shutdown(self) -> None: ...


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    tasks = Tasks(CPU=2.0)
    monkeypatch.setattr(on_ray, "_connected", lambda address: tasks)
    return tasks


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BenchError, match=r"pip install 'fewshot-clip-bench\[ray\]'"):
        on_ray._connected(None)


def test_ray_sends_nothing_home_and_leaves_signals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What asks a command to end is heard as before, whatever Ray sets as it begins."""
    before, mine = signal.getsignal(signal.SIGTERM), lambda *_: None
    seen: list[str | None] = []

    def init(**_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        seen.append(os.environ.get("RAY_USAGE_STATS_ENABLED"))

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    try:
        signal.signal(signal.SIGTERM, mine)
        on_ray._connected(None)
        assert seen == ["0"] and signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
        os.environ.pop("RAY_USAGE_STATS_ENABLED", None)


def test_a_task_that_failed_is_told_when_the_time_is_over(
    stand_in: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error fails its cells; a death, after which a try alone would come, leaves them to the next run."""
    monkeypatch.setattr(on_ray, "label", lambda fit: fit.key)
    setup: Any = worker.Setup(SimpleNamespace(results=Path()), (), "cpu", None, "none", False)  # type: ignore[arg-type]
    way = on_ray.OnRay(setup, None, lambda line: None)
    a, b, c = (SimpleNamespace(fit=SimpleNamespace(key=key)) for key in "abc")
    died = type("WorkerCrashedError", (Tasks.exceptions.RayError,), {})("it is gone")

    def fails() -> None:
        raise BenchError("no such GPU")

    def dies() -> None:
        raise died

    whole = stand_in.get
    monkeypatch.setattr(stand_in, "get", lambda task: dies() if task is dies else whole(task))
    monkeypatch.setattr(stand_in, "wait", lambda tasks, **_: (tasks, []))
    first, second = on_ray._Task([a], None), on_ray._Task([b, c], None)  # type: ignore[list-item]
    way.places = [on_ray._Slot(1, None, deque([(fails, first), (dies, second)]))]
    done = way.stop()
    assert [(t, str(error)) for t, error in done.failed] == [(a, "on a node of the cluster: no such GPU")]
    assert [*done.outcome.stopped.values()] == ["the Ray task of b"] and len(way.places[0].given) == 1


def test_unknown_executor(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", *FOUR, "--results", tmp_path, "--executor", "slurm")
    assert done.exit_code != 0 and "local or ray" in (done.output + str(done.exception))


@pytest.mark.slow
def test_tasks_in_this_process_make_the_records(
    bench: Bench, tmp_path: Path, local: Path, temporary: Path, stand_in: Tasks
) -> None:
    assert bench("run", *GRID, "--keep-logits", "--results", local).exit_code == 0
    done = bench("run", *GRID, "--keep-logits", "--results", tmp_path, "--executor", "ray")
    assert done.exit_code == 0, done.output
    assert len(stand_in.sent) == 5, "one task for each seed and number of shots, one for what needs neither"
    assert len(stand_in.actors) == 2 == len(stand_in.killed), "one for each slot, which ends with the run"
    assert records(tmp_path) == records(local)
    states = {p.name: p.read_bytes() for p in (local / "states").iterdir()}
    assert states == {p.name: p.read_bytes() for p in (tmp_path / "states").iterdir()}
    again = bench("run", *GRID, "--results", tmp_path, "--executor", "ray")
    assert again.exit_code == 0 and "0 encodes, 0 steps" in again.output
    # A lost record is made again from what is there: nothing is trained twice.
    lost = next(p for p in (tmp_path / "runs").rglob("*-*.json") if "safe-a" in str(p))
    lost.unlink()
    again = bench("run", *GRID, "--keep-logits", "--results", tmp_path, "--executor", "ray")
    assert again.exit_code == 0 and " 0 steps" in again.output
    assert records(tmp_path) == records(local)
    assert all("logits" in record.outputs for record in of_type(tmp_path, EvaluationRecord))
    assert not list(temporary.glob("bench-ray-*")), "tasks leave no folders"


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "held", "tasks", "passes"), [(1, onepass.HELD_BYTES, 1, 1), (3, 0, 3, 8)])
def test_streamed_test_images_are_passed_over_once_for_all_that_a_slot_does(
    slots: int,
    held: int,
    tasks: int,
    passes: int,
    bench: Bench,
    tmp_path: Path,
    local: Path,
    stand_in: Tasks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    original = Session.stream

    def counted(self: Session, spec: Any, dataset: Any, paths: Any, *rest: Any) -> Iterator[Any]:
        seen.append(len(paths))
        return original(self, spec, dataset, paths, *rest)

    monkeypatch.setattr(Session, "stream", counted)
    monkeypatch.setattr(onepass, "HELD_BYTES", held)
    stand_in.resources["CPU"] = slots
    assert bench("run", *GRID, "--keep-logits", "--results", local).exit_code == 0
    streamed = ("--no-dense-cache", "--cache", tmp_path / "features")
    done = bench("run", *GRID, "--keep-logits", "--results", tmp_path, *streamed, "--executor", "ray")
    assert done.exit_code == 0, done.output
    assert len(stand_in.sent) == tasks
    assert seen == [15] * passes, "one for each task; one for each state where memory may hold no more"
    agree(records(tmp_path), records(local))


def test_tasks_heed_the_time_budget(bench: Bench, tmp_path: Path, stand_in: Tasks) -> None:
    """A task that holds many cells stops by itself, by the clock of its own machine."""
    cells = ("--methods", "zero-shot,tip-adapter-f", "--seeds", "1", "--results", tmp_path)
    done = bench("run", *cells, "--executor", "ray", "--time-budget", "10")
    assert done.exit_code == 0, done.output
    *task, until, stop = stand_in.sent[-1]
    assert 0 < until - time.time() < 600
    assert stop - until == pytest.approx(60 - on_ray._SEND, abs=1), "a tenth more, and time to send it"
    actor = stand_in.actors[-1]
    late = actor.do(*task, time.time() - 1)
    assert late.done.outcome.out_of_time and not late.done.ended and not late.files
    assert actor.do(*task, until).done.ended


def test_a_task_that_dies_is_cut_into_its_cells(
    bench: Bench, tmp_path: Path, stand_in: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a cell ends every process that does it, it fails alone."""
    whole, original = stand_in.get, worker.Worker.do
    crash = type("WorkerCrashedError", (Tasks.exceptions.RayError,), {})

    class Killed(BaseException):
        """The end of a task's process."""

    def do(self: worker.Worker, keys: frozenset[str], *more: Any) -> None:
        if any(f.key in keys and f.cell.method == "tip-adapter-f" for f in self.plan.fits):
            raise Killed
        original(self, keys, *more)

    def get(task: Any) -> Any:
        try:
            return whole(task)
        except Killed:
            raise crash("the process is gone") from None

    monkeypatch.setattr(worker.Worker, "do", do)
    monkeypatch.setattr(stand_in, "get", get)
    words = ("--methods", "tip-adapter,tip-adapter-f", "--seeds", "1,2", "--results", tmp_path)
    done = bench("run", *words, "--executor", "ray")
    assert done.exit_code == 1, done.output
    failed = of_type(tmp_path, Failure)
    assert {f.cell.method for f in failed} == {"tip-adapter-f"} and len(failed) == 2
    assert all("its Ray task ended 2 times: the process is gone" in f.error for f in failed)
    assert [r.cell.method for r in of_type(tmp_path, EvaluationRecord)] == ["tip-adapter"] * 2


def test_failures_on_a_node_name_the_records_of_the_users_folder(
    bench: Bench, tmp_path: Path, stand_in: Tasks
) -> None:
    """A task writes below a folder of its own, which is gone when the user reads the message."""
    plugin, results = tmp_path / "plain.py", tmp_path / "results"
    plugin.write_text(PLAIN.replace('return {"W": task.W_KC}', 'raise ValueError("wrong on purpose")'))
    words = ("--methods", "plain", "--plugin", plugin, "--seeds", "1,2", "--results", results)
    ended = bench("run", *words, "--executor", "ray")
    assert ended.exit_code == 1 and len(failure_paths(results)) == 2, ended.output
    assert named_records(ended.output) == sorted(2 * failure_paths(results)), ended.output


def test_a_death_costs_its_task_one_try_and_others_nothing(
    bench: Bench, tmp_path: Path, stand_in: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waited behind it goes on elsewhere."""
    stand_in.resources["CPU"] = 1
    whole, calls = stand_in.get, []

    def get(call: Any) -> Any:
        calls.append(call.func)
        if len(calls) == 2:  # the first call made the worker
            raise Tasks.exceptions.RayError("The actor died.")
        return whole(call)

    monkeypatch.setattr(stand_in, "get", get)
    words = ("--methods", "tip-adapter", "--seeds", "1,2,3,4", "--results", tmp_path)
    done = bench("run", *words, "--executor", "ray")
    assert done.exit_code == 0, done.output
    assert len(stand_in.actors) == 2 == len(stand_in.killed) and len(stand_in.sent) == 4
    assert len(of_type(tmp_path, EvaluationRecord)) == 4 and not of_type(tmp_path, Failure)


def test_an_actor_notices_a_plugin_that_was_edited_between_tasks(
    bench: Bench, tmp_path: Path, stand_in: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin, results = tmp_path / "plain.py", tmp_path / "results"
    plugin.write_text(PLAIN)
    stand_in.resources["CPU"] = 1
    done, original = [], Node.do

    def do(self: Node, *arguments: Any) -> Sent:
        sent = original(self, *arguments)
        done.append(plugin.write_text(PLAIN.replace("W_KC", "W_KC * 2")))
        return sent

    monkeypatch.setattr(Node, "do", do)
    words = ("--methods", "plain", "--plugin", plugin, "--seeds", "1,2", "--results", results)
    ended = bench("run", *words, "--executor", "ray")
    assert ended.exit_code == 1 and len(done) == 1
    assert "a plugin or a dataset was changed during the run; run the same command again" in ended.output
    assert len(of_type(results, EvaluationRecord)) == 1 == len(of_type(results, Failure))


@pytest.fixture
def second_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if ``--device cuda:1`` were asked for on a machine of two GPUs; the tasks' processes have none."""
    original = worker.Setup
    monkeypatch.setattr(worker, "Setup", lambda **given: replace(original(**given), device="cuda:1"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_a_task_gets_a_gpu_of_its_own_whatever_the_drivers_number(
    bench: Bench, tmp_path: Path, stand_in: Tasks, second_gpu: None
) -> None:
    stand_in.resources["GPU"] = 2
    done = bench("run", *GRID, "--results", tmp_path, "--executor", "ray")
    assert (stand_in.options["num_cpus"], stand_in.options["num_gpus"]) == (1, 1)
    assert {actor.setup.device for actor in stand_in.actors} == {"cuda"}, (
        "the number counts GPUs that an actor does not see"
    )
    assert done.output.count("--device cuda:1 holds for this process alone") == 1
    # An error of the task itself reaches the user as it is, and the records of all its cells.
    assert (
        done.exit_code == 1
        and "on a node of the cluster: --device cuda: this PyTorch sees no CUDA device" in done.output
    )
    failed = of_type(tmp_path, Failure)
    assert len(failed) == 13 and all("what the node printed" in r.traceback for r in failed)


def test_a_cluster_without_what_a_task_needs_is_an_error(
    bench: Bench, tmp_path: Path, stand_in: Tasks, second_gpu: None
) -> None:
    done = bench("run", *GRID, "--results", tmp_path, "--executor", "ray")
    assert done.exit_code == 1 and "offers no GPU: start its nodes with --num-gpus" in str(done.exception)
    assert not stand_in.sent and not stand_in.actors
