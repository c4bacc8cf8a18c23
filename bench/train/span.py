"""Compute from numbers alone how many steps a recipe takes on pools of given sizes, and their batches.

This decides whether tasks can join: pools may differ in size if the batches of all steps have equal sizes.
This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.recipe import Recipe, Stream, drawn, legal, steps_of, steps_per_epoch
from bench.train.batches import cycle

Size = tuple[int, int]  # (images of a pool, or prompts if its rows are texts; views of each)


def epoch(streams: Mapping[str, Stream], sizes: Mapping[str, Size]) -> int:
    """Return the steps of an epoch of the longest stream. Raises BenchError if a batch cannot be drawn."""
    return max(
        steps_per_epoch(s.order, *drawn(s, *sizes[name]), sizes[name][0]) for name, s in streams.items()
    )


def apart(recipe: Recipe, sizes: Sequence[Mapping[str, Size]]) -> str:
    """Return why runs on pools of these sizes cannot join, or "" if all steps have batches of one shape.

    Epochs may differ in length, because each run has its own rates and checks.
    """
    for name, stream in recipe.streams.items():
        asked = [(*drawn(stream, *of[name]), of[name][0]) for of in sizes]
        for n_rows, batch, _ in asked:
            if not legal(stream.order, n_rows, batch):
                return f"stream '{name}' cannot draw {batch} of {n_rows} rows"
        if len({cycle(stream.order, *one) for one in asked}) > 1:
            return f"stream '{name}' has batches of different sizes"
    steps = {steps_of(recipe, epoch(recipe.streams, of)) for of in sizes}
    return f"their runs have {' and '.join(map(str, sorted(steps)))} steps" if len(steps) > 1 else ""


def with_static(recipe: Recipe, static: Mapping[str, Any]) -> Recipe:
    """Return the recipe with a static ``batch`` divided between its streams, in the shares it gave them."""
    if "batch" not in static:
        return recipe
    whole = sum(s.batch or 0 for s in recipe.streams.values())
    streams = {
        name: replace(s, batch=s.batch * static["batch"] // whole if s.batch else None)
        for name, s in recipe.streams.items()
    }
    return replace(recipe, streams=streams)
