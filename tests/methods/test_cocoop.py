"""CoCoOp agrees with an independent step, and its prompts depend on the image (protocol 9)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.interface import Facts, Task
from tests.methods import support
from tests.methods.support import StandIn, batch_of, drive, make_task

COCOOP = support.method("cocoop")
NAMES = ("tabby_cat", "pizza", "art nouveau lamp")


@pytest.fixture(scope="module")
def task() -> Task:
    backbone = StandIn(text=support.tiny_tower([n.replace("_", " ") for n in NAMES], C=32), scale=20.0)
    raw_PC = backbone.encode_text([n.replace("_", " ") for n in NAMES])
    return make_task(COCOOP, torch.tensor([0, 1, 2]), raw_PC, classnames=NAMES, scale=20.0, backbone=backbone)


@pytest.fixture(scope="module")
def start(task: Task) -> dict[str, torch.Tensor]:
    return COCOOP.init(task, COCOOP.prepare(task), task.settings, torch.Generator().manual_seed(5))


class Reference(nn.Module):
    """Written from the text of protocol 9 alone: modules, one prompt at a time, all 77 tokens."""

    def __init__(self, tower: Any, start: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.tower = tower
        self.ctx = nn.Parameter(start["ctx"].clone())
        self.meta = nn.Sequential(nn.Linear(32, 2), nn.ReLU(), nn.Linear(2, 16)).double()
        weights = [start["w1_HC"], start["b1_H"], start["w2_DH"], start["b2_D"]]
        for p, given in zip(self.meta.parameters(), weights, strict=True):
            p.data.copy_(given)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = []
        for f in F.normalize(images, dim=-1):
            context = self.ctx + self.meta(f)
            logits = []
            for name in NAMES:
                ids = self.tower.tokenize([f"a photo of a {name.replace('_', ' ')}."])
                tokens = self.tower.embed(ids)[0]
                prompt = torch.cat([tokens[:1], context, tokens[5:]])[None]
                end = torch.tensor([ids[0].tolist().index(49407)])
                # A second, longer row keeps the tower from cutting the first one at its end token.
                raw = self.tower.encode(torch.cat([prompt, prompt]), torch.cat([end, torch.tensor([76])]))[0]
                logits.append(20.0 * f @ F.normalize(raw, dim=0))
            rows.append(torch.stack(logits))
        return torch.stack(rows)


@pytest.mark.parametrize(("replicas", "size"), [(1, 1), (1, 3), (2, 1)])
def test_steps_equal_an_independent_program(
    task: Task, start: dict[str, torch.Tensor], replicas: int, size: int
) -> None:
    g = torch.Generator().manual_seed(7)
    batches = [
        (torch.randn(size, 32, generator=g, dtype=torch.float64), torch.arange(i, i + size) % 3)
        for i in range(3)
    ]
    trace = drive(
        COCOOP,
        task,
        [batch_of(x, y, i) for i, (x, y) in enumerate(batches)],
        start,
        epochs=10,
        replicas=replicas,
    )
    reference = Reference(task.backbone.text, start)
    optimiser = torch.optim.SGD(reference.parameters(), lr=0.002, momentum=0.9, weight_decay=5e-4)
    names = ("ctx", "w1_HC", "b1_H", "w2_DH", "b2_D")
    for i, (x, y) in enumerate(batches):
        optimiser.param_groups[0]["lr"] = [
            1e-5,
            0.002,
            0.001 * (1 + torch.cos(torch.tensor(torch.pi / 10).double()).item()),
        ][i]
        loss = F.cross_entropy(reference(x), y)
        optimiser.zero_grad()
        loss.backward()
        assert trace.losses[i]["loss"] == pytest.approx(loss.item(), rel=1e-11)
        for name, p in zip(names, reference.parameters(), strict=True):
            assert p.grad is not None
            torch.testing.assert_close(trace.grads[i][name], p.grad, rtol=1e-9, atol=1e-12)
        optimiser.step()
        for name, p in zip(names, reference.parameters(), strict=True):
            torch.testing.assert_close(trace.params[i][name], p.detach(), rtol=1e-9, atol=1e-12)


def test_every_image_has_its_own_prompts(
    task: Task, start: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image's logits depend neither on the rest of a call nor on its cuts, but on its own direction."""
    from bench.methods import cocoop

    consts = COCOOP.prepare(task)
    x = torch.randn(7, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = COCOOP.logits(start, consts, {"pooled": x}, task.settings)
    monkeypatch.setattr(cocoop, "PROMPTS", 6)  # two images a pass
    torch.testing.assert_close(COCOOP.logits(start, consts, {"pooled": x}, task.settings), whole)
    one = torch.cat([COCOOP.logits(start, consts, {"pooled": row[None]}, task.settings) for row in 3.0 * x])
    torch.testing.assert_close(one, whole)
    fixed = {**start, **{name: torch.zeros_like(start[name]) for name in ("w2_DH", "b2_D")}}
    base = support.method("coop").logits({"ctx": start["ctx"]}, consts, {"pooled": x}, task.settings)
    torch.testing.assert_close(COCOOP.logits(fixed, consts, {"pooled": x}, task.settings), base)
    assert float((whole - base).abs().max()) > 1e-3


def test_recipe_and_start(task: Task, start: dict[str, torch.Tensor]) -> None:
    facts = Facts(16, 1000, 16000, 1000, "imagenet", "vit", "paper")
    recipe = COCOOP.recipe(support.resolving.resolve(COCOOP, "paper", "imagenet", {}), facts)
    assert (recipe.epochs, recipe.streams["image"].batch, recipe.schedule.name) == (
        10,
        1,
        "dassl",
    ) and COCOOP.note
    words = task.backbone.text.embed(task.backbone.text.tokenize(["a photo of a"]))[0, 1:5]
    assert torch.equal(start["ctx"], words)
    assert {k: tuple(p.shape) for k, p in start.items() if k != "ctx"} == {
        "w1_HC": (2, 32),
        "b1_H": (2,),
        "w2_DH": (16, 2),
        "b2_D": (16,),
    }
    settings = support.resolving.resolve(COCOOP, "quick", "default", {})
    short = COCOOP.recipe(settings, Facts(16, 60, 960, 60, "default", "rn", "quick"))
    assert (short.steps, short.epochs, short.schedule.name) == (200, None, "cosine")
    tiny = COCOOP.recipe(settings, Facts(1, 10, 10, 10, "default", "rn", "quick"))
    assert (tiny.steps, tiny.epochs, tiny.schedule.name) == (None, 10, "dassl")
