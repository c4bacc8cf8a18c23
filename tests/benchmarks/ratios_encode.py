"""Images per second from JPEG files, against a ``DataLoader`` and a model as published repositories do it.

Legend: B batch, C colours, H W pixels.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from bench.clip import backbone, state
from bench.data.imagefile import FolderSource
from bench.features.encode import Wanted, encode, keys
from bench.features.store import FeatureStore
from bench.interface import EVAL, FLIP, POOLED
from tests.benchmarks import ratios_device
from tests.benchmarks.ratios_timing import Row, interleaved, row


@dataclass(frozen=True)
class Files(Dataset[torch.Tensor]):
    """Image files through the transform that comes with the model; ``mirrored`` left to right afterwards."""

    root: Path
    paths: Sequence[str]
    transform: Any
    mirrored: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        x_CHW: torch.Tensor = self.transform(Image.open(self.root / self.paths[i]))
        return x_CHW.flip(2) if self.mirrored else x_CHW


@contextmanager
def photographs(n: int) -> Iterator[tuple[Path, list[str]]]:
    """A folder of ``n`` JPEG files, 300 to 500 pixels a side, about 60 kB each: blurred colours and noise."""
    g = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{i}.jpg" for i in range(n)]
        for path in paths:
            width, height = (int(side) for side in g.integers(300, 501, 2))
            coarse = Image.fromarray(g.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
            smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
            noisy = smooth + g.normal(0, 8, (height, width, 1))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(Path(folder, path), quality=90)
        yield Path(folder), paths


def encode_rows(pocket: backbone.Backbone, quick: bool) -> Iterator[Row]:
    """The embedded tower, where decoding counts, for one view and two; RN50's shape, where the tower does."""
    plain = state.build(pocket.spec).eval().to(pocket.device)  # in the memory layout that open_clip builds
    n, repeats = (64, 1) if quick else (400, 5)
    saved = "pixels travel as bytes, channels-last"
    yield encode_row(pocket, plain, "encode, pocket-rn", n, (EVAL,), repeats, saved)
    both = f"both from one decode and resize, {saved}"
    yield encode_row(pocket, plain, "encode, pocket-rn, image and mirrored", n, (EVAL, FLIP), repeats, both)
    if not quick:
        model = open_clip.create_model("RN50-quickgelu").eval().requires_grad_(False).to(pocket.device)
        spec = replace(pocket.spec, name="RN50", arch="RN50", image_size=224)
        large = backbone.Backbone(spec, deepcopy(model), pocket.device, pocket.dtype)
        yield encode_row(
            large, model, "encode, RN50", 32, (EVAL,), 3, f"{saved}, batch norms and pool folded", 8
        )


def encode_row(
    tower: backbone.Backbone,
    model: Any,
    title: str,
    n: int,
    views: Sequence[str],
    repeats: int,
    saved: str,
    batch: int = 64,
) -> Row:
    """``n`` files to the ``pooled`` features of ``views``; ``model`` is the tower as open_clip builds it.

    Ours encodes as ``bench run`` does, into a store on disk, and reads it. Theirs keeps features in memory,
    and reads the files once for every view with as many worker processes as there are cores.
    """
    cores = ratios_device.cores()
    how = tower.spec.preprocess
    transform = open_clip.image_transform(tower.image_size, is_train=False, mean=how.mean, std=how.std)
    number, features = count(), {}
    with photographs(n) as (root, paths), tempfile.TemporaryDirectory() as stores:
        data: Any = SimpleNamespace(stored_as="d" * 64, source=FolderSource(root))

        def ours() -> None:
            store = FeatureStore(Path(stores, str(next(number))))
            encode(tower, data, [Wanted(paths, {view: [POOLED] for view in views})], store)
            of = keys(tower, data)
            features["ours"] = torch.cat(
                [torch.from_numpy(store.read(of(POOLED, view), paths)) for view in views]
            )

        def plain() -> None:
            parts = []
            with torch.no_grad():
                for view in views:
                    loader = DataLoader(
                        Files(root, paths, transform, view == FLIP), batch_size=batch, num_workers=cores
                    )
                    parts += [model.encode_image(x_BCHW.to(tower.device)) for x_BCHW in loader]
            features["plain"] = torch.cat(parts).cpu()

        times = interleaved({"ours": ours, "plain": plain}, repeats)
    same = float(F.cosine_similarity(features["ours"].float(), features["plain"]).min())
    assert same > 0.9999, f"the features differ: cosine {same:.6f}"
    speed = {name: n * len(views) / statistics.median(seconds) for name, seconds in times.items()}
    note = f"{n} JPEG files, {speed['ours']:.0f} images/s against {speed['plain']:.0f}: {saved}"
    more = {"images_per_second": speed["ours"], "baseline_images_per_second": speed["plain"]}
    against = f"DataLoader ({cores} workers) + encode_image"
    return row(title, against, times["ours"], times["plain"], False, False, note, least=1.5, more=more)
