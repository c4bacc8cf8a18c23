"""Two workers share equal cells equally, and are ready when the first features are."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.executors import processes
from bench.executors.loop import Done
from bench.records.types import EvaluationRecord
from bench.run.outcome import Ended
from tests.run.conftest import Bench, of_type

# Three methods whose fits sleep, and note when they begin and when they end, and in which process.
SLEEPS = """
import os
import time
from pathlib import Path

from bench.interface import Method


class Sleeps(Method):
    name = "a"
    title = "Sleeps"

    def prepare(self, task):
        began = time.monotonic()
        time.sleep(2.0)
        with (Path(__file__).parent / "slept").open("a") as file:
            file.write(f"{os.getpid()} {began} {time.monotonic()}\\n")
        return {"W": task.W_KC}

    def logits(self, params, consts, features, values):
        return features["pooled"] @ consts["W"].T


class B(Sleeps):
    name = "b"


class C(Sleeps):
    name = "c"
"""


@pytest.mark.slow
@pytest.mark.parametrize(("shots", "seeds"), [("1,2,3,4", "1"), ("1,2", "1,2")])
def test_two_workers_halve_the_time_of_fits_that_sleep(
    shots: str, seeds: str, bench: Bench, tmp_path: Path
) -> None:
    """One dataset with one seed, and with two: from the first fit's begin to the last one's end."""
    plugin = tmp_path / "sleeps.py"
    plugin.write_text(SLEEPS)
    walls = {}
    for jobs in (1, 2):
        (tmp_path / "slept").unlink(missing_ok=True)
        results = tmp_path / str(jobs)
        words = ("--methods", "a,b,c", "--plugin", plugin, "--shots", shots, "--seeds", seeds)
        done = bench("run", *words, "--results", results, "--jobs", jobs)
        assert done.exit_code == 0, done.output
        slept = [line.split() for line in (tmp_path / "slept").read_text().splitlines()]
        assert len(slept) == 12 == len(of_type(results, EvaluationRecord))
        assert len({pid for pid, *_ in slept}) == jobs
        walls[jobs] = max(float(end) for *_, end in slept) - min(float(began) for _, began, _ in slept)
    assert walls[2] <= 1.3 * walls[1] / 2, walls  # a busy machine adds to what does not sleep


def cell(key: str) -> Any:
    fit = SimpleNamespace(
        key=key,
        cell=SimpleNamespace(seed=1, shots=1),
        dataset=SimpleNamespace(digest="d"),
        after={},
    )
    return SimpleNamespace(fit=fit, late=False)


class Child:
    """A worker that is a thread: it does a cell when ``go`` lets it."""

    started: list[Child]
    go: threading.Semaphore

    def __init__(self, target: Any, setup: Any, device: str, sharers: int, first: str) -> None:
        self.first, self.sharers = first, sharers
        self.heard: list[frozenset[str]] = []
        self.inbox: Any = processes.queue.SimpleQueue()
        self.outbox: Any = processes.queue.SimpleQueue()
        threading.Thread(target=self._serve, daemon=True).start()
        Child.started.append(self)

    def _serve(self) -> None:
        while (keys := self.inbox.get()) is not None:
            for key in keys:
                Child.go.acquire()
                self.outbox.put(Done([Ended(key, key)]))
            self.outbox.put(None)
        self.outbox.put(processes.Died(0))

    def send(self, what: tuple[frozenset[str], float | None]) -> None:
        self.heard.append(what[0])
        self.inbox.put(what[0])

    def recv(self) -> Any:
        said = self.outbox.get()
        if isinstance(said, processes.Died):
            raise said
        return said

    def end(self) -> None:
        self.inbox.put(None)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> processes.Processes:
    monkeypatch.setattr(processes, "Child", Child)
    Child.started, Child.go = [], threading.Semaphore(0)
    setup: Any = SimpleNamespace(dense_cache=True, join=False, device="cpu")
    return processes.Processes(setup, 2)


def test_workers_begin_before_anything_is_encoded_and_no_more_than_have_work(
    two: processes.Processes,
) -> None:
    assert not Child.started
    found = two.portions([cell(key) for key in "abcdef"])
    assert [child.first for child in Child.started] == [found[0][0].fit.key, found[1][0].fit.key]
    assert [child.sharers for child in Child.started] == [3, 3] and not two.busy()
    two.end()
    Child.started.clear()
    one = processes.Processes(two.setup, 2)
    one.portions([cell("a")])
    assert len(Child.started) == 1
    one.end()


def test_what_cannot_be_heard_ends_the_run_instead_of_keeping_it_waiting(
    two: processes.Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recv(self: Child) -> Any:
        raise ModuleNotFoundError("no module of a plugin")

    monkeypatch.setattr(Child, "recv", recv)
    for portion in two.portions([cell(key) for key in "abcdef"])[:2]:
        two.submit(portion, None)
    with pytest.raises(processes._Unheard, match="no module of a plugin"):
        list(two.collect())
    monkeypatch.setattr(Child, "recv", Child.recv)
    two.end()


def test_the_time_is_over_for_workers_that_cannot_be_heard(
    two: processes.Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recv(self: Child) -> Any:
        raise ModuleNotFoundError("no module of a plugin")

    monkeypatch.setattr(Child, "recv", recv)
    two.portions([cell(key) for key in "abcdef"])
    assert not two.stop().ended


def test_an_idle_worker_takes_what_was_encoded_ahead_while_the_parent_encodes(
    two: processes.Processes,
) -> None:
    portions = two.portions([cell(key) for key in "abcdef"])
    assert [len(portion) for portion in portions] == [1] * 6
    for portion in portions[:3]:
        assert two.room()
        two.submit(portion, None)
    assert not two.room(), "one waits, and both work"
    Child.go.release()  # the parent collects nothing now, as while it encodes
    end = time.monotonic() + 30
    while sum(len(child.heard) for child in Child.started) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert sorted(len(child.heard) for child in Child.started) == [1, 2]
    for portion in portions[3:]:
        Child.go.release(2)
        while not two.room():
            list(two.collect())
        two.submit(portion, None)
    Child.go.release(6)
    while two.busy():
        list(two.collect())
    assert sum(len(child.heard) for child in Child.started) == 6
    two.end()
