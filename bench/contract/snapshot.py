"""What a value held at one moment, to tell whether anybody changed it since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn


def snapshot(tree: Any, name: str = "") -> dict[str, Any]:
    """Copies by dotted name: all tensors and plain values in containers, data classes and modules."""
    if isinstance(tree, Tensor):
        return {name: tree.detach().clone()}
    if isinstance(tree, nn.Module):
        tree = tree.state_dict()
    elif is_dataclass(tree) and not isinstance(tree, type):
        tree = {f.name: getattr(tree, f.name) for f in fields(tree)}
    if isinstance(tree, Mapping):
        items = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list | tuple):
        items = [(str(i), value) for i, value in enumerate(tree)]
    else:
        return {name: tree} if isinstance(tree, bool | int | float | str) else {}
    copies: dict[str, Any] = {}
    for key, value in items:
        copies |= snapshot(value, f"{name}.{key}" if name else key)
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
