"""ProGrad agrees with its reference run, in its projection, start and templates too (protocol 10, 21.7)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.interface import Facts, Task
from tests.methods import support
from tests.methods.support import StandIn, batch_of, close, drive, make_task, score

PROGRAD = support.method("prograd")


def file_and_task() -> tuple[dict[str, Any], Task]:
    f = support.fixture("prograd_conflict")
    backbone = StandIn(text=support.text_tower("prograd_conflict"), scale=float(f["logit_scale"]))
    names = tuple(str(n) for n in f["class_names"])
    raw_PC = backbone.encode_text([n.replace("_", " ") for n in names])
    labels = torch.arange(5).repeat(16)
    return f, make_task(
        PROGRAD,
        labels,
        raw_PC,
        classnames=names,
        scale=backbone.scale,
        backbone=backbone,
        recipe_as="oxford_pets",
    )


@pytest.mark.parametrize("replicas", [1, 2])
def test_four_steps_of_the_reference(replicas: int) -> None:
    f, task = file_and_task()
    assert task.settings["template"] == str(f["template"])
    consts = PROGRAD.prepare(task)
    close(PROGRAD.init(task, consts, task.settings, torch.Generator())["ctx"], f["ctx_reference_init"], 1e-12)
    batches = [
        batch_of(x, y, i) for i, (x, y) in enumerate(zip(f["image_features"], f["labels"], strict=True))
    ]
    teacher = (
        task.scale
        * batches[1]["image"].x
        @ consts["teacher_KC"].T
        / batches[1]["image"].x.norm(dim=1, keepdim=True)
    )
    close(teacher, f["teacher_logits"][1])
    close(score(PROGRAD, task, {"ctx": f["ctx_start"]}, batches[0]["image"].x), f["logits_step0"])
    trace = drive(
        PROGRAD,
        task,
        batches,
        {"ctx": f["ctx_start"]},
        per_epoch=2,
        epochs=200,
        replicas=replicas,
        consts=consts,
    )
    close(trace.grads[0]["ctx"], f["grad_used"])
    close(trace.loss(), f["xe_loss"])
    close(trace.loss("distance"), f["kl_loss"])
    close(torch.tensor(trace.rates, dtype=torch.float64), f["lr"])
    close(trace.of("ctx"), f["ctx_steps"])


def test_the_last_word_stays_frozen_behind_the_context() -> None:
    """ "a type of pet, a photo of a" is 8 words and 9 tokens: the second "a" is no slot."""
    _, task = file_and_task()
    tower, prompts = task.backbone.text, PROGRAD.prepare(task)["prompts"]
    a, of = (tower.embed(torch.tensor(tower.tokenize.encode(w)))[0] for w in ("a", "of"))
    start = PROGRAD.init(task, PROGRAD.prepare(task), task.settings, torch.Generator())["ctx"]
    assert not start[:8].any() and torch.equal(start[15], of)
    assert torch.equal(prompts.base_KLD[:, 17], a.expand(5, -1)) and not prompts.base_KLD[:, 1:17].any()


@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_projection(seed: int, lam: float) -> None:
    """Protocol 21.7: a conflict loses its part along h, agreement is left untouched."""
    generator = torch.Generator().manual_seed(seed)
    g, h = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)

    def combine(g: Tensor, h: Tensor, lam: float) -> Tensor:
        return PROGRAD.combine({"loss": {"ctx": g}, "distance": {"ctx": h}}, {"lam": lam})["ctx"]

    dot = float((g * h).sum())
    combined = combine(g, h, lam)
    if dot >= 0:
        assert torch.equal(combined, g)
    else:
        assert abs(float((combine(g, h, 1.0) * h).sum())) < 1e-12
        torch.testing.assert_close((combined * h).sum().item(), (1 - lam) * dot)
        torch.testing.assert_close(combine(g, 7.0 * h, lam), combined)
        across = g - dot / (h * h).sum() * h
        torch.testing.assert_close(combined - lam * across, (1 - lam) * g)
    assert torch.equal(combine(g, torch.zeros_like(h), lam), g)


def test_the_engine_projects_each_replica_on_its_own() -> None:
    """One replica in conflict beside one that is not: the first is projected, the second is not."""
    from bench.train import loop

    f, task = file_and_task()
    consts, batches = (
        PROGRAD.prepare(task),
        [batch_of(f["image_features"][i], f["labels"][i]) for i in range(4)],
    )
    starts = [{"ctx": f["ctx_start"]}, {"ctx": f["ctx_steps"][3]}]
    points = [{"lr": 0.002, "wd": 5e-4, "lam": 1.0}] * 2
    axes = loop.axes_of(points, PROGRAD.recipe(task.settings, task.facts), torch.device("cpu"), torch.float64)
    together = loop.gradients(PROGRAD, consts, loop.stack(starts), batches[0], task.settings, axes)[1]["ctx"]
    for r, start in enumerate(starts):
        alone = drive(PROGRAD, task, batches[:1], start, consts=consts).grads[0]["ctx"]
        torch.testing.assert_close(together[r], alone, rtol=0.0, atol=1e-12)


def test_published_rows() -> None:
    def recipe(shots: int, row: str) -> Any:
        facts = Facts(shots, 10, 10 * shots, 10, row, "rn", "paper")
        return PROGRAD.recipe(support.resolving.resolve(PROGRAD, "paper", row, {}), facts)

    lam = {
        (n, row): recipe(n, row).grid["lam"]
        for n in (1, 4, 8, 16)
        for row in ("dtd", "eurosat", "oxford_flowers", "food101")
    }
    assert {k for k, v in lam.items() if v == (0.8,)} == {
        (n, r) for n in (8, 16) for r in ("dtd", "eurosat", "oxford_flowers")
    }
    assert set(lam.values()) == {(0.8,), (1.0,)}
    assert recipe(16, "imagenet").epochs == 50 and recipe(16, "dtd").epochs == 200
    assert all(len(recipe(n, "dtd").grid["lr"]) == 1 and recipe(n, "dtd").select == "last" for n in (1, 16))
