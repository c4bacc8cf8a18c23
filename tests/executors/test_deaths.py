"""A worker that dies costs the cell that it was doing, after a second try alone, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.children import Died
from bench.errors import BenchError
from bench.executors import processes
from bench.executors.loop import Done
from bench.records.types import EvaluationRecord, Failure
from bench.run import stages
from bench.run.outcome import Ended, Now
from tests.run.conftest import Bench, failure_paths, named_records, of_type

Said = Any
Script = Callable[[frozenset[str]], list[Said]]


def cell(key: str) -> Any:
    return SimpleNamespace(fit=SimpleNamespace(key=key))


def serving(kills: Callable[[str, frozenset[str]], bool], code: int = -9) -> Script:
    """A worker that does its cells in order, and dies at those that kill it."""

    def script(keys: frozenset[str]) -> list[Said]:
        said: list[Said] = []
        for key in sorted(keys):
            said += [Now(f"fitting {key}"), frozenset({key})]
            if kills(key, keys):
                return [*said, Died(code)]
            said.append(Done([Ended(key, key)]))
        return [*said, None]

    return script


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Script], processes.Processes]]:
    """Two workers that say what a script says, and no process."""

    class Child:
        script: Script
        portions: list[list[str]] = []
        started: list[tuple[Any, ...]] = []

        def __init__(self, target: Any, setup: Any, *more: Any) -> None:
            Child.started.append(more)

        def send(self, what: tuple[frozenset[str], float | None]) -> None:
            Child.portions.append(sorted(what[0]))
            for said in Child.script(what[0]):
                made.said.put((self, said))

        def end(self) -> None:
            made.said.put((self, Died(-9)))

    made: Any = None

    def make(script: Script) -> processes.Processes:
        nonlocal made
        Child.script, Child.portions, Child.started = staticmethod(script), [], []  # type: ignore[assignment]
        monkeypatch.setattr(processes, "Child", Child)
        monkeypatch.setattr(processes.Processes, "_listen", lambda *_: None)
        monkeypatch.setattr(processes, "label", lambda fit: fit.key)
        setup: Any = SimpleNamespace(dense_cache=True, join=False, device="cpu")
        made = processes.Processes(setup, 2)
        made.sent, made.started = Child.portions, Child.started
        return made

    yield make


def done(way: Any) -> tuple[list[str], dict[str, str]]:
    """The cells that ended, and those that failed with why."""
    parts: list[Done] = []
    while way.busy():
        parts += way.collect()
    return sorted(c.key for part in parts for c in part.ended), {
        t.fit.key: stages.message(error) for part in parts for t, error in part.failed
    }


def test_the_cell_that_a_worker_dies_at_fails_after_its_second_try_alone(way: Any) -> None:
    without = "leave that method out, or mend it"
    for code, why, mend in (
        (-9, "SIGKILL: out of memory?", "try --jobs 1"),
        (-11, "SIGSEGV", without),
        (0, "exit code 0", without),
    ):
        two = way(serving(lambda key, keys: key == "b", code))
        two.submit([cell("a"), cell("b"), cell("c")], None)
        two.submit([cell("d"), cell("e")], None)
        assert two.room(), "for what is encoded ahead"
        ended, failed = done(two)
        assert ended == ["a", "c", "d", "e"]
        told = f"its worker process died twice at this cell ({why}): {mend}"
        assert failed == {"b": told}, "what is told of a signal stays a guess, also in the record"
        assert sorted(two.sent) == [["a", "b", "c"], ["b"], ["c"], ["d", "e"]]


def test_a_cell_that_lives_alone_is_done(way: Any) -> None:
    two = way(serving(lambda key, keys: key == "b" and len(keys) > 1))
    two.submit([cell("a"), cell("b"), cell("c")], None)
    assert done(two) == (["a", "b", "c"], {})


def test_all_that_wait_for_one_pass_are_tried_alone(way: Any) -> None:
    def script(keys: frozenset[str]) -> list[Said]:
        if len(keys) > 1 or "b" in keys:
            return [frozenset({key}) for key in keys] + [keys & {"a", "b"}, Died(-9)]
        return serving(lambda *_: False)(keys)

    two = way(script)
    two.submit([cell(key) for key in "abc"], None)
    ended, failed = done(two)
    assert ended == ["a", "c"] and list(failed) == ["b"]


def test_a_worker_that_never_begins_fails_its_cells(way: Any) -> None:
    two = way(lambda keys: [Died(1)])
    two.submit([cell("a"), cell("b")], None)
    ended, failed = done(two)
    assert not ended and set(failed) == {"a", "b"} and len(two.sent) == 2
    assert all("before it began a cell (exit code 1)" in why for why in failed.values())


def test_a_refusal_fails_the_portion_and_a_bug_or_a_full_disk_ends_the_run(way: Any) -> None:
    two = way(lambda keys: [BenchError("the keys of cells have changed")])
    two.submit([cell("a")], None)
    assert done(two) == ([], {"a": "the keys of cells have changed"})
    two = way(lambda keys: [OSError(28, "No space left on device")])
    two.submit([cell("a")], None)
    with pytest.raises(OSError, match="No space left"):
        done(two)


def test_when_the_time_is_over_what_ended_counts_and_the_rest_is_named(way: Any) -> None:
    two = way(lambda keys: [frozenset({"a"}), Done([Ended("a", "a")]), frozenset({"b"})])
    two.submit([cell(key) for key in "abc"], None)
    stopped = two.stop()
    assert [c.key for c in stopped.ended] == ["a"] and [*stopped.outcome.stopped] == ["b"]


def test_somebody_who_watches_hears_what_workers_are_at(way: Any) -> None:
    heard: list[Now] = []
    two = way(serving(lambda *_: False))
    two.watch, two.live = heard.append, True
    two.submit([cell("a")], None)
    two.submit([cell("b")], None)
    done(two)
    assert Now("fitting a; fitting b") in heard


def test_who_does_not_watch_all_the_time_hears_once_that_workers_work(way: Any) -> None:
    heard: list[Now] = []
    two = way(serving(lambda *_: False))
    two.watch, two.live = heard.append, False
    two.submit([cell("a")], None)
    two.submit([cell("b")], None)
    done(two)
    assert heard == [Now("worker processes are at the first cells")]


KILLER = """
import os, signal
from bench.interface import Method


class Killer(Method):
    name = "killer"
    title = "Killer"

    def prepare(self, task):
        os.kill(os.getpid(), signal.SIGSEGV)

    def logits(self, params, consts, features, values):
        raise AssertionError


class Wrong(Method):
    name = "wrong"
    title = "Wrong"

    def prepare(self, task):
        raise ValueError("wrong on purpose")

    def logits(self, params, consts, features, values):
        raise AssertionError
"""


@pytest.mark.slow
def test_a_method_that_kills_its_worker_costs_its_own_cells(bench: Bench, tmp_path: Path) -> None:
    plugin, results = tmp_path / "killer.py", tmp_path / "r"
    plugin.write_text(KILLER)
    words = ("--methods", "zero-shot,killer,wrong,tip-adapter", "--plugin", plugin, "--jobs", "2")
    ended = bench("run", *words, "--seeds", "1,2", "--results", results)
    assert ended.exit_code == 1, ended.output
    failed = of_type(results, Failure)
    assert sorted(f.cell.method for f in failed) == ["killer", "killer", "wrong", "wrong"]
    killed = [f.error for f in failed if f.cell.method == "killer"]
    assert all("died twice at this cell (SIGSEGV)" in error for error in killed)
    assert named_records(ended.output) == sorted(2 * failure_paths(results)), "by the parent and by workers"
    healthy = [r.cell for r in of_type(results, EvaluationRecord)]
    assert sum(c.method == "tip-adapter" for c in healthy) == 2
    assert any(c.method == "zero-shot" for c in healthy)
