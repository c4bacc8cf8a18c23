"""A time budget ends what does not end by itself, and no record says that it failed."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from bench.executors import budget
from bench.records.types import EvaluationRecord, Failure
from tests.run.conftest import Bench, of_type

# Hangs, and lets the alarm of the budget ring at once, in its own process or in that of its parent.
HANGS = """
import os, signal, time
from bench.interface import Method


class Hangs(Method):
    name = "hangs"
    title = "Hangs"

    def prepare(self, task):
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
    plugin.write_text(HANGS)
    words = ("run", "--methods", "tip-adapter,hangs,zero-shot", "--plugin", plugin, "--results", results)
    for _ in range(2):
        ended = bench(*words, "--time-budget", "10", "--jobs", "1")
        assert ended.exit_code == 3, ended.output
        assert "stopped, because it ran on after the budget's end: hangs shapes 2-shot seed 1" in ended.output
        assert not of_type(results, Failure)
    assert {r.cell.method for r in of_type(results, EvaluationRecord)} >= {"tip-adapter"}


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended(bench: Bench, tmp_path: Path) -> None:
    plugin, results = tmp_path / "hangs.py", tmp_path / "r"
    plugin.write_text(HANGS)
    words = ("run", "--methods", "tip-adapter,hangs", "--plugin", plugin, "--results", results)
    ended = bench(*words, "--time-budget", "10", "--jobs", "2")
    assert ended.exit_code == 3, ended.output
    assert "stopped, because it ran on after the budget's end: hangs shapes 2-shot seed 1" in ended.output
    assert not of_type(results, Failure)
    assert [r.cell.method for r in of_type(results, EvaluationRecord)] == ["tip-adapter"]
