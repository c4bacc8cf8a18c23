"""Stacked optimisers equal torch.optim replica by replica, on the list path and on the fused path alike."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.recipe import OptimSpec, Schedule
from bench.train import optim
from bench.train.optim import bytes_per_parameter, make
from bench.train.schedule import rates
from tests.fixtures.references import parity

SHAPES = {"weight": (5, 3), "bias": (5,), "scale": ()}
SPECS = {
    "adamw": OptimSpec("adamw"),
    "adamw-eps": OptimSpec("adamw", eps=1e-4, betas=(0.8, 0.99)),
    "adam": OptimSpec("adam", eps=1e-4),
    "sgd": OptimSpec("sgd"),
    "sgd-plain": OptimSpec("sgd", momentum=0.0),
}


@pytest.fixture(params=["lists", "fused"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both update paths, whatever the size of the parameters."""
    for device in optim._FUSE_FROM:
        monkeypatch.setitem(optim._FUSE_FROM, device, 0 if request.param == "fused" else 1 << 60)
    return str(request.param)


def stacked(
    replicas: int, seed: int = 0, shapes: dict[str, tuple[int, ...]] | None = None
) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    named = (shapes or SHAPES).items()
    return {n: torch.randn(replicas, *shape, generator=noise, dtype=torch.float64) for n, shape in named}


def gradients(params: dict[str, torch.Tensor], step: int, size: float) -> dict[str, torch.Tensor]:
    """A gradient that depends on parameters and step, mixed in magnitude so that eps matters in places."""
    grads = {}
    for i, (name, p) in enumerate(params.items()):
        ramp = torch.linspace(-6.0, 0.0, max(p[0].numel(), 1), dtype=p.dtype).reshape(p[0].shape)
        wave = 0.5 * math.cos(0.7 * step + i)
        grads[name] = size * torch.exp(ramp) * (torch.sin(3.0 * p.detach()) + wave)
    return grads


def reference(spec: OptimSpec, params: list[torch.Tensor], lr: float, wd: float) -> torch.optim.Optimizer:
    if spec.name == "sgd":
        return torch.optim.SGD(params, lr=lr, momentum=spec.momentum, weight_decay=wd)
    kind = torch.optim.AdamW if spec.name == "adamw" else torch.optim.Adam
    return kind(params, lr=lr, betas=spec.betas, eps=spec.eps, weight_decay=wd, foreach=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPECS)
def test_a_thousand_steps_equal_torch(kind: str, path: str) -> None:
    """Mixed rates and decays under a schedule, relative 1e-6 in float64."""
    spec, steps = SPECS[kind], 1000
    lr, wd = [1e-1, 1e-3, 1e-5], [0.0, 1e-2, 5e-4]
    table = np.stack([rates(Schedule("warmup-cosine-cm"), x, steps) for x in lr], axis=1)
    ours = stacked(3)
    start = {name: p.clone() for name, p in ours.items()}
    optimiser = make(spec, ours, wd)
    for i in range(steps):
        optimiser.step(gradients(ours, i, 1e-3), torch.from_numpy(table[i]))
    for r in range(3):
        theirs = {name: p[r : r + 1].clone().requires_grad_() for name, p in start.items()}
        torch_optimiser = reference(spec, list(theirs.values()), lr[r], wd[r])
        for i in range(steps):
            for name, grad in gradients(theirs, i, 1e-3).items():
                theirs[name].grad = grad
            torch_optimiser.param_groups[0]["lr"] = table[i, r]
            torch_optimiser.step()
        for name, p in theirs.items():
            moved = (p.detach() - start[name][r]).abs().max()
            assert moved > 0
            torch.testing.assert_close(ours[name][r], p.detach()[0], rtol=1e-6, atol=float(1e-6 * moved))


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(["adamw", "adam", "sgd"]),
    lr=st.lists(st.floats(1e-6, 0.5), min_size=2, max_size=4),
    wd=st.floats(0.0, 0.1),
    beta1=st.sampled_from([0.0, 0.5, 0.9]),
    eps=st.sampled_from([1e-8, 1e-4]),
    fused=st.booleans(),
)
def test_few_steps_equal_torch_for_any_setting(
    kind: str, lr: list[float], wd: float, beta1: float, eps: float, fused: bool
) -> None:
    spec = OptimSpec(kind, betas=(beta1, 0.99), eps=eps, momentum=beta1)
    ours = stacked(len(lr), seed=3)
    theirs = [[p[r : r + 1].clone().requires_grad_() for p in ours.values()] for r in range(len(lr))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(optim._FUSE_FROM, "cpu", 0 if fused else 1 << 60)
        optimiser = make(spec, ours, [wd] * len(lr))
    others = [reference(spec, params, x, wd) for params, x in zip(theirs, lr, strict=True)]
    for i in range(3):
        grads = gradients(ours, i, 1e-2)
        optimiser.step(grads, torch.tensor(lr, dtype=torch.float64))
        for r, other in enumerate(others):
            for p, grad in zip(theirs[r], grads.values(), strict=True):
                p.grad = grad[r : r + 1].clone()
            other.step()
    for r in range(len(lr)):
        for mine, p in zip(ours.values(), theirs[r], strict=True):
            torch.testing.assert_close(mine[r], p.detach()[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [*SPECS, "half", "clipped"])
def test_stacked_equals_looped_exactly(kind: str, dtype: torch.dtype, path: str) -> None:
    """What trains beside a replica never changes it: bit for bit."""
    extra = {"half": OptimSpec("adamw", half_state=True), "clipped": OptimSpec("adamw", clip_norm=1e-3)}
    spec = {**SPECS, **extra}[kind]
    shapes = {"weight": (7, 9), "bias": (7,), "scale": ()}
    together = {name: p.to(dtype) for name, p in stacked(4, shapes=shapes).items()}
    alone = [{name: p[r : r + 1].clone() for name, p in together.items()} for r in range(4)]
    lr_R, wd = torch.tensor([1e-2, 1e-3, 0.0, 1e-4]).double(), [0.0, 1e-2, 1e-2, 1e-3]
    optimiser = make(spec, together, wd)
    single = [make(spec, params, [decay]) for params, decay in zip(alone, wd, strict=True)]
    for i in range(20):
        optimiser.step(gradients(together, i, 1e-2), lr_R)
        for r, one in enumerate(single):
            one.step(gradients(alone[r], i, 1e-2), lr_R[r : r + 1])
    for r in range(4):
        for name, p in alone[r].items():
            assert torch.equal(together[name][r : r + 1], p), (name, r)


def test_eps_stands_outside_the_root(path: str) -> None:
    """First step: p moves by lr |g| / (|g| + eps); inside the root it would be lr |g| / sqrt(g^2 + eps)."""
    params = {"w": torch.zeros(1, 4, dtype=torch.float64)}
    grad = torch.tensor([[1e-6, 1e-4, 1e-2, 1.0]], dtype=torch.float64)
    make(OptimSpec("adamw", eps=1e-4), params, [0.0]).step({"w": grad}, torch.tensor([0.1]))
    torch.testing.assert_close(
        params["w"], -torch.tensor([0.1]).double() * grad / (grad + 1e-4), rtol=1e-9, atol=0.0
    )


def test_decay_is_decoupled_in_adamw_and_coupled_elsewhere(path: str) -> None:
    moved = {}
    for name in ("adamw", "adam", "sgd"):
        params = {"w": torch.full((1, 3), 2.0, dtype=torch.float64)}
        make(OptimSpec(name), params, [0.01]).step({"w": 0.0 * params["w"]}, torch.tensor([0.1]))
        moved[name] = params["w"][0, 0].item()
    assert moved["adamw"] == pytest.approx(2.0 * (1 - 0.1 * 0.01))
    # the decay is the whole gradient, and Adam normalises it
    assert moved["adam"] == pytest.approx(2.0 - 0.1)
    assert moved["sgd"] == pytest.approx(2.0 - 0.1 * 0.01 * 2.0)


def test_gradients_and_their_layout_are_left_alone(path: str) -> None:
    """Expanded and transposed gradients, as autograd hands them out, work and stay what they are."""
    for spec in (*SPECS.values(), OptimSpec("adamw", clip_norm=0.1)):
        params = stacked(2)
        grads = {
            "weight": torch.ones(1, 1, 1, dtype=torch.float64).expand(2, 5, 3),
            "bias": torch.arange(10.0, dtype=torch.float64).reshape(5, 2).t(),
            "scale": torch.ones(2, dtype=torch.float64),
        }
        before = {name: g.clone() for name, g in grads.items()}
        dense = {name: p.clone() for name, p in params.items()}
        lr_R, wd = torch.full((2,), 0.1).double(), [0.1, 0.1]
        make(spec, params, wd).step(grads, lr_R)
        make(spec, dense, wd).step(before, lr_R)
        for name in params:
            assert torch.equal(grads[name], before[name])
            assert torch.equal(params[name], dense[name])


def test_half_state_stalls_small_second_moments() -> None:
    """Protocol 12.4: below |g| of 5.5e-3 the fp16 second moment stays 0 and the step is lr m / eps."""
    params = {"w": torch.zeros(1, 2, dtype=torch.float64)}
    optimiser = make(OptimSpec("adamw", eps=1e-4, half_state=True), params, [0.0])
    grad = torch.tensor([[1e-3, 1e-2]], dtype=torch.float64)
    for _ in range(3):
        optimiser.step({"w": grad}, torch.tensor([1e-3]))
    assert params["w"][0, 0].item() == pytest.approx(-3 * 1e-3 * 1e-3 / 1e-4, rel=1e-6)
    assert params["w"][0, 1].item() == pytest.approx(-3 * 1e-3 * 1e-2 / (1e-2 + 1e-4), rel=1e-6)


def test_clipping_is_per_replica_and_global_over_tensors() -> None:
    grads = [
        g * torch.tensor([1e-3, 1.0, 50.0]).double().view(3, *(1,) * (g.dim() - 1))
        for g in stacked(3).values()
    ]
    clipped, norm_R = optim.clip(grads, 0.5)
    for r in range(3):
        leaves = [torch.zeros_like(g[r], requires_grad=True) for g in grads]
        for leaf, g in zip(leaves, grads, strict=True):
            leaf.grad = g[r].clone()
        assert norm_R[r].item() == pytest.approx(
            torch.nn.utils.clip_grad_norm_(leaves, 0.5).item(), rel=1e-12
        )
        for leaf, g in zip(leaves, clipped, strict=True):
            torch.testing.assert_close(g[r], leaf.grad, rtol=1e-12, atol=0.0)


def test_parity_wise_original_training() -> None:
    """Twelve AdamW steps with warm-up, cosine, clipping: the reference's head, bias and gradient norms."""
    data = {name: torch.from_numpy(array) for name, array in parity("wise_original").items()}
    unit = torch.nn.functional.normalize(data["image_features"].double(), dim=1)
    params = {
        "weight": (data["logit_scale"] * data["text_features"])[None].clone(),
        "bias": torch.zeros(1, 5, dtype=torch.float64),
    }
    total, warm = int(data["total_steps"]), int(data["warmup_steps"])
    table = rates(Schedule("linear-warmup-cosine", {"warmup_steps": warm}), float(data["lr"]), total)
    optimiser = make(
        OptimSpec("adamw", clip_norm=float(data["clip_norm"])), params, [float(data["weight_decay"])]
    )
    for i in range(total):
        leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
        logits = unit[data["batches"][i]] @ leaves["weight"][0].T + leaves["bias"][0]
        loss = torch.nn.functional.cross_entropy(logits, data["labels"][data["batches"][i]])
        grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        assert loss.item() == pytest.approx(data["loss"][i].item(), rel=1e-9)
        norm = optim.clip(list(grads.values()), 1.0)[1].item()
        assert norm == pytest.approx(data["grad_norm"][i].item(), rel=1e-9)
        optimiser.step(grads, torch.from_numpy(table[i : i + 1]))
        torch.testing.assert_close(params["weight"][0], data["weight_steps"][i], rtol=0.0, atol=1e-9 * 30)
    torch.testing.assert_close(params["bias"][0], data["bias_final"], rtol=1e-9, atol=1e-10)


def test_spec_is_json_and_checked() -> None:
    spec = OptimSpec("AdamW", betas=(0.9, 0.95), clip_norm=1.0)
    assert spec.name == "adamw"
    assert OptimSpec(**json.loads(json.dumps(asdict(spec)))) == spec
    assert hash(replace(spec, eps=1e-4)) != hash(spec)
    for wrong, says in [
        ({"name": "adamww"}, "did you mean 'adamw'"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"eps": -1.0}, "eps"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"name": "sgd", "half_state": True}, "half_state"),
    ]:
        with pytest.raises(BenchError, match=says):
            OptimSpec(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", SPECS)
def test_state_size_is_what_is_allocated(kind: str) -> None:
    spec, params = SPECS[kind], {"w": torch.zeros(3, 10)}
    optimiser = make(spec, params, [0.0] * 3)
    lists = [getattr(optimiser, name, []) for name in ("buffers", "first", "second")]
    allocated = sum(t.numel() * t.element_size() for tensors in lists for t in tensors)
    assert allocated == 30 * bytes_per_parameter(spec)
    assert bytes_per_parameter(spec, itemsize=8) == 2 * bytes_per_parameter(spec)


def test_list_kernels_group_small_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert optim._groups([3, 4, 5]) == [[0, 1, 2]]
    monkeypatch.setattr(optim, "_GROUP", 8)
    assert optim._groups([3, 4, 5, 9, 1]) == [[0, 1], [2], [3], [4]]


@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_rates_and_step_numbers_may_be_read_as_float32(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the fused kernels do on CUDA: float32 parameters end as with float64 rates, but for rounding."""
    ends = []
    for fuse in (0, 1 << 60):
        monkeypatch.setitem(optim._FUSE_FROM, "cpu", fuse)
        params = {name: p.float() for name, p in stacked(3).items()}
        optimiser = make(SPECS[kind], params, [0.0, 1e-2, 1e-3])
        for i in range(50):
            lr_R = torch.tensor([1e-2, 1e-3, 1e-4]).double() * (i + 1) / 50
            if not fuse:
                lr_R = lr_R.float().double()
            optimiser.step(gradients(params, i, 1e-2), lr_R)
        ends.append(params)
    for name, p in ends[0].items():
        torch.testing.assert_close(p, ends[1][name], rtol=0.0, atol=2e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", SPECS)
def test_cuda_equals_cpu_and_replays_in_a_graph(kind: str, dtype: torch.dtype, path: str) -> None:
    spec, wd = SPECS[kind], [0.0, 1e-2, 1e-3]
    here = {name: p.to(dtype) for name, p in stacked(3).items()}
    there = {name: p.cuda() for name, p in here.items()}
    lr_R = torch.tensor([1e-2, 1e-3, 1e-4]).double()
    on_cpu, on_gpu = make(spec, here, wd), make(spec, there, wd)
    grads = {name: g.cuda() for name, g in gradients(here, 0, 1e-2).items()}
    rate = lr_R.cuda()
    kept = [t.clone() for t in (*there.values(),)]
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        on_gpu.step(grads, rate)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        on_gpu.step(grads, rate)
    for p, start in zip(there.values(), kept, strict=True):
        p.copy_(start)
    for state in [
        on_gpu.t,
        *(t for name in ("buffers", "first", "second") for t in getattr(on_gpu, name, [])),
    ]:
        state.zero_()
    for i in range(10):
        fresh = gradients(here, i, 1e-2)
        for name, g in fresh.items():
            grads[name].copy_(g)
        rate.copy_(lr_R * (i + 1) / 10)
        on_cpu.step(fresh, lr_R * (i + 1) / 10)
        graph.replay()
    near = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    for name, p in here.items():
        torch.testing.assert_close(there[name].cpu(), p, **near)
