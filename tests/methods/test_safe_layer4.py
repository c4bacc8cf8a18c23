"""The control with layer4 unfrozen: its start is SAFE's, its BatchNorms do what they are told."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.clip import heads
from bench.errors import BenchError
from bench.interface import DENSE, EVAL, LAYER3, POOLED, Consts, Task
from tests.methods.support import StandIn, batch_of, make_task, method

N, K, C = 12, 3, 16


@pytest.fixture(scope="module")
def visual() -> Any:
    """A random float64 ModifiedResNet with its own statistics; single precision can hold all its numbers."""
    from open_clip.modified_resnet import ModifiedResNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        tower = ModifiedResNet(layers=[1, 1, 1, 1], output_dim=C, heads=2, image_size=64, width=8).eval()
        for module in tower.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean += 0.1 * torch.randn_like(module.running_mean)
                module.running_var *= 0.5 + torch.rand_like(module.running_var)
    return tower.double().requires_grad_(False)


def tensors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def task_with(visual: Any, **overrides: Any) -> Task:
    x_NDHW = visual.layer3(visual.layer2(visual.layer1(visual.stem(tensors(N, 3, 64, 64)))))
    pool = heads.of_tower(visual, "rn")
    backbone = StandIn(head=pool, family="rn")
    backbone.model = SimpleNamespace(visual=visual)  # type: ignore[attr-defined]
    dense = visual.layer4(x_NDHW).flatten(2).transpose(1, 2)
    features = {(LAYER3, EVAL): x_NDHW, (DENSE, EVAL): dense, (POOLED, EVAL): pool(pool.params, dense)}
    labels = torch.arange(N) % K
    changed = {"batch": 4, **overrides}
    control = method("safe-layer4")
    return make_task(
        control, labels, tensors(K, C, seed=1), features=features, backbone=backbone, overrides=changed
    )


def double(consts: Consts) -> Consts:
    """The stage in the precision of the test; methods train in single."""
    return {k: v.double() if isinstance(v, torch.nn.Module) else v for k, v in consts.items()}


def started(task: Task) -> tuple[Any, Consts, dict[str, Tensor]]:
    control = method("safe-layer4")
    consts = double(control.prepare(task))
    params = control.init(task, consts, task.settings, torch.Generator())
    return control, consts, {name: p.double() for name, p in params.items()}


def test_it_starts_as_safe_does(visual: Any) -> None:
    task = task_with(visual)
    control, consts, params = started(task)
    logits_BK = control.logits(
        params, consts, {t: task.features(t, EVAL) for t in control.taps}, task.settings
    )
    safe = method("safe")
    features = {t: task.features(t, EVAL) for t in safe.taps}
    wanted = safe.logits(task.head.copy(torch.float64), safe.prepare(task), features, task.settings)
    torch.testing.assert_close(logits_BK, wanted, rtol=1e-9, atol=1e-9)
    assert sum(p.numel() for p in params.values()) > sum(p.numel() for p in task.head.params.values())


@pytest.mark.parametrize("bn", ["frozen", "live"])
def test_one_loss_and_its_gradient(visual: Any, bn: str) -> None:
    """Against a plain module in evaluation or training mode."""
    task = task_with(visual, bn=bn)
    control, consts, params = started(task)
    live = {name: p.clone().requires_grad_() for name, p in params.items()}
    x, y = task.features(LAYER3, EVAL)[:4], task.labels_N[:4]
    loss = control.losses(live, consts, batch_of(x, y), task.settings)["loss"]
    loss.backward()

    stage = deepcopy(visual.layer4).requires_grad_(True)
    stage.train(bn == "live")
    pool = {name: p.clone().requires_grad_() for name, p in task.head.copy(torch.float64).items()}
    f_BC = task.head(pool, stage(x).flatten(2).transpose(1, 2))
    scores = 0.546 * task.scale * torch.nn.functional.normalize(f_BC, dim=-1) @ task.W_KC.T
    wanted = torch.nn.functional.cross_entropy(scores, y)
    wanted.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-9, atol=1e-12)
    for name, p in stage.named_parameters():
        torch.testing.assert_close(live[f"layer4.{name}"].grad, p.grad, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(live["c_proj.weight"].grad, pool["c_proj.weight"].grad, rtol=1e-7, atol=1e-9)


def test_nothing_of_the_backbone_changes(visual: Any) -> None:
    before = {name: t.clone() for name, t in visual.state_dict().items()}
    task = task_with(visual, bn="live")
    control, consts, params = started(task)
    stages = {k: {n: t.clone() for n, t in consts[k].state_dict().items()} for k in ("stage", "live")}
    for _ in range(2):
        control.losses(
            params, consts, batch_of(task.features(LAYER3, EVAL)[:4], task.labels_N[:4]), task.settings
        )
        control.logits(params, consts, {t: task.features(t, EVAL) for t in control.taps}, task.settings)
    for name, t in visual.state_dict().items():
        torch.testing.assert_close(t, before[name], rtol=0, atol=0)
    for k, state in stages.items():
        for name, t in consts[k].state_dict().items():
            torch.testing.assert_close(t, state[name], rtol=0, atol=0)


def test_live_statistics_are_means_over_support_batches(visual: Any) -> None:
    task = task_with(visual, bn="live")
    control, consts, params = started(task)
    assert [len(b) for b in consts["batches"]] == [4, 4, 4]
    own = {name.removeprefix("layer4."): p for name, p in params.items() if name.startswith("layer4.")}
    statistics = control.statistics(own, consts)
    first = [torch.nn.functional.conv2d(x, own["0.conv1.weight"]) for x in consts["batches"]]
    mean = torch.stack([y.mean((0, 2, 3)) for y in first]).mean(0)
    variance = torch.stack([y.transpose(0, 1).flatten(1).var(1) for y in first]).mean(0)
    torch.testing.assert_close(statistics["0.bn1.running_mean"], mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(statistics["0.bn1.running_var"], variance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bn", ["frozen", "live"])
def test_logits_of_an_image_do_not_depend_on_the_others(visual: Any, bn: str) -> None:
    task = task_with(visual, bn=bn)
    control, consts, params = started(task)
    features = {t: task.features(t, EVAL) for t in control.taps}
    whole = control.logits(params, consts, features, task.settings)
    one = control.logits(params, consts, {t: x[5:6] for t, x in features.items()}, task.settings)
    torch.testing.assert_close(whole[5:6], one, rtol=1e-9, atol=1e-9)


def test_an_unknown_norm_is_an_error() -> None:
    control = method("safe-layer4")
    with pytest.raises(BenchError, match="did you mean 'frozen'"):
        control.recipe({**control.settings, "bn": "frozn"}, None)  # type: ignore[arg-type]
