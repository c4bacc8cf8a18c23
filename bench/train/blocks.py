"""The rows of many steps at once, moved to the device in one transfer.

A transfer brings what a run needs until its next validation check. A step moves microseconds of work on a
GPU, and a transfer costs as much; so positions travel in blocks, and features are gathered where they lie.

Legend: B rows of one step, all streams one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Sizes = tuple[int, ...]  # rows of each stream in one step

# A block ends after so many rows (8 MB of positions) even without a check, as in full batches of a large set.
MOST = 1 << 20


def blocks(
    sequence: Iterator[Mapping[str, Any]], due: Callable[[int], bool], device: torch.device
) -> Iterator[list[tuple[Tensor, Sizes]]]:
    """The steps of ``sequence`` in blocks, each up to and with the next step that is ``due``.

    ``sequence`` gives positions (b,) int64 of each stream. Each step comes as its positions (B,) on the
    device, streams in the order of the mapping, and their sizes.
    """
    held: list[np.ndarray] = []
    sizes: list[Sizes] = []
    rows = 0
    for step, positions in enumerate(sequence):
        held += positions.values()
        sizes.append(tuple(map(len, positions.values())))
        rows += sum(sizes[-1])
        if due(step) or rows >= MOST:
            yield _moved(held, sizes, device)
            held, sizes, rows = [], [], 0
    if sizes:
        yield _moved(held, sizes, device)


def _moved(held: list[np.ndarray], sizes: list[Sizes], device: torch.device) -> list[tuple[Tensor, Sizes]]:
    every = torch.from_numpy(np.concatenate(held)).to(device)
    return list(zip(torch.split(every, [sum(s) for s in sizes]), sizes, strict=True))
