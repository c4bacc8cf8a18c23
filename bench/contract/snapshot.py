"""Snapshots: copies of what a value holds, to find out later whether somebody changed it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.train.pure import leaves


def snapshot(tree: Any, name: str = "") -> dict[str, Any]:
    """Return copies of all tensors and plain values in a tree of containers and modules, by dotted name."""
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
    """Return the first name whose value differs between two snapshots, or an empty string."""
    for name in [*before, *(n for n in after if n not in before)]:
        old, new = before.get(name), after.get(name)
        if isinstance(old, Tensor) and isinstance(new, Tensor):
            if not torch.equal(old, new):
                return name
        elif old is None or old != new:
            return name
    return ""
