"""Actors of a Ray cluster that cannot begin, or that are left by an error; with a stand-in for Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import BenchError
from bench.executors import node, on_ray, worker
from bench.executors.loop import Done
from bench.executors.node import Node, Sent
from bench.run import devices
from bench.run.outcome import Ended


class ActorDiedError(Exception):
    """What Ray raises where an actor could not be made."""


class Cluster:
    """Slots whose actors begin or die, as ``begins`` says of the first, the second, ... actor."""

    exceptions = SimpleNamespace(RayError=ActorDiedError, RayTaskError=type("TaskError", (Exception,), {}))

    def __init__(self, begins: Callable[[int], bool]) -> None:
        self.begins, self.actors, self.done = begins, 0, list[frozenset[str]]()

    def remote(self, **options: Any) -> Any:
        return lambda cls: SimpleNamespace(remote=self.actor)

    def actor(self, *arguments: Any) -> Any:
        lives, self.actors = self.begins(self.actors), self.actors + 1

        def begin() -> int:
            if not lives:
                raise ActorDiedError("ray::Node.__init__()\nModuleNotFoundError: No module named 'bench'")
            return 1

        def do(keys: frozenset[str], *rest: Any) -> Sent:
            self.done.append(keys)
            return Sent(Done([Ended(key, key) for key in keys]), {})

        return SimpleNamespace(
            begin=SimpleNamespace(remote=lambda first: begin),
            do=SimpleNamespace(remote=lambda *given: lambda: do(*given)),
        )

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0, "GPU": 2.0}

    def wait(
        self, waiting: list[Any], num_returns: int, timeout: float | None = None
    ) -> tuple[list[Any], list[Any]]:
        return waiting[:num_returns], waiting[num_returns:]

    def get(self, call: Callable[[], Any]) -> Any:
        return call()

    def kill(self, actor: Any) -> None: ...

    def shutdown(self) -> None: ...


def way_of(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, **more: Any) -> on_ray.OnRay:
    monkeypatch.setattr(on_ray, "_connected", lambda address: cluster)
    monkeypatch.setattr(on_ray, "_known", lambda *_: {})
    monkeypatch.setattr(on_ray, "tasks", lambda todo, *_: [todo[i : i + 12] for i in range(0, 120, 12)])
    request: Any = SimpleNamespace(results=Path("nowhere"))
    given = {"device": "cpu", "cache": Path("shared"), **more}
    setup = worker.Setup(request, (), keep_states="none", fresh=False, **given)
    return on_ray.OnRay(setup, None, lambda line: None)


def results(way: on_ray.OnRay) -> tuple[list[str], dict[str, str]]:
    """Of 120 cells in 10 tasks: the keys of those that ended, and why others failed."""
    waiting = way.portions([SimpleNamespace(fit=SimpleNamespace(key=str(i))) for i in range(120)])  # type: ignore[misc]
    done = Done()
    while waiting or way.busy():
        while waiting and way.room():
            way.submit(waiting.pop(0), None)
        for part in way.collect():
            done.add(part)
    return [cell.key for cell in done.ended], {t.fit.key: str(error) for t, error in done.failed}


def test_where_no_worker_can_begin_all_cells_fail_after_two_tries_of_each_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster(lambda i: False)
    way = way_of(cluster, monkeypatch)
    ended, failed = results(way)
    assert not ended and len(failed) == 120 and cluster.actors == 4
    assert not way.encodes, "for nobody"
    (why,) = set(failed.values())
    assert why.startswith(
        "no worker can begin on the cluster: ModuleNotFoundError: No module named 'bench'; "
    )


def test_a_bad_node_costs_the_tasks_of_a_good_one_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(lambda i: i == 0)
    ended, failed = results(way_of(cluster, monkeypatch))
    assert len(ended) == 120 and not failed and cluster.actors == 3
    assert len(cluster.done) == 10, "each task once, and whole"


def test_a_slot_whose_second_actor_begins_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(lambda i: i != 0)
    way = way_of(cluster, monkeypatch)
    ended, failed = results(way)
    assert len(ended) == 120 and not failed and cluster.actors == 3
    assert [place.starts for place in way.places] == [0, 0]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The workers that actors make, in folders below ``tmp_path``; ``does`` is what each does."""
    found: list[Any] = []

    class Worker:
        def __init__(self, setup: Any, device: str, folder: Path, sharers: int = 1) -> None:
            self.sharers, self.closed = sharers, 0
            self.desk = SimpleNamespace(session=SimpleNamespace(close=self.close))
            found.append(self)

        def close(self) -> None:
            self.closed += 1

        def do(self, keys: frozenset[str], *rest: Any) -> None:
            if "bad" in keys:
                raise BenchError("the keys of cells have changed")

    monkeypatch.setattr(node, "Worker", Worker)
    monkeypatch.setattr(node.scratch, "path", lambda: tmp_path / "folder")
    monkeypatch.setattr(node.scratch, "clear", lambda: None)
    return found


def setup_of(**more: Any) -> worker.Setup:
    return worker.Setup(SimpleNamespace(), (), more.pop("device", "cpu"), None, "none", False, **more)  # type: ignore[arg-type]


def test_after_an_error_the_next_task_meets_nothing_of_it(made: list[Any], tmp_path: Path) -> None:
    """What waits on a desk for one pass over the test images would be sent with another task."""
    actor = Node(setup_of(), str(tmp_path))
    actor.do(frozenset({"a"}), {}, None)
    actor.do(frozenset({"b"}), {}, None)
    assert len(made) == 1
    with pytest.raises(BenchError, match="keys of cells have changed"):
        actor.do(frozenset({"bad"}), {}, None)
    actor.do(frozenset({"c"}), {}, None)
    assert [each.closed for each in made] == [1, 0]


@pytest.mark.parametrize(("card", "sharers"), [(None, 1), ("mine", 2), ("another", 1)])
def test_an_actor_on_the_drivers_gpu_takes_its_part_of_it(
    card: str | None, sharers: int, made: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "card", lambda name: "mine")
    Node(setup_of(device="cuda", card=card), str(tmp_path)).do(frozenset({"a"}), {}, None)
    assert made[0].sharers == sharers


@pytest.mark.parametrize(("cache", "card"), [(Path("shared"), "cuda:1"), (None, None)])
def test_the_driver_tells_its_gpu_where_it_encodes(
    cache: Path | None, card: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "card", lambda name: name)
    way = way_of(Cluster(lambda i: True), monkeypatch, device="cuda:1", cache=cache)
    assert way.setup.card == card and way.setup.device == "cuda"
