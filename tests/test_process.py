"""What code changes for its whole process is noticed and put back."""

from __future__ import annotations

import os
import random
import signal
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench import process, replaced

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
    "how the processor rounds tiny numbers": lambda: torch.set_flush_denormal(True),
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


def test_every_part_is_tried() -> None:
    silent = {"the filters of warnings"}
    assert process.held().parts.keys() - silent - {"the GPU's global random generator"} == CHANGES.keys()


def test_filters_and_new_variables_go_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    before = process.held()
    monkeypatch.setenv("BENCH_NEW", "1")
    warnings.simplefilter("error")
    assert process.put_back(before) == []
    assert warnings.filters == before.parts["the filters of warnings"] and os.environ["BENCH_NEW"] == "1"


def test_a_name_that_hides_an_inherited_one() -> None:
    class Base:
        def one(self) -> int:
            return 1

    class Below(Base):
        pass

    names = replaced.Names({"Below": Below})
    before = names.held()
    Below.new = lambda self: 3  # type: ignore[attr-defined]
    Below.one = lambda self: 2  # type: ignore[method-assign,assignment]
    assert replaced.put_back(before) == ["Below.one"] and Below().one() == 1
    assert replaced.put_back(before) == []


def test_replaced_functions() -> None:
    def one() -> int:
        return 1

    def two() -> int:
        return 2

    owner = SimpleNamespace(one=one, two=two, number=3)
    names = replaced.Names({"owner": owner})
    before = names.held()
    owner.new, owner.number = one, 4
    assert replaced.put_back(before) == []
    owner.one = two
    del owner.two
    assert replaced.put_back(before) == ["owner.one", "owner.two"]
    assert (owner.one, owner.two) == (one, two) and replaced.put_back(before) == []
