"""What code changes for its whole process is noticed and put back."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from bench import process

CHANGES: dict[str, Callable[[], object]] = {
    "Python's global random generator": lambda: random.seed(1),
    "NumPy's global random generator": lambda: np.random.rand(),
    "NumPy's handling of errors": lambda: np.seterr(divide="raise"),
    "torch's global random generator": lambda: torch.rand(1),
    "torch's default dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch's default device": lambda: torch.set_default_device("meta"),
    "torch's number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "whether torch records gradients": lambda: torch.set_grad_enabled(False),
    "torch's deterministic and TF32 modes": lambda: torch.use_deterministic_algorithms(
        not torch.are_deterministic_algorithms_enabled()
    ),
    "how the processor rounds tiny numbers": lambda: torch.set_flush_denormal(not process.flushes_denormal()),
    "the environment": lambda: os.environ.pop("HOME"),
    "the working folder": lambda: os.chdir("/"),
    "Python's recursion limit": lambda: sys.setrecursionlimit(3_000),
    "the signal handlers": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "the standard streams": lambda: setattr(sys, "stdout", sys.stderr),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_part(name: str) -> None:
    np.random.get_state()  # the module is imported at its first use
    before = process.held()
    assert process.put_back(before) == []
    CHANGES[name]()
    assert process.put_back(before) == [name]
    assert process.put_back(before) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGALRM], ids=lambda number: number.name)
def test_every_signal_that_the_program_heeds(number: signal.Signals) -> None:
    before, handler = process.held(), signal.getsignal(number)
    signal.signal(number, lambda *_: None)
    assert process.put_back(before) == ["the signal handlers"]
    assert signal.getsignal(number) is handler


def test_the_timer_goes_on_without_a_word() -> None:
    """A method may use it and stop it; the budget's alarm is that of the program."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    nothing = process.held()
    assert process.put_back(nothing) == []
    signal.alarm(60)
    assert process.put_back(nothing) == [] and signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 60, 5)
        before = process.held()
        for seconds in (0, 30):
            signal.alarm(seconds)
            assert process.put_back(before) == []
            left, every = signal.getitimer(signal.ITIMER_REAL)
            assert 50 < left <= 60 and every == 5
        signal.setitimer(signal.ITIMER_REAL, 0.01)  # which rings once, while the method works
        before = process.held()
        time.sleep(0.05)
        assert process.put_back(before) == [] and signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def test_every_part_is_tried() -> None:
    silent = {"the filters of warnings"}
    assert process.held().parts.keys() - silent - {"the GPU's global random generator"} == CHANGES.keys()


def test_filters_and_new_variables_go_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    before = process.held()
    monkeypatch.setenv("BENCH_NEW", "1")
    warnings.simplefilter("error")
    assert process.put_back(before) == []
    assert warnings.filters == before.parts["the filters of warnings"] and os.environ["BENCH_NEW"] == "1"


def import_of_a_library(name: str) -> None:
    """What OpenCV does to the environment when it is imported."""
    sys.modules[name] = ModuleType(name)
    os.environ["HOME"] = "/lib"
    sys.setrecursionlimit(3_000)


def test_what_a_library_does_when_it_is_imported_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    home, limit = os.environ["HOME"], sys.getrecursionlimit()
    for name, own, said in (
        ("a_library", (), []),
        ("mine.part", ("mine",), ["the environment", "Python's recursion limit"]),
        ("bench.methods.mine", (), ["the environment", "Python's recursion limit"]),
    ):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))  # is taken out in the end
        del sys.modules[name]
        before = process.held()
        import_of_a_library(name)
        torch.set_default_dtype(torch.float64)
        assert process.put_back(before, own) == [*said, "torch's default dtype"]
        assert (os.environ["HOME"], sys.getrecursionlimit()) == (home, limit)


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    before = process.held()
    gone.rmdir()
    assert process.put_back(before) == [], "nobody can go back"
    before = process.held()
    os.chdir(tmp_path)
    assert process.put_back(before) == []


def test_what_is_slow_to_read_is_left_alone_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    part = process._parts()["torch's default device"]
    parts = {"slow": replace(part, read=lambda: read.append("slow") or "cpu")}
    monkeypatch.setattr(process, "_parts", lambda: parts)
    process.put_back(process.held(every=False))
    assert read == []
    assert process.put_back(process.Held({}, True, len(sys.modules))) == [] and read == ["slow"]
