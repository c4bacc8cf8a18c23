"""Attention weights reproduce the head's own output; heat maps and correspondence peak where they must."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clip import attnpool, vit_tail
from bench.clip.backbone import Backbone
from bench.clip.blocks import linear, mlp, norm, quick_gelu
from bench.explain import attention, gradcam, stages

FAMILIES = pytest.mark.parametrize("family", ["rn", "vit"])
Towers = Callable[[str], Backbone]


def images(tower: Backbone, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(
        (count, 3, tower.image_size, tower.image_size), generator=generator, dtype=torch.float64
    )


def pooled_with(tower: Backbone, p: dict[str, Tensor], x_BTD: Tensor, a_BHT: Tensor) -> Tensor:
    """The head's output with the given attention weights, from values that are written out."""
    H = tower.head.heads
    if tower.family == "rn":
        v_BTD = linear(attnpool.with_mean(p, x_BTD), p, "v_proj")
    else:
        wv, bv = p["block.attn.in_proj_weight"].chunk(3)[2], p["block.attn.in_proj_bias"].chunk(3)[2]
        v_BTD = F.linear(norm(x_BTD, p, "block.ln_1", 1e-5), wv, bv)
    v_BHTd = v_BTD.unflatten(-1, (H, -1)).transpose(1, 2)
    o_BD = (a_BHT[..., None] * v_BHTd).sum(2).flatten(1)
    if tower.family == "rn":
        return attnpool.project(p, o_BD)
    h_BD = x_BTD[:, 0] + linear(o_BD, p, "block.attn.out_proj")
    h_BD = h_BD + mlp(norm(h_BD, p, "block.ln_2", 1e-5), p, "block.mlp", quick_gelu)
    return vit_tail.project(p, norm(h_BD, p, "ln_post", 1e-5))


@FAMILIES
def test_attention_weights_sum_to_one_and_reproduce_the_output(family: str, tower: Towers) -> None:
    backbone = tower(family)
    p = {name: t.double() for name, t in backbone.head.params.items()}
    x_BTD = backbone.encode_images(images(backbone), ["dense"])["dense"]
    a_BHT = attention.weights(backbone, p, x_BTD)
    assert a_BHT.shape[1:] == (backbone.head.heads, x_BTD.shape[1] + (family == "rn"))
    torch.testing.assert_close(a_BHT.sum(-1), torch.ones_like(a_BHT[..., 0]), rtol=0, atol=1e-12)
    assert (a_BHT.max(-1).values - a_BHT.min(-1).values).max() > 0.01, (
        "flat weights would pass with any mix-up"
    )
    torch.testing.assert_close(
        pooled_with(backbone, p, x_BTD, a_BHT), backbone.head(p, x_BTD), rtol=1e-9, atol=1e-9
    )
    maps_BSS = attention.maps(a_BHT)
    torch.testing.assert_close(maps_BSS.flatten(1).sum(1), torch.ones(len(x_BTD), dtype=torch.float64))
    grid = a_BHT.mean(1)[:, 1:]
    assert maps_BSS.flatten(1).argmax(1).tolist() == grid.argmax(1).tolist()  # row-major


def test_heat_of_a_score_that_looks_at_one_position_peaks_there() -> None:
    generator = torch.Generator().manual_seed(1)
    clean_TD = torch.rand((16, 8), generator=generator)
    noisy_NTD = clean_TD + 0.05 * torch.randn((6, 16, 8), generator=generator)
    weight_D = torch.linspace(0.5, 1.0, 8)
    # What the score looks at is strong there, as Grad-CAM++ weighs channels by their activations.
    clean_TD[9] *= 3

    heat = gradcam.heat(lambda x: (x[:, 9] @ weight_D).exp(), clean_TD, noisy_NTD, slice(0, None))
    assert heat.shape == (4, 4)
    assert divmod(int(heat.argmax()), 4) == (2, 1)
    assert (heat >= 0).all()
    with_cls = torch.cat([torch.zeros(1, 8), clean_TD]), torch.cat([torch.zeros(6, 1, 8), noisy_NTD], 1)
    again = gradcam.heat(lambda x: (x[:, 10] @ weight_D).exp(), *with_cls, slice(1, None))
    torch.testing.assert_close(again, heat)


def test_heat_is_grad_cam_plus_plus_worked_out_by_hand() -> None:
    a_TD = torch.tensor([[1.0, 2.0], [0.0, 1.0], [2.0, 0.0], [1.0, 1.0]])
    w_TD = torch.tensor([[0.5, -1.0], [0.2, 0.3], [-0.4, 0.1], [1.0, 0.0]])
    heat = gradcam.heat(lambda x: (x * w_TD).sum((1, 2)), a_TD, a_TD[None], slice(0, None))
    expected = np.zeros(4)
    for d in range(2):
        # Activations are summed over all positions; the powers of the gradient are each position's own.
        total = sum(float(a) for a in a_TD[:, d])
        below = [2 * float(g) ** 2 + total * float(g) ** 3 for g in w_TD[:, d]]
        alpha = [float(g) ** 2 / b if b else 0.0 for g, b in zip(w_TD[:, d], below, strict=True)]
        weight = sum(al * max(float(g), 0.0) for al, g in zip(alpha, w_TD[:, d], strict=True))
        expected += weight * a_TD[:, d].numpy()
    np.testing.assert_allclose(heat.numpy().ravel(), np.maximum(expected, 0), rtol=1e-5)


def test_heat_keeps_its_sign_where_activations_are_negative() -> None:
    a_TD = -torch.ones((4, 1))
    a_TD[2] = 0.5
    heat = gradcam.heat(lambda x: x[:, 2].sum(1), a_TD, a_TD[None], slice(0, None))
    assert int(heat.argmax()) == 2 and float(heat.max()) > 0


def test_noise_averages_and_repeats(tower: Towers) -> None:
    backbone = tower("rn")
    x_CHW = images(backbone, 1)[0]
    one, two = gradcam.noisy(backbone, x_CHW, 3, 0.2), gradcam.noisy(backbone, x_CHW, 3, 0.2)
    assert torch.equal(one, two) and not torch.equal(one[0], one[1])
    still = gradcam.noisy(backbone, x_CHW, 1, 0.0)
    torch.testing.assert_close(still, backbone.encode_images(x_CHW[None], ["dense"])["dense"])


@FAMILIES
def test_an_image_corresponds_to_itself(family: str, tower: Towers) -> None:
    backbone = tower(family)
    x_BCHW = images(backbone, 1)
    by_stage = stages.stages(backbone, x_BCHW)
    expected = (
        ["layer1", "layer2", "layer3", "layer4"] if family == "rn" else ["block 1", "block 2", "block 3"]
    )
    assert list(by_stage) == expected
    for x_BSSD in by_stage.values():
        side = x_BSSD.shape[1]
        for row, column in ((0, side - 1), (side // 2, 0)):
            map_SS = stages.correspondence(x_BSSD[0], x_BSSD[0], row, column)
            assert divmod(int(map_SS.argmax()), side) == (row, column)
            assert float(map_SS.max()) == pytest.approx(1.0)
    dense = backbone.encode_images(x_BCHW, ["dense"])["dense"]
    if family == "rn":
        torch.testing.assert_close(by_stage["layer4"].flatten(1, 2), dense)
    else:
        torch.testing.assert_close(by_stage["block 2"].flatten(1, 2), dense[:, 1:])
        assert list(stages.stages(backbone, x_BCHW, every=2)) == ["block 1", "block 3"]


def test_cell_of_a_point() -> None:
    assert stages.cell(128, 4, 0, 0) == (0, 0)
    assert stages.cell(128, 4, 127.9, 40) == (1, 3)
