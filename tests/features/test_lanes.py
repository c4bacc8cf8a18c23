"""With several batches under way the rows equal those of one batch after the other, and are checked first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_fakes import TinyTower, dataset

from bench.data.views import bank
from bench.errors import BenchError
from bench.features import lanes
from bench.features.decode import default_workers
from bench.features.encode import Wanted, encode, keys, stream
from bench.features.forward import normaliser
from bench.features.store import FeatureStore

PATHS = tuple(f"test/{i}.png" for i in range(23))
VIEWS = {"eval": {"pooled", "dense"}, "flip": {"dense"}, bank(0.5, 1)[0]: {"pooled"}}


class Late:
    """Stands for a GPU: two buffers, and copies that are made when somebody waits for them, not before."""

    ahead = 1

    def __init__(self) -> None:
        self.buffers: list[np.ndarray] = []
        self.turn, self.begun, self.under_way, self.most, self.closed = -1, 0, 0, 0, False

    def buffer(self, shape: tuple[int, ...]) -> np.ndarray:
        if not self.buffers:
            self.buffers = [np.empty(shape, np.uint8) for _ in range(2)]
        self.turn = (self.turn + 1) % 2
        assert self.buffers[self.turn].shape == shape, "batches of one shape"
        self.buffers[self.turn][:] = 99  # whoever still reads it gets this
        return self.buffers[self.turn]

    def up(self) -> torch.Tensor:
        return torch.from_numpy(self.buffers[self.turn])

    def down(self, found: Sequence[torch.Tensor]) -> Callable[[], list[torch.Tensor]]:
        self.begun += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)

        def wait() -> list[torch.Tensor]:
            self.under_way -= 1
            return [x.clone() for x in found]

        return wait

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Late:
    lane = Late()
    monkeypatch.setattr(lanes, "of", lambda device: lane)
    return lane


def stored(tower: TinyTower, images: Any, root: Path, batch: int) -> dict[tuple[str, str], np.ndarray]:
    store, key_of = FeatureStore(root), keys(tower, images, batch)
    encode(
        tower, images, [Wanted(PATHS, VIEWS), Wanted(("a", "b"), {"flip": {"pooled"}})], store, batch=batch
    )
    return {(v, t): store.read(key_of(t, v), PATHS) for v, taps in VIEWS.items() for t in taps}


@pytest.mark.parametrize("batch", [1, 4, 32, 100])
def test_batches_under_way_give_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    tower, images = TinyTower(), dataset(tmp_path)
    want = stored(tower, images, tmp_path / "one", batch)
    lane = Late()
    monkeypatch.setattr(lanes, "of", lambda device: lane)
    found = stored(tower, images, tmp_path / "two", batch)
    assert found.keys() == want.keys() and all(np.array_equal(found[k], want[k]) for k in want)
    assert (lane.most, lane.under_way, lane.closed) == (2, 0, True), "one batch runs beside one that is read"


def test_a_bad_batch_is_refused_before_anybody_gets_it(tmp_path: Path, late: Late) -> None:
    tower = TinyTower()
    plain = tower.encode_images

    def third_is_bad(x: torch.Tensor, taps: Sequence[str]) -> dict[str, torch.Tensor]:
        found = plain(x, taps)
        if len(tower.calls) == 3:
            found["dense"][0, 0, 0] = float("nan")
        return found

    tower.encode_images = third_is_bad  # type: ignore[method-assign]
    seen = []
    with pytest.raises(BenchError, match="tap 'dense' of tiny reaches nan"):
        for start, _ in stream(tower, dataset(tmp_path), PATHS, "eval", ["dense"], batch=4):
            seen.append(start)
    assert seen == [0, 4] and late.begun == 4 and late.closed


def test_a_stream_that_is_left_ends_what_is_under_way(tmp_path: Path, late: Late) -> None:
    parts = stream(TinyTower(), dataset(tmp_path), PATHS, "eval", ["dense"], batch=4)
    next(parts)
    assert late.begun == 2 and not late.closed
    parts.close()
    assert late.closed and late.begun == 2


def test_lines_are_scaled_to_the_same_bits_as_pixels() -> None:
    tower = TinyTower()
    pixels = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (tower.spec.preprocess.mean, tower.spec.preprocess.std)
    )
    found = normaliser(tower)(pixels)
    assert torch.equal(found, (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_every_core_decodes_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert default_workers(100_000, "cuda") == (64, 1) and default_workers(100_000, "cpu") == (16, 1)
    assert default_workers(100, "cuda") == (0, 16) and default_workers(100, "cpu") == (0, 8)
    assert default_workers(3_000, "cuda") == (12, 1), "a process has to be worth its start"
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(192)), raising=False)
    assert default_workers(100_000, "cuda") == (64, 1)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_nothing_waits_and_rows_are_those_of_one_batch_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower, images = TinyTower(), dataset(tmp_path)
    tower.device, tower.weight_DT = torch.device("cuda"), tower.weight_DT.cuda()

    class AtOnce(lanes.Cuda):
        ahead = 0

        def up(self) -> torch.Tensor:
            there = super().up()
            torch.cuda.synchronize()
            return there

    monkeypatch.setattr(lanes, "of", AtOnce)
    want = stored(tower, images, tmp_path / "one", 4)
    monkeypatch.setattr(lanes, "of", lanes.Cuda)
    found = stored(tower, images, tmp_path / "two", 4)
    assert all(np.array_equal(found[k], want[k]) for k in want)
    parts = stream(tower, images, PATHS, "eval", ["dense"], batch=4)
    first = [next(parts)]  # buffers and constants are made here
    torch.cuda.set_sync_debug_mode("error")
    try:
        streamed = [*first, *parts]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    dense = torch.cat([taps["dense"] for _, taps in streamed])
    assert dense.is_cuda and np.array_equal(dense.cpu().numpy(), want["eval", "dense"])
