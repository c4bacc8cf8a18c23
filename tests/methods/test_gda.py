"""GDA agrees with the reference's run and with scikit-learn's discriminant analysis (protocol 18.5)."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from bench.interface import POOLED, Facts, cosine_logits
from bench.train import select
from bench.train.select import Labelled
from tests.methods.support import close, fixture, make_task, method, score

precision = sys.modules[type(method("gda")).__module__].precision


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return fixture("gda")


def test_run_equals_the_reference(data: dict[str, Any]) -> None:
    gda = method("gda")
    views = {(POOLED, f"rrc(0.5)#{v}"): x for v, x in enumerate(data["views"])}
    task = make_task(gda, data["labels"], data["text_features"], features=views, overrides={"views": 3})
    consts, recipe = gda.prepare(task), gda.recipe(task.settings, task.facts)
    params = gda.solve(task, consts, task.settings)
    close(params["gda_KC"].T, data["W"])
    close(params["gda_K"], data["b"])
    assert recipe.search["alpha"] == tuple(data["alpha_grid"].tolist())
    grid = [{"alpha": a} for a in recipe.search["alpha"]]
    swept = list(gda.sweep(params, consts, {POOLED: data["val_features"]}, task.settings, grid))
    close(torch.cat([logits for _, logits in swept]), data["val_logits"])
    for (i,), logits in swept:
        close(logits[0], score(gda, task, params, data["val_features"], **grid[i]), rtol=1e-12)
    val = Labelled({POOLED: data["val_features"]}, data["val_labels"])
    fitted = select.fit(gda, recipe, task, consts, {}, val)
    assert fitted.values["alpha"] == float(data["best_alpha"])
    assert 100.0 * fitted.val_accuracy == pytest.approx(float(data["val_acc"].max()))
    test = score(gda, task, fitted.params, data["test_features"], **fitted.values)
    close(test, data["test_logits"])
    # Protocol 21.11: without the Gaussian term it is the zero-shot classifier.
    zero_shot = cosine_logits(data["test_features"], task.W_KC, task.scale)
    close(score(gda, task, fitted.params, data["test_features"], alpha=0.0), zero_shot, rtol=1e-12)


def test_precision_is_that_of_the_reference(data: dict[str, Any]) -> None:
    x = data["views"].flatten(0, 1)
    x = x / x.norm(dim=1, keepdim=True)
    y = data["labels"].repeat(len(data["views"]))
    close(precision(x - data["class_means"][y]), data["precision"])


def test_scores_are_those_of_linear_discriminant_analysis() -> None:
    """The shrinkage is that of a discriminant analysis with weight C / (M - 1 + C) on the spherical part."""
    g = np.random.default_rng(0)
    K, n, C = 4, 15, 7
    x = g.normal(size=(K * n, C)) + 2.0 * np.repeat(g.normal(size=(K, C)), n, 0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y, M = np.repeat(np.arange(K), n), K * n
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=C / (M - 1 + C)).fit(x, y)
    gda = method("gda")
    x_NC = torch.from_numpy(x)
    task = make_task(
        gda,
        torch.from_numpy(y),
        torch.eye(K, C, dtype=torch.float64),
        features={(POOLED, "rrc(0.5)#0"): x_NC},
        overrides={"views": 1},
    )
    params = gda.solve(task, gda.prepare(task), task.settings)
    ours_MK = x_NC @ params["gda_KC"].T + params["gda_K"]
    theirs_MK = torch.from_numpy(lda.decision_function(x))
    # Both are known up to a term common to all classes, ours by C / (M - 1 + C) of their precision's scale.
    ours_MK, theirs_MK = (z - z.mean(1, keepdim=True) for z in (ours_MK, theirs_MK))
    ratio = float((ours_MK * theirs_MK).sum() / theirs_MK.square().sum())
    close(ours_MK, ratio * theirs_MK)
    assert (ours_MK.argmax(1) == theirs_MK.argmax(1)).all() and ratio > 0


def test_imagenet_takes_smaller_crops() -> None:
    from bench.plan.settings import resolve

    gda, facts = method("gda"), Facts(16, 10, 160, 10, "imagenet", "rn", "paper")
    crops = {
        name: gda.recipe(resolve(gda, "paper", name, {}), facts).support[POOLED]
        for name in ("imagenet", "dtd")
    }
    assert (
        crops["imagenet"][0] == "rrc(0.08)#0" and crops["dtd"][0] == "rrc(0.5)#0" and len(crops["dtd"]) == 10
    )
