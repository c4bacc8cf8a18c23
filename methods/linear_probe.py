"""Linear probe by logistic regression, CoOp's "lpclip" estimator on the common draw (protocol 6.1)."""

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
    """Table III's row "Linear Probing": L2-regularised multinomial logistic regression on raw image features.

    Solved by scikit-learn's L-BFGS, with bias, one ``eval`` view, features not normalised. Only the inverse
    strength ``C`` is chosen on validation: among seven powers of ten (largest first, first best on ties),
    then by halving the interval of two decades around the best, ``rounds`` times. The source draws its own
    images and validates ImageNet on test images: here both are the protocol's.
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
            # The iteration limit is part of the recipe, and one image per class is a classification too.
            warnings.simplefilter("ignore", UserWarning)
            fit = LogisticRegression(C=float(values["C"]), max_iter=values["max_iter"])
            fit.fit(x_NC.double().cpu().numpy(), task.labels_N.cpu().numpy())
        rows, bias = torch.from_numpy(fit.coef_), torch.from_numpy(fit.intercept_)
        if len(fit.classes_) == 2:  # one row decides between two classes; the other class's row is zero
            rows, bias = torch.cat([torch.zeros_like(rows), rows]), torch.cat([torch.zeros_like(bias), bias])
        return {"W_KC": rows.to(x_NC), "b_K": bias.to(x_NC)}

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        return features[POOLED] @ params["W_KC"].T + params["b_K"]
