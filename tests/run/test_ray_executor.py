"""``--executor ray``: the same records from a cluster, also when a node dies under its tasks."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.run import ray_executor
from tests.run.conftest import Bench, records

HAVE = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAVE, reason="needs Ray: pip install 'fewshot-clip-bench[ray]'")
FOUR = ("--methods", "zero-shot,tip-adapter-f,safe,safe-a")
GRID = (*FOUR, "--shots", "2,3", "--seeds", "1,2", "--set", "safe.steps=6", "--set", "safe.check_every=2")
CLUSTER = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without processors, so that tasks run on the two worker nodes."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20})
    yield made
    made.shutdown()


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BenchError, match=r"pip install 'fewshot-clip-bench\[ray\]'"):
        ray_executor._connected(None)


def test_unknown_executor(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", *FOUR, "--results", tmp_path, "--executor", "slurm")
    assert done.exit_code != 0 and "local or ray" in (done.output + str(done.exception))


def test_tasks_in_this_process_make_the_records(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver and its tasks without Ray: a stand-in that runs each task when it is asked for."""

    class Tasks:
        class exceptions:
            RayError = type("RayError", (Exception,), {})

        def remote(self, **options: Any) -> Any:
            return lambda fn: type("Task", (), {"remote": staticmethod(lambda *a: _Result(fn, a))})

        def cluster_resources(self) -> dict[str, float]:
            return {"CPU": 2.0}

        def wait(self, waiting: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
            return waiting[-1:], waiting[:-1]

        def get(self, result: Any) -> Any:
            return result.fn(*result.arguments)

        def cancel(self, result: Any, force: bool) -> None: ...
        def shutdown(self) -> None: ...

    class _Result:
        def __init__(self, fn: Any, arguments: Any) -> None:
            self.fn, self.arguments = fn, arguments

    monkeypatch.setattr(ray_executor, "_connected", lambda address: Tasks())
    assert bench("run", *GRID, "--results", tmp_path / "local").exit_code == 0
    done = bench("run", *GRID, "--results", tmp_path / "ray", "--executor", "ray")
    assert done.exit_code == 0, done.output
    assert records(tmp_path / "ray") == records(tmp_path / "local")
    states = {p.name: p.read_bytes() for p in (tmp_path / "local" / "states").iterdir()}
    assert states == {p.name: p.read_bytes() for p in (tmp_path / "ray" / "states").iterdir()}
    again = bench("run", *GRID, "--results", tmp_path / "ray", "--executor", "ray")
    assert again.exit_code == 0 and "0 encodes, 0 steps" in again.output
    # A lost record is made again from what is there: nothing is trained twice.
    lost = next(p for p in (tmp_path / "ray" / "runs").rglob("*-*.json") if "safe-a" in str(p))
    lost.unlink()
    again = bench("run", *GRID, "--results", tmp_path / "ray", "--executor", "ray")
    assert again.exit_code == 0 and " 0 steps" in again.output
    assert records(tmp_path / "ray") == records(tmp_path / "local")


@needs_ray
@pytest.mark.slow
def test_a_killed_node_loses_no_finished_cell(bench: Bench, tmp_path: Path, cluster: Any) -> None:
    assert bench("run", *GRID, "--results", tmp_path / "local").exit_code == 0
    wanted = records(tmp_path / "local")
    first, _ = cluster.add_node(**CLUSTER), cluster.add_node(**CLUSTER)
    results, seen = tmp_path / "ray", {}

    def kill() -> None:
        """When the first records are there, one of two nodes dies, at its next task."""
        while not list((results / "runs").rglob("*.json")):
            time.sleep(0.05)
        seen.update({p: p.stat().st_mtime_ns for p in (results / "runs").rglob("*.json")})
        cluster.remove_node(first, allow_graceful=False)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    done = bench("run", *GRID, "--results", results, "--executor", "ray", "--ray-address", cluster.address)
    thread.join(60)
    assert done.exit_code == 0, done.output
    assert seen and len(seen) < len(list((results / "runs").rglob("*.json"))), "the node died while there was work left"
    assert all(p.stat().st_mtime_ns == at for p, at in seen.items()), "finished cells stay as they were"
    assert records(results) == wanted
    finished = json.loads(next(iter(seen)).read_text())
    assert finished["status"] == "ok"


@needs_ray
@pytest.mark.slow
def test_one_and_four_workers_give_the_same_tables(bench: Bench, tmp_path: Path, cluster: Any) -> None:
    found, tables = [], []
    for more in (1, 3):
        cluster.add_node(**CLUSTER | {"num_cpus": more})
        results = tmp_path / str(more)
        done = bench("run", *GRID, "--results", results, "--executor", "ray", "--ray-address", cluster.address)
        assert done.exit_code == 0, done.output
        found.append(records(results))
        tables.append(bench("table", "--results", results, "--format", "md").stdout)
    assert found[0] == found[1]
    assert tables[0] == tables[1] and "SAFE-A" in tables[0]
