"""Turn images into features: blocks of pixels pass the tower, with all views and taps of an image together.

All batches have the same shape; the last one is filled up with copies of its last row. The reason: the shape
of a batch decides how libraries divide a product, and so the last bits of the result. A row's place in the
batch and its neighbours do not. So an image gets the same features in whatever company it is encoded, and
however often a run was stopped.

Shapes: B batch, n images of a block, V views of each, H W pixels, C colours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from bench.errors import BenchError
from bench.features import lanes
from bench.features.decode import Block, InputFormat, default_workers, rendered
from bench.features.key import feature_key
from bench.features.wanted import KeyOf, Piece
from bench.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from bench.clip.backbone import BackboneSpec
    from bench.data.dataset import ImageSource

_BLOCK = 32  # rendered views per block, which travels between processes at once (5 MB at 224 pixels)
_BATCH = {"cuda": 256}  # rows per pass, by type of device; the number is part of feature keys
_BATCH_ELSEWHERE = 32
_HALF_MAX = 65504.0


class Tower(Protocol):
    """The part of a backbone that encoding needs."""

    @property
    def spec(self) -> BackboneSpec: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def encode_images(self, x_BCHW: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """Return raw features of normalised pixels, one tensor (B, ...) for each tap."""
        ...


class Images(Protocol):
    """The part of a dataset that encoding needs."""

    @property
    def stored_as(self) -> str: ...

    @property
    def source(self) -> ImageSource: ...


class Encoded(NamedTuple):
    """Features of one view of consecutive images.

    They are the rows of a piece from ``start`` on, tap -> (n, ...) float16.
    """

    piece: int
    start: int
    view: str
    taps: dict[str, Tensor]


def batch_of(tower: Tower) -> int:
    """Return how many rows pass through the tower at a time. All batches have as many."""
    return _BATCH.get(tower.device.type, _BATCH_ELSEWHERE)


def keys(tower: Tower, dataset: Images, batch: int | None = None) -> KeyOf:
    """Return a function from (tap, view) to the key of a dataset's features.

    The key says how this tower makes them (device, precision, batch).
    """
    dtype, rows = str(tower.dtype).removeprefix("torch."), batch or batch_of(tower)
    return lambda tap, view: feature_key(
        tower.spec, dataset.stored_as, tap, view, dtype, tower.device.type, rows, source=dataset.source
    )


def encoded(
    tower: Tower,
    source: ImageSource,
    pieces: Sequence[Piece],
    workers: int | None,
    batch: int | None,
    home: bool = False,
) -> Generator[Encoded]:
    """Decode, render and encode pieces in order, each image once. See ``encode`` for the arguments.

    With ``home`` the features are copied off the tower's device. On a GPU the features of a batch come after
    the next batch has been started.
    """
    if not any(piece.encodes for piece in pieces):
        return
    batch = batch or batch_of(tower)
    threads = 1
    if workers is None:
        workers, threads = default_workers(sum(piece.encodes for piece in pieces), tower.device.type)
    plan: list[tuple[int, Block]] = []  # pairs (number of the piece, block)
    for number, piece in enumerate(pieces):
        names = tuple(view for view, _ in piece.views)
        step = max(1, min(batch, _BLOCK) // len(names))
        for start in range(0, len(piece.paths), step):
            plan.append((number, Block(piece.paths[start : start + step], names)))
    ahead = 1 + batch // _BLOCK
    decoded = rendered(
        source, _input_format(tower.spec), (block for _, block in plan), workers, ahead, threads
    )
    normalised, lane = normaliser(tower), lanes.of(tower.device)
    under_way: deque[tuple[_Batch, Callable[[], dict[str, Tensor]]]] = deque()
    with closing(lane), closing(decoded):
        numbered = zip((number for number, _ in plan), decoded, strict=True)
        for each in _batches(numbered, batch, lane):
            # All views share a pass with all taps, because deeper taps need the shallower ones anyway.
            taps = sorted({tap for _, of_view in pieces[each.piece].views for tap in of_view})
            under_way.append((each, _begun(tower, normalised(lane.up()), each.rows, taps, lane, home)))
            if len(under_way) > lane.ahead:
                yield from _by_view(pieces, *under_way.popleft())
        while under_way:
            yield from _by_view(pieces, *under_way.popleft())


class _Batch(NamedTuple):
    """The first ``rows`` rows of a batch, which are those of a piece from ``first`` on.

    The rest of the batch are copies of the last row.
    """

    piece: int
    first: int
    rows: int


def _by_view(
    pieces: Sequence[Piece], batch: _Batch, features: Callable[[], dict[str, Tensor]]
) -> Iterator[Encoded]:
    """Yield the features of a batch view by view."""
    # The rows are all views of the first image, then all views of the second. So the rows of one view are V
    # apart, and belong to consecutive images.
    passed, views = features(), pieces[batch.piece].views
    V = len(views)
    for i, (view, of_view) in enumerate(views):
        image = -((i - batch.first) // V)  # the first image whose row of this view lies in the batch
        at = image * V + i - batch.first
        if at < batch.rows:
            yield Encoded(batch.piece, image, view, {tap: passed[tap][at::V] for tap in of_view})


def _batches(numbered: Iterable[tuple[int, np.ndarray]], batch: int, lane: lanes.Lanes) -> Iterator[_Batch]:
    """Fill the lane's buffers with the rows of blocks (n, V, H, W, C).

    The last buffer of a piece is filled up with copies.
    """
    for piece, blocks in groupby(numbered, key=lambda pair: pair[0]):
        first = n = 0
        for _, pixels_nVHWC in blocks:
            rows = pixels_nVHWC.reshape(-1, *pixels_nVHWC.shape[2:])
            while len(rows):
                if n == 0:
                    buffer = lane.buffer((batch, *rows.shape[1:]))
                some, rows = rows[: batch - n], rows[batch - n :]
                buffer[n : n + len(some)] = some
                n += len(some)
                if n == batch:
                    yield _Batch(piece, first, n)
                    first, n = first + n, 0
        if n:
            buffer[n:] = buffer[n - 1]
            yield _Batch(piece, first, n)


def normaliser(tower: Tower) -> Callable[[Tensor], Tensor]:
    """Return a function that turns uint8 (B, H, W, C) into the tower's input (B, C, H, W).

    The result is channels-last in memory, as the pixels come. Whole lines are scaled at once, because
    broadcasting a mean of three numbers costs several times as much.
    """
    how, W = tower.spec.preprocess, tower.spec.image_size
    mean_X, std_X = (
        torch.tensor(v, dtype=torch.float32).repeat(W).to(tower.device) for v in (how.mean, how.std)
    )

    def normalised(pixels_BHWC: Tensor) -> Tensor:
        x_BHX = pixels_BHWC.flatten(2).float().div_(255).sub_(mean_X).div_(std_X)
        return x_BHX.view(pixels_BHWC.shape).permute(0, 3, 1, 2)

    return normalised


def raw_features(tower: Tower, x_BCHW: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
    """Return the tower's features of normalised pixels, in the tower's precision and on its device."""
    # With TF32, float32 features would depend on the GPU's generation.
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        return tower.encode_images(x_BCHW, taps)


def _begun(
    tower: Tower, x_BCHW: Tensor, n: int, taps: Sequence[str], lane: lanes.Lanes, home: bool
) -> Callable[[], dict[str, Tensor]]:
    """Begin a pass. Return a function that waits for the features of the first ``n`` rows and checks them."""
    raw = raw_features(tower, x_BCHW, taps)
    with torch.inference_mode():
        bounds_T2 = torch.stack([torch.stack(torch.aminmax(raw[tap])).float() for tap in taps])
    # Copied outside inference mode, so that a method may train on streamed features.
    halves = [raw[tap][:n].to(torch.float16, copy=True) for tap in taps]
    landed = lane.down([bounds_T2, *(halves if home else ())])

    def features() -> dict[str, Tensor]:
        bounds, *rows = landed()
        for tap, (low, high) in zip(taps, bounds.tolist(), strict=True):
            if not (low >= -_HALF_MAX and high <= _HALF_MAX):  # written so that NaN is refused too
                raise BenchError(
                    f"tap '{tap}' of {tower.spec.name} reaches {low:.3g} .. {high:.3g}, which half precision "
                    "cannot hold: check the weights file, or compute with --precision fp32"
                )
        return dict(zip(taps, rows if home else halves, strict=True))

    return features


def _input_format(spec: BackboneSpec) -> InputFormat:
    return InputFormat(spec.image_size, spec.preprocess.interpolation, spec.preprocess.resize_mode)
