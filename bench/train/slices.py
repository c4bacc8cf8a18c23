"""Decide how many images are scored at once, by the memory of their device.

On a processor a slice is small, whatever memory is free, because products of one size give the same last
digits everywhere. Small slices would leave most of a GPU idle, so a slice there takes a share of the free
memory.
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
# Most bytes of features in a slice on a GPU. With such slices, SAFE on features of RN50's size took a tenth
# of the time that it took with the processor's slices (measured on an H200).
GPU = 1 << 30
# Part of a GPU's free memory that a slice takes. A tower that runs on a slice of pixels holds up to 16 times
# the slice's bytes (calculated): for each image three tensors of 64 x 112 x 112 in RN50's stem, or of
# 197 x 3072 in the last products of a ViT-B/16.
SHARE = 1 / 32
# Joined lanes are scored in one call if a lane's features, times replicas, have at most this many bytes. One
# call saves launches, but copies the features that replicas share for each replica. On a processor one call
# took 0.6 times as long as separate calls for 0.1 MB, and twice as long for 4 MB (measured). On a GPU a call
# costs as much as moving some tens of megabytes. That is an estimate, which
# `python -m tests.benchmarks.gpu --only bounds` can replace.
TOGETHER = {"cpu": 256 << 10, "cuda": 64 << 20}


@dataclass
class Limit:
    """The most bytes of features in a slice. ``over`` lowers it when memory runs out.

    A caller that slices repeatedly keeps one limit, so that memory runs out only once.
    """

    most: int


def most(device: torch.device, free: int | None) -> int:
    """Return the most bytes of features in a slice on a device with ``free`` bytes (None: unknown).

    On a GPU this is a power of two, so that runs use equal slices even if their free memory differs a little.
    """
    if device.type != "cuda":
        return PROCESSOR
    share = GPU if free is None else int(SHARE * free)
    return min(GPU, max(PROCESSOR, 1 << max(share, 1).bit_length() - 1))


def together(device: torch.device) -> int:
    """Return up to how many bytes of a lane's features, times replicas, lanes are scored in one call."""
    return TOGETHER.get(device.type, TOGETHER["cpu"])


def row_bytes(shapes: Sequence[Sequence[int]]) -> int:
    """Return the bytes of one image's features in single precision, from their shapes at all taps."""
    return sum(4 * math.prod(shape) for shape in shapes)


def over(rows: int, each: int, limit: Limit, work: Callable[[slice], T]) -> Iterator[T]:
    """Yield what ``work`` returns for consecutive slices of ``rows`` images, none larger than ``limit``.

    ``each``: bytes of an image. If memory runs out, the slice is tried again with half as many images. The
    slices after it and those of later calls with this ``limit`` are as small. Slices are not halved below the
    size of a processor's slice. If one of that size does not fit, its error is raised.
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
        # This stands outside the handler, because the error's traceback holds the tensors that did not fit.
        if done is None:
            size = max(least, -(-size // 2))
            limit.most = size * each
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield done[0]
        start = at.stop
