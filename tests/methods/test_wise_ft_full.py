"""WiSE-FT of the whole tower agrees with the reference's head-only run and with a plain PyTorch tower."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bench.interface import PIXELS, Facts
from bench.train import rng
from tests.methods.support import StandIn, batch_of, close, drive, fixture, make_task, method


@dataclass
class Tower(StandIn):
    """A backbone whose image tower is any module."""

    model: Any = None


def tower(visual: nn.Module) -> Tower:
    return Tower(model=SimpleNamespace(visual=visual))


def tiny_cnn(C: int = 6) -> nn.Module:
    """Convolution, batch norm with statistics of its own, mean over positions, projection; float64, eval."""
    g = rng.generator(0, "tiny cnn")
    cnn = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, C),
    )
    cnn = cnn.double()
    with torch.no_grad():
        for x in (*cnn.parameters(), cnn[1].running_mean, cnn[1].running_var):
            x.copy_(
                torch.rand(x.shape, generator=g, dtype=torch.float64)
                + (0.1 if x is cnn[1].running_var else -0.5)
            )
    return cnn.eval().requires_grad_(False)


def test_head_on_frozen_features_equals_the_reference() -> None:
    """With a weightless tower the method is the reference's linear head: clipping, warm-up, merge."""
    data = fixture("wise_original")
    wise = method("wise-ft-full")
    overrides = {
        "lr": (float(data["lr"]),),
        "wd": (float(data["weight_decay"]),),
        "warmup": int(data["warmup_steps"]),
        "clip": float(data["clip_norm"]),
        "head": "prompts",
    }
    scale = float(data["logit_scale"])
    task = make_task(
        wise,
        data["labels"],
        data["text_features"],
        scale=scale,
        backbone=tower(nn.Identity()),
        overrides=overrides,
    )
    consts = wise.prepare(task)
    start = wise.init(task, consts, task.settings, rng.generator(1, "init"))
    sequence = [
        batch_of(data["image_features"][b], data["labels"][b], i) for i, b in enumerate(data["batches"])
    ]
    trace = drive(wise, task, sequence, start, consts=consts)
    close(torch.tensor(trace.rates, dtype=torch.float64), data["lr_used"])
    close(trace.loss(), data["loss"])
    close(
        torch.stack([torch.cat([g.flatten() for g in step.values()]).norm() for step in trace.grads]),
        data["grad_norm"],
    )
    close(trace.of("head.weight"), data["weight_steps"])
    close(trace.params[-1]["head.bias"], data["bias_final"])
    for i, alpha in enumerate(data["alphas"].tolist()):
        merged = wise.merged(trace.params[-1], consts, alpha)
        close(merged["head.weight"], data["merged_weight"][i])
        close(merged["head.bias"], data["merged_bias"][i])
        logits = wise.logits(
            trace.params[-1], consts, {PIXELS: data["val_features"]}, {**task.settings, "alpha": alpha}
        )
        close(logits, data["val_logits_merged"][i])
    close(wise.logits(start, consts, {PIXELS: data["val_features"]}, task.settings), data["val_logits_init"])


def test_whole_tower_steps_equal_plain_pytorch() -> None:
    g = rng.generator(1, "wise full")
    x = torch.randn(5, 3, 6, 6, generator=g, dtype=torch.float64)
    y, raw_PC = torch.tensor([0, 1, 2, 0, 1]), torch.randn(3, 6, generator=g, dtype=torch.float64)
    wise, frozen = method("wise-ft-full"), tiny_cnn()
    overrides = {"lr": (1e-2,), "wd": (0.1,), "warmup": 2, "clip": 0.5, "head": "prompts"}
    task = make_task(wise, y, raw_PC, scale=10.0, backbone=tower(frozen), overrides=overrides)
    consts = wise.prepare(task)
    start = wise.init(task, consts, task.settings, rng.generator(1, "init"))
    before = {name: p.clone() for name, p in frozen.state_dict().items()}
    trace = drive(wise, task, [batch_of(x, y, i) for i in range(3)], start, consts=consts)

    cnn, head = tiny_cnn(), nn.Linear(6, 3, dtype=torch.float64)
    cnn.requires_grad_(True)
    head.weight.data, head.bias.data = 10.0 * F.normalize(raw_PC), torch.zeros(3, dtype=torch.float64)
    leaves = [*cnn.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(leaves, lr=1.0, weight_decay=0.1)
    losses = []
    for rate in trace.rates:
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        loss = F.cross_entropy(head(F.normalize(cnn(x))), y)
        loss.backward()
        nn.utils.clip_grad_norm_(leaves, 0.5)
        optimiser.step()
        losses.append(loss.item())
    assert trace.rates[:2] == [5e-3, 1e-2]
    close(trace.loss(), torch.tensor(losses, dtype=torch.float64))
    for name, p in cnn.named_parameters():
        close(trace.params[-1][f"visual.{name}"], p.detach())
    for name, was in before.items():
        assert torch.equal(frozen.state_dict()[name], was), name

    def logits(alpha: float) -> torch.Tensor:
        return wise.logits(trace.params[-1], consts, {PIXELS: x}, {**task.settings, "alpha": alpha})

    close(logits(1.0), head(F.normalize(cnn(x))).detach())
    close(logits(0.0), 10.0 * F.normalize(frozen(x)) @ task.W_KC.T)
    half = {name: (frozen.state_dict()[name] + p.detach()) / 2 for name, p in cnn.named_parameters()}
    f_BC = torch.func.functional_call(frozen, half, (x,))
    close(
        logits(0.5),
        F.normalize(f_BC) @ ((head.weight + 10.0 * task.W_KC) / 2).T.detach() + head.bias.detach() / 2,
    )


def test_every_floating_entry_is_interpolated() -> None:
    wise, cnn = method("wise-ft-full"), tiny_cnn()
    raw_PC = torch.eye(3, 6, dtype=torch.float64)
    task = make_task(wise, torch.arange(3), raw_PC, backbone=tower(cnn), overrides={"head": "prompts"})
    consts = wise.prepare(task)
    tuned = {
        name: p + 1.0 for name, p in wise.init(task, consts, task.settings, rng.generator(1, "init")).items()
    }
    merged = wise.merged(tuned, consts, 0.25)
    entries = {f"visual.{name}" for name, p in cnn.state_dict().items() if p.is_floating_point()}
    assert set(merged) == entries | {"head.weight", "head.bias"} and "visual.1.running_var" in entries
    for name in tuned:
        close(merged[name], consts["start"][name] + 0.25, rtol=1e-12)
    # evaluation mode: CLIP's statistics stay
    assert torch.equal(merged["visual.1.running_var"], cnn[1].running_var)


def test_head_of_eighty_templates() -> None:
    asked: list[str] = []

    class Told(Tower):
        def encode_text(self, prompts: Any) -> torch.Tensor:
            asked.extend(prompts)
            return torch.randn(len(prompts), 6, generator=rng.generator(0, "texts"), dtype=torch.float64)

    wise = method("wise-ft-full")
    told = Told(model=SimpleNamespace(visual=nn.Identity()))
    names = ["cat", "sea_lion"]
    task = make_task(
        wise, torch.arange(2), torch.eye(2, 6, dtype=torch.float64), classnames=names, backbone=told
    )
    start = wise.prepare(task)["start"]
    assert (
        len(asked) == 160
        and "a bad photo of a sea lion." in asked
        and not any("_" in prompt for prompt in asked)
    )
    close(start["head.weight"].norm(dim=1), torch.full((2,), 100.0, dtype=torch.float64), rtol=1e-12)


def test_published_recipe() -> None:
    wise = method("wise-ft-full")
    recipe = wise.recipe(wise.settings, Facts(16, 10, 160, 10, "default", "rn", "paper"))
    assert (
        recipe.epochs == 10
        and recipe.select == "last"
        and recipe.optim is not None
        and recipe.optim.clip_norm == 1.0
    )
    stream = recipe.streams["image"]
    assert (stream.batch, stream.tap, stream.rows, len(stream.views)) == (512, PIXELS, "per-epoch", 10)
    assert stream.views[0] == "rrc(0.9,noflip)#0" and not wise.fuse
    assert wise.micro and wise.presets["quick"]["batch"] <= wise.micro < stream.batch
