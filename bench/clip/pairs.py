"""Multiply matrices image by image, where replicas share the images.

Under ``torch.func.vmap`` a plain product would copy the images once per replica. Here the replicas join the
heads as rows of one larger product instead, and the images stay where they are.

Legend: H rows per image (heads, or heads x replicas), B images, M inner and N outer width, R replicas.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Pair(torch.autograd.Function):
    """The product of ``pair``, with rules for gradients and for vmap."""

    @staticmethod
    def forward(y_HBM: Tensor, z_BMN: Tensor) -> Tensor:
        return torch.bmm(y_HBM.transpose(0, 1), z_BMN).transpose(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_HBN: Tensor) -> tuple[Tensor | None, Tensor | None]:
        y_HBM, z_BMN = ctx.saved_tensors
        to_y = pair(grad_HBN, z_BMN.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        to_z = (
            torch.bmm(y_HBM.permute(1, 2, 0), grad_HBN.transpose(0, 1)) if ctx.needs_input_grad[1] else None
        )
        return to_y, to_z

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], y: Tensor, z: Tensor) -> tuple[Tensor, int]:
        R = info.batch_size
        if in_dims[1] is None:
            assert in_dims[0] is not None
            y_RHBM = y.movedim(in_dims[0], 0)
            out = pair(y_RHBM.reshape(-1, *y_RHBM.shape[2:]), z)
            return out.reshape(R, -1, *out.shape[1:]), 0
        z_RBMN = z.movedim(in_dims[1], 0)
        y_HRBM = y.unsqueeze(1).expand(-1, R, -1, -1) if in_dims[0] is None else y.movedim(in_dims[0], 1)
        out = pair(y_HRBM.flatten(1, 2), z_RBMN.flatten(0, 1))
        return torch.unflatten(out, 1, (R, -1)), 1


def pair(y_HBM: Tensor, z_BMN: Tensor) -> Tensor:
    """Multiply (H, B, M) rows by each image's own (M, N) matrix, giving (H, B, N).

    The result is differentiable, also under vmap.
    """
    out: Tensor = _Pair.apply(y_HBM, z_BMN)
    return out
