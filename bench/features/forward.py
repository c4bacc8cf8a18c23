"""From images to features: blocks of pixels through the tower, every view and tap of an image together.

Shapes: B batch, n images of a block, V views of each, H W pixels, C colours.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
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


def keys(tower: Tower, dataset: Images) -> KeyOf:
    """(tap, view) -> the key of a dataset's features as this tower makes them (device, precision)."""
    dtype = str(tower.dtype).removeprefix("torch.")
    return lambda tap, view: feature_key(
        tower.spec, dataset.stored_as, tap, view, dtype, tower.device.type, source=dataset.source
    )


def encoded(
    tower: Tower, source: ImageSource, pieces: Sequence[Piece], workers: int | None, batch: int | None
) -> Generator[Encoded]:
    """Decode, render and encode pieces in order, each image once. See ``encode`` for the arguments."""
    if not any(piece.encodes for piece in pieces):
        return
    batch = batch or (256 if tower.device.type == "cuda" else 32)
    threads = 1
    if workers is None:
        workers, threads = default_workers(sum(piece.encodes for piece in pieces))
    plan: list[tuple[int, int, Block]] = []  # piece, index of the block's last image + 1, block
    for number, piece in enumerate(pieces):
        names = tuple(view for view, _ in piece.views)
        step = max(1, min(batch, _BLOCK) // len(names))
        for start in range(0, len(piece.paths), step):
            paths = piece.paths[start : start + step]
            plan.append((number, start + len(paths), Block(paths, names)))
    ahead = 1 + batch // _BLOCK
    decoded = rendered(
        source, _input_format(tower.spec), (block for _, _, block in plan), workers, ahead, threads
    )
    with closing(decoded):
        waiting: list[np.ndarray] = []
        for (number, end, block), pixels in zip(plan, decoded, strict=True):
            waiting.append(pixels)
            n = sum(map(len, waiting))
            full = (n + len(block.paths)) * len(block.views) > batch
            if full or end == len(pieces[number].paths):
                pixels_nVHWC, waiting = np.concatenate(waiting), []
                for view, features in _views_of(tower, pieces[number], pixels_nVHWC, batch):
                    yield Encoded(number, end - n, view, features)


def _views_of(
    tower: Tower, piece: Piece, pixels_nVHWC: np.ndarray, batch: int
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    n = len(pixels_nVHWC)
    # All views share a pass with all taps: deeper taps need the shallower ones anyway, and batches stay full.
    taps = sorted({tap for _, of_view in piece.views for tap in of_view})
    rows = pixels_nVHWC.swapaxes(0, 1).reshape(-1, *pixels_nVHWC.shape[2:])
    parts = [forward(tower, rows[i : i + batch], taps) for i in range(0, len(rows), batch)]
    joined = {tap: torch.cat([part[tap] for part in parts]) for tap in taps} if len(parts) > 1 else parts[0]
    for i, (view, of_view) in enumerate(piece.views):
        yield view, {tap: joined[tap][i * n : (i + 1) * n] for tap in of_view}


def forward(tower: Tower, pixels_BHWC: np.ndarray, taps: Sequence[str]) -> dict[str, Tensor]:
    """One pass through the tower: uint8 pixels to float16 features, tap -> (B, ...), on the tower's device.

    Raises BenchError when a value is not finite or beyond half precision.
    """
    how, device = tower.spec.preprocess, tower.device
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
    return {tap: raw[tap].to(torch.float16, copy=True) for tap in taps}


def _input_format(spec: BackboneSpec) -> InputFormat:
    return InputFormat(spec.image_size, spec.preprocess.interpolation, spec.preprocess.resize_mode)
