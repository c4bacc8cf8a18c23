"""A tower and a dataset small enough to count every image.

Worker processes import this file, so its top imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from bench.errors import BenchError
from bench.lazy import torch


@dataclass(frozen=True)
class NoiseSource:
    """Noise keyed by the path; each opening writes one line to ``log``, from whatever process it is in.

    Names that begin with ``broken`` and ``missing`` cannot be read, ``deadly`` ends the process, ``once``
    only the first time.
    """

    log: Path
    side: int = 40

    def open(self, path: str) -> Image.Image:
        with self.log.open("a") as file:
            file.write(f"{path} {'torch' if 'torch' in sys.modules else 'light'}\n")
        if path.startswith("broken"):
            raise BenchError(f"cannot read the image {path}: it is broken")
        if path.startswith("deadly") or (path.startswith("once") and self.opened().count(path) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if path.startswith("missing"):
            raise FileNotFoundError(path)
        seed = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4])
        return Image.fromarray(
            np.random.default_rng(seed).integers(0, 256, (self.side, self.side + 7, 3), np.uint8)
        )

    def opened(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def torch_seen(self) -> bool:
        return any(line.endswith(" torch") for line in self.log.read_text().splitlines())


@dataclass
class TinyTower:
    """Two taps from two fixed random products, 16-pixel images; counts the rows that pass through it."""

    scale: float = 1.0
    size: int = 16
    rows: int = 0
    calls: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        preprocess = SimpleNamespace(
            mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), interpolation="bicubic", resize_mode="shortest"
        )
        self.spec: Any = SimpleNamespace(
            name="tiny",
            arch="Tiny-1/x",
            digest="a" * 64,
            image_size=self.size,
            preprocess=preprocess,
            dtype="float32",
        )
        self.device, self.dtype = torch.device("cpu"), torch.float32
        draw = torch.Generator().manual_seed(0)
        self.weight_DT = torch.randn(3 * self.size, 12, generator=draw)

    def encode_images(self, x_BCHW: Any, taps: Sequence[str]) -> dict[str, Any]:
        self.rows += len(x_BCHW)
        self.calls.append((len(x_BCHW), tuple(taps)))
        dense_BTD = x_BCHW.permute(0, 2, 1, 3).flatten(2) @ self.weight_DT * self.scale
        return {"dense": dense_BTD, "pooled": dense_BTD.mean(1), "pixels": x_BCHW}


def dataset(folder: Path, stored_as: str = "d" * 64) -> Any:
    """Something with a name in the store and a source, as encoding needs it."""
    return SimpleNamespace(stored_as=stored_as, source=NoiseSource(folder / "opened.log"))


class WideTower(TinyTower):
    """RN50-shaped dense features (49 x 2048 an image), at the cost of a mean."""

    def encode_images(self, x_BCHW: Any, taps: Sequence[str]) -> dict[str, Any]:
        return {"dense": x_BCHW.mean((2, 3))[:, :1, None].expand(-1, 49, 2048)}


class GreySource:
    """64-pixel images of one colour, made from a numeric path."""

    def open(self, path: str) -> Image.Image:
        return Image.new("RGB", (64, 64), (int(path) % 200,) * 3)
