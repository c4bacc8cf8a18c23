"""Blocks that live for one step reuse what the step before freed, and return to the system at the end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.train import heap, loop
from tests.train.engine_cases import case

ROOT = Path(__file__).resolve().parents[2]
needs_glibc = pytest.mark.skipif(heap._library() is None, reason="another C library than glibc")

# A process of its own: what lies in the heap before decides where blocks go.
CHILD = """
import resource, sys
from pathlib import Path
import numpy as np
from bench.train import heap

BLOCK = 48 << 20

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        blocks = [np.ones(BLOCK, np.uint8) for _ in range(3)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = resident()
with heap.kept(int(sys.argv[1])):
    faults(1)
    counted, held = faults(4), resident() - before
after = faults(1), resident() - before
print(counted, held, *after)
"""


def child(largest: int) -> tuple[int, ...]:
    """Page faults of four steps, bytes held after them, faults of a step behind the end, bytes held then."""
    args = [sys.executable, "-c", CHILD, str(largest)]
    printed = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(map(int, printed.split()))


@needs_glibc
def test_pages_are_made_once_and_returned() -> None:
    step = 3 * (48 << 20)
    plain, _, plainly, _ = child(0)
    kept, held, after, rest = child(heap.FROM)
    assert plain > 20 * max(1, kept), "how many a step makes depends on the size of the system's pages"
    assert held > 0.9 * step and rest < 0.1 * step
    assert after > plainly / 2, "behind the end blocks are the system's again"


def test_small_blocks_and_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    set_: list[object] = []
    monkeypatch.setattr(heap, "_set", lambda *given: set_.append(given))
    with heap.kept(heap.FROM - 1):
        pass
    monkeypatch.setattr(heap, "_library", lambda: None)
    with heap.kept(heap.FROM):
        pass
    assert not set_


@needs_glibc
@pytest.mark.parametrize("fails", [False, True])
def test_training_keeps_and_returns(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large stacks do, whatever becomes of them; the numbers are those of plain training to the last bit."""
    plain = case("safe").fit()
    set_: list[dict[int, int]] = []
    original: Callable[..., None] = heap._set
    monkeypatch.setattr(heap, "FROM", 1)
    monkeypatch.setattr(
        heap, "_set", lambda library, values: (set_.append(values), original(library, values))
    )
    if fails:
        monkeypatch.setattr(loop.graphs.Launcher, "__call__", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            case("safe").fit()
    else:
        fitted = case("safe").fit()
        assert fitted.curve == plain.curve
        assert all(torch.equal(p, fitted.params[name]) for name, p in plain.params.items())
    assert set_ == [heap._KEEP, heap._USUAL]
