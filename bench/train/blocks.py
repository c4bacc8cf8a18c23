"""Draw the rows of many steps at once, and move them to the device in one transfer.

A step takes microseconds on a GPU, and so does a transfer. So the positions of all steps until the next
validation check are drawn and moved together, as a block. Features are gathered where they lie.

Legend: B rows of one step, of all streams one after the other; S steps of a block; O orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from bench.train.batches import Order

Sizes = tuple[int, ...]  # rows of each stream in one step

# A block ends after this many rows (8 MB of positions), even before a check: full batches can be large.
MOST = 1 << 20


def blocks(
    orders: Sequence[Order], steps: int, due: Callable[[int], bool], device: torch.device
) -> Iterator[list[tuple[Tensor, Sizes]]]:
    """Yield the steps of a run in blocks, each up to and including the next step that is ``due``.

    A step is (positions (B,) int64 on the device, one order after the other; the number of rows of each
    order).
    """
    first = end = 0
    while first < steps:
        if first == end:
            end = next((step + 1 for step in range(first, steps) if due(step)), steps)
        sizes_SO = np.stack([order.sizes(first, min(end, first + MOST)) for order in orders], 1)
        fits = 1 + int(np.searchsorted(sizes_SO.sum(1).cumsum(), MOST))
        sizes_SO = sizes_SO[:fits]
        yield _moved(orders, first, sizes_SO, device)
        first += len(sizes_SO)


def _moved(
    orders: Sequence[Order], first: int, sizes_SO: np.ndarray, device: torch.device
) -> list[tuple[Tensor, Sizes]]:
    """Return the steps of a block, moved to the device."""
    ends_SO = sizes_SO.cumsum().reshape(sizes_SO.shape)
    # A GPU copies from pinned memory by itself. With other memory the call would wait for all earlier steps.
    held = torch.empty(int(ends_SO[-1, -1]), dtype=torch.int64, pin_memory=device.type == "cuda")
    every = held.numpy()
    rows_of = {order: order.positions(first, first + len(sizes_SO)) for order in dict.fromkeys(orders)}
    for o, order in enumerate(orders):
        n_S = sizes_SO[:, o]
        # what to add to a row's place in this order's own sequence to get its place in the block
        shift_S = ends_SO[:, o] - n_S.cumsum()
        every[np.repeat(shift_S, n_S) + np.arange(n_S.sum())] = rows_of[order]
    parts = torch.split(held.to(device, non_blocking=True), sizes_SO.sum(1).tolist())
    return list(zip(parts, map(tuple, sizes_SO.tolist()), strict=True))
