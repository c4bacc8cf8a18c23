"""Inner names of the program that measuring has to reach; whoever renames one mends this file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.clip import towers
from bench.features import forward
from bench.interface import points
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


def passed(tower: Any, pixels_BHWC: np.ndarray, taps: Sequence[str]) -> dict[str, Tensor]:
    """A batch of pixels as encoding sends it through a tower, copies and checks included."""
    return forward.forward(tower, pixels_BHWC, taps, len(pixels_BHWC))
