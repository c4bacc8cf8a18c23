"""Slices are small on a processor, large on a GPU, and halved where memory runs out."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from bench.train import slices

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GB = 1 << 30


@pytest.mark.parametrize(
    ("device", "free", "size"),
    [
        (CPU, None, 64 << 20),
        (CPU, 500 * GB, 64 << 20),
        (GPU, None, GB),
        (GPU, 139 * GB, GB),
        (GPU, 32 * GB, GB),
        (GPU, 31 * GB, GB // 2),
        (GPU, 9 * GB, GB // 4),
        (GPU, 8 * GB, GB // 4),
        (GPU, 1 * GB, 64 << 20),
        (GPU, 0, 64 << 20),
    ],
)
def test_size_of_a_slice(device: torch.device, free: int | None, size: int) -> None:
    assert slices.most(device, free) == size


def test_bytes_of_an_image() -> None:
    assert slices.row_bytes([(3, 4), (5,)]) == 4 * 17 and slices.row_bytes([()]) == 4


def spans(rows: int, each: int, most: int, room: int, error: Exception) -> tuple[list[slice], list[slice]]:
    """The slices that were done, and those that were tried, where memory holds ``room`` images."""
    tried: list[slice] = []

    def work(at: slice) -> slice:
        tried.append(at)
        if at.stop - at.start > room:
            raise error
        return at

    return list(slices.over(rows, each, slices.Limit(most), work)), tried


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory")]
)
def test_slices_are_halved_where_memory_runs_out(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "PROCESSOR", 20)
    done, tried = spans(100, 10, 400, 15, error)
    assert [at.stop - at.start for at in tried] == [40, 20, *[10] * 10]
    assert done[0].start == 0 and done[-1].stop == 100
    assert all(a.stop == b.start for a, b in pairwise(done)), "each image once"
    assert [at.stop - at.start for at in spans(45, 10, 400, 99, error)[0]] == [40, 5]


def test_the_size_that_memory_held_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "PROCESSOR", 20)
    limit, sizes = slices.Limit(400), list[int]()

    def work(at: slice) -> None:
        sizes.append(at.stop - at.start)
        if sizes[-1] > 15:
            raise torch.OutOfMemoryError("CUDA out of memory")

    for each, rows, tried in ((10, 20, [20, 10, 10]), (10, 20, [10, 10]), (50, 4, [2, 2])):
        sizes.clear()
        list(slices.over(rows, each, limit, work))
        assert sizes == tried


def test_what_is_small_already_or_another_error_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "PROCESSOR", 20)
    with pytest.raises(torch.OutOfMemoryError):
        spans(100, 10, 400, 1, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError, match="shapes"):
        spans(100, 10, 400, 1, RuntimeError("shapes do not match"))
    with pytest.raises(MemoryError):  # a processor's slice is the smallest from the start
        spans(100, 10, slices.PROCESSOR, 1, MemoryError())
