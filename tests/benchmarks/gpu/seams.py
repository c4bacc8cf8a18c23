"""Inner names of the program that measuring has to reach; whoever renames one mends this file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bench.clip import towers
from bench.features import forward, wanted
from bench.interface import EVAL, points
from bench.plan import cost
from bench.run import limits
from bench.train import graphs, loop, select, slices, waves


@contextmanager
def _patched(thing: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(thing, name)
    setattr(thing, name, value)
    try:
        yield
    finally:
        setattr(thing, name, before)


def roofline(device: torch.device) -> cost.Device:
    """What a device reaches in products and copies, measured now."""
    return limits.of(str(device))


def recorder(device: torch.device) -> graphs.Capturer | None:
    """What records steps on a device."""
    return graphs.capturer(device)


@contextmanager
def launched() -> Iterator[None]:
    """Steps are launched operation by operation, none is recorded."""
    with _patched(graphs, "capturer", lambda device: None):
        yield


@contextmanager
def laid_out(form: torch.memory_format) -> Iterator[None]:
    """Towers that are made and used meanwhile keep to one layout, where the program would choose one."""
    with _patched(towers, "layout", lambda device, dtype: form):
        yield


def check(steps: Any, val: select.Labelled, R: int, size: int | None) -> Callable[[], Any]:
    """One validation check of R replicas, in slices of so many bytes (None: of the engine's own size)."""
    values = steps.values(R)
    params = loop.stack([steps.start(v) for v in values])
    settings = {**steps.task.settings, **points(steps.recipe.static)[0]}
    device = val.y.device
    most = size or slices.most(device, waves.own_part(device, 1))
    score = select.scorer(steps.method, steps.recipe, steps.consts, settings, val, most)
    return lambda: score(params, values)


def encoded(tower: Any, pixels_BHWC: np.ndarray, taps: Sequence[str], batches: int) -> None:
    """Encode the same pixels ``batches`` times, without decoding and the store: features are dropped."""
    B = len(pixels_BHWC)

    def rendered(source: Any, form: Any, blocks: Iterable[Any], *how: Any) -> Iterator[np.ndarray]:
        at = 0
        for block in blocks:
            some = pixels_BHWC[at : at + len(block.paths), None]
            assert len(some) == len(block.paths), "a batch is no multiple of a block"
            yield some
            at = (at + len(some)) % B

    piece = wanted.Piece(("",) * (B * batches), ((EVAL, tuple(taps)),))
    with _patched(forward, "rendered", rendered):
        for _ in forward.encoded(tower, None, [piece], 0, B, home=True):  # type: ignore[arg-type]
            pass
