"""Full records as by ``bench run``, of made-up predictions: images vary in difficulty, seeds in luck."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.files import digest
from bench.records import places, store
from bench.records.keys import EvaluationKey
from bench.records.types import Budget, Curve, EvaluationRecord, Failure, FitRecord, Provenance
from tests.report.recorded import cell_of, key_of

CLASSES = 10
SKILL = {"zero-shot": 0.45, "tip-adapter": 0.52, "tip-adapter-f": 0.6, "safe": 0.64, "safe-a": 0.66}
TITLES = {
    "zero-shot": "Zero-shot CLIP",
    "tip-adapter": "Tip-Adapter",
    "tip-adapter-f": "Tip-Adapter-F",
    "safe": "SAFE",
}
PROVENANCE = {
    "commit": "0" * 40,
    "dirty": False,
    "libraries": {"python": "3.12.1", "torch": "2.9.0"},
    "device": "cpu",
    "device_name": "Example CPU",
    "threads": 1,
    "flags": {"deterministic": True, "tf32": False},
    "source": "ab" * 32,
}


def cell(method: str, dataset: str, shots: int, seed: int, **other: str) -> dict[str, Any]:
    """Coordinates with the usual rest."""
    usual = {"backbone": "pocket-rn", "prompts": "hand", "protocol": "recipe", "preset": "quick"}
    return {"method": method, "dataset": dataset, "shots": shots, "seed": seed, **usual, **other}


def one(
    results: Path,
    where: Mapping[str, Any],
    n: int = 60,
    skill: float | None = None,
    target: str | None = None,
    values: Mapping[str, Any] | None = None,
    changed: Mapping[str, Any] | None = None,
    status: str = "ok",
    after: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    first: bool = False,
    version: int = 1,
    provenance: Mapping[str, Any] = PROVENANCE,
    seconds: float = 1.0,
    title: str | None = None,
    place: str = "",
) -> Path:
    """One fit and one evaluation; returns the evaluation's path (the fit's, where it failed).

    ``changed``: inference-time values that a user set; ``settings``: those of training. ``place``: where a
    dataset of people's own lies, which has its own images.
    """
    method = where["method"]
    parts = key_of(
        where,
        version=version,
        dataset=digest(where["dataset"] + place),
        after=dict(after or {}),
        settings={"lr": [1e-3], "steps": 100, **(settings or {})},
    )
    fit_key = parts.digest()
    folder = places.folder(results, where["backbone"], where["dataset"], method)
    clock = store.Clock("made", int(time.time() * 1000))
    name = title or TITLES.get(method, method)
    head: dict[str, Any] = {
        "schema": 2,
        "key": fit_key,
        "cell": cell_of(where),
        "parts": parts,
        "title": name,
        "changed": dict(settings or {}),
    }
    head["provenance"] = Provenance(**provenance)
    if status != "ok":
        failure = Failure(
            **head, of="fit", fit=fit_key, stage="fit", error="out of memory", traceback="Traceback ..."
        )
        store.write(places.fit_path(folder, fit_key), failure, clock)
        return places.fit_path(folder, fit_key)
    checks = [(step, 0.4 + 0.02 * step**0.5) for step in range(0, 101, 25)]
    fit = FitRecord(
        **head,
        values={"lr": 0.001},
        step=75,
        val_accuracy=0.57,
        curve=[
            Curve(point={"lr": 0.001}, checks=checks),
            Curve(point={"lr": 0.01}, checks=[(s, a / 2) for s, a in checks]),
        ],
        budget=Budget(configurations=2, checks=10, steps=200, val_images=10),
        seconds={"prepare": 0.1 * seconds, "fit": seconds},
        first=first,
        peak_memory=10**8,
        notes=["a note"],
        has_state=True,
        dataset_identity=place,
    )
    store.write(places.fit_path(folder, fit_key), fit, clock)
    goal = target or where["dataset"]
    key = EvaluationKey(fit=fit_key, target=digest(goal + place), values=dict(values or {}))
    labels, top1 = predictions(where, goal, n, SKILL.get(method, 0.5) if skill is None else skill)
    right = float((top1 == labels).mean())
    path = places.evaluation_path(folder, fit_key, key.digest())
    kept = store.write_predictions(path, {"top1": top1, "top5": np.stack([top1] * 5, 1), "labels": labels})
    evaluation = EvaluationRecord(
        schema=2,
        key=key.digest(),
        fit=fit_key,
        cell=cell_of(where),
        target=goal,
        parts=key,
        values=dict(values or {}),
        changed=dict(changed or {}),
        n=n,
        top1=right,
        top5=right,
        seconds=0.1,
        predictions=kept,
        target_identity=place,
        provenance=Provenance(**provenance),
    )
    store.write(path, evaluation, clock)
    return path


def predictions(where: Mapping[str, Any], target: str, n: int, skill: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels and top-1 classes (n,): the same images in every cell, skill growing with shots."""
    images = np.random.default_rng([sum(map(ord, target)), n])
    labels, difficulty = images.integers(0, CLASSES, n), images.normal(0, 0.25, n)
    luck = np.random.default_rng([where["seed"], where["shots"], *map(ord, where["method"] + target)])
    level = skill + 0.05 * np.log2(max(where["shots"], 1)) + luck.normal(0, 0.01)
    right = level + difficulty + luck.normal(0, 0.1, n) > 0.5
    return labels, np.where(right, labels, (labels + 1) % CLASSES)


def grid(
    results: Path,
    methods: Sequence[str] = tuple(SKILL),
    datasets: Sequence[str] = ("birds", "fish", "tools"),
    shots: Sequence[int] = (1, 4),
    seeds: Sequence[int] = (1, 2, 3),
    n: int = 60,
    **other: Any,
) -> Path:
    """Cells of a whole table; zero-shot has no shots and no seeds."""
    for method in methods:
        for dataset in datasets:
            if method == "zero-shot":
                one(results, cell(method, dataset, 0, 0, **other), n)
                continue
            for k in shots:
                for seed in seeds:
                    where = cell(method, dataset, k, seed, **other)
                    one(results, where, n, values={"beta": 0.5}, seconds=k * 0.3 * len(method))
    return results


def sweep(
    results: Path,
    betas: Sequence[float] = (0.0, 0.5, 1.0),
    targets: Sequence[str] = ("birds", "birds-v2"),
    **other: Any,
) -> Path:
    """SAFE at several betas on a source and a shift, 16 shots."""
    for seed in (1, 2, 3):
        for target in targets:
            for beta in betas:
                changed = {} if beta == 0.5 else {"beta": beta}
                skill = 0.5 + 0.1 * beta * (1.2 - beta)
                where = cell("safe", targets[0], 16, seed, **other)
                one(
                    results,
                    where,
                    skill=skill,
                    target=target,
                    values={"beta": beta, "blend": "raw"},
                    changed=changed,
                )
    return results
