"""CLIP-LoRA agrees with its reference run; its update is zero at first and can be merged (protocol 18.2)."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.clip.blocks import quick_gelu
from bench.interface import PIXELS, Params, cosine_logits, cross_entropy, unit
from bench.train import loop, optim, rng, schedule
from tests.methods import support
from tests.methods.support import batch_of, close, fixture

LORA = support.method("clip-lora")
MODULE = importlib.import_module("bench.methods.clip_lora")


def block_of(f: dict[str, Any]) -> Any:
    params = {f"blocks.0.{k[2:]}": v for k, v in f.items() if k.startswith("w.")}
    return MODULE.Blocks(params, "blocks", 1, int(f["num_heads"]), quick_gelu, 1e-5)


def test_three_steps_and_the_merge_of_the_reference() -> None:
    f = fixture("clip_lora")
    blocks, r, p = block_of(f), int(f["r"]), float(f["dropout_p"])
    gamma = r**-0.5
    assert gamma == pytest.approx(float(f["scaling"]), rel=1e-12)
    params = {f"{part}.{m}": f[f"{m}_init.{part}"][None].clone() for part in MODULE.PARTS for m in "AB"}
    recipe = LORA.recipe({**LORA.settings, "steps_per_shot": int(f["total_steps"])}, _facts())
    rates = schedule.rates(recipe.schedule, float(f["lr_base"]), recipe.steps)
    assert recipe.schedule.options["floor"] == float(f["eta_min"])
    optimiser = optim.make(recipe.optim, params, [float(f["weight_decay"])])
    keep = torch.from_numpy(f["dropout_keep"]).transpose(2, 3) != 0
    logits, losses = [], []
    for i in range(3):
        live = {name: x[0].clone().requires_grad_() for name, x in params.items()}
        x_NTD = MODULE.two_branch(
            blocks, f["tokens"][i].transpose(0, 1), live, 0, gamma, keep[i], 1 / (1 - p)
        )
        logits.append(cosine_logits(x_NTD[:, 0], f["text_features"], 100.0))
        losses.append(cross_entropy(logits[-1], f["labels"][i]))
        grads = dict(zip(live, torch.autograd.grad(losses[-1], list(live.values())), strict=True))
        if i == 1:
            for name, grad in grads.items():
                close(grad, f[f"grad_step1.{name}"])
        rate_R = torch.tensor([float(rates[i])], dtype=torch.float64)
        optimiser.step({name: grad[None] for name, grad in grads.items()}, rate_R)
    close(torch.stack(logits).detach(), f["logits_steps"])
    close(torch.stack(losses).detach(), f["loss"])
    close(torch.from_numpy(rates[:3]), f["lr_used"])
    final = {name: x[0] for name, x in params.items()}
    for name, x in final.items():
        close(x, f[f"final.{name}"])
    whole = MODULE.merged(blocks.params["blocks.0.attn.in_proj_weight"], final, gamma)
    for part, weight in zip(MODULE.PARTS, whole.chunk(3), strict=True):
        close(weight, f[f"merged.{part}.weight"])
    x_NTD = MODULE.merged_block(blocks, f["tokens"][0].transpose(0, 1), final, 0, gamma)
    close(cosine_logits(x_NTD[:, 0], f["text_features"], 100.0), f["logits_merged"])


def _facts() -> Any:
    from bench.interface import Facts

    return Facts(1, 5, 5, 5, "default", "vit", "paper")


class Tower:
    """A random CLIP of two small double-precision transformers, behind the names that the method reads."""

    def __init__(self) -> None:
        from open_clip.model import CLIP

        from bench.clip.backbone import Backbone, BackboneSpec

        config: dict[str, Any] = {
            "embed_dim": 8,
            "vision_cfg": {"layers": 2, "width": 16, "head_width": 8, "patch_size": 16, "image_size": 32},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
            "quick_gelu": True,
        }
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = CLIP(**config)
        spec = BackboneSpec("tiny", "tiny", "", Path("tiny"), "", "vit", True, "quick", 32, config=config)
        self.backbone = Backbone(spec, model, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def tower() -> Any:
    return Tower().backbone


NAMES = ("tabby_cat", "pizza", "art nouveau lamp")


@pytest.fixture(scope="module")
def task(tower: Any) -> Any:
    raw_PC = tower.encode_text([f"a photo of a {n.replace('_', ' ')}." for n in NAMES])
    labels = torch.arange(3)
    return support.make_task(
        LORA, labels, raw_PC, classnames=NAMES, backbone=tower, scale=tower.scale, preset="quick"
    )


def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=rng.generator(1, "images"))


def test_before_training_it_is_zero_shot(tower: Any, task: Any) -> None:
    consts = LORA.prepare(task)
    params = LORA.init(task, consts, task.settings, rng.generator(1, "init"))
    f_BC = tower.encode_images(images())["pooled"]
    logits_BK = LORA.logits(params, consts, {PIXELS: images()}, task.settings)
    torch.testing.assert_close(logits_BK, task.scale * unit(f_BC) @ task.W_KC.T, rtol=1e-4, atol=1e-4)


def trained(params: Params) -> Params:
    g = rng.generator(2, "away from the start")
    return {name: p + 0.1 * torch.randn(p.shape, generator=g) for name, p in params.items()}


def test_without_dropout_training_sees_what_evaluation_sees(task: Any) -> None:
    consts = LORA.prepare(task)
    params = trained(LORA.init(task, consts, task.settings, rng.generator(1, "init")))
    y_B = torch.tensor([0, 1, 2])
    loss = LORA.losses(params, consts, batch_of(images(), y_B), {**task.settings, "dropout": 0.0})["loss"]
    logits_BK = LORA.logits(params, consts, {PIXELS: images()}, task.settings)
    torch.testing.assert_close(loss, cross_entropy(logits_BK, y_B), rtol=1e-4, atol=1e-4)


def test_every_block_of_both_towers_learns(task: Any) -> None:
    consts = LORA.prepare(task)
    params = LORA.init(task, consts, task.settings, rng.generator(1, "init"))
    assert len(params) == 2 * (2 + 2) * 3
    assert sum(p.numel() for p in params.values()) == (2 + 2) * 6 * task.settings["rank"] * 16
    live = {name: p.requires_grad_() for name, p in trained(params).items()}
    loss, again = (
        LORA.losses(live, consts, batch_of(images(), torch.tensor([0, 1, 2])), task.settings)["loss"]
        for _ in range(2)
    )
    assert float(loss.detach()) == float(again.detach())
    # Queries and keys of the first text block act on one token of all prompts alike: tiny gradients, not 0.
    grads = torch.autograd.grad(loss, list(live.values()))
    assert all(float(g.abs().max()) > 0 for g in grads)


def as_floats(shape: tuple[int, ...], p: float, noise: torch.Generator) -> torch.Tensor:
    """Dropout as a factor of single precision for every number: 1 / (1 - p) where it stays, else 0."""
    n = math.prod(shape)
    words = torch.empty(-(-n // 8), dtype=torch.int64).random_(-(2**63), None, generator=noise)
    return (words.view(torch.uint8)[:n] >= round(256 * p)).view(shape).float() / (1.0 - p)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.25])
def test_dropout_by_bytes_is_dropout_by_factors_to_the_last_bit(
    task: Any, p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    consts, settings = LORA.prepare(task), {**task.settings, "dropout": p}
    params = loop.stack([trained(LORA.init(task, consts, settings, rng.generator(1, "init")))] * 2)

    def step() -> tuple[torch.Tensor, Params]:
        batch = batch_of(images(), torch.tensor([0, 1, 2]))
        return loop.gradients(LORA, consts, params, batch, settings, {})

    loss_R, grads = step()
    keeps: list[torch.Tensor] = []

    def by_factors(h_NTD: torch.Tensor, keep_NTD: torch.Tensor, grown: float) -> torch.Tensor:
        keeps.append(keep_NTD)
        return keep_NTD.float() / (1.0 - p) * h_NTD

    monkeypatch.setattr(MODULE, "thinned", by_factors)
    wanted_R, wanted = step()
    assert torch.equal(loss_R, wanted_R)
    for name, g in wanted.items():
        assert torch.equal(grads[name], g) and bool(g.abs().sum() > 0), name
    half = len(keeps) // 2
    for replica in (keeps[:half], keeps[half:]):
        noise = rng.generator(0, "noise", 0)
        for i in range(0, half, 3):
            factors = as_floats((3, *replica[i].shape), p, noise)
            assert torch.equal(torch.stack(replica[i : i + 3]), factors > 0)
    share = torch.cat([keep.flatten() for keep in keeps]).float().mean()
    assert float(share) == pytest.approx(1.0 - p, abs=0.03)
