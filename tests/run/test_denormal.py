"""Every process that computes treats denormal numbers as zero, in all its threads, and a method cannot change
that.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import process
from bench.records import store
from bench.run.session import repeatable
from tests.run.conftest import Bench

ROOT = Path(__file__).resolve().parents[2]

# A process of its own, whose threads begin after it was said how to round.
CHILD = """
import torch
from bench.run.session import repeatable

repeatable()
torch.set_num_threads(2)
x = torch.full((1 << 22,), 700_000, dtype=torch.int32).view(torch.float32)  # 1e-39
print(int((x * 1.0).view(torch.int32).count_nonzero()))
"""


@pytest.fixture
def flushing() -> None:
    """As in a session."""
    repeatable()
    if not process.flushes_denormal():
        pytest.skip("this processor cannot take denormal numbers for zero")


@pytest.mark.slow
def test_threads_inherit_it(flushing: None) -> None:
    args = [sys.executable, "-c", CHILD]
    done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout == "0\n"


def test_small_numbers_of_other_kinds_stay(flushing: None) -> None:
    """Stored features are halves, whose smallest numbers are no denormal ones of single precision."""
    least = torch.tensor([2.0**-24, -(2.0**-20), 2.0**-14])
    assert torch.equal(least.half().float(), least)
    assert np.array_equal(least.numpy().astype(np.float16).astype(np.float32), least.numpy())


def test_what_is_written_stays(flushing: None) -> None:
    """Python's own numbers round likewise, but normal ones are written and read as ever."""
    numbers = [sys.float_info.min, 1e-300, 0.1, 1e-7, 1.7976931348623157e308]
    assert json.loads(json.dumps(numbers)) == numbers
    assert sys.float_info.min * 0.5 == 0.0


def test_the_guard_holds_it_on(flushing: None) -> None:
    before = process.held()
    torch.set_flush_denormal(False)
    assert process.put_back(before) == ["how the processor rounds tiny numbers"]
    assert process.flushes_denormal()


def test_records_say_it(bench: Bench, tmp_path: Path) -> None:
    assert bench("run", "--methods", "tip-adapter", "--jobs", "1", "--results", tmp_path).exit_code == 0
    said = {record.provenance.flags["flush_denormal"] for _, record in store.every(tmp_path)}
    assert said == {process.flushes_denormal()}
