"""The engine's bounds that are estimated: steps of a run that is recorded, bytes that are scored in one call.

Legend: R replicas, G lanes, n steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch

from bench.interface import points
from bench.train import graphs, join, loop, select, slices
from tests.benchmarks.gpu import seams
from tests.benchmarks.gpu.place import Place

Found = Iterator[tuple[str, Any]]
LANES = 3


def bounds(place: Place) -> Found:
    """Short runs recorded against launched (``graphs.WORTH``), joined checks (``slices.TOGETHER``)."""
    cases = (
        ("safe", place.pick(12, 2), (1, 4, 16, 64)),
        ("cross-modal-linear", place.pick(3, 1), (100, 400)),
    )
    for method, R, images in cases:
        fit, _, steps = place.steps("rn", method)
        for n in place.pick((8, 16, 32), (2 + graphs.WARM,)):
            yield f"{method}, R={R}, {n} steps", runs(place, steps, R, n)
        for count in place.pick(images, (2,)):
            yield f"{method}, R={R}, a check of {count} images", checks(place, fit, steps, R, count)


def runs(place: Place, steps: Any, R: int, n: int) -> dict[str, float]:
    """Seconds of a whole run, recording included."""

    def run() -> None:
        recipe = replace(steps.recipe, steps=n, epochs=None, check_every=None, select="last", patience=None)
        settings = {**steps.task.settings, **points(steps.recipe.static)[0]}
        values = steps.values(R)
        start = [steps.start(v) for v in values]
        loop.train(steps.method, recipe, steps.consts, start, values, settings, steps.pools, 1, None)

    with patch.object(graphs, "WORTH", 1):
        recorded = place.median(run)
    with seams.launched():
        launched = place.median(run)
    return {"recorded_s": recorded, "launched_s": launched, "ratio": recorded / launched}


def checks(place: Place, fit: Any, steps: Any, R: int, images: int) -> dict[str, float]:
    """Seconds of a check of lanes with so many images each, in one call and lane by lane."""
    values = steps.values(R)
    start = [steps.start(v) for v in values]
    settings = {**steps.task.settings, **points(steps.recipe.static)[0]}
    lanes, size = [], [(tap, x.shape[1:]) for tap, x in fit.features()[1].items()]
    for g in range(LANES):
        features = {tap: torch.randn(images, *shape, device=place.device) for tap, shape in size}
        y = torch.zeros(images, dtype=torch.long, device=place.device)
        lanes.append(loop.Lane(steps.consts, start, steps.pools, g, select.Labelled(features, y)))
    shared, varying = join.merged([lane.consts for lane in lanes])
    stacked = loop.stack(start * LANES)

    def seconds(limit: int) -> float:
        score = join.scorer(
            steps.method, steps.recipe, lanes, shared, varying, settings, slices.most(place.device, None)
        )
        assert score is not None
        with patch.dict(slices.TOGETHER, {place.device.type: limit}):
            return place.median(lambda: score(stacked, values, range(LANES)))

    each = slices.row_bytes([shape for _, shape in size])
    one, apart = seconds(1 << 62), seconds(0)
    return {"bytes": each * images * R, "one_call_s": one, "lane_by_lane_s": apart, "ratio": one / apart}
