"""Compute dense features of every stage of an image tower, and the correspondence of images (paper Eq. 1).

Correspondence says where one image shows what another image shows at a given point.

Legend: B batch, S grid positions a side, D width of the stage (differs between stages).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.clip.backbone import Backbone
from bench.errors import BenchError


def stages(tower: Backbone, x_BCHW: Tensor, every: int | None = None) -> dict[str, Tensor]:
    """Return features (B, S, S, D) after each stage of a forward pass over normalised images.

    The stages are ``layer1`` to ``layer4`` of a ResNet, or ``block k`` of a ViT (patch tokens, without CLS).

    ``every``: take every N-th block, where ``every`` is N, counted from the last one. By default N is the
    smallest that gives at most four blocks.
    Raises BenchError for a tower that is neither.
    """
    if tower.family not in ("rn", "vit"):
        raise BenchError(f"{tower.spec.name} has no stages to compare: choose a CLIP ResNet or ViT backbone")
    visual = tower.model.visual
    x = x_BCHW.to(tower.device, tower.dtype)
    by_stage: dict[str, Tensor] = {}
    with torch.no_grad():
        if tower.family == "rn":
            x = visual.stem(x)
            for name in ("layer1", "layer2", "layer3", "layer4"):
                x = getattr(visual, name)(x)
                by_stage[name] = x.permute(0, 2, 3, 1)
            return by_stage
        x = visual._embeds(x)
        blocks = visual.transformer.resblocks
        step = every or math.ceil(len(blocks) / 4)
        for k, block in enumerate(blocks, 1):
            x = block(x)
            if (len(blocks) - k) % step == 0:
                side = math.isqrt(x.shape[1] - 1)
                by_stage[f"block {k}"] = torch.unflatten(x[:, 1:], 1, (side, side))
    return by_stage


def cell(side: int, grid: int, x: float, y: float) -> tuple[int, int]:
    """Return (row, column) of the grid position that covers the point (x, y) of an image of ``side`` px."""
    return min(grid - 1, int(y * grid / side)), min(grid - 1, int(x * grid / side))


def correspondence(first_SSD: Tensor, second_SSD: Tensor, row: int, column: int) -> Tensor:
    """Return the cosine similarity (S, S) of the second image's features to the first's at one position.

    The formula is Eq. 1 of the paper.
    """
    query_D = first_SSD[row, column]
    return torch.cosine_similarity(second_SSD, query_D.expand_as(second_SSD), dim=-1)
