"""Decide which rows enter which step, and in what order, by the batch rules of ``bench.recipe``.

The rules are those of protocol 3.1, 12.3, 13.1, 15.2 and 18.4. Orders come from CPU streams keyed by (seed,
purpose, epoch), so any epoch can be rebuilt on its own and no order depends on the device. This module
imports no torch.

Legend: N images, V views of each, B batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bench.recipe import check_legal, layout_named, rule_named, steps_per_epoch
from bench.train import rng

FEW = 1024  # up to this many rows, sorting all is faster than finding the first ones


def cycle(rule: str, n_rows: int, batch: int, n_images: int | None = None) -> tuple[int, ...]:
    """Return the sizes of batches that repeat from epoch to epoch.

    The result is (size,) if all batches have one size, else (size, size of an epoch's last batch, steps of an
    epoch). Two runs with equal cycles have batches of equal size at every step, even if they draw from
    different numbers of rows.
    """
    each = steps_per_epoch(rule, n_rows, batch, n_images)
    rule = rule_named(rule)
    if rule == "full":
        return (n_rows,)
    size = min(batch, n_rows)
    last = n_rows - (each - 1) * batch if rule == "epoch-keep" else size
    return (size,) if last == size else (size, last, each)


def order(
    seed: int, purpose: Sequence[str | int], epoch: int, n_rows: int, take: int | None = None
) -> np.ndarray:
    """Return the first ``take`` entries (None: all), int64, of an epoch's random order of ``n_rows`` rows.

    Rows are sorted by raw PCG64 words. The definition of PCG64 fixes these words for every version of NumPy,
    while shuffling routines may change.
    """
    words = np.random.PCG64(rng.key(seed, *purpose, "epoch", epoch)).random_raw(n_rows)
    if take is None or take >= n_rows or n_rows <= FEW:
        return np.argsort(words, kind="stable").astype(np.int64, copy=False)[:take]
    chosen = np.argpartition(words, take)[:take]
    return chosen[np.argsort(words[chosen])].astype(np.int64, copy=False)


def index_batches(
    rule: str,
    n_rows: int,
    batch: int,
    *,
    key: tuple[int, *tuple[str | int, ...]],
    steps: int | None = None,
    epochs: int | None = None,
    n_images: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Return the batches of a run of ``steps`` steps or ``epochs`` epochs.

    Each is (0-based epoch, row indices int64). ``key`` is (seed, purpose...). Equal keys give equal orders;
    the streams of one run differ in purpose. ``n_images`` is the N of rule ``images``. Raises BenchError at
    the call for an unknown rule or an illegal batch.
    """
    assert (steps is None) != (epochs is None), "give the run's length as steps or as epochs"
    rule = rule_named(rule)
    seed, *purpose = key
    check_legal(rule, n_rows, batch, str(purpose[-1]) if purpose else "this stream")
    each = steps_per_epoch(rule, n_rows, batch, n_images)
    total = steps if steps is not None else (epochs or 0) * each
    return _batches(rule, n_rows, batch, each, total, seed, purpose)


def _batches(
    rule: str, n_rows: int, batch: int, each: int, total: int, seed: int, purpose: list[str | int]
) -> Iterator[tuple[int, np.ndarray]]:
    everything = np.arange(n_rows, dtype=np.int64)
    for step in range(total):
        epoch, b = divmod(step, each)
        if rule == "full":
            yield epoch, everything
            continue
        if b == 0:
            rows = order(seed, purpose, epoch, n_rows, each * batch)
        yield epoch, rows[b * batch : (b + 1) * batch]


def locate(
    layout: str, rows: np.ndarray, epoch: int, n_images: int, n_views: int, first: int = 0
) -> np.ndarray:
    """Return where a batch's rows lie (int64) in the view-major pool of V*N rows.

    Row v*N + i is view v of image i. Layout ``union``: the row itself. Layout ``per-epoch``: image ``row``
    under view (epoch + first) mod V; ProLIP's bank starts at ``first`` = 1 (protocol 18.6). The image is the
    result modulo N in both layouts.
    """
    if layout_named(layout) == "union":
        return rows
    return rows + ((epoch + first) % n_views) * n_images


@dataclass(frozen=True)
class Drawing:
    """Everything that decides which positions a stream draws, as for ``index_batches`` and ``locate``."""

    rule: str
    n_rows: int
    batch: int
    key: tuple[int, *tuple[str | int, ...]]
    layout: str
    n_images: int
    n_views: int
    first: int = 0


class Order:
    """The positions of one stream's batches in its pool, for many steps at once.

    Tests compare them with those of ``index_batches`` and ``locate``. Raises BenchError for an unknown rule
    or an illegal batch.
    """

    def __init__(self, drawing: Drawing) -> None:
        self.drawing, self.rule, n_rows = drawing, rule_named(drawing.rule), drawing.n_rows
        check_legal(self.rule, n_rows, drawing.batch, str(drawing.key[-1]))
        self.each = steps_per_epoch(self.rule, n_rows, drawing.batch, drawing.n_images)
        self.batch = n_rows if self.rule == "full" else drawing.batch
        self.most = min(n_rows, self.each * self.batch)  # rows of an epoch
        self.epoch, self.rows = -1, np.empty(0, np.int64)  # the epoch that was drawn last

    def sizes(self, first: int, last: int) -> np.ndarray:
        """Return the number of rows of each step from ``first`` to before ``last``, int64."""
        at = np.arange(first, last) % self.each * self.batch
        return np.minimum(self.batch, self.most - at)

    def positions(self, first: int, last: int) -> np.ndarray:
        """Return the positions (int64) of the steps from ``first`` to before ``last``, in their order."""
        parts = []
        while first < last:
            epoch, b = divmod(first, self.each)
            end = min(last, (epoch + 1) * self.each)
            parts.append(self._of(epoch)[b * self.batch : (b + end - first) * self.batch])
            first = end
        return np.concatenate(parts)

    def _of(self, epoch: int) -> np.ndarray:
        """Return the positions of an epoch."""
        if epoch != self.epoch:
            at, (seed, *purpose) = self.drawing, self.drawing.key
            if self.rule == "full":
                rows = np.arange(at.n_rows, dtype=np.int64)
            else:
                rows = order(seed, purpose, epoch, at.n_rows, self.most)
            self.rows = locate(at.layout, rows, epoch, at.n_images, at.n_views, at.first)
            self.epoch = epoch
        return self.rows
