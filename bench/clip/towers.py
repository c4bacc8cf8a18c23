"""Take all taps of an image tower from one forward pass (protocol 2.4).

Legend: B batch, T tokens, D tower width, C embedding width, h w grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bench.clip import heads

_POOLED = frozenset({"dense", "tokens", "preproj", "pooled"})
TAPS: dict[str, frozenset[str]] = {
    "rn": _POOLED | {"pixels", "layer3"},
    "vit": _POOLED | {"pixels"},
    "other": frozenset({"pooled"}),
}


def layout(device: str, dtype: torch.dtype) -> torch.memory_format:
    """Return the memory layout of the weights and activations of convolutions on a type of device.

    The choice is by measurement. Channels last is several times faster on processors. On an H200 RN50 encodes
    3,197 images a second channels first in single precision, and 2,707 channels last. In half precision the
    tensor cores want channels last (as PyTorch's documentation says; it was not measured here). The layout
    moves last bits, so a change here raises ``features.key.ARITHMETIC``.
    """
    first = device != "cpu" and dtype.itemsize >= torch.float32.itemsize
    return torch.contiguous_format if first else torch.channels_last


def folded(visual: Any) -> Any:
    """Return a copy of a frozen ResNet tower whose batch norms are folded into the convolutions before them.

    The outputs are the same except for rounding, and no norm needs a pass over the activations. The attention
    pool is shared with the original and not copied.
    """
    visual = deepcopy(visual, {id(visual.attnpool): visual.attnpool})
    for module in list(visual.modules()):
        for (before, conv), (after, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, before, fuse_conv_bn_eval(conv, norm))
                setattr(module, after, nn.Identity())
    return visual


def lowered(visual: Any, family: str, dtype: torch.dtype) -> Any:
    """Return a copy of a frozen tower in half precision, for taps up to the head.

    Batch norms are folded before rounding: the weights of each convolution are rounded once, and the
    statistics of norms are not rounded at all.
    """
    if family != "rn":
        return deepcopy(visual).to(dtype)
    visual = folded(visual)
    visual.attnpool = nn.Identity()  # the pool is shared with the original, whose precision must stay
    device = next(visual.parameters()).device.type
    return visual.to(dtype).to(memory_format=layout(device, dtype))


def encode(
    model: Any,
    head: heads.PoolingHead | None,
    family: str,
    x_BCHW: Tensor,
    taps: Sequence[str],
    trunk: Any = None,
) -> dict[str, Tensor]:
    """Return the requested taps of one batch.

    ``head`` has the tower's pooling weights (None for family "other"). ``trunk`` replaces the model's own
    image tower up to the pooling head, in the precision of its weights; the tap ``pixels`` stays as it came.
    ``pooled`` goes through the folded head, which equals the tower's own last step at a twentieth of its
    cost.
    """
    visual = model.visual if trunk is None else trunk
    low_BCHW = x_BCHW.to(next(visual.parameters()).dtype)
    if family != "vit":
        low_BCHW = low_BCHW.contiguous(memory_format=layout(low_BCHW.device.type, low_BCHW.dtype))
    if head is None:
        return {"pooled": model.encode_image(low_BCHW, normalize=False)} if "pooled" in taps else {}
    by_tap: dict[str, Tensor] = {"pixels": x_BCHW}
    if _POOLED & set(taps) or "layer3" in taps:
        run = _resnet if family == "rn" else _vit
        run(visual, low_BCHW, by_tap, stop_at_layer3=not _POOLED & set(taps))
    if {"pooled", "preproj"} & set(taps):
        by_tap["preproj"] = head.preproj(head.params, by_tap["dense"])
        by_tap["pooled"] = head.project(head.params, by_tap["preproj"])
    if "tokens" in taps:
        by_tap["tokens"] = head.all_tokens(head.params, by_tap["dense"])
    return {tap: by_tap[tap] for tap in taps}


def _resnet(visual: Any, x_BCHW: Tensor, by_tap: dict[str, Tensor], stop_at_layer3: bool) -> None:
    """Run a ResNet and put its taps into ``by_tap``."""
    layer3 = visual.layer3(visual.layer2(visual.layer1(visual.stem(x_BCHW))))
    by_tap["layer3"] = layer3
    if stop_at_layer3:
        return
    # The grid tokens, in row-major order, without their mean.
    by_tap["dense"] = visual.layer4(layer3).flatten(2).transpose(1, 2)


def _vit(visual: Any, x_BCHW: Tensor, by_tap: dict[str, Tensor], stop_at_layer3: bool) -> None:
    """Run a ViT up to its last block and put its tap into ``by_tap``."""
    x_BTD = visual._embeds(x_BCHW)
    for block in visual.transformer.resblocks[:-1]:
        x_BTD = block(x_BTD)
    by_tap["dense"] = x_BTD
