"""Ask a method for logits, and check what it gives.

Legend: B images, K classes of the dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.interface import Consts, Features, Method, Params
from bench.plan.cells import Planned
from bench.train import pure


def of(fit: Planned, params: Params, consts: Consts, features: Features, values: Mapping[str, Any]) -> Tensor:
    """Return the logits (B, K) of a fitted method for some images.

    Raises BenchError if the method returns no finite logits (B, K), or writes into what it was given.
    """
    return given(fit.method, len(fit.dataset.classnames), params, consts, features, values)


def given(
    method: Method, K: int, params: Params, consts: Consts, features: Features, values: Mapping[str, Any]
) -> Tensor:
    """Return the logits (B, K) of a method with fitted tensors and constants. Raises BenchError as ``of``."""
    B = len(next(iter(features.values())))
    with pure.call(method, "logits", params=params, constants=consts, features=features):
        logits_BK = method.logits(params, consts, features, deepcopy(dict(values)))
    _require(method, logits_BK, B, K)
    if not torch.isfinite(logits_BK).all():
        why = "its training diverged, or a setting is out of range; try smaller ones"
        raise BenchError(f"{method.name} gives logits that are not finite: {why}")
    return logits_BK


def _require(method: Method, logits: object, B: int, K: int) -> None:
    """Raise BenchError if ``logits`` is no floating-point tensor (B, K)."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        what = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise BenchError(f"logits of {method.name} gives {what}, not a tensor of floating numbers")
    if tuple(logits.shape) != (B, K):
        raise BenchError(
            f"logits of {method.name} has shape {tuple(logits.shape)} for {B} images and {K} classes, "
            f"not {(B, K)}"
        )
