"""CoOp agrees with its reference run, and its prompts are laid out as published (protocol 8, 21.6)."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.interface import Task
from tests.methods import support
from tests.methods.support import StandIn, batch_of, close, drive, make_task, score

NAMES = ("tabby_cat", "Boeing 737-800", "art nouveau lamp", "pizza")
COOP = support.method("coop")
LAID = importlib.import_module("bench.methods.coop")


def text_task(tower: Any, names: tuple[str, ...] = NAMES, shots: int = 2, **overrides: Any) -> Task:
    """A task whose text side is the tower's own; vanilla prompts."""
    backbone = StandIn(text=tower)
    raw_PC = backbone.encode_text([f"a photo of a {n.replace('_', ' ')}." for n in names])
    labels = torch.arange(len(names)).repeat(shots)
    return make_task(COOP, labels, raw_PC, classnames=names, backbone=backbone, overrides=overrides)


@pytest.fixture(scope="module")
def tower() -> Any:
    return support.tiny_tower([f"{n.replace('_', ' ')}" for n in NAMES])


@pytest.mark.parametrize("replicas", [1, 2])
def test_six_steps_of_the_reference(replicas: int) -> None:
    f = support.fixture("coop_end")
    names = tuple(str(n) for n in f["class_names"])
    backbone = StandIn(text=support.text_tower("coop_end"), scale=float(f["logit_scale"]))
    task = make_task(
        COOP,
        f["labels"].flatten(),
        f["text_features"],
        classnames=names,
        scale=backbone.scale,
        backbone=backbone,
        shots=1,
    )
    consts = COOP.prepare(task)
    prompts = consts["prompts"]
    L = int(f["token_ids"].argmax(-1).max()) + 1
    assert prompts.base_KLD.shape[1] == L < 30
    close(prompts.fill(f["ctx_init"]), f["prompts"][:, :L], 1e-12)
    batches = [
        batch_of(x, y, i) for i, (x, y) in enumerate(zip(f["image_features"], f["labels"], strict=True))
    ]
    start = {"ctx": f["ctx_init"]}
    logits = {"before": score(COOP, task, start, batches[0]["image"].x)}
    # One shot of five classes is one short batch an epoch; the file's epochs have two.
    assert COOP.recipe(task.settings, task.facts).epochs == int(f["max_epoch"])
    trace = drive(COOP, task, batches, start, per_epoch=2, epochs=50, replicas=replicas, consts=consts)
    close(logits["before"], f["logits_step0"])
    close(trace.grads[0]["ctx"], f["grad_ctx_step0"])
    close(trace.loss(), f["loss"])
    close(torch.tensor(trace.rates, dtype=torch.float64), f["lr"])
    close(trace.of("ctx"), f["ctx_steps"])
    close(score(COOP, task, trace.params[-1], batches[0]["image"].x), f["logits_after"])


def test_a_run_without_weight_decay_is_noticed() -> None:
    f = support.fixture("coop_end")
    backbone = StandIn(text=support.text_tower("coop_end"), scale=float(f["logit_scale"]))
    task = make_task(
        COOP,
        f["labels"].flatten(),
        f["text_features"],
        classnames=tuple(map(str, f["class_names"])),
        shots=1,
        scale=backbone.scale,
        backbone=backbone,
        overrides={"wd": (0.0,)},
    )
    batches = [
        batch_of(x, y, i) for i, (x, y) in enumerate(zip(f["image_features"], f["labels"], strict=True))
    ]
    trace = drive(COOP, task, batches, {"ctx": f["ctx_init"]}, per_epoch=2, epochs=50)
    assert float((trace.of("ctx") - f["ctx_steps"]).abs().max()) > 1e-7


@pytest.mark.parametrize("class_specific", [False, True])
def test_words_as_context_are_zero_shot(tower: Any, class_specific: bool) -> None:
    """Protocol 21.6: at step 0 the context "a photo of a" gives the vanilla prompts' logits."""
    task = text_task(tower, init="a photo of a", class_specific=class_specific)
    consts = COOP.prepare(task)
    params = COOP.init(task, consts, task.settings, torch.Generator())
    assert params["ctx"].shape == ((4, 4, 16) if class_specific else (4, 16))
    x = torch.randn(5, task.W_KC.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    zero_shot = support.method("zero-shot").logits(
        {}, {"W_KC": task.W_KC, "scale": task.scale}, {"pooled": x}, {}
    )
    close(COOP.logits(params, consts, {"pooled": x}, task.settings), zero_shot, 1e-12)


def test_moving_the_name_keeps_length_and_end(tower: Any) -> None:
    """Protocol 21.6; the same tokens stand in another order, the context keeps its own."""
    at = {p: LAID.lay_out(tower, NAMES, 6, position=p) for p in LAID.POSITIONS}
    ctx = torch.randn(6, 16, dtype=torch.float64)
    filled = {p: prompts.fill(ctx) for p, prompts in at.items()}
    name = tower.embed(torch.tensor([tower.tokenize.encode("art nouveau lamp")]))[0]
    starts = {"front": (1, 1 + len(name)), "middle": (4, 1), "end": (7, 1)}
    for p, (first_name, first_ctx) in starts.items():
        torch.testing.assert_close(at[p].eot_K, at["end"].eot_K)
        assert filled[p].shape == filled["end"].shape
        torch.testing.assert_close(filled[p][2, first_name : first_name + len(name)], name)
        torch.testing.assert_close(filled[p][2, first_ctx : first_ctx + 3], ctx[:3])
        torch.testing.assert_close(filled[p].sum(1), filled["end"].sum(1))
        eot = int(at[p].eot_K[2])
        torch.testing.assert_close(filled[p][2, eot - 1 : eot + 1], filled["end"][2, eot - 1 : eot + 1])
    torch.testing.assert_close(filled["middle"][2, 4 + len(name) : 7 + len(name)], ctx[3:])


def test_gradient_ends_at_the_context(tower: Any) -> None:
    """The tower is frozen, gradients are finite differences, a class's context moves its own logits only."""
    task = text_task(tower, context=3, class_specific=True)
    consts = COOP.prepare(task)
    ctx = COOP.init(task, consts, task.settings, torch.Generator().manual_seed(3))["ctx"]
    assert ctx.shape == (4, 3, 16) and not any(p.requires_grad for p in tower.params.values())
    x = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    batch = batch_of(x, torch.tensor([0, 1, 2, 3, 0, 1]))

    def loss(c: torch.Tensor) -> torch.Tensor:
        return COOP.losses({"ctx": c}, consts, batch, {**task.settings, "scale": 1.0})["loss"]

    assert torch.autograd.gradcheck(loss, ctx.requires_grad_(), fast_mode=True)
    moved = ctx.detach().clone()
    moved[1] += torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    before, after = (COOP.logits({"ctx": c}, consts, {"pooled": x}, {}) for c in (ctx.detach(), moved))
    change = (after - before).abs()
    assert float(change[:, [0, 2, 3]].max()) < 1e-12 < 1e-3 < float(change[:, 1].min())


def test_start_is_small_and_repeatable(tower: Any) -> None:
    task = text_task(tower)
    consts = COOP.prepare(task)
    draws = [
        COOP.init(task, consts, task.settings, torch.Generator().manual_seed(s))["ctx"] for s in (1, 1, 2)
    ]
    assert (
        draws[0].shape == (16, 16) and torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    )
    assert 0.015 < float(draws[0].std()) < 0.025


def test_published_epochs_views_and_steps() -> None:
    from bench.interface import Facts

    def recipe(shots: int, recipe_as: str = "default", preset: str = "paper", K: int = 100) -> Any:
        facts = Facts(shots, K, K * shots, K, recipe_as, "rn", preset)
        return COOP.recipe(support.resolving.resolve(COOP, preset, recipe_as, {}), facts)

    assert [recipe(n).epochs for n in (1, 2, 4, 8, 16)] == [50, 100, 100, 200, 200]
    assert [recipe(n, "imagenet").epochs for n in (1, 16)] == [50, 50]
    stream = recipe(16).streams["image"]
    assert (len(stream.views), stream.rows, stream.order, stream.batch) == (
        200,
        "per-epoch",
        "epoch-drop",
        32,
    )
    assert (
        stream.views[0] == "rrc(0.08)#0"
        and recipe(16).select == "last"
        and recipe(16).grid == {"lr": (0.002,), "wd": (5e-4,)}
    )
    quick = recipe(16, preset="quick", K=60)  # 30 steps an epoch
    assert quick.epochs == 6 and len(quick.streams["image"].views) == 4
    assert recipe(1, preset="quick", K=60).epochs == 50
    assert recipe(16, preset="quick", K=1000).epochs == 2


def test_context_that_does_not_fit_is_refused(tower: Any) -> None:
    with pytest.raises(BenchError, match="more than 77"):
        LAID.lay_out(tower, NAMES, 74)
    with pytest.raises(BenchError, match="no room for the 4 words"):
        LAID.lay_out(tower, NAMES, 3, words="a photo of a")
    with pytest.raises(BenchError, match="end, middle, front"):
        LAID.lay_out(tower, NAMES, 4, position="back")


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 9),
    st.sampled_from(["end", "middle", "front"]),
    st.sampled_from(["", "a photo of a", "a cat, of a"]),
)
def test_every_token_appears_once(M: int, position: str, words: str) -> None:
    """Slots hold one context vector each; everything else of the placeholder string is kept exactly once."""
    M = max(M, len(words.split()))
    tower = support.tiny_tower([n.replace("_", " ") for n in NAMES] + ["a cat, of a"], layers=1)
    prompts = LAID.lay_out(tower, NAMES, M, words, position)
    assert torch.equal(prompts.place_KLM.sum(1), torch.ones(len(NAMES), M, dtype=torch.float64))
    n_words = len(words.split())
    ids = tower.tokenize(
        [" ".join(["X"] * (M - n_words) + words.split()) + f" {n.replace('_', ' ')}." for n in NAMES]
    )
    slots = tower.embed(ids)[:, 1 : 1 + M].sum(1)
    L = prompts.base_KLD.shape[1]
    torch.testing.assert_close(prompts.base_KLD.sum(1) + slots, tower.embed(ids)[:, :L].sum(1))


def test_it_says_what_it_learns_inside_the_prompts() -> None:
    from bench.interface import Facts, LearnedText

    facts = Facts(4, 10, 40, 10, "default", "rn", "paper")

    def learned(name: str, **settings: Any) -> LearnedText | None:
        method = support.method(name)
        return method.learned_text({**method.settings, **settings}, facts)

    assert learned("coop") == learned("prograd") == LearnedText(shared=16, own=0)
    assert learned("coop", init="a photo of a") == learned("cocoop") == LearnedText(shared=4, own=0)
    assert learned("coop", class_specific=True) == LearnedText(shared=0, own=16)
    assert learned("zero-shot") is learned("clip-lora") is None
