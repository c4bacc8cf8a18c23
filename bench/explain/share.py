"""Measure whether a fit moves importance to the object.

It compares the shares of the main glyph, the distractors and the background before and after the fit.

Legend: P parts, V models (before, then one a seed), n scenes, R seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.explain.parts import attention_map, map_shares, part_values
from bench.explain.picture import BACKGROUND, Picture, of_dataset, spread
from bench.explain.shapley import absolute_shares
from bench.explain.subject import Subject
from bench.pocket.scenes import SceneSource
from bench.stats.intervals import mean_interval, p_value

MEASURES = {"attention": "the attention map", "shapley": "|Shapley|"}
# "distractors" are all those of a scene together, "each distractor" is one of them. Scenes without
# distractors count in neither group.
GROUPS = ("main", "distractors", "each distractor", BACKGROUND)


def scenes(subject: Subject, count: int) -> list[Picture]:
    """Return ``count`` test scenes, evenly spread over the list.

    Raises BenchError for a dataset whose parts are not known.
    """
    dataset = subject.dataset
    if not isinstance(dataset.source, SceneSource):
        raise BenchError(
            f"the parts of the images of {dataset.name} are not known: "
            "choose a dataset of composed scenes, such as mammals"
        )
    paths = dataset.test.paths
    return [of_dataset(dataset, paths[i], subject.tower.spec) for i in spread(len(paths), count)]


def grouped(names: Sequence[str], shares_PV: np.ndarray) -> dict[str, np.ndarray]:
    """Return shares (V,) by group of parts; the groups of distractors are NaN if there are none."""

    def of(wanted: Callable[[str], bool]) -> np.ndarray:
        return shares_PV[[i for i, name in enumerate(names) if wanted(name)]]

    others = of(lambda name: name not in ("main", BACKGROUND))
    none = np.full(shares_PV.shape[1], np.nan)
    return {
        "main": of(lambda name: name == "main").sum(0),
        "distractors": others.sum(0) if len(others) else none,
        "each distractor": others.mean(0) if len(others) else none,
        BACKGROUND: of(lambda name: name == BACKGROUND).sum(0),
    }


def measure(
    subject: Subject,
    pictures: Sequence[Picture],
    value: str,
    fill: str,
    progress: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """Measure one row per scene: its path, its areas, and its shares by measure and group.

    The shares are those before the fit and then, seed by seed, after it.
    """
    rows = []
    for done, picture in enumerate(pictures, 1):
        assert picture.label is not None
        names = list(picture.masks)
        maps = [attention_map(subject.tower, model, picture) for model in subject.models]
        values = part_values(subject.tower, subject.models, picture, picture.label, value, fill)
        shares = {
            "attention": np.stack([map_shares(m, picture.masks) for m in maps], axis=1),
            "shapley": absolute_shares(values.phi),
        }
        areas = np.array([[mask.mean()] for mask in picture.masks.values()])
        rows.append(
            {
                "scene": picture.name,
                "parts": len(names),
                "area": {g: float(a[0]) for g, a in grouped(names, areas).items()},
                **{m: grouped(names, s) for m, s in shares.items()},
                "value": {"all": values.all, "none": values.none},
            }
        )
        progress(done)
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean shares before and after, by measure and group.

    Each has the paired interval of the change and the mean area too.
    """
    shares: dict[str, Any] = {}
    for m in MEASURES:
        shares[m] = {}
        for group in GROUPS:
            shares_nV = np.array([row[m][group] for row in rows])
            there = np.isfinite(shares_nV).all(1)
            if there.sum() < 2:
                continue
            before_n, after_Rn = shares_nV[there, 0], shares_nV[there, 1:].T
            change = mean_interval(after_Rn - before_n, bounds=(-1.0, 1.0))
            shares[m][group] = {
                "scenes": int(there.sum()),
                "area": float(
                    np.mean([row["area"][group] for row, here in zip(rows, there, strict=True) if here])
                ),
                "before": float(before_n.mean()),
                "after": float(after_Rn.mean()),
                "change": {
                    **{k: v for k, v in asdict(change).items() if k != "parts"},
                    "se": change.se,
                    # One fit is one draw of the support set: it cannot say what other draws would do.
                    "p": p_value(change) if len(after_Rn) > 1 else None,
                },
            }
    return shares


def verdict(title: str, shares: dict[str, Any]) -> str:
    """Say in one line whether the fit moves importance to the object, and by how many points of share."""
    directions = {_sign(shares[m]["main"]["change"]) for m in MEASURES}
    changes = "; ".join(
        f"share of {words} {100 * c['estimate']:+.1f} points [{100 * c['low']:+.1f}, {100 * c['high']:+.1f}]"
        for m, words in MEASURES.items()
        for c in [shares[m]["main"]["change"]]
    )

    heads = {
        frozenset({1}): f"{title} moves importance to the object",
        frozenset({-1}): f"{title} moves importance away from the object",
        frozenset({0}): f"whether {title} moves importance to the object cannot be told from these scenes",
        frozenset({0, 1}): f"{title} moves importance to the object by one measure; the other cannot tell",
        frozenset(
            {0, -1}
        ): f"{title} moves importance away from the object by one measure; the other cannot tell",
        frozenset({-1, 1}): f"for {title} the two measures disagree",
    }
    return f"{heads[frozenset(directions)]}: main glyph, {changes}"


def _sign(change: dict[str, Any]) -> int:
    return int(change["low"] > 0) - int(change["high"] < 0)


def plain(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows as JSON values: numbers rounded to six digits, null if a scene has no distractors."""

    def of(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: of(v) for k, v in x.items()}
        if isinstance(x, np.ndarray):
            return [of(float(v)) for v in x]
        return (round(x, 6) if np.isfinite(x) else None) if isinstance(x, float) else x

    return [of(row) for row in rows]
