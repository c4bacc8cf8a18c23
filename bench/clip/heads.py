"""Give the end of an image tower as a pure function of named tensors, which a method may train.

Legend: B batch, T tokens, D tower width, C embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.clip import attnpool, vit_tail
from bench.clip.blocks import Activation, Params
from bench.errors import BenchError


@dataclass(frozen=True)
class PoolingHead:
    """A tower's pooling head and CLIP's own weights for it (protocol 2.1, 2.2).

    ``params`` has CLIP's names: ``positional_embedding``, ``q_proj.weight`` ... for an attention pool (family
    "rn"); ``block.attn.in_proj_weight`` ... ``ln_post.*``, ``proj`` for a transformer's tail (family "vit").
    All calls are differentiable and compute in the parameters' precision (the dense tokens are cast to it).
    They run under ``torch.func.vmap`` over a leading replica axis of the parameters, whether the tokens are
    shared or not.
    """

    family: str
    heads: int
    params: dict[str, Tensor]
    _pooled: Callable[[Params, Tensor], Tensor]
    _preproj: Callable[[Params, Tensor], Tensor]
    _project: Callable[[Params, Tensor], Tensor]
    _all_tokens: Callable[[Params, Tensor], Tensor]

    def __call__(self, params: Params, x_BTD: Tensor) -> Tensor:
        """Return raw image embeddings (B, C) from the tap ``dense`` (B, T, D)."""
        return self._pooled(params, x_BTD)

    def preproj(self, params: Params, x_BTD: Tensor) -> Tensor:
        """Return the tap ``preproj`` (B, D), the vector before the last projection (protocol 18.6)."""
        return self._preproj(params, x_BTD)

    def project(self, params: Params, v_BD: Tensor) -> Tensor:
        """Apply the last projection alone, (B, D) to (B, C). It has a bias for "rn" and none for "vit"."""
        return self._project(params, v_BD)

    def all_tokens(self, params: Params, x_BTD: Tensor) -> Tensor:
        """Return the tap ``tokens`` (B, T, C): the output of every query, the pooled one first
        (protocol 14).
        """
        return self._all_tokens(params, x_BTD)

    def copy(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Return the parameters as fresh tensors of ``dtype``, which may be trained."""
        return {name: p.detach().to(dtype, copy=True) for name, p in self.params.items()}


def attention_pool(params: Params, heads: int) -> PoolingHead:
    """Make the head of a ModifiedResNet from its named tensors."""
    return PoolingHead(
        "rn",
        heads,
        dict(params),
        partial(attnpool.pooled, heads=heads),
        partial(attnpool.preproj, heads=heads),
        attnpool.project,
        partial(attnpool.all_tokens, heads=heads),
    )


def transformer_tail(params: Params, heads: int, activation: Activation, eps: float) -> PoolingHead:
    """Make the head of a VisionTransformer.

    It needs the named tensors, the activation of the MLP, and the epsilon of the LayerNorms.
    """
    settings: dict[str, Any] = {"heads": heads, "activation": activation, "eps": eps}
    return PoolingHead(
        "vit",
        heads,
        dict(params),
        partial(vit_tail.pooled, **settings),
        partial(vit_tail.preproj, **settings),
        vit_tail.project,
        partial(vit_tail.all_tokens, **settings),
    )


def of_tower(visual: Any, family: str) -> PoolingHead:
    """Make the pooling head of an open_clip image tower, with copies of its weights in at least fp32.

    Raises BenchError for a tower whose last step is neither of the two kinds (SigLIP's MAP, timm trunks).
    """
    if family == "rn":
        return attention_pool(_copies(visual.attnpool), visual.attnpool.num_heads)
    if family == "vit":
        block = visual.transformer.resblocks[-1]
        params = _copies(block, "block.") | _copies(visual.ln_post, "ln_post.")
        params["proj"] = _copy(visual.proj)
        return transformer_tail(params, block.attn.num_heads, block.mlp.gelu, block.ln_1.eps)
    raise BenchError(
        "this image tower has no pooling head that can be trained: "
        "choose a backbone with a CLIP ResNet or ViT tower (bench list backbones), "
        "or a method that needs only the image embedding"
    )


def _copies(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}{name}": _copy(p) for name, p in module.named_parameters()}


def _copy(p: Tensor) -> Tensor:
    """Return a detached copy in at least single precision; half precision is too coarse to train in."""
    return p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
