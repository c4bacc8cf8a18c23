"""What a value held at one moment, to tell whether anybody changed it since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.train.pure import leaves


def snapshot(tree: Any, name: str = "") -> dict[str, Any]:
    """Copies by dotted name: all tensors and plain values in containers, data classes and modules."""
    copies: dict[str, Any] = {}
    for at, leaf in leaves(tree, name):
        if isinstance(leaf, Tensor):
            copies[at] = leaf.detach().clone()
        elif isinstance(leaf, nn.Module):
            copies |= snapshot(leaf.state_dict(), at)
        elif isinstance(leaf, bool | int | float | str):
            copies[at] = leaf
    return copies


def differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The first name whose value is not the same in both snapshots, or an empty string."""
    for name in [*before, *(n for n in after if n not in before)]:
        old, new = before.get(name), after.get(name)
        if isinstance(old, Tensor) and isinstance(new, Tensor):
            if not torch.equal(old, new):
                return name
        elif old is None or old != new:
            return name
    return ""
