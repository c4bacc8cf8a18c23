"""The least time of the paper's grid on one H100 by the cost model: a lower bound, not a measurement.

    python -m tests.benchmarks.projection [--backbone RN50]

Eleven datasets x five shot counts x three seeds, every grid point of the published recipes. Sizes come from
the dataset files and the architecture's description; no image and no weights are read. Launches, decoding and
validation's memory traffic are not in it.

Legend: K classes, N support images.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import open_clip
from tabulate import tabulate

from bench import suite
from bench.clip.spec import BackboneSpec, family
from bench.data import catalog
from bench.interface import Facts, LearnedText, Method, Recipe, points, steps_of
from bench.plan import cost, settings
from bench.plan.cells import Planned
from bench.registry import builtin

# safe-a and wise-ft read the fits of safe and linear-probe-sgd, and add no steps of their own.
METHODS = (
    "safe",
    "safe-a",
    "tip-adapter-f",
    "linear-probe-sgd",
    "wise-ft",
    "cross-modal",
    "cross-modal-linear",
    "coop",
    "prograd",
)


@dataclass(frozen=True)
class _Fit:
    """What the cost model reads of a planned fit."""

    method: Method
    settings: dict[str, Any]
    recipe: Recipe
    learned: LearnedText | None
    facts: Facts
    backbone: BackboneSpec
    draw: Any = field(default=None)


def backbone(name: str) -> BackboneSpec:
    """A backbone's sizes, without its weights."""
    config = open_clip.get_model_config(name)
    assert config, f"open_clip has no architecture {name}"
    size = int(config["vision_cfg"].get("image_size", 224))
    return BackboneSpec(name, name, "", Path(), "", family(config), True, "paper", size, config=config)


def fit(method: Method, dataset: str, shots: int, spec: BackboneSpec) -> Planned:
    """The fit of one cell, as far as its cost goes; every class has as many images as asked for."""
    known = catalog.describe(dataset)
    K = int(known.counts["classes"])
    values = settings.resolve(method, "paper", known.recipe_as, {})
    facts = Facts(
        shots, K, K * shots, K * len(known.templates["hand"]), known.recipe_as, spec.family, "paper"
    )
    draw = SimpleNamespace(val=SimpleNamespace(paths=range(K * min(shots, 4))))
    recipe, learned = method.recipe(values, facts), method.learned_text(values, facts)
    return cast(Planned, _Fit(method, dict(values), recipe, learned, facts, spec, draw))


def steps(planned: Planned) -> int:
    """Optimiser steps of a fit when its grid points train together: once for each group of one shape."""
    recipe = planned.recipe
    return (
        len(points(recipe.static)) * steps_of(recipe, cost._rows(planned, recipe)[1]) if recipe.optim else 0
    )


def project(spec: BackboneSpec, device: cost.Device) -> list[dict[str, Any]]:
    """One row a method: cells, all cells' grid points, fused steps, operations, bytes, the least hours."""
    paper = suite.load("paper")
    rows = []
    for name in METHODS:
        method = builtin().get(name)
        fits = [fit(method, dataset, shots, spec) for dataset in paper.datasets for shots in paper.shots]
        S, costs = len(paper.seeds), [cost.whole(f) for f in fits]
        rows.append(
            {
                "method": name,
                "cells": S * len(fits),
                "grid points": S
                * sum(len(points({**f.recipe.grid, **f.recipe.static})) for f in fits if f.recipe.optim),
                "fused steps, 10^6": S * sum(map(steps, fits)) / 1e6,
                "operations, 10^15": S * sum(c.flops for c in costs) / 1e15,
                "bytes, 10^15": S * sum(c.bytes for c in costs) / 1e15,
                "hours at least": S * sum(map(device.seconds, costs)) / 3600,
            }
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="RN50", help="an open_clip architecture")
    rows = project(backbone(parser.parse_args().backbone), cost.H100)
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g"))


if __name__ == "__main__":
    main()
