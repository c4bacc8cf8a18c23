"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import children, process

MOST_WORKERS = 4  # each holds torch and what it computes: about a gigabyte

# Both are read when torch's OpenMP starts. Threads that wait in a loop starve whatever else runs on the
# machine, and the threads of one worker take the cores of another.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many workers ``-n auto`` starts: one for each core, and none on a single core."""
    found = children.cores()
    return min(found, MOST_WORKERS) if found > 1 else 0


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Every test begins with them, as a process does; what computes as ``bench run`` takes them for zero."""
    yield
    if process.flushes_denormal():
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def published_files() -> Path:
    """Files of other people that are not ours to copy, in $BENCH_TEST_DATA or beside the checkout.

    ``splits/`` and ``fewshot/`` (CoOp's split files, Cross-Modal's index files, packed), ``templates/``,
    ``classnames/``, ``cupl/`` (sentences) and ``imagenet/`` (class subsets). The repository has their
    digests, and tests that need no more run everywhere; those of the files themselves skip without them.
    """
    folder = Path(os.environ.get("BENCH_TEST_DATA") or ROOT.parent / "shared" / "protocol" / "data")
    if not (folder / "splits").is_dir():
        pytest.skip("needs published split files and sentences: name their folder in $BENCH_TEST_DATA")
    return folder
