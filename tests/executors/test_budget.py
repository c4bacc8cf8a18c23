"""A time budget stops work that runs on after its end, and no record calls that a failure."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import BenchError
from bench.executors import budget
from bench.records.types import EvaluationRecord, Failure
from tests.run.conftest import Bench, of_type

# Hangs, and lets the alarm of the budget ring, in its own process or in that of its parent. With a folder of
# results it first waits until another cell has its record, however slow the machine is.
HANGS = """
import os, signal, time
from pathlib import Path
from bench.interface import Method


class Hangs(Method):
    name = "hangs"
    title = "Hangs"

    def prepare(self, task):
        while RESULTS and not list(Path(RESULTS).glob("runs/*/*/tip-adapter/*-*.json")):
            time.sleep(0.05)
        if signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
        else:
            os.kill(os.getppid(), signal.SIGALRM)
        time.sleep(300)

    def logits(self, params, consts, features, values):
        raise AssertionError
"""


def test_the_grace_is_a_tenth_and_half_a_minute_at_least() -> None:
    assert [budget.grace(seconds) for seconds in (0.0, 60.0, 3600.0)] == [30.0, 30.0, 360.0]


def test_an_alarm_raises_in_the_block_and_is_gone_after_it() -> None:
    before = signal.getsignal(signal.SIGALRM)
    began = time.monotonic()
    with pytest.raises(budget.OutOfTime), budget.alarm(began + 0.1):
        time.sleep(60)
    assert time.monotonic() - began < 30
    for stop in (None, time.monotonic() + 0.1):
        with budget.alarm(stop):
            pass
    time.sleep(0.2)
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_what_swallows_an_alarm_hears_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "AGAIN", 0.05)
    heard = []
    with pytest.raises(budget.OutOfTime), budget.alarm(time.monotonic()):
        while True:
            try:
                time.sleep(60)
            except budget.OutOfTime:
                heard.append(1)
                if len(heard) == 3:
                    raise


def test_what_puts_things_back_is_let_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing rings there while the error is on its way, unless that takes too long."""
    monkeypatch.setattr(budget, "AGAIN", 0.2)
    for patience, seconds, ended in ((100, 0.5, True), (0, 60.0, False)):
        monkeypatch.setattr(budget, "PATIENCE", patience)
        put_back = []
        with pytest.raises(budget.OutOfTime), budget.alarm(time.monotonic()):
            try:
                time.sleep(60)
            finally:
                time.sleep(seconds)
                put_back.append(1)
        assert bool(put_back) is ended


def test_what_rings_at_either_end_of_the_block_raises_nothing() -> None:
    """Else the timer would stay behind."""
    alarm = budget.alarm(time.monotonic() + 60)
    with alarm:
        for function in (budget.alarm.__enter__, budget.alarm.__exit__):
            frame: Any = SimpleNamespace(f_code=function.__code__)
            alarm._ring(signal.SIGALRM, frame)
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_another_thread_hears_no_alarm() -> None:
    ended: list[bool] = []

    def work() -> None:
        with budget.alarm(time.monotonic()):
            time.sleep(0.05)
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert ended


def test_the_last_resort_comes_only_where_nothing_else_helped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "LAST", 0.1)
    called = threading.Event()
    for stop in (None, time.monotonic() + 0.1):
        with budget.last_resort(stop, called.set):
            pass
    assert not called.wait(0.4)
    with budget.last_resort(time.monotonic(), called.set):
        assert called.wait(30)


def test_a_method_that_hangs_is_stopped_and_left_to_the_next_run(bench: Bench, tmp_path: Path) -> None:
    plugin, results = tmp_path / "hangs.py", tmp_path / "r"
    plugin.write_text(HANGS + "RESULTS = None\n")
    words = ("run", "--methods", "tip-adapter,hangs,zero-shot", "--plugin", plugin, "--results", results)
    for _ in range(2):
        ended = bench(*words, "--time-budget", "10", "--jobs", "1")
        assert ended.exit_code == 3, ended.output
        assert "stopped, because it ran on after the budget's end: hangs shapes 2-shot seed 1" in ended.output
        assert not of_type(results, Failure)
    assert {r.cell.method for r in of_type(results, EvaluationRecord)} >= {"tip-adapter"}


# Undoes the alarm, as one with a timeout of its own may, and hangs in a later cell.
DEAF = """
import signal, time
from bench.interface import Method


class Deaf(Method):
    name = "deaf"
    title = "Deaf"

    def prepare(self, task):
        signal.alarm(0) if task.seed == 1 else time.sleep(300)
        return {"W_KC": task.W_KC}

    def logits(self, params, consts, features, values):
        return features["pooled"] @ consts["W_KC"].T
"""


@pytest.mark.slow
def test_the_end_itself_stops_a_method(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, results = tmp_path / "deaf.py", tmp_path / "r"
    plugin.write_text(DEAF)
    monkeypatch.setattr(budget, "GRACE", 0.0)
    words = ("run", "--methods", "deaf", "--plugin", plugin, "--results", results, "--jobs", "1")
    assert bench(*words, "--seeds", "1").exit_code == 0, "what the first run of a process imports is there"
    ended = bench(*words, "--seeds", "1,2", "--fresh", "--time-budget", "0.05")
    assert ended.exit_code == 3, ended.output
    assert "stopped, because it ran on after the budget's end: " in ended.output
    assert "deaf shapes 2-shot seed 2" in ended.output and not of_type(results, Failure)


def test_a_plan_that_takes_longer_is_stopped_too(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "GRACE", 0.5)
    monkeypatch.setattr("bench.plan.planner.make", lambda *_: time.sleep(300))
    ended = bench("run", "--methods", "zero-shot", "--results", tmp_path, "--time-budget", "0")
    assert ended.exit_code == 3 and "the time budget ended before the plan was made" in ended.output


@pytest.mark.parametrize(("where", "code"), [("recipe", 1), ("import", 2)])
def test_a_method_that_hangs_at_planning_fails_there(
    where: str, code: int, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "GRACE", 1.0)
    plugin = tmp_path / "deaf.py"
    hangs = {
        "recipe": "\n    def recipe(self, values, facts):\n        time.sleep(300)\n",
        "import": "time.sleep(300)\n",
    }
    plugin.write_text(DEAF + hangs[where])
    words = ("--methods", "deaf,zero-shot", "--plugin", plugin, "--results", tmp_path / "r")
    ended = bench("run", *words, "--time-budget", "0", "--jobs", "1")
    assert ended.exit_code == code or isinstance(ended.exception, BenchError), ended.output
    assert "it ran on after the time budget's end" in ended.output + str(ended.exception)


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended(bench: Bench, tmp_path: Path) -> None:
    plugin, results = tmp_path / "hangs.py", tmp_path / "r"
    plugin.write_text(HANGS + f"RESULTS = {str(results)!r}\n")
    words = ("run", "--methods", "tip-adapter,hangs", "--plugin", plugin, "--results", results)
    ended = bench(*words, "--time-budget", "600", "--jobs", "2")
    assert ended.exit_code == 3, ended.output
    assert "stopped, because it ran on after the budget's end: hangs shapes 2-shot seed 1" in ended.output
    assert not of_type(results, Failure)
    assert [r.cell.method for r in of_type(results, EvaluationRecord)] == ["tip-adapter"]
