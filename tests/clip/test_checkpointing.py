"""Prompts that run in pieces have the same features and gradients, and autograd keeps no more than the
budget.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.clip import checkpointing
from tests.methods import support

NAMES = [f"{word} number {i}" for i in range(9) for word in ("cat", "art nouveau lamp")]
M = 5
support.method("coop")  # loads the methods
LAID = importlib.import_module("bench.methods.coop")


@pytest.fixture(scope="module")
def tower() -> Any:
    return support.tiny_tower(NAMES)


@pytest.fixture(scope="module")
def prompts(tower: Any) -> Any:
    laid = LAID.lay_out(tower, NAMES, M)
    assert len(laid.alike.filled) > 2 and sum(laid.alike.filled) == len(NAMES)
    assert laid.alike.end_K.tolist() != sorted(laid.alike.end_K.tolist()), (
        "rows do not follow the order of the names"
    )
    return laid


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def replicas(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return torch.func.vmap(fn)


CASES: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "one": ((), lambda fn: fn),
    "images": ((3, 1), lambda fn: fn),
    "replicas": ((4,), replicas),
    "lanes": ((2, 3), lambda fn: replicas(replicas(fn))),
    "replicas of images": ((2, 3, 1), replicas),
}


@pytest.mark.parametrize("room", [0.0, 1.0, 2.0, 7.0])
@pytest.mark.parametrize("case", CASES)
def test_pieces_give_features_and_gradients_of_the_whole(
    case: str, room: float, tower: Any, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``room``: rows that the budget holds; seven are two groups and a rest."""
    leading, mapped = CASES[case]
    pack, sizes = prompts.alike, []
    row = checkpointing.row_bytes(tower, pack.source_GT.shape[1], 16, 8, tower.layers)
    original = checkpointing.at_once

    def noted(*given: Any) -> tuple[int, int]:
        sizes.append(original(*given))
        return sizes[-1]

    monkeypatch.setattr(checkpointing, "at_once", noted)

    def run() -> tuple[Tensor, Tensor]:
        leaf = normal(*leading, M, 16).requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns where it would run the replicas one by one
            out = mapped(lambda c: prompts.encode(tower, c))(leaf)
        (grad,) = torch.autograd.grad((out * normal(*out.shape)).sum().square(), leaf)
        return out.detach(), grad

    N, G = math.prod(leading), len(pack.filled)
    whole = run()
    assert sizes.pop() == (N, G)
    monkeypatch.setattr(checkpointing, "budget", lambda device: int(room * row))
    for mine, wanted in zip(run(), whole, strict=True):
        assert mine.shape == wanted.shape
        support.close(mine, wanted, 1e-12)
    groups, rows = sizes.pop()
    assert groups * rows <= max(1.0, room) and (groups == 1 or rows == G)
    with torch.no_grad():  # kept is nothing then, so more run at once; here all budgets are too small
        monkeypatch.setattr(checkpointing, "budget", lambda device: int(room * row / (tower.layers + 1)))
        support.close(mapped(lambda c: prompts.encode(tower, c))(normal(*leading, M, 16)), whole[0], 1e-12)


def kept(fn: Callable[[], Tensor], tower: Any, pack: Any) -> int:
    """Bytes that autograd keeps for the backward pass, beside the frozen tower and the masks."""
    frozen = {x.untyped_storage().data_ptr() for x in (*tower.params.values(), pack.mask_G1TT)}
    seen: dict[int, Tensor] = {}

    def note(x: Tensor) -> Tensor:
        seen.setdefault(x.untyped_storage().data_ptr(), x)  # alive, so that no other gets its place
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        result = fn()
    assert result.requires_grad
    return sum(x.untyped_storage().nbytes() for place, x in seen.items() if place not in frozen)


@pytest.mark.parametrize("R", [1, 3])
def test_what_is_counted_is_what_is_kept(R: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = support.tiny_tower(NAMES, width=64, layers=3)
    prompts = LAID.lay_out(tower, NAMES, M)
    pack = prompts.alike
    T, D = pack.source_GT.shape[1], 64
    x = normal(R, M, D).requires_grad_()

    def run() -> Tensor:
        return torch.func.vmap(lambda c: prompts.encode(tower, c))(x)

    counted = R * len(pack.filled) * checkpointing.row_bytes(tower, T, D, 8, tower.layers - 1)
    assert 0.7 < kept(run, tower, pack) / counted < 1.0
    monkeypatch.setattr(checkpointing, "budget", lambda device: counted // 3)
    assert kept(run, tower, pack) < counted / 15, (
        "pieces keep their embeddings, a fifteenth of a block's numbers"
    )


def test_large_grids_of_large_prompts_are_cut() -> None:
    """At true size: of a thousand classes a processor's worker holds a few replicas' activations at once."""
    tower = type("Tower", (), {"layers": 12, "heads": 8})()
    x = torch.empty(12, 40, 185, 512, device="meta")
    groups, rows = checkpointing.at_once(tower, x)
    held = groups * rows * checkpointing.row_bytes(tower, 185, 512, 4, 12)
    assert (groups, rows) != (12, 40) and held <= checkpointing.budget(torch.device("cpu"))
