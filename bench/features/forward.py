"""From images to features: blocks of pixels through the tower, every view and tap of an image together.

The tower gets batches of one shape, the last one filled up. The shape of a batch decides how libraries divide
a product, and with it last bits; a row's place and its neighbours decide nothing. A row is therefore the same
in whatever company it is encoded, and however often a run was stopped in between.

Shapes: B batch, n images of a block, V views of each, H W pixels, C colours.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from bench.errors import BenchError
from bench.features.decode import Block, InputFormat, default_workers, rendered
from bench.features.key import feature_key
from bench.features.wanted import KeyOf, Piece
from bench.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from bench.clip.backbone import BackboneSpec
    from bench.data.dataset import ImageSource

_BLOCK = 32  # rendered views per block: what travels between processes at a time (5 MB at 224 pixels)
_BATCH = {"cuda": 256}  # rows per pass, by type of device; feature keys hold it
_BATCH_ELSEWHERE = 32
_HALF_MAX = 65504.0


class Tower(Protocol):
    """What encoding needs of a backbone."""

    @property
    def spec(self) -> BackboneSpec: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def encode_images(self, x_BCHW: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """Raw features of normalised pixels, one tensor (B, ...) for each tap."""
        ...


class Images(Protocol):
    """What encoding needs of a dataset."""

    @property
    def stored_as(self) -> str: ...

    @property
    def source(self) -> ImageSource: ...


class Encoded(NamedTuple):
    """Features of one view of consecutive images: rows ``start`` on of a piece, tap -> (n, ...) float16."""

    piece: int
    start: int
    view: str
    taps: dict[str, Tensor]


def batch_of(tower: Tower) -> int:
    """How many rows pass through the tower at a time; all batches have as many."""
    return _BATCH.get(tower.device.type, _BATCH_ELSEWHERE)


def keys(tower: Tower, dataset: Images, batch: int | None = None) -> KeyOf:
    """(tap, view) -> the key of a dataset's features as this tower makes them (device, precision, batch)."""
    dtype, rows = str(tower.dtype).removeprefix("torch."), batch or batch_of(tower)
    return lambda tap, view: feature_key(
        tower.spec, dataset.stored_as, tap, view, dtype, tower.device.type, rows, source=dataset.source
    )


def encoded(
    tower: Tower, source: ImageSource, pieces: Sequence[Piece], workers: int | None, batch: int | None
) -> Generator[Encoded]:
    """Decode, render and encode pieces in order, each image once. See ``encode`` for the arguments."""
    if not any(piece.encodes for piece in pieces):
        return
    batch = batch or batch_of(tower)
    threads = 1
    if workers is None:
        workers, threads = default_workers(sum(piece.encodes for piece in pieces))
    plan: list[tuple[int, Block]] = []  # piece, block
    for number, piece in enumerate(pieces):
        names = tuple(view for view, _ in piece.views)
        step = max(1, min(batch, _BLOCK) // len(names))
        for start in range(0, len(piece.paths), step):
            plan.append((number, Block(piece.paths[start : start + step], names)))
    ahead = 1 + batch // _BLOCK
    decoded = rendered(
        source, _input_format(tower.spec), (block for _, block in plan), workers, ahead, threads
    )
    with closing(decoded):
        numbered = zip((number for number, _ in plan), decoded, strict=True)
        for number, blocks in groupby(numbered, key=lambda pair: pair[0]):
            yield from _of_piece(tower, number, pieces[number], (pixels for _, pixels in blocks), batch)


def _of_piece(
    tower: Tower, number: int, piece: Piece, blocks: Iterable[np.ndarray], batch: int
) -> Iterator[Encoded]:
    # All views share a pass with all taps: deeper taps need the shallower ones anyway. Rows are all views of
    # the first image, then all of the second: those of one view are V apart, and of consecutive images.
    taps, V = sorted({tap for _, of_view in piece.views for tap in of_view}), len(piece.views)
    for first, rows_RHWC in _batches(blocks, batch):
        passed = forward(tower, rows_RHWC, taps, batch)
        for i, (view, of_view) in enumerate(piece.views):
            image = -((i - first) // V)  # the first whose row is not before ``first``
            at = image * V + i - first
            if at < len(rows_RHWC):
                yield Encoded(number, image, view, {tap: passed[tap][at::V] for tap in of_view})


def _batches(blocks: Iterable[np.ndarray], batch: int) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks (n, V, H, W, C) as (number of the first row, rows): ``batch`` rows each, in the end fewer."""
    waiting: list[np.ndarray] = []
    first = n = 0
    for pixels_nVHWC in blocks:
        waiting.append(pixels_nVHWC.reshape(-1, *pixels_nVHWC.shape[2:]))
        n += len(waiting[-1])
        if n >= batch:
            rows = np.concatenate(waiting)
            for start in range(0, n - batch + 1, batch):
                yield first, rows[start : start + batch]
                first += batch
            waiting = [rows[n - n % batch :]]
            n %= batch
    if n:
        yield first, np.concatenate(waiting)


def forward(tower: Tower, pixels_BHWC: np.ndarray, taps: Sequence[str], batch: int) -> dict[str, Tensor]:
    """One pass through the tower: uint8 pixels to float16 features, tap -> (B, ...), on the tower's device.

    Fewer than ``batch`` images are filled up with the last one, whose copies are dropped afterwards. Raises
    BenchError when a value is not finite or beyond half precision.
    """
    how, device, n = tower.spec.preprocess, tower.device, len(pixels_BHWC)
    if n < batch:
        pixels_BHWC = np.concatenate([pixels_BHWC, np.repeat(pixels_BHWC[-1:], batch - n, 0)])
    mean, std = (
        torch.tensor(v, dtype=torch.float32, device=device).view(3, 1, 1) for v in (how.mean, how.std)
    )
    # TF32 would make float32 features depend on the GPU's generation.
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        # channels-last in memory as it is
        x_BCHW = torch.from_numpy(pixels_BHWC).to(device).permute(0, 3, 1, 2)
        raw = tower.encode_images(x_BCHW.float().div_(255).sub_(mean).div_(std), taps)
        bounds = {tap: torch.stack(torch.aminmax(raw[tap].float())).tolist() for tap in taps}
    for tap, (low, high) in bounds.items():
        if not (low >= -_HALF_MAX and high <= _HALF_MAX):  # not a number fails both
            raise BenchError(
                f"tap '{tap}' of {tower.spec.name} reaches {low:.3g} .. {high:.3g}, "
                "which half precision cannot hold: check the weights file, or compute with --precision fp32"
            )
    # Copied outside inference mode, so that a method may train on streamed features.
    return {tap: raw[tap][:n].to(torch.float16, copy=True) for tap in taps}


def _input_format(spec: BackboneSpec) -> InputFormat:
    return InputFormat(spec.image_size, spec.preprocess.interpolation, spec.preprocess.resize_mode)
