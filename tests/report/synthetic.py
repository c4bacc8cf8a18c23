"""Records made without a model: accuracies as asked for, predictions to match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.files import digest
from bench.records import places, store
from bench.records.keys import EvaluationKey
from bench.records.types import Budget, Curve, EvaluationRecord, Failure, FitRecord
from tests.report.recorded import at, cell_of, key_of

K = 5


def outcomes(accuracy: float, n: int, seed: int, noise: int = 0) -> np.ndarray:
    """Right or wrong for n images: the easier images are the same for everybody, ``noise`` draws the rest."""
    easy = np.random.default_rng(digest_seed("easy", n)).random(n)
    own = np.random.default_rng(digest_seed("own", n, seed, noise)).random(n)
    order = np.argsort(0.7 * easy + 0.3 * own)
    right = np.zeros(n, dtype=bool)
    right[order[: round(accuracy * n)]] = True
    return right


def digest_seed(*parts: object) -> int:
    return int(digest(list(map(str, parts)))[:8], 16)


def write_cell(
    results: Path,
    method: str,
    dataset: str,
    shots: int,
    seed: int,
    accuracy: float,
    *,
    target: str | None = None,
    n: int = 100,
    backbone: str = "toy-rn",
    prompts: str = "hand",
    protocol: str = "recipe",
    preset: str = "quick",
    version: int = 1,
    weights: str = "w",
    content: str = "",
    changed: dict[str, Any] | None = None,
    late: dict[str, Any] | None = None,
    after: dict[str, str] | None = None,
    written: str = "2026-01-01T00:00:00.000+00:00",
    fail: str = "",
    noise: int = 0,
    keep_predictions: bool = True,
    target_digest: str = "",
    classes: int = K,
    defaults: dict[str, Any] | None = None,
    prompts_use_labels: bool | None = None,
    folder: str = "",
    parts: dict[str, Any] | None = None,
) -> str:
    """Write the fit and the evaluation of one cell as the program would; returns the fit key.

    ``changed`` are settings in the fit, ``late`` inference-time ones; ``fail`` makes the fit a failed one;
    ``prompts_use_labels`` is left out of the record where None; ``folder`` names the results folder it was
    written in; ``parts`` are further parts of the fit's key.
    """
    target = target or dataset
    cell = {
        "method": method,
        "dataset": dataset,
        "shots": shots,
        "seed": seed,
        "backbone": backbone,
        "prompts": prompts,
        "protocol": protocol,
        "preset": preset,
    }
    key = key_of(
        cell,
        **(parts or {}),
        dataset=target_digest or f"{dataset}{content}",
        version=version,
        weights=weights,
        after=after or {},
        settings={**(defaults or {}), **(changed or {})},
    )
    fit_key = key.digest()
    where = places.folder(results, backbone, dataset, method)
    head: dict[str, Any] = {
        "schema": 2,
        "key": fit_key,
        "cell": cell_of(cell),
        "changed": changed or {},
        "parts": key,
    }
    head["provenance"] = at(written, folder)
    if fail:
        failure = Failure(**head, of="fit", fit=fit_key, stage="fit", error=fail, traceback="Traceback")
        store.put(places.fit_path(where, fit_key), failure)
        return fit_key
    fit = FitRecord(
        **head,
        values={"lr": 0.1},
        budget=Budget(steps=10, configurations=3),
        seconds={"fit": 1.0},
        curve=[Curve(point={"lr": 0.1}, checks=[(0, 0.5)])],
        prompts_use_labels=prompts_use_labels,
    )
    store.put(places.fit_path(where, fit_key), fit)
    right = outcomes(accuracy, n, seed, noise)
    labels = np.arange(n) % classes
    top1 = np.where(right, labels, (labels + 1) % classes)
    late_key = EvaluationKey(fit=fit_key, target=target_digest or f"{target}{content}", values=late or {})
    path = places.evaluation_path(where, fit_key, late_key.digest())
    arrays = {"top1": top1, "top5": np.stack([top1] * 5, 1), "labels": labels}
    checksums = store.write_predictions(path, arrays) if keep_predictions else {}
    evaluation = EvaluationRecord(
        schema=2,
        key=late_key.digest(),
        fit=fit_key,
        cell=cell_of(cell),
        target=target,
        parts=late_key,
        values=late or {},
        changed=late or {},
        n=n,
        top1=float(right.mean()),
        top5=float(right.mean()),
        seconds=0.5,
        predictions=checksums,
        provenance=at(written, folder),
    )
    store.put(path, evaluation)
    return fit_key


def grid(
    results: Path,
    accuracy: dict[str, float],
    datasets: tuple[str, ...] = ("ants", "bees"),
    shots: tuple[int, ...] = (1, 16),
    seeds: tuple[int, ...] = (1, 2, 3),
    **more: Any,
) -> Path:
    """A full grid of methods by 1-shot accuracy, 10 points more at 16; ``zero-shot``: shots 0, seed 0."""
    for noise, (method, base) in enumerate(accuracy.items()):
        for dataset in datasets:
            if method == "zero-shot":
                write_cell(results, method, dataset, 0, 0, base, noise=noise, **more)
                continue
            for n in shots:
                for seed in seeds:
                    gain = 0.1 * (n > 1) + 0.01 * (seed - 2)
                    write_cell(results, method, dataset, n, seed, base + gain, noise=noise, **more)
    return results
