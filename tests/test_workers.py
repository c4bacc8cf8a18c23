"""The worker processes that ``make test`` starts: as many as it has room for, with one thread each."""

from __future__ import annotations

import os

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
