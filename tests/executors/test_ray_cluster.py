"""``--executor ray`` on a real cluster of this machine: its nodes and its actors may die."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.records.types import EvaluationRecord, Failure, FitRecord
from tests.executors.on_ray_parts import GRID, PLAIN, local, temporary
from tests.run.conftest import Bench, agree, of_type, records

__all__ = ["local", "temporary"]

HAVE = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAVE, reason="needs Ray: pip install 'fewshot-clip-bench[ray]'")
MEMORY = 80 << 20
# Notes which process it is in, and ends it once, at the third seed.
ENDS = PLAIN.replace(
    "        return {",
    """
        with (HERE / "processes").open("a") as file:
            file.write(f"{task.seed} {os.getpid()}\\n")
        if task.seed == 3 and not (HERE / "ended").exists():
            (HERE / "ended").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {""",
)


@pytest.fixture(scope="module")
def cluster(cache: Path, temporary: Path) -> Iterator[Any]:
    """A head without processors, so that tasks run on the worker nodes that ``nodes`` adds."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is there already decides for itself
        patched.setenv("BENCH_CACHE", str(cache))
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY})
        yield made
        made.shutdown()


def nodes(cluster: Any, *sizes: int) -> tuple[tuple[str, ...], list[Any]]:
    """The options for a run on worker nodes with these numbers of processors, and the nodes; those that fit
    are kept.
    """
    lacking, found = list(sizes), []
    for node in list(cluster.worker_nodes):
        if (size := node._ray_params.num_cpus) in lacking:
            lacking.remove(size)
            found.append(node)
        else:
            cluster.remove_node(node)
    found += [cluster.add_node(num_cpus=size, object_store_memory=MEMORY) for size in lacking]
    return ("--executor", "ray", "--ray-address", cluster.address), found


@needs_ray
@pytest.mark.slow
def test_joined_fits_give_the_same_tables_on_one_worker_and_two(
    bench: Bench, tmp_path: Path, cluster: Any, temporary: Path
) -> None:
    wanted = tmp_path / "local"
    assert bench("run", *GRID, "--join", "--results", wanted, "--jobs", "1").exit_code == 0
    table = bench("table", "--results", wanted, "--format", "md").stdout
    for sizes in ((1,), (1, 1)):
        results = tmp_path / str(len(sizes))
        done = bench("run", *GRID, "--join", "--results", results, *nodes(cluster, *sizes)[0])
        assert done.exit_code == 0, done.output
        assert len(sizes) > 1 or records(results) == records(wanted), "one worker joins what one process does"
        assert bench("table", "--results", results, "--format", "md").stdout == table and "SAFE-A" in table
        joined = {
            name: [len(r.budget.joined) for r in of_type(results, FitRecord) if r.cell.method == name]
            for name in ("safe", "tip-adapter-f")
        }
        shots = 2 if len(sizes) == 1 else 1  # a task for each slot holds both, or one
        assert joined == {"safe": [2 * shots] * 4, "tip-adapter-f": [2] * 4}, "two seeds"
    assert not list(temporary.glob("bench-ray-*"))


@needs_ray
@pytest.mark.slow
def test_four_workers_share_few_passes_and_give_the_same_records(
    bench: Bench, tmp_path: Path, local: Path, cluster: Any
) -> None:
    assert bench("run", *GRID, "--results", local).exit_code == 0
    streamed = (*GRID, "--results", tmp_path, "--no-dense-cache", "--cache", tmp_path / "features")
    done = bench("run", *streamed, *nodes(cluster, 1, 3)[0])
    assert done.exit_code == 0, done.output
    agree(records(tmp_path), records(local))
    shares = {r.seconds for r in of_type(tmp_path, EvaluationRecord) if r.cell.method in ("safe", "safe-a")}
    assert len(shares) == 3, "all that a pass serves has an equal share of its seconds"


@needs_ray
@pytest.mark.slow
def test_a_killed_node_loses_no_finished_cell(
    bench: Bench, tmp_path: Path, local: Path, cluster: Any, temporary: Path
) -> None:
    assert bench("run", *GRID, "--results", local).exit_code == 0
    seen: dict[Path, int] = {}
    options, (first, _) = nodes(cluster, 1, 1)

    def kill() -> None:
        """When the first records are there, one of two nodes dies, at its next task."""
        while not list((tmp_path / "runs").rglob("*.json")):
            time.sleep(0.05)
        seen.update({p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.json")})
        cluster.remove_node(first, allow_graceful=False)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    done = bench("run", *GRID, "--results", tmp_path, *options)
    thread.join(60)
    assert done.exit_code == 0, done.output
    assert seen and len(seen) < len(list((tmp_path / "runs").rglob("*.json"))), (
        "the node died while there was work left"
    )
    assert all(p.stat().st_mtime_ns == at for p, at in seen.items()), "finished cells stay as they were"
    assert records(tmp_path) == records(local)
    assert not of_type(tmp_path, Failure)
    assert not list(temporary.glob("bench-ray-*")), "what the dead node's task left is removed"


@needs_ray
@pytest.mark.slow
def test_an_actor_serves_many_tasks_and_its_death_costs_one_try(
    bench: Bench, tmp_path: Path, cluster: Any
) -> None:
    plugin, results = tmp_path / "plain.py", tmp_path / "results"
    plugin.write_text(ENDS)
    words = ("--methods", "plain", "--plugin", plugin, "--seeds", "1,2,3,4", "--results", results)
    done = bench("run", *words, *nodes(cluster, 1)[0])
    assert done.exit_code == 0, done.output
    assert len(of_type(results, EvaluationRecord)) == 4 and not of_type(results, Failure)
    tried = [line.split() for line in (tmp_path / "processes").read_text().splitlines()]
    assert [seed for seed, _ in tried] == ["1", "2", "3", "3", "4"]
    assert len({pid for _, pid in tried[:3]}) == 1 == len({pid for _, pid in tried[3:]})
    assert tried[2] != tried[3]
