"""GDA: Gaussian discriminant analysis of the support features beside the text classifier (protocol 18.5)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bench.interface import (
    POOLED,
    Consts,
    Facts,
    Features,
    Method,
    Params,
    Recipe,
    Task,
    Tensor,
    Values,
    cosine_logits,
    torch,
    unit,
)


def class_means(x_MC: Tensor, y_M: Tensor, K: int) -> Tensor:
    """Return (K, C): the mean of the rows of each class."""
    sums_KC = x_MC.new_zeros(K, x_MC.shape[1]).index_add(0, y_M, x_MC)
    return sums_KC / torch.bincount(y_M, minlength=K)[:, None]


def precision(centred_MC: Tensor) -> Tensor:
    """Return C pinv((M - 1) S + tr(S) I), (C, C), the shrunk inverse of the covariance.

    S is the sample covariance of the centred rows, with divisor M - 1.
    """
    M, C = centred_MC.shape
    scatter_CC = centred_MC.T @ centred_MC
    ridge = scatter_CC.trace() / (M - 1) * torch.eye(C).to(scatter_CC)
    inverse_CC: Tensor = torch.linalg.pinv(scatter_CC + ridge, hermitian=True)
    return C * inverse_CC


class Gda(Method):
    """Add a Gaussian classifier of the support features to the zero-shot logits, without training.

    Class means and one shared, shrunk covariance of the augmented support set give a linear classifier
    (W, b) in closed form. The logits are s cos + alpha (W norm(f) + b); validation searches alpha.

    Source: Wang et al. 2024 (protocol 18.5).
    Deviates: alpha is searched on few-shot validation, where the released code uses the full validation
        split, and on ImageNet the test set. Without validation alpha is 1.
    Settings:
        views: random crops per support image
        crop: smallest area of a random crop, as a share of the image
        alphas: values of ``alpha`` to search
        alpha: weight of the Gaussian classifier; none: searched on validation
    """

    name = "gda"
    title = "GDA"
    cite = "Wang et al. 2024"
    settings = {"views": 10, "crop": 0.5, "alphas": (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0), "alpha": None}
    presets = {"quick": {"views": 4}}
    per_dataset = {"imagenet": {"crop": 0.08}}
    inference = ("alpha",)

    def _views(self, settings: Values) -> tuple[str, ...]:
        return tuple(f"rrc({settings['crop']:g})#{i}" for i in range(settings["views"]))

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        return Recipe(
            support={POOLED: self._views(settings)},
            search={"alpha": settings["alphas"]},
            fixed={"alpha": 1.0},
        )

    def solve(self, task: Task, consts: Consts, values: Values) -> Params:
        views = self._views(values)
        x_MC = torch.cat([unit(task.features(POOLED, view)) for view in views])
        y_M = task.labels_N.repeat(len(views))
        means_KC = class_means(x_MC, y_M, task.facts.n_classes)
        weights_KC = means_KC @ precision(x_MC - means_KC[y_M])
        return {
            "gda_KC": weights_KC,
            "gda_K": -math.log(task.facts.n_classes) - 0.5 * (means_KC * weights_KC).sum(1),
        }

    def _parts(self, params: Params, consts: Consts, features: Features) -> tuple[Tensor, Tensor]:
        """Return the zero-shot logits and the scores of the Gaussian classifier, (B, K) each."""
        f_BC = unit(features[POOLED])
        return cosine_logits(f_BC, consts["W_KC"], consts["scale"]), f_BC @ params["gda_KC"].T + params[
            "gda_K"
        ]

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        text_BK, gauss_BK = self._parts(params, consts, features)
        alpha: float | Tensor = values["alpha"]
        return text_BK + alpha * gauss_BK

    def sweep(
        self, params: Params, consts: Consts, features: Features, values: Values, grid: Sequence[Values]
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Compute both terms once and yield the logits of every alpha."""
        text_BK, gauss_BK = self._parts(params, consts, features)
        for i, point in enumerate(grid):
            yield [i], (text_BK + point["alpha"] * gauss_BK)[None]
