"""The folded pooling heads are compared with the original modules and with the parity files."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor
from torch.func import grad, vmap

from bench.clip import heads
from bench.clip.blocks import quick_gelu
from bench.errors import BenchError
from tests.fixtures.references import parity

Original = Callable[[Tensor], Tensor]


def pool(grid: int, width: int, n_heads: int, out: int, dtype: torch.dtype) -> tuple[Any, Original, Tensor]:
    """An open_clip attention pool, its map from dense tokens to embeddings, and random tokens."""
    torch.manual_seed(0)
    module = AttentionPool2d(grid, width, n_heads, out).to(dtype)
    for p in (module.q_proj, module.k_proj, module.v_proj, module.c_proj):
        torch.nn.init.normal_(p.weight, std=width**-0.5)
    x_BTD = torch.randn(4, grid * grid, width, dtype=dtype).relu()
    return module, lambda x: module(x.transpose(1, 2).unflatten(2, (grid, grid))), x_BTD


def tail(image: int, width: int, n_heads: int, out: int, dtype: torch.dtype) -> tuple[Any, Original, Tensor]:
    """An open_clip ViT of one block, the part of it from that block on, and random tokens."""
    torch.manual_seed(0)
    vit = (
        VisionTransformer(image, 16, width, 1, n_heads, 4.0, output_dim=out, act_layer=QuickGELU)
        .to(dtype)
        .eval()
    )
    with torch.no_grad():
        for p in vit.parameters():
            p.add_(torch.rand_like(p) * (0.3 if p.ndim == 1 else 0.0))

    def original(x_BTD: Tensor) -> Tensor:
        return vit._pool(vit.transformer(x_BTD))[0] @ vit.proj

    tokens = (image // 16) ** 2 + 1
    return vit, original, torch.randn(4, tokens, width, dtype=dtype) * 3 + 0.5


def test_an_output_whose_gradient_nobody_asks_for_costs_nothing() -> None:
    """``gradcheck`` asks for that too."""
    _, head, _, x = make("rn", torch.float64)
    q = head.params["q_proj.weight"].detach().requires_grad_()

    def out(q: Tensor) -> Tensor:
        made: Tensor = head({**head.params, "q_proj.weight": q}, x)
        return made

    assert torch.autograd.gradcheck(out, q, fast_mode=True)


def make(
    family: str, dtype: torch.dtype, true_size: bool = False
) -> tuple[Any, heads.PoolingHead, Original, Tensor]:
    if family == "rn":
        module, original, x = pool(7, 2048, 32, 1024, dtype) if true_size else pool(3, 48, 6, 20, dtype)
        holder = torch.nn.Module()
        holder.attnpool = module
        return module, heads.of_tower(holder, "rn"), original, x
    module, original, x = tail(224, 768, 12, 512, dtype) if true_size else tail(48, 48, 6, 20, dtype)
    return module, heads.of_tower(module, "vit"), original, x


def gradients(module: Any, family: str) -> dict[str, Tensor]:
    if family == "rn":
        return {n: p.grad for n, p in module.named_parameters()}
    block = module.transformer.resblocks[-1]
    grads = {f"block.{n}": p.grad for n, p in block.named_parameters()}
    grads |= {f"ln_post.{n}": p.grad for n, p in module.ln_post.named_parameters()}
    return grads | {"proj": module.proj.grad}


def split_key_bias(name: str, g: Tensor) -> tuple[Tensor, Tensor | None]:
    """The part of a gradient that is meaningful, and the part (key bias) that must vanish."""
    if name == "k_proj.bias":
        return g[:0], g
    if name.endswith("attn.in_proj_bias"):
        third = len(g) // 3
        return torch.cat([g[:third], g[2 * third :]]), g[third : 2 * third]
    return g, None


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> None:
    ours, theirs = ours.detach(), theirs.detach()
    assert ours.shape == theirs.shape, what
    if ours.numel():
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max(), what


@pytest.mark.parametrize("family", ["rn", "vit"])
@pytest.mark.parametrize(
    "dtype, true_size, tolerance",
    [(torch.float64, False, 1e-10), (torch.float32, True, 1e-5)],
    ids=["fp64", "true-size"],
)
def test_folded_equals_original_with_all_gradients(
    family: str, dtype: torch.dtype, true_size: bool, tolerance: float
) -> None:
    module, head, original, x_BTD = make(family, dtype, true_size)
    R_BC = torch.randn(len(x_BTD), original(x_BTD[:1]).shape[1], dtype=dtype)
    theirs_x = x_BTD.clone().requires_grad_()
    theirs = original(theirs_x)
    (F.normalize(theirs, dim=-1) * R_BC).sum().backward()
    ours_x = x_BTD.clone().requires_grad_()
    params = {n: p.requires_grad_() for n, p in head.copy(dtype).items()}
    ours = head(params, ours_x)
    ours_grads = torch.autograd.grad((F.normalize(ours, dim=-1) * R_BC).sum(), [ours_x, *params.values()])
    assert_close(ours, theirs, tolerance, "value")
    assert theirs_x.grad is not None
    assert_close(ours_grads[0], theirs_x.grad, tolerance, "input gradient")
    wanted = gradients(module, family)
    assert wanted.keys() == params.keys()
    for name, g in zip(params, ours_grads[1:], strict=True):
        ours_g, zero = split_key_bias(name, g)
        assert_close(ours_g, split_key_bias(name, wanted[name])[0], tolerance, name)
        assert zero is None or zero.abs().max() <= 1e-12


@pytest.mark.parametrize("family", ["rn", "vit"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("order", ["vmap-of-grad", "grad-of-vmap"])
def test_replicas_under_vmap_equal_a_loop(family: str, shared: bool, order: str) -> None:
    _, head, _, x_BTD = make(family, torch.float64)
    R = 3
    stacked = {
        n: torch.stack([p + 0.1 * r * torch.randn_like(p) for r in range(R)]) for n, p in head.params.items()
    }
    x = x_BTD if shared else torch.stack([x_BTD + r for r in range(R)])
    target_BC = torch.randn(len(x_BTD), head(head.params, x_BTD).shape[1], dtype=torch.float64)

    def loss(params: dict[str, Tensor], tokens: Tensor) -> Tensor:
        return (head(params, tokens) * target_BC).sum() ** 2

    axes = (0, None if shared else 0)
    if order == "vmap-of-grad":
        grads = vmap(grad(loss), in_dims=axes)(stacked, x)
    else:
        leaves = {n: p.clone().requires_grad_() for n, p in stacked.items()}
        total = vmap(loss, in_dims=axes)(leaves, x).sum()
        grads = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
    for r in range(R):
        alone = grad(loss)({n: p[r] for n, p in stacked.items()}, x if shared else x[r])
        for name, g in alone.items():
            assert_close(grads[name][r], g, 1e-12, name)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("call", ["preproj", "__call__"])
def test_replicas_of_replicas(call: str, shared: bool) -> None:
    """Two axes at once, features with one of them or none: as one replica after the other."""
    _, head, _, x_BTD = make("rn", torch.float64)
    apply = getattr(head, call)
    stacked = {
        n: torch.stack([torch.stack([p, 1.1 * p]), torch.stack([p, 0.9 * p])]) for n, p in head.params.items()
    }
    x = x_BTD if shared else torch.stack([x_BTD, -x_BTD])
    vectors = vmap(vmap(apply, in_dims=(0, None)), in_dims=(0, None if shared else 0))(stacked, x)
    for i, j in itertools.product(range(2), range(2)):
        alone = apply({n: p[i, j] for n, p in stacked.items()}, x if shared else x[i])
        torch.testing.assert_close(vectors[i, j], alone, rtol=1e-12, atol=1e-12)


def test_replicas_share_what_is_frozen() -> None:
    """Some weights have a replica axis and some have none; the gradients of the former are right."""
    _, head, _, x_BTD = make("rn", torch.float64)
    frozen = dict(head.params)
    own = {n: frozen.pop(n) for n in ("k_proj.weight", "c_proj.bias")}
    stacked = {n: torch.stack([p, 1.1 * p + 0.1]) for n, p in own.items()}

    def loss(params: dict[str, Tensor]) -> Tensor:
        return head({**frozen, **params}, x_BTD).square().sum()

    grads = vmap(grad(loss))(stacked)
    for r in range(2):
        for name, g in grad(loss)({n: p[r] for n, p in stacked.items()}).items():
            assert_close(grads[name][r], g, 1e-12, name)


def test_features_apart_weights_shared() -> None:
    _, head, _, x_BTD = make("rn", torch.float64)
    embeddings = vmap(lambda x: head(head.params, x))(torch.stack([x_BTD, -x_BTD]))
    torch.testing.assert_close(embeddings[1], head(head.params, -x_BTD), rtol=1e-12, atol=1e-12)


def test_the_folded_pool_has_no_second_derivative() -> None:
    """It says so, and returns no wrong one."""
    _, head, _, x_BTD = make("rn", torch.float64)
    params = {n: p.requires_grad_() for n, p in head.copy(torch.float64).items()}
    leaf = params["q_proj.weight"]
    (first,) = torch.autograd.grad(head(params, x_BTD).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


@pytest.mark.parametrize("family", ["rn", "vit"])
def test_preproj_and_tokens_belong_to_the_head(family: str) -> None:
    _, head, _, x_BTD = make(family, torch.float64)
    pooled = head(head.params, x_BTD)
    torch.testing.assert_close(head.project(head.params, head.preproj(head.params, x_BTD)), pooled)
    tokens = head.all_tokens(head.params, x_BTD)
    assert tokens.shape[1] == x_BTD.shape[1] + (family == "rn")
    torch.testing.assert_close(tokens[:, 0], pooled, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", ["rn", "vit"])
def test_half_precision_tokens_meet_single_precision_weights(family: str) -> None:
    _, head, _, x_BTD = make(family, torch.float32)
    params = head.copy()
    torch.testing.assert_close(head(params, x_BTD.half()), head(params, x_BTD.half().float()))
    assert head(params, x_BTD.half()).dtype == torch.float32
    params["c_proj.weight" if family == "rn" else "proj"].zero_()
    assert head.params["c_proj.weight" if family == "rn" else "proj"].abs().sum() > 0, "copies are fresh"


def double(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


@pytest.mark.parametrize("name", ["attnpool", "vit_tail"])
def test_parity_with_the_reference(name: str) -> None:
    data = parity(name)
    params = {n[2:]: double(a).requires_grad_() for n, a in data.items() if n.startswith("w.")}
    n_heads, x = int(data["num_heads"]), double(data["input"])
    if name == "attnpool":
        head, dense = heads.attention_pool(params, n_heads), x.flatten(2).transpose(1, 2)
    else:
        head, dense = heads.transformer_tail(params, n_heads, quick_gelu, 1e-5), x
    dense = dense.clone().requires_grad_()
    out = head(params, dense)
    assert_close(out, double(data["output"]), 1e-9, "output")
    logits = float(data["scale"]) * F.normalize(out, dim=-1) @ double(data["W"]).T
    losses = {
        "lin": (out * double(data["R"])).sum(),
        "ce": F.cross_entropy(logits, torch.from_numpy(data["y"])),
    }
    for kind, loss in losses.items():
        assert_close(loss, double(data[f"loss_{kind}"]), 1e-9, kind)
        grads = torch.autograd.grad(loss, [dense, *params.values()], retain_graph=True)
        for tensor, ours in zip(["input", *params], grads, strict=True):
            if f"grad_{kind}.{tensor}" not in data:
                continue
            theirs = double(data[f"grad_{kind}.{tensor}"])
            if tensor == "input" and name == "attnpool":
                theirs = theirs.flatten(2).transpose(1, 2)
            a, zero = split_key_bias(tensor, ours)
            assert_close(a, split_key_bias(tensor, theirs)[0], 1e-9, f"{kind} {tensor}")
            assert zero is None or zero.abs().max() <= 1e-12


def test_all_tokens_match_calip() -> None:
    data = parity("calip")
    params = {n[2:]: double(a) for n, a in data.items() if n.startswith("w.")}
    head = heads.attention_pool(params, int(data["num_heads"]))
    tokens = head.all_tokens(params, double(data["maps"]).flatten(2).transpose(1, 2))
    assert_close(F.normalize(tokens, dim=-1), double(data["all_token_features_unit"]), 1e-9, "tokens")


def test_a_step_costs_a_twentieth_of_the_multiplications() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    _, head, _, x_BTD = make("rn", torch.float32, true_size=True)
    with FlopCounterMode(display=False) as ours:
        head(head.params, x_BTD)
    D, T = x_BTD.shape[2], x_BTD.shape[1] + 1
    # keys and values of all tokens, q and c of one
    single_query = 2 * len(x_BTD) * (2 * D * D * T + 2 * D * D)
    assert ours.get_total_flops() * 19 < single_query


def test_towers_without_a_head_say_so() -> None:
    with pytest.raises(BenchError, match="no pooling head"):
        heads.of_tower(torch.nn.Identity(), "other")
