"""Linear probe by logistic regression: CoOp's "lpclip" estimator on the benchmark's draws (protocol 6.1)."""

from __future__ import annotations

import warnings

from bench.interface import (
    EVAL,
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
    torch,
)


class LinearProbe(Method):
    """Fit a logistic regression with bias to the raw image features of the support set.

    It is multinomial, with an L2 penalty, and scikit-learn's L-BFGS solves it on one unaugmented view of
    every image; the features are not normalised. Validation chooses the inverse strength ``C`` alone: first
    among seven powers of ten (the largest first, the first best on ties), then by halving the interval of
    two decades around the best one, ``rounds`` times. It is the row "Linear Probing" of Table III.

    Source: Radford et al. 2021; the estimator is that of Zhou et al. 2022 (protocol 6.1).
    Trains: W (K, C) and b (K,), by L-BFGS.
    Deviates: the source draws its own images and validates ImageNet on test images; here the draw and the
        validation images are those of the protocol.
    Settings:
        C: inverse strengths of the L2 penalty to try first
        rounds: how many times the interval around the best ``C`` is halved
        max_iter: most iterations of L-BFGS
    """

    name = "linear-probe"
    title = "Linear probe"
    cite = "Radford et al. 2021"
    settings = {"C": (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6), "rounds": 8, "max_iter": 1000}
    presets = {"quick": {"rounds": 4, "max_iter": 300}}

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        return Recipe(
            support={POOLED: (EVAL,)},
            grid={"C": settings["C"]},
            halving={"C": settings["rounds"]},
            fixed={"C": 1.0},
        )

    def prepare(self, task: Task) -> Consts:
        return {}

    def solve(self, task: Task, consts: Consts, values: Values) -> Params:
        from sklearn.linear_model import LogisticRegression

        x_NC = task.features(POOLED, EVAL)
        with warnings.catch_warnings():
            # The limit of iterations is part of the recipe, and one image per class is a valid task: neither
            # warning tells the user anything.
            warnings.simplefilter("ignore", UserWarning)
            fit = LogisticRegression(C=float(values["C"]), max_iter=values["max_iter"])
            fit.fit(x_NC.double().cpu().numpy(), task.labels_N.cpu().numpy())
        rows, bias = torch.from_numpy(fit.coef_), torch.from_numpy(fit.intercept_)
        if len(fit.classes_) == 2:  # scikit-learn gives one row for two classes; the other one is zero
            rows, bias = torch.cat([torch.zeros_like(rows), rows]), torch.cat([torch.zeros_like(bias), bias])
        return {"W_KC": rows.to(x_NC), "b_K": bias.to(x_NC)}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return features[POOLED] @ params["W_KC"].T + params["b_K"]
