"""All taps of an image tower in one forward pass (protocol 2.4).

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
    """How weights and activations of convolutions lie in memory on a type of device.

    By measurement: channels last is several times faster on processors. On an H200 RN50 encodes 3,197 images
    a second channels first in single precision and 2,707 channels last; in halves the tensor cores want
    channels last (as PyTorch's documentation says, not measured here). The layout moves last bits, so a
    change here raises ``features.key.ARITHMETIC``.
    """
    first = device != "cpu" and dtype.itemsize >= torch.float32.itemsize
    return torch.contiguous_format if first else torch.channels_last


def folded(visual: Any) -> Any:
    """A copy of a frozen ResNet tower whose batch norms are folded into the convolutions before them.

    Same outputs but for rounding, without a pass over the activations for each norm. The attention pool is
    shared with the original, not copied.
    """
    visual = deepcopy(visual, {id(visual.attnpool): visual.attnpool})
    for module in list(visual.modules()):
        for (before, conv), (after, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, before, fuse_conv_bn_eval(conv, norm))
                setattr(module, after, nn.Identity())
    return visual


def lowered(visual: Any, family: str, dtype: torch.dtype) -> Any:
    """A copy of a frozen tower in half precision, for taps up to the head.

    Batch norms are folded before rounding: each convolution's weights round once, and no norm rounds its
    statistics.
    """
    if family != "rn":
        return deepcopy(visual).to(dtype)
    visual = folded(visual)
    visual.attnpool = nn.Identity()  # shared with the original, which keeps its precision
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
    """The requested taps of one batch; ``head`` has the tower's pooling weights (None for family "other").

    ``trunk`` runs in the place of the model's own image tower up to the pooling head, in the precision of its
    weights; the tap ``pixels`` stays as it came. ``pooled`` goes through the folded head, which equals the
    tower's own last step at a twentieth of its cost.
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
    layer3 = visual.layer3(visual.layer2(visual.layer1(visual.stem(x_BCHW))))
    by_tap["layer3"] = layer3
    if stop_at_layer3:
        return
    # row-major grid tokens, without their mean
    by_tap["dense"] = visual.layer4(layer3).flatten(2).transpose(1, 2)


def _vit(visual: Any, x_BCHW: Tensor, by_tap: dict[str, Tensor], stop_at_layer3: bool) -> None:
    x_BTD = visual._embeds(x_BCHW)
    for block in visual.transformer.resblocks[:-1]:
        x_BTD = block(x_BTD)
    by_tap["dense"] = x_BTD
