"""Decide how many images are scored at once, by what their device holds.

On a processor a slice is small, whatever memory is free: products of one size give the same last digits
everywhere. On a GPU small slices leave most of it idle, so a slice there takes a share of the free memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from bench.errors import short_of_memory

T = TypeVar("T")

PROCESSOR = 64 << 20  # bytes of features in a slice on a processor
GPU = 1 << 30  # the most on a GPU; 16 times the above took a tenth of the time (H200, SAFE at RN50's size)
# Part of the free memory for a slice. By count, a tower that runs on a slice of pixels holds up to 16 times
# its bytes: three tensors of 64 x 112 x 112 an image in RN50's stem, of 197 x 3072 in a ViT-B/16's last
# products.
SHARE = 1 / 32
# Bytes of a lane's features, times replicas, up to which joined lanes are scored in one call. This saves
# calls, but copies for each replica what replicas share. On a processor 0.1 MB took 0.6 of the time and 4 MB
# twice as much (measured). On a GPU a call costs what moving some tens of megabytes does (estimated, until
# somebody measures it by `python -m tests.benchmarks.gpu --only bounds`).
TOGETHER = {"cpu": 256 << 10, "cuda": 64 << 20}


@dataclass
class Limit:
    """The most bytes of features in a slice. It falls when memory does not hold as many.

    A caller that slices again and again keeps one limit, so that memory runs out only once.
    """

    most: int


def most(device: torch.device, free: int | None) -> int:
    """Return how many bytes of features a slice has at most on a device with ``free`` bytes (None: unknown).

    On a GPU this is a power of two, so that runs slice alike although they find a little more or less memory.
    """
    if device.type != "cuda":
        return PROCESSOR
    share = GPU if free is None else int(SHARE * free)
    return min(GPU, max(PROCESSOR, 1 << max(share, 1).bit_length() - 1))


def together(device: torch.device) -> int:
    """Return how many bytes of a lane's features, times replicas, lanes may have to be scored in one call."""
    return TOGETHER.get(device.type, TOGETHER["cpu"])


def row_bytes(shapes: Sequence[Sequence[int]]) -> int:
    """Return the bytes of one image's features in single precision, from their shapes at all taps."""
    return sum(4 * math.prod(shape) for shape in shapes)


def over(rows: int, each: int, limit: Limit, work: Callable[[slice], T]) -> Iterator[T]:
    """Yield what ``work`` returns for consecutive slices of ``rows`` images, none larger than ``limit``.

    ``each``: bytes of an image. A slice that memory does not hold is tried again with half as many images. So
    are the slices after it and those of later calls with this ``limit``, down to the size of a processor's
    slice. A slice of that size raises its error.
    """
    each = max(each, 1)
    size, least = (max(1, most // each) for most in (limit.most, PROCESSOR))
    size, start = min(size, rows), 0
    while start < rows:
        at = slice(start, min(start + size, rows))
        done: tuple[T] | None = None
        try:
            done = (work(at),)
        except (MemoryError, RuntimeError) as error:
            if size <= least or not short_of_memory(error):
                raise
        # Outside the handler: while the error is alive, its traceback holds the tensors that did not fit.
        if done is None:
            size = max(least, -(-size // 2))
            limit.most = size * each
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield done[0]
        start = at.stop
