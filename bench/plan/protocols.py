"""Apply a protocol, which decides what may choose hyper-parameters and the step (docs/protocols.md).

``recipe``        the author's own rule, with test selection replaced by few-shot validation (default)
``no-val``        fixed settings and the last step; validation images are never scored
``equal-budget``  every trained method scores the same number of configurations on validation, last step each
``test-oracle``   the recipe's rule on the test images: reproduces published leaks, marked in every table
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.errors import BenchError
from bench.interface import LR, Recipe
from bench.names import EQUAL_BUDGET, NO_VAL, PROTOCOLS, nearest

BUDGET = 12  # configurations per fit under equal-budget: the size of SAFE's published grid
_SPAN = 10.0  # learning rates from fixed / 10 to fixed * 10


def check(name: str) -> None:
    """Raise BenchError for an unknown protocol."""
    if name not in PROTOCOLS:
        raise BenchError(
            f"unknown protocol '{name}'{nearest(name, PROTOCOLS)}; one of: {', '.join(PROTOCOLS)}"
        )


def validates(name: str) -> bool:
    """Return whether the protocol lets labelled validation images choose anything."""
    return name != NO_VAL


def apply(name: str, recipe: Recipe) -> Recipe:
    """Return the recipe as the protocol runs it."""
    if name == NO_VAL:
        return replace(recipe, **_fixed(recipe, ("grid", "static", "search")), select="last", patience=None)
    if name == EQUAL_BUDGET and recipe.optim is not None and LR in recipe.grid:
        ladder = tuple(
            float(recipe.fixed[LR]) * _SPAN ** (-1.0 + 2.0 * i / (BUDGET - 1)) for i in range(BUDGET)
        )
        parts = _fixed(recipe, ("grid", "static", "search"))
        parts["grid"] = {**parts["grid"], LR: ladder}
        return replace(recipe, **parts, select="last", patience=None)
    return recipe


def _fixed(recipe: Recipe, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the recipe's axes of these names, each with its fixed value alone."""

    def one(axes: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        return {axis: (recipe.fixed[axis],) for axis in axes}

    return {name: one(getattr(recipe, name)) for name in names}
