"""The worker processes that ``make test`` starts: as many as it has room for, with one thread each."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from bench import children
from tests import conftest


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 2), (4, 4), (64, conftest.MOST_WORKERS)])
def test_there_is_one_for_each_core(cores: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "cores", lambda: cores)
    assert conftest.pytest_xdist_auto_num_workers() == workers


def test_a_worker_computes_with_one_thread() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("runs in no worker: -n 2 starts some")
    import torch

    assert torch.get_num_threads() == 1


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_flags_of_whoever_calls_come_last_and_win() -> None:
    """``-n 0`` after ``-n auto`` is what pytest heeds; no worker takes the debugger's place."""
    words = ["make", "--dry-run", "test", "PYTEST_ARGS=tests/stats -n 0 --pdb"]
    done = subprocess.run(words, cwd=conftest.ROOT, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if "-m pytest" in line]
    assert "-n auto --dist loadfile" in line and line.endswith(" tests/stats -n 0 --pdb")
