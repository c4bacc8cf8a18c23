"""Prompts whose common start is computed once equal each prompt alone, and share exactly the common
tokens.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.clip import packed_text, packing
from tests.methods import support

RAGGED = ("cat", "Boeing 737-800", "art nouveau lamp", "art deco")
EVEN = ("cat", "dog", "pizza")
# Eight words and a comma: the ninth token stays frozen behind the context.
WORDS = "a type of pet, a photo of a"
support.method("coop")  # loads the methods
LAID = importlib.import_module("bench.methods.coop")


@pytest.fixture(scope="module")
def tower() -> Any:
    return support.tiny_tower([*RAGGED, *EVEN, WORDS])


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def with_gradient(fn: Callable[[Tensor], Tensor], ctx: Tensor, replicas: bool) -> tuple[Tensor, Tensor]:
    """Features and the gradient of one number made of them, as the engine takes it over stacked replicas."""
    leaf = ctx.clone().requires_grad_()
    out = torch.func.vmap(fn)(leaf) if replicas else fn(leaf)
    (grad,) = torch.autograd.grad((out * normal(*out.shape)).sum().square(), leaf)
    return out.detach(), grad


@pytest.mark.parametrize("replicas", [False, True])
@pytest.mark.parametrize("each", ["shared", "class-specific", "images"])
@pytest.mark.parametrize("names", [RAGGED, EVEN, RAGGED[2:3]], ids=["ragged", "even", "one class"])
@pytest.mark.parametrize("position", LAID.POSITIONS)
def test_equals_every_prompt_on_its_own(
    tower: Any, position: str, names: tuple[str, ...], each: str, replicas: bool
) -> None:
    K, M = len(names), 5
    prompts = LAID.lay_out(tower, names, M, position=position)
    leading = {"shared": (), "class-specific": (K,), "images": (2, 1)}[each]
    ctx = normal(*((3,) if replicas else ()), *leading, M, 16)

    def alone(c: Tensor) -> Tensor:
        x = prompts.fill(c)
        B = x.shape[0] if x.dim() == 4 else 1
        features = tower.encode(x.flatten(0, -3) if B > 1 else x, prompts.eot_K.repeat(B))
        return features.unflatten(0, (B, K)) if B > 1 else features

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns where it would run the replicas one by one
        packed = with_gradient(lambda c: prompts.encode(tower, c), ctx, replicas)
    for mine, wanted in zip(packed, with_gradient(alone, ctx, replicas), strict=True):
        support.close(mine, wanted, 1e-12)
    assert float(packed[1].abs().min()) > 0


def test_only_what_is_equal_is_shared(tower: Any) -> None:
    """The start token, slots before the name, tokens that all names begin with; none after an end token."""
    for position, names, alike, apart in (
        ("end", RAGGED, 6, 1),
        ("middle", RAGGED, 3, 1),
        ("front", RAGGED, 1, 1),
        ("end", RAGGED[2:], 7, 1),
        ("middle", RAGGED[2:], 4, 1),
        ("front", RAGGED[2:], 2, 2),
        ("end", ("dog", "dog"), 8, 1),
    ):
        prompts = LAID.lay_out(tower, names, 5, position=position)
        assert (prompts.alike.shared, prompts.apart.shared) == (alike, apart), (position, names)
        for pack in (prompts.alike, prompts.apart):
            assert pack.source_GT.unique().numel() == pack.shared + int(
                (prompts.eot_K + 1 - pack.shared).sum()
            )
    framed = LAID.lay_out(tower, RAGGED, 8, WORDS)
    assert framed.alike.shared == 10, "the frozen word behind the context is the same for all classes"


def test_gradients_equal_finite_differences(tower: Any) -> None:
    prompts = LAID.lay_out(tower, RAGGED, 3, position="middle")
    ctx = normal(3, 16).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: prompts.encode(tower, c), ctx, fast_mode=True)


def test_prompts_without_anything_in_common(tower: Any) -> None:
    ids_KL = tower.tokenize(list(RAGGED))
    eot_K = ids_KL.argmax(-1)
    x_KLD = tower.embed(ids_KL)
    x_KLD[:, 0] = normal(4, 16)
    pack = packing.pack_of(eot_K, ids_KL.shape[1], 0, x_KLD)
    support.close(packed_text.encode(tower, x_KLD, pack), tower.encode(x_KLD, eot_K), 1e-12)
