"""Compute Smooth Grad-CAM++ at the dense map (Omeiza et al. 2019; Grad-CAM++: Chattopadhay et al. 2018).

Legend: N noisy copies of one image, T tokens, P grid positions, D tower width, S positions a side.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bench.clip.backbone import Backbone

COPIES = 16  # noisy copies that the gradients are averaged over
NOISE = 0.1  # standard deviation of their noise, as a share of the image's range


def noisy(
    tower: Backbone, x_CHW: Tensor, copies: int = COPIES, noise: float = NOISE, seed: int = 0
) -> Tensor:
    """Return the tap ``dense`` (N, T, D) of ``copies`` copies of one normalised image with Gaussian noise.

    ``noise`` is the standard deviation as a share of the image's range. With noise 0 and one copy this is
    Grad-CAM++ without smoothing.
    """
    generator = torch.Generator().manual_seed(seed)
    deviation = noise * float(x_CHW.max() - x_CHW.min())
    shifts = torch.randn((copies, *x_CHW.shape), generator=generator).to(x_CHW)
    return tower.encode_images(x_CHW + deviation * shifts, ["dense"])["dense"]


def heat(score: Callable[[Tensor], Tensor], clean_TD: Tensor, noisy_NTD: Tensor, positions: slice) -> Tensor:
    """Return the heat map (S, S) of a class score (N,) as a function of dense tokens (N, T, D).

    The map is not negative. First, second and third powers of the gradient are averaged over the noisy
    copies, as the second and third derivatives of exp(score) are; the activations are those of the clean
    image. ``positions`` selects the tokens that are grid positions.
    """
    x_NTD = noisy_NTD.detach().float().requires_grad_(True)
    (g_NTD,) = torch.autograd.grad(score(x_NTD).sum(), x_NTD)
    g_NPD, a_PD = g_NTD[:, positions].double(), clean_TD[positions].detach().double()
    g1_PD, g2_PD, g3_PD = (g_NPD.pow(k).mean(0) for k in (1, 2, 3))
    # The denominator keeps only positive activations and third powers. Negative gradients get no weight below
    # anyway; their share of noise, or a ViT's negative activations, could make the denominator zero or
    # negative and so invert a map. Otherwise the formula is as published.
    below_PD = 2 * g2_PD + a_PD.relu().sum(0) * g3_PD.relu()
    alpha_PD = torch.where(below_PD > 0, g2_PD / below_PD.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    weight_D = (alpha_PD * g1_PD.relu()).sum(0)
    map_P = (a_PD @ weight_D).relu()
    side = math.isqrt(len(map_P))
    return torch.unflatten(map_P, 0, (side, side)).to(clean_TD.dtype)


def grid_of(tower: Backbone) -> slice:
    """Select the tokens of the tap ``dense`` that are grid positions.

    They are all of a ResNet's, and all but CLS of a ViT's.
    """
    return slice(0, None) if tower.family == "rn" else slice(1, None)
