"""Cross-Modal adaptation agrees with the reference's linear run, and each variant with an independent step.

Batch sizes are legal, and the WiSE forms mix heads alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clip import heads
from bench.interface import DENSE, Batch, Facts, Rows, State, Task
from bench.recipe import legal
from bench.train import rng
from tests.methods.support import StandIn, close, drive, fixture, make_task, method, score

K, C = 4, 8


def pairs(image_x: Tensor, image_y: Tensor, text_x: Tensor, text_y: Tensor, step: int) -> Batch:
    """A batch of both modalities."""
    image = Rows(image_x, image_y, torch.arange(len(image_y)))
    return Batch(
        {"image": image, "text": Rows(text_x, text_y, torch.arange(len(text_y)))}, step, rng.generator(0, "n")
    )


@pytest.fixture(scope="module")
def linear() -> dict[str, Any]:
    return fixture("cm_linear")


def linear_task(data: dict[str, Any], name: str = "cross-modal-linear") -> Task:
    probe = method(name)
    overrides = {"lr": (float(data["lr"]),), "wd": (float(data["weight_decay"]),), "batch": (8,)}
    return make_task(
        probe,
        data["image_labels"],
        data["text_features"],
        class_of=data["text_labels"].tolist(),
        scale=math.exp(float(data["logit_scale_log"])),
        overrides=overrides if name == "cross-modal-linear" else {},
    )


@pytest.mark.parametrize("replicas", [1, 2])
def test_linear_head_equals_the_reference_run(linear: dict[str, Any], replicas: int) -> None:
    probe, task = method("cross-modal-linear"), linear_task(linear)
    consts = probe.prepare(task)
    start = probe.init(task, consts, task.settings, rng.generator(1, "init"))
    close(start["W_KC"], linear["W_zeroshot"])
    x, y, t, c = (linear[k] for k in ("image_features", "image_labels", "text_features", "text_labels"))
    sequence = [
        pairs(x[i], y[i], t[j], c[j], s)
        for s, (i, j) in enumerate(zip(linear["image_batches"], linear["text_batches"], strict=True))
    ]
    trace = drive(probe, task, sequence, start, consts=consts, epochs=12800, replicas=replicas)
    close(torch.tensor(trace.rates, dtype=torch.float64), linear["lr_used"])
    close(trace.loss(), linear["loss"])
    for updates in (1, 100, 101, 200):
        close(trace.params[updates - 1]["W_KC"], linear[f"W_after_{updates}"])

    def val(step: int) -> Tensor:
        return score(probe, task, trace.params[step], linear["val_features"])

    for step, accuracy in zip(linear["val_check_steps"].tolist(), linear["val_acc"].tolist(), strict=True):
        assert float((val(step).argmax(1) == linear["val_labels"]).double().mean()) == accuracy
    close(val(199), linear["val_logits_trained"])


def test_wise_head_equals_the_reference(linear: dict[str, Any]) -> None:
    """The ratio is the zero-shot side's weight; nothing is renormalised (protocol 7.2)."""
    wise, task = method("cross-modal-linear-wise"), linear_task(linear, "cross-modal-linear-wise")
    state = State({"W_KC": linear["W_after_200"]}, {"lr": 1e-3, "wd": 0.01, "batch": 8})
    task = Task(**{**vars(task), "states": {"cross-modal-linear": state}})
    for ratio in (0.5, 0.25):
        close(score(wise, task, {}, linear["val_features"], ratio=ratio), linear[f"val_logits_wise_{ratio}"])
    close(score(wise, task, {}, linear["val_features"], ratio=1.0), linear["val_logits_zeroshot"])
    close(score(wise, task, {}, linear["val_features"], ratio=0.0), linear["val_logits_trained"])


def toy_text() -> tuple[Tensor, list[int], Tensor]:
    g = rng.generator(0, "cross-modal test")
    return (
        torch.randn(2 * K, C, generator=g, dtype=torch.float64),
        [k for k in range(K) for _ in range(2)],
        torch.randn(6, C, generator=g, dtype=torch.float64),
    )


def adamw_steps(loss_of: Any, leaves: list[Tensor], steps: int, lr: float, wd: float) -> list[float]:
    """An independent loop: torch's AdamW at the rates of protocol 3.2, written out."""
    optimiser, losses = torch.optim.AdamW(leaves, lr=1.0, weight_decay=wd), []
    for i in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-5 if i == 0 else lr * i / 50
        optimiser.zero_grad()
        loss = loss_of()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_adapter_step_equals_plain_modules() -> None:
    raw_PC, class_of, x_BC = toy_text()
    adapter = method("cross-modal-adapter")
    y_B, c_P = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor(class_of)
    task = make_task(
        adapter,
        y_B,
        raw_PC,
        class_of=class_of,
        scale=20.0,
        overrides={"lr": (1e-2,), "wd": (1e-3,), "batch": (8,)},
    )
    start = adapter.init(task, adapter.prepare(task), task.settings, rng.generator(1, "init"))
    assert start["down_HC"].shape == (2, C) and float(start["up_CH"].abs().max()) <= 2**-0.5
    batch = pairs(x_BC, y_B, raw_PC[:4], c_P[:4], 0)
    trace = drive(adapter, task, [batch] * 3, start, epochs=12800, replicas=2)

    down, up, head = (
        torch.nn.Linear(i, o, bias=False, dtype=torch.float64) for i, o in ((C, 2), (2, C), (C, K))
    )
    for layer, name in ((down, "down_HC"), (up, "up_CH"), (head, "W_KC")):
        layer.weight.data = start[name].clone()

    def loss_of() -> Tensor:
        z = F.normalize(torch.cat([x_BC, raw_PC[:4]]))
        z = 0.2 * F.relu(up(F.relu(down(z)))) + 0.8 * z
        return F.cross_entropy(20.0 * head(z), torch.cat([y_B, c_P[:4]]))

    losses = adamw_steps(loss_of, [down.weight, up.weight, head.weight], 3, 1e-2, 1e-3)
    close(trace.loss(), torch.tensor(losses, dtype=torch.float64), rtol=1e-12)
    for layer, name in ((down, "down_HC"), (up, "up_CH"), (head, "W_KC")):
        close(trace.params[-1][name], layer.weight.detach(), rtol=1e-11)
        assert not torch.equal(layer.weight.detach(), start[name])


def plain_pool(p: dict[str, Tensor], x_BSD: Tensor, n_heads: int) -> Tensor:
    """CLIP's attention pool with every query, by torch's own multi-head attention."""
    x_TBD = (
        torch.cat([x_BSD.mean(1, keepdim=True), x_BSD], 1).transpose(0, 1)
        + p["positional_embedding"][:, None]
    )
    D = x_TBD.shape[2]
    bias = torch.cat([p[f"{n}_proj.bias"] for n in "qkv"])
    out_TBC, _ = F.multi_head_attention_forward(
        x_TBD,
        x_TBD,
        x_TBD,
        D,
        n_heads,
        None,
        bias,
        None,
        None,
        False,
        0.0,
        p["c_proj.weight"],
        p["c_proj.bias"],
        use_separate_proj_weight=True,
        q_proj_weight=p["q_proj.weight"],
        k_proj_weight=p["k_proj.weight"],
        v_proj_weight=p["v_proj.weight"],
        need_weights=False,
    )
    return out_TBC[0]


def test_partial_step_equals_the_plain_pool() -> None:
    raw_PC, class_of, _ = toy_text()
    D, S = 12, 5
    g = rng.generator(3, "pool")
    shapes = {"positional_embedding": (S + 1, D)}
    for n, out in (("q", D), ("k", D), ("v", D), ("c", C)):
        shapes |= {f"{n}_proj.weight": (out, D), f"{n}_proj.bias": (out,)}
    pool = {n: 0.3 * torch.randn(s, generator=g, dtype=torch.float64) for n, s in shapes.items()}
    x_BSD = torch.randn(4, S, D, generator=g, dtype=torch.float64)
    y_B, c_P = torch.tensor([0, 1, 2, 3]), torch.tensor(class_of)
    partial = method("cross-modal")
    task = make_task(
        partial,
        y_B,
        raw_PC,
        class_of=class_of,
        backbone=StandIn(head=heads.attention_pool(pool, 3)),
        overrides={"lr": (1e-3,), "wd": (1e-2,)},
    )
    start = partial.init(task, partial.prepare(task), task.settings, rng.generator(1, "init"))
    assert set(start) == {*pool, "W_KC"}
    batch = pairs(x_BSD, y_B, raw_PC[4:], c_P[4:], 0)
    trace = drive(partial, task, [batch] * 3, start, epochs=12800, replicas=2)

    leaves = {n: p.clone().requires_grad_() for n, p in start.items()}

    def loss_of() -> Tensor:
        z = torch.cat([plain_pool(leaves, x_BSD, 3), raw_PC[4:]])
        return F.cross_entropy(54.6 * F.normalize(z) @ leaves["W_KC"].T, torch.cat([y_B, c_P[4:]]))

    losses = adamw_steps(loss_of, list(leaves.values()), 3, 1e-3, 1e-2)
    close(trace.loss(), torch.tensor(losses, dtype=torch.float64), rtol=1e-11)
    for name in start:
        if name != "k_proj.bias":  # exact gradient 0: rounding noise decides its path (protocol 2.1)
            close(trace.params[-1][name], leaves[name].detach())
    tuned = partial.logits(trace.params[-1], partial.prepare(task), {DENSE: x_BSD}, task.settings)
    with torch.no_grad():
        close(tuned, 54.6 * F.normalize(plain_pool(trace.params[-1], x_BSD, 3)) @ trace.params[-1]["W_KC"].T)


def test_each_half_of_a_batch_must_be_smaller_than_its_set() -> None:
    """Protocol 21.10: EuroSAT's ten prompts rule out 16 texts a batch."""
    linear = method("cross-modal-linear")
    eurosat = Facts(1, 10, 10, 10, "eurosat", "rn", "paper")
    recipe = linear.recipe(linear.settings, eurosat)
    assert recipe.static == {"batch": (8,)}
    assert {name: stream.batch for name, stream in recipe.streams.items()} == {"image": 4, "text": 4}
    assert not legal("restart", 10, 16) and legal("restart", 10, 4)
    many = Facts(16, 100, 1600, 100, "default", "rn", "paper")
    assert linear.recipe(linear.settings, many).static == {"batch": (8, 32)}
    two = Facts(1, 2, 2, 2, "default", "rn", "paper")
    assert linear.recipe(linear.settings, two).static == {"batch": (2,)}


def test_table_three_drops_the_mirrored_view_on_imagenet() -> None:
    from bench.plan.settings import resolve

    linear = method("cross-modal-linear")
    facts = Facts(16, 1000, 16000, 7000, "imagenet", "rn", "paper")
    views = {
        name: linear.recipe(resolve(linear, "paper", name, {}), facts).streams["image"].views
        for name in ("imagenet", "dtd")
    }
    assert views == {"imagenet": ("eval",), "dtd": ("eval", "flip")}


def test_wise_keeps_the_tuned_encoder() -> None:
    """Protocol 21.5: at ratio 1 the head is zero-shot, the tuned pooling head still makes the embedding."""
    raw_PC, class_of, x_BC = toy_text()
    wise = method("cross-modal-adapter-wise")
    y_B = torch.tensor([0, 1, 2, 3, 0, 1])
    base = method("cross-modal-adapter")
    base_task = make_task(base, y_B, raw_PC, class_of=class_of)
    trained = base.init(
        base_task, base.prepare(base_task), {**base.settings, "init": "random"}, rng.generator(5, "init")
    )
    task = make_task(wise, y_B, raw_PC, class_of=class_of, states={base.name: State(trained, {"lr": 1e-3})})
    rows_KC = base.prepare(base_task)["zeroshot_KC"]
    close(score(wise, task, {}, x_BC, ratio=0.0), score(base, base_task, trained, x_BC), rtol=1e-12)
    close(
        score(wise, task, {}, x_BC, ratio=1.0),
        score(base, base_task, {**trained, "W_KC": rows_KC}, x_BC),
        rtol=1e-12,
    )
