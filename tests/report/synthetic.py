"""Records made without a model: accuracies as asked for, predictions to match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.files import digest
from bench.run import record

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
    results: Path, method: str, dataset: str, shots: int, seed: int, accuracy: float, *, target: str | None = None,
    n: int = 100, backbone: str = "toy-rn", prompts: str = "hand", protocol: str = "recipe", preset: str = "quick",
    version: int = 1, weights: str = "w", content: str = "", changed: dict[str, Any] | None = None,
    late: dict[str, Any] | None = None, after: dict[str, str] | None = None, written: str = "2026-01-01T00:00:00.000+00:00",
    fail: str = "", noise: int = 0, keep_predictions: bool = True, target_digest: str = "",
    classes: int = K, defaults: dict[str, Any] | None = None, prompts_use_labels: bool | None = None,
) -> str:  # fmt: skip
    """Write the fit and the evaluation of one cell as the program would; returns the fit key.

    ``changed`` are settings in the fit, ``late`` inference-time ones; ``fail`` makes the fit a failed one;
    ``prompts_use_labels`` is left out of the record where None.
    """
    target = target or dataset
    cell = {
        "method": method, "dataset": dataset, "shots": shots, "seed": seed, "backbone": backbone, "prompts": prompts,
        "protocol": protocol, "preset": preset,
    }  # fmt: skip
    parts = {
        "schema": record.SCHEMA, "method": method, "version": version, "weights": weights,
        "settings": {**(defaults or {}), **(changed or {})},
        "dataset": target_digest or f"{dataset}{content}", "after": after or {},
    }  # fmt: skip
    fit_key = digest([cell, parts])
    where = record.folder(results, backbone, dataset, method)
    head: dict[str, Any] = {"kind": "fit", "key": fit_key, "cell": cell, "changed": changed or {}, "parts": parts}
    if fail:
        _write(record.fit_path(where, fit_key), {**head, "status": "failed", "error": fail, "traceback": "Traceback"}, written)
        return fit_key
    budget = {"steps": 10, "configurations": 3}
    more: dict[str, Any] = {"status": "ok", "values": {"lr": 0.1}, "budget": budget, "seconds": {"fit": 1.0}}
    if prompts_use_labels is not None:
        more["prompts_use_labels"] = prompts_use_labels
    _write(record.fit_path(where, fit_key), {**head, **more, "curve": [{"point": {"lr": 0.1}, "checks": [[0, 0.5]]}]}, written)
    right = outcomes(accuracy, n, seed, noise)
    labels = np.arange(n) % classes
    top1 = np.where(right, labels, (labels + 1) % classes)
    key = digest([fit_key, target, late or {}])
    path = record.evaluation_path(where, fit_key, key)
    if keep_predictions:
        record.write_predictions(path.with_suffix(".npz"), top1, np.stack([top1] * 5, 1), labels)
    evaluation = {
        "kind": "evaluation", "status": "ok", "key": key, "fit": fit_key, "cell": cell, "target": target,
        "target_digest": target_digest or f"{target}{content}", "values": late or {}, "changed": late or {}, "n": n,
        "top1": float(right.mean()), "top5": 1.0, "seconds": 0.5,
    }  # fmt: skip
    _write(path, evaluation, written)
    return fit_key


def _write(path: Path, value: dict[str, Any], written: str) -> None:
    """As ``record.write``, at a time of the test's choice."""
    from bench.files import write_json

    write_json(path, {"schema": record.SCHEMA, **value, "provenance": {"written": written}})


def grid(
    results: Path, accuracy: dict[str, float], datasets: tuple[str, ...] = ("ants", "bees"), shots: tuple[int, ...] = (1, 16),
    seeds: tuple[int, ...] = (1, 2, 3), **more: Any,
) -> Path:  # fmt: skip
    """A full grid of methods by their 1-shot accuracy, 10 points more at 16 shots; ``zero-shot`` has shots 0 and seed 0."""
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
