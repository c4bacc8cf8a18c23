"""Fit the temperature of a fit: the one number that its logits are divided by before probabilities are read.

It is fitted on the few-shot validation images after selection, never on test images (protocol 24.6; Guo et
al. 2017). Calibration metrics use it; no prediction and no accuracy depends on it.

Legend: n validation images, K classes, T the temperature.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import short_of_memory
from bench.interface import EVAL, Features, fit_values, scored_values
from bench.metrics import TEMPERATURES
from bench.plan import needs
from bench.plan.cells import Planned, label
from bench.plan.estimate import row_shape
from bench.run import logits, stages
from bench.run.session import Session
from bench.train import slices, waves
from bench.train.select import Case, Fitted

# A validation set that is classified without an error has no optimum: the smaller T, the better. It gets the
# lower bound.
LOWEST, HIGHEST = TEMPERATURES
RULE = 1  # the number of this rule, which records name; raise it with every change that moves T


def optimal(logits_NK: NDArray[np.floating], labels_N: NDArray[np.integer]) -> float:
    """Return the T within the bounds that minimises the mean negative log-likelihood of softmax(logits / T).

    ``logits_NK`` (n, K), ``labels_N`` (n,) from 0 to K - 1. The likelihood is concave in 1 / T, so its slope
    has at most one root, which is found in double precision. The result is 1 if every image has equal logits,
    for T does not matter then.
    """
    from scipy.optimize import brentq  # here: it takes half a second, and not every run needs it

    z_NK = np.asarray(logits_NK, np.float64)
    z_NK = z_NK - z_NK.max(1, keepdims=True)
    true_N = z_NK[np.arange(len(z_NK)), labels_N]
    if not z_NK.any():
        return 1.0

    def slope(inverse: float) -> float:
        """Return the derivative of the loss by 1 / T: the expected logit minus the true one."""
        weights_NK = np.exp(inverse * z_NK)
        return float(((weights_NK * z_NK).sum(1) / weights_NK.sum(1) - true_N).mean())

    low, high = 1.0 / HIGHEST, 1.0 / LOWEST
    # The slope rises with 1 / T. Where images are right by very much it is 0 at both ends: T is lowest then.
    if slope(high) <= 0.0:
        return LOWEST
    if slope(low) >= 0.0:
        return HIGHEST
    return float(1.0 / brentq(slope, low, high, xtol=1e-14, rtol=1e-14, maxiter=500))


def of_fit(session: Session, fit: Planned, fitted: Fitted, case: Case) -> tuple[float | None, str]:
    """Return the temperature of a fit that was just made, and a note, which is empty if all went well.

    It is 1 if the protocol has no validation images for it, and None, with the reason in the note, if the
    method's logits fail on them. Then the fit is good all the same: its evaluations show the error, or use
    inference-time values with which it does not come. Raises whatever reading features raises, and errors of
    memory.

    The fit's key covers everything that is read here: the draw, the settings, and the values that validation
    chose. Values that act at inference only have the defaults of the method's class, or what validation
    chose, so that a user's sweep over them cannot move T: all evaluations of a fit share one T.
    """
    if not needs.calibrates(fit):
        return 1.0, ""
    values = scored_values(fit.method, fit_values(fit.method, case.task.settings).with_(fitted.values))
    # A copy, because a logits that writes into what it is given must not change the state that others read.
    params = {name: p.detach().clone() for name, p in fitted.params.items()}
    pieces: list[Tensor] = []
    with torch.no_grad(), stages.stage("fit"):
        for features in _features(session, fit, case):
            try:
                with session.guard.work(fit, "its temperature"):
                    pieces.append(logits.of(fit, params, case.consts, features, values).double().cpu())
            except Exception as error:  # of the method; its evaluations meet it again
                if short_of_memory(error):
                    raise
                note = f"no temperature could be fitted: {stages.message(error)}"
                session.report(f"{label(fit)}: {note}")
                return None, note
        return optimal(torch.cat(pieces).numpy(), np.asarray(fit.draw.val.labels)), ""


def _features(session: Session, fit: Planned, case: Case) -> Iterator[Features]:
    """Yield the features of the validation images in slices: those that selection scored, or stored ones."""
    each = slices.row_bytes([row_shape(fit.backbone, tap) for tap in fit.method.taps])
    device = torch.device(session.device)
    rows = max(1, slices.most(device, waves.own_part(device, session.sharers)) // each)
    if case.val is not None:
        for start in range(0, len(case.val.y), rows):
            yield {tap: x[start : start + rows] for tap, x in case.val.features.items()}
        return
    taps, paths = fit.method.taps, fit.draw.val.paths
    parts = [session.slices(fit.backbone, fit.dataset, paths, EVAL, tap, rows) for tap in taps]
    for pieces in zip(*parts, strict=True):
        yield {tap: x for tap, (_, x) in zip(taps, pieces, strict=True)}
