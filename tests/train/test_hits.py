"""Counting right images on lines of logits equals counting them on the logits themselves, ties and all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.interface import Lines
from bench.train import hits, rng


def counted(lines: Lines, y_B: torch.Tensor) -> list[int]:
    """By numpy's argmax, which is the first of equals."""
    return (lines.logits().numpy().argmax(-1) == y_B.numpy()).sum(-1).tolist()


def random_lines(kind: str, B: int = 60, K: int = 7) -> tuple[Lines, torch.Tensor]:
    g = rng.generator(0, "hits", kind)
    y_B = torch.randint(K, (B,), generator=g)
    if kind == "real":
        base, slope = torch.randn(2, B, K, generator=g, dtype=torch.float64)
        return Lines(base, slope, torch.linspace(-3, 3, 41, dtype=torch.float64)), y_B
    base, slope = torch.randint(-2, 3, (2, B, K), generator=g).float()
    # Sums of quarters are exact: equal logits are equal.
    return Lines(base, slope, torch.arange(-8, 9) / 4), y_B


@pytest.mark.parametrize("kind", ["real", "quarters"])
def test_lines_count_as_their_logits(kind: str) -> None:
    lines, y_B = random_lines(kind)
    hits_G = hits.count(lines, y_B)
    assert hits_G.tolist() == counted(lines, y_B) == hits.count(lines.logits(), y_B).tolist()
    assert len(set(hits_G.tolist())) > 3


def test_the_quarters_hold_ties_that_order_decides() -> None:
    """Reversed classes, so that the last of equals would win, give other counts."""
    lines, y_B = random_lines("quarters")
    K = lines.base_BK.shape[1]
    turned = Lines(lines.base_BK.flip(1), lines.slope_BK.flip(1), lines.factor_G)
    hits_G = hits.count(turned, K - 1 - y_B)
    assert hits_G.tolist() == counted(turned, K - 1 - y_B)
    assert (hits_G != hits.count(lines, y_B)).sum() > 5


@pytest.mark.parametrize("where", ["base", "slope"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_counts_as_in_the_logits(where: str, number: float) -> None:
    lines, y_B = random_lines("real")
    rows = torch.arange(0, len(y_B), 2)
    table = lines.base_BK if where == "base" else lines.slope_BK
    table[rows, torch.randint(table.shape[1], (len(rows),), generator=rng.generator(0, "rows"))] = number
    assert hits.count(lines, y_B).tolist() == hits.count(lines.logits(), y_B).tolist()
