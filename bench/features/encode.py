"""Encode each view of each image that a run needs once, and put its features into the store.

Features that are too big to keep are not stored: ``stream`` yields the same values while they are computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError
from bench.features.forward import Encoded, Images, Tower, encoded, keys
from bench.features.key import FeatureKey, feature_key
from bench.features.store import FeatureStore
from bench.features.wanted import KeyOf, Piece, Wanted, outstanding
from bench.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EncodeReport", "Wanted", "encode", "feature_key", "in_pieces", "keys", "stream", "stream_views"]

Progress = Callable[[int, int], None]  # called with (done, total)


@dataclass(frozen=True)
class EncodeReport:
    """The work of an ``encode`` call: images decoded, image x view passes through the tower, wall seconds."""

    images: int
    encodes: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Return image x view passes per second; 0 if there was nothing to do."""
        return self.encodes / self.seconds if self.encodes else 0.0


def encode(
    tower: Tower,
    dataset: Images,
    wanted: Sequence[Wanted],
    store: FeatureStore,
    *,
    workers: int | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
) -> EncodeReport:
    """Encode all features that ``wanted`` names and that the store lacks, and put them into the store.

    ``workers`` is the number of processes that decode (0 stands for a thread of this process, None for a
    number by the amount of work). ``batch`` is the number of rows per forward pass, which is part of the
    features' key (None stands for 32, and for 256 on CUDA). ``progress(done, total)`` counts image x view
    passes from 0 on; it is not called if there is nothing to do. Peak memory does not grow with the number of
    images. Raises BenchError for an unreadable image, a full disk, or features that half precision cannot
    hold. What was finished before the error stays.
    """
    began, key_of = time.perf_counter(), keys(tower, dataset, batch)
    pieces = outstanding(wanted, store, key_of)
    total, done = sum(piece.encodes for piece in pieces), 0
    room = _DiskCheck(store, pieces, key_of)
    if progress and total:
        progress(0, total)
    with closing(encoded(tower, dataset.source, pieces, workers, batch, home=True)) as passes:
        for number, results in groupby(passes, key=lambda result: result.piece):
            with closing(_stored(results, pieces[number], store, key_of, room)) as counts:
                for rows in counts:
                    done += rows
                    if progress:
                        progress(done, total)
    return EncodeReport(sum(len(piece.paths) for piece in pieces), done, time.perf_counter() - began)


def _stored(
    results: Iterator[Encoded], piece: Piece, store: FeatureStore, key_of: KeyOf, room: _DiskCheck
) -> Generator[int]:
    """Write one piece, a shard for each view and tap, and yield how many rows each result brought."""
    started = time.perf_counter()
    with ExitStack() as stack:
        writers = {
            (view, tap): stack.enter_context(store.writer(key_of(tap, view), piece.paths))
            for view, taps in piece.views
            for tap in taps
        }

        def write(result: Encoded, rows: Mapping[str, np.ndarray]) -> None:
            for tap, array in rows.items():
                writers[result.view, tap].write(result.start, array)

        # A thread writes and hashes one batch while the next goes through the tower. Leaving the stack waits
        # for the thread before it closes the writers.
        thread = stack.enter_context(ThreadPoolExecutor(1))
        last: Future[None] | None = None
        for result in results:
            rows = {tap: tensor.numpy() for tap, tensor in result.taps.items()}
            room.check(rows)
            if last:
                last.result()
            last = thread.submit(write, result, rows)
            yield len(next(iter(rows.values())))
        if last:
            last.result()
        for writer in writers.values():
            writer.images_per_second = round(piece.encodes / (time.perf_counter() - started), 1)


def stream(
    tower: Tower,
    dataset: Images,
    paths: Sequence[str],
    view: str,
    taps: Collection[str],
    *,
    workers: int | None = None,
    batch: int | None = None,
) -> Generator[tuple[int, dict[str, Tensor]]]:
    """Encode images without storing features; yield (start, tap -> float16 tensor (b, ...)) in their order.

    The tensors are on the tower's device, and their values are those that the store would hold. A path that
    is named twice is encoded twice.
    """
    with closing(stream_views(tower, dataset, paths, {view: taps}, workers=workers, batch=batch)) as parts:
        for start, _, features in parts:
            yield start, features


def stream_views(
    tower: Tower,
    dataset: Images,
    paths: Sequence[str],
    views: Mapping[str, Collection[str]],
    *,
    workers: int | None = None,
    batch: int | None = None,
) -> Generator[tuple[int, str, dict[str, Tensor]]]:
    """Yield (start, view, features) like ``stream``, for several views of the same images.

    Each image is decoded once.
    """
    piece = Piece(tuple(paths), tuple((view, tuple(sorted(taps))) for view, taps in views.items()))
    with closing(encoded(tower, dataset.source, [piece], workers, batch)) as passes:
        for result in passes:
            yield result.start, result.view, result.taps


def in_pieces(parts: Iterable[Tensor], rows: int) -> Iterator[tuple[int, Tensor]]:
    """Yield consecutive rows as (start, tensor) in pieces of ``rows`` rows, whatever the sizes of the parts.

    The last piece may have fewer rows.
    """
    held: list[Tensor] = []
    start = n = 0
    for part in parts:
        held.append(part)
        n += len(part)
        if n >= rows:
            whole = torch.cat(held)
            for first in range(0, n - rows + 1, rows):
                yield start, whole[first : first + rows]
                start += rows
            held, n = [whole[n - n % rows :]], n % rows
    if n:
        yield start, torch.cat(held)


class _DiskCheck:
    """A check of the disk.

    It happens when a tap's shape is first known, before any row of the tap is written.
    """

    def __init__(self, store: FeatureStore, pieces: Sequence[Piece], key_of: KeyOf) -> None:
        self._store = store
        self._due: dict[str, list[tuple[FeatureKey, int]]] = {}
        for piece in pieces:
            for view, taps in piece.views:
                for tap in taps:
                    self._due.setdefault(tap, []).append((key_of(tap, view), len(piece.paths)))

    def check(self, rows: Mapping[str, np.ndarray]) -> None:
        """Raise BenchError if the disk has too little space for all rows of the taps that are new here."""
        need = sum(
            self._store.disk_need(key, n, rows[tap].shape[1:])
            for tap in rows
            for key, n in self._due.pop(tap, ())
        )
        if need and need > (free := self._store.free()):
            raise BenchError(
                f"the features need {need / 1e6:,.1f} MB in {self._store.root}, "
                f"where {free / 1e6:,.1f} MB are free: "
                "pass --cache DIR on a larger disk, or clear old features with `bench cache clear`"
            )
