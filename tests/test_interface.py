"""The interface of methods: its cross-entropy, and the page that explains each of its names."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench import interface, recipe
from bench.contract import checks
from bench.interface import cross_entropy

PAGE = (Path(__file__).parent.parent / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
Loss = Callable[[Tensor, Tensor], Tensor]


def gathered(logits_BK: Tensor, y_B: Tensor) -> Tensor:
    """The loss as it is usually written."""
    picked = logits_BK.gather(-1, y_B[:, None])[:, 0]
    return (torch.logsumexp(logits_BK, dim=-1) - picked).mean()


def example(K: int, dtype: torch.dtype, *stack: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(K)
    logits = 9.0 * torch.randn(*stack, 16, K, generator=g, dtype=dtype)
    return logits, torch.randint(K, (*stack[:1], 16), generator=g)


def value_and_gradient(loss: Loss, logits: Tensor, y: Tensor, maps: int) -> tuple[Tensor, Tensor]:
    """Under ``maps`` maps: over lanes with labels of their own, and over replicas that share them."""
    x, fn = logits.clone().requires_grad_(), loss
    if maps > 1:
        fn = torch.func.vmap(loss, in_dims=(0, None))
    if maps:
        fn = torch.func.vmap(fn)
    value = fn(x, y)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


@pytest.mark.parametrize("maps", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("K", [2, 3, 10, 47, 100, 397, 1000])
def test_cross_entropy_picks_bit_by_bit_what_gather_does(K: int, dtype: torch.dtype, maps: int) -> None:
    logits, y = example(K, dtype, *(3, 4)[:maps])
    for mine, usual in zip(
        *(value_and_gradient(loss, logits, y, maps) for loss in (cross_entropy, gathered)), strict=True
    ):
        assert torch.equal(mine, usual) and mine.dtype == dtype


@pytest.mark.parametrize("odd", [-math.inf, math.inf, math.nan])
@pytest.mark.parametrize("own", [False, True])
def test_what_is_no_number_matters_as_much_as_before(odd: float, own: bool) -> None:
    """In the column of another class, and in its own."""
    logits, y = example(5, torch.float64)
    y[:] = 2
    logits[3, 2 if own else 4] = odd
    for mine, usual in zip(
        *(value_and_gradient(loss, logits, y, 0) for loss in (cross_entropy, gathered)), strict=True
    ):
        torch.testing.assert_close(mine, usual, rtol=0.0, atol=0.0, equal_nan=True)
    value, grad = value_and_gradient(cross_entropy, logits, y, 0)
    if odd == -math.inf and not own:
        assert value.isfinite() and grad.isfinite().all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("maps", [0, 1, 2])
def test_cuda_cross_entropy_never_waits(maps: int) -> None:
    logits, y = (x.cuda() for x in example(100, torch.float32, *(3, 4)[:maps]))
    expected = value_and_gradient(gathered, logits, y, maps)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        mine = value_and_gradient(cross_entropy, logits, y, maps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True))


def test_the_page_explains_every_exported_name_and_every_check() -> None:
    table = PAGE.partition("## The whole interface")[2]
    explained = {
        name for row in re.findall(r"^\| (.+?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)
    }
    assert explained == set(interface.__all__)
    listed = PAGE.partition("## Checking it")[2].partition("## ")[0]
    named = [rule for row in re.findall(r"^\| (.+?) \|", listed, re.M) for rule in row.split(", ")]
    rules = re.findall(r'^ +"([a-z ]+)": lambda', inspect.getsource(checks._on_tower), re.M)
    assert len(rules) == 13 and named == ["check", "runs", *rules]


def test_the_page_gives_the_signatures_of_the_functions() -> None:
    given = dict(re.findall(r"^def (\w+)\(\s*(self, .+?)\s*\) -> .+?: \.\.\.$", PAGE, re.M | re.S))
    for name, function in vars(interface.Method).items():
        if not name.startswith("_") and callable(function):
            told = [part.split(":")[0].strip() for part in re.sub(r"\[.*?\]", "", given[name]).split(",")]
            assert told == list(inspect.signature(function).parameters), name


def test_the_page_names_every_field_of_a_recipe() -> None:
    part = PAGE.partition("## Recipes")[2].partition("## Settings")[0]
    named = set(re.findall(r"`(\w+)`", part))
    for kind in (interface.Recipe, interface.Stream):
        assert {f.name for f in fields(kind)} <= named, kind
    for known in (recipe.RULES, recipe.LAYOUTS, recipe.OPTIMISERS, recipe.SCHEDULES):
        assert set(known) <= set(re.findall(r"`([\w-]+)`", part)) | {"union", "per-epoch"}


def test_the_pages_comparison_with_a_reference_holds() -> None:
    (code,) = (body for body in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "def test_" in body)
    names: dict[str, object] = {}
    exec(code, names)
    names["test_run_equals_the_reference"]()  # type: ignore[operator]
