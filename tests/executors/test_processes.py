"""The devices of worker processes. Stand-ins replace GPUs, so that this runs without one."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.errors import BenchError
from bench.executors import processes, worker
from bench.records.types import FitRecord
from bench.run import devices
from bench.run.session import Session
from tests.run.conftest import Bench, of_type

# Works only when as many processes as ``WORKERS`` are at it at the same time, so that no worker can take all
# the work.
MEETING = """
import os
import time
from pathlib import Path

from bench.interface import Method

HERE = Path(__file__).parent / "met"
WORKERS = 2


class Meeting(Method):
    name = "meeting"
    title = "Meeting"

    def prepare(self, task):
        HERE.mkdir(exist_ok=True)
        (HERE / str(os.getpid())).touch()
        end = time.monotonic() + 60
        while len(list(HERE.iterdir())) < WORKERS:
            if time.monotonic() > end:
                raise RuntimeError("nobody else came")
            time.sleep(0.02)
        return {"W": task.W_KC}

    def logits(self, params, consts, features, values):
        return features["pooled"] @ consts["W"].T
"""


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_workers_take_devices_in_turn() -> None:
    assert processes.spread(["cuda:0", "cuda:1"], 2) == ["cuda:0", "cuda:1"]
    assert processes.spread(["cuda:0", "cuda:1"], 5) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    assert processes.spread(["cuda:0", "cuda:1", "cuda:2"], 1) == ["cuda:0"]


def test_one_worker_for_each_gpu(two_gpus: None) -> None:
    assert devices.pick("auto") == "cuda"
    assert processes.visible("cuda") == ["cuda:0", "cuda:1"]
    assert [processes.default_jobs("cuda", [1.0] * parts) for parts in (100, 1)] == [2, 1]
    assert processes.visible("cuda:1") == ["cuda:1"] and processes.default_jobs("cuda:1", [1.0] * 9) == 1
    assert processes.visible("cpu") == ["cpu"]


def test_a_worker_shares_its_device_with_others_and_with_the_parent_that_encodes() -> None:
    assert processes.sharing(["cuda:0"], 2) == [("cuda:0", 3)] * 2
    assert processes.sharing(["cuda:0", "cuda:1"], 2) == [("cuda:0", 2), ("cuda:1", 1)]
    assert processes.sharing(["cuda:0", "cuda:1"], 3) == [("cuda:0", 3), ("cuda:1", 1), ("cuda:0", 3)]


@pytest.mark.parametrize(
    ("cores", "seconds", "jobs"),
    [
        (2, [10.0] * 24, 2),  # few cells, and much work
        (2, [0.01] * 1000, 1),  # many cells, and little work
        (2, [3.0, 3.0], 1),  # a worker's start costs what it would save
        (2, [240.0], 1),  # nothing goes beside it
        (2, [240.0, 10.0], 1),  # what goes beside it is too little
        (8, [60.0] * 3, 3),
        (8, [60.0] * 100, 4),  # each holds a model
        (1, [60.0] * 100, 1),
    ],
)
def test_the_number_of_workers_follows_the_work(
    cores: int, seconds: list[float], jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert processes.default_jobs("cpu", seconds) == jobs


def test_a_worker_tells_its_session_how_many_share_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def session(device: str, *rest: Any, **more: Any) -> None:
        given.update(more, device=device)
        raise BenchError("that is all")

    monkeypatch.setattr(worker, "Session", session)
    setup = worker.Setup(SimpleNamespace(), (), "cuda", None, "none", False)  # type: ignore[arg-type]
    with pytest.raises(BenchError, match="that is all"):
        worker.Worker(setup, "cuda:1", Path(), sharers=3)
    assert given["device"] == "cuda:1" and given["sharers"] == 3


def test_a_session_gives_back_what_encoding_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    session = Session("cpu", tmp_path, print)
    tower: Any = object()
    session._backbones["digest", "fp32"] = tower
    session.release(models=False)
    assert session._backbones and not emptied, "there is no cache on a processor"
    session.device = "cuda"
    session.release(models=False)
    assert session._backbones and emptied == [1]
    session.release()
    assert not session._backbones and emptied == [1, 1]
    session.close()


def test_a_device_that_is_not_there_is_one_line(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.pick("cuda:1") == "cuda:1"
    with pytest.raises(BenchError, match=r"--device cuda:7: .* 2 CUDA device\(s\); the last is cuda:1$"):
        devices.pick("cuda:7")
    for name in ("cuda:", "cuda:x", "cuda:01", "gpu"):
        with pytest.raises(BenchError, match="choose auto, cpu, cuda or cuda:N"):
            devices.pick(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BenchError, match="no CUDA device"):
        devices.pick("cuda:0")


@pytest.mark.slow
def test_every_worker_has_its_device(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two numbers of the processor stand in for two GPUs; records say which one they were made on."""
    plugin = tmp_path / "meeting.py"
    plugin.write_text(MEETING)
    monkeypatch.setattr(processes, "visible", lambda device: ["cpu:0", "cpu:1"])
    arguments = (
        "--methods",
        "meeting",
        "--plugin",
        plugin,
        "--seeds",
        "1,2",
        "--jobs",
        "2",
        "--results",
        tmp_path / "r",
    )
    done = bench("run", *arguments)
    assert done.exit_code == 0, done.output
    assert {r.provenance.device for r in of_type(tmp_path / "r", FitRecord)} == {"cpu:0", "cpu:1"}
