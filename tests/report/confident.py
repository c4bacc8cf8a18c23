"""Records of made-up logits: what an evaluation keeps of every image, computed from all probabilities.

The classifier of ``logits`` is calibrated at the temperature that it is given: its logits are that many times
the logarithms of the probabilities with which the label was drawn.

Legend: n test images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax, logsumexp

from bench.files import digest
from bench.records import places, store
from bench.records.keys import EvaluationKey
from bench.records.types import EvaluationRecord, FitRecord, PerClass, Provenance
from tests.report.made import PROVENANCE, TITLES, cell
from tests.report.recorded import cell_of, key_of

K = 8


def logits(
    n: int, seed: int, sharp: float, temperature: float, alike: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,), which are the same for every seed, and logits (n, K).

    ``alike``: from 0 to 1, how much images of class 0 look like class 1. Then the logits are not calibrated.
    """
    images = np.random.default_rng(n)
    labels = images.integers(0, K, n)
    luck = np.random.default_rng([seed, n])
    # Of a normal score with the label's mean raised by `sharp`, the class probabilities are a softmax.
    score = images.normal(0, 1, (n, K)) * 0.7 + luck.normal(0, 1, (n, K)) * 0.714
    score[np.arange(n), labels] += sharp
    score[labels == 0, 1] += alike * sharp
    return labels, temperature * sharp * score


def arrays(labels: np.ndarray, z: np.ndarray, temperature: float) -> dict[str, np.ndarray]:
    """The arrays of an evaluation, by their definition: from all K probabilities in double precision."""
    n = len(z)
    logp = log_softmax(z.astype(np.float64), axis=1)
    order = np.argsort(-logp, axis=1, kind="stable")[:, :5]
    scaled = logp / temperature
    lse = logsumexp(scaled, axis=1)
    return {
        "top1": order[:, 0].astype(np.uint16),
        "labels": labels.astype(np.uint16),
        "classes": order.astype(np.int16),
        "logp": np.take_along_axis(logp, order, 1).astype(np.float32),
        "rank": (logp > logp[np.arange(n), labels][:, None]).sum(1).astype(np.uint16),
        "true_logp": logp[np.arange(n), labels].astype(np.float32),
        "squares": np.exp(2 * logp).sum(1).astype(np.float32),
        "lse_t": lse.astype(np.float32),
        "squares_t": np.exp(2 * (scaled - lse[:, None])).sum(1).astype(np.float32),
    }


def one(
    results: Path,
    where: Mapping[str, Any],
    n: int = 200,
    sharp: float = 2.0,
    temperature: float = 2.0,
    scaled: bool = True,
    alike: float = 0.0,
    probabilities: bool = True,
    imported: str = "",
) -> Path:
    """A fit, and an evaluation that keeps its outputs; returns the evaluation's path.

    Logits are ``temperature`` times too large. ``scaled``: whether the fit has that temperature on record.
    ``probabilities``: whether the evaluation keeps more than its predictions. ``imported``: the file from
    which predictions came that were made elsewhere.
    """
    parts = key_of(where, dataset=digest(where["dataset"]))
    folder = places.folder(results, where["backbone"], where["dataset"], where["method"])
    clock = store.Clock("made", 1_700_000_000_000)
    provenance = Provenance(**PROVENANCE)
    head: dict[str, Any] = {"schema": 2, "cell": cell_of(where), "provenance": provenance}
    fit = FitRecord(
        **head,
        key=parts.digest(),
        parts=parts,
        title=TITLES.get(where["method"], where["method"]),
        seconds={"fit": 1.0},
        temperature=temperature if scaled else None,
        imported=bool(imported),
    )
    store.write(places.fit_path(folder, fit.key), fit, clock)
    labels, z = logits(n, where["seed"], sharp, temperature, alike)
    every = arrays(labels, z, temperature)
    names = [name for name in every if scaled or not name.endswith("_t")]
    kept = {name: every[name] for name in (names if probabilities else ("top1", "labels"))}
    key = EvaluationKey(fit=fit.key, target=digest(where["dataset"]))
    path = places.evaluation_path(folder, fit.key, key.digest())
    right = kept["top1"] == kept["labels"]
    counts = [np.bincount(x, minlength=K).tolist() for x in (labels, labels[right], kept["top1"])]
    evaluation = EvaluationRecord(
        **head,
        key=key.digest(),
        fit=fit.key,
        target=where["dataset"],
        parts=key,
        n=n,
        top1=float(right.mean()),
        top5=float((every["classes"] == labels[:, None]).any(1).mean()),
        predictions=store.write_predictions(path, kept),
        temperature=temperature if scaled and probabilities else None,
        per_class=PerClass(images=counts[0], right=counts[1], predicted=counts[2]),
        imported=imported,
        outputs=[name for name in kept if name not in ("top1", "labels")],
    )
    store.write(path, evaluation, clock)
    return path


def grid(
    results: Path,
    methods: Mapping[str, float],
    seeds: Sequence[int] = (1, 2, 3),
    shots: int = 16,
    dataset: str = "birds",
    **more: Any,
) -> Path:
    """One dataset at one number of shots: methods by ``sharp``; zero-shot has no shots and no seeds."""
    for method, sharp in methods.items():
        for seed in (0,) if method == "zero-shot" else seeds:
            n_shots = 0 if method == "zero-shot" else shots
            one(results, cell(method, dataset, n_shots, seed), sharp=sharp, **more)
    return results
