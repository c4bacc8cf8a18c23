"""The temperature of a fit: the optimum of protocol 24.6, within bounds, from validation images alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from bench.data.dataset import Items
from bench.errors import BenchError
from bench.interface import POOLED, Method
from bench.plan import needs
from bench.run import stages, temperature
from bench.run.guard import Guard
from bench.run.temperature import HIGHEST, LOWEST, optimal

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "parity" / "calibration.npz"


def test_the_optimum_of_the_fixture() -> None:
    """``optimal_log_scale`` is the logarithm of the scale, so T = 100 / exp(it) for logits of scale 100."""
    with np.load(FIXTURE) as known:
        x, text, y = known["val_features"].astype(float), known["text_features"], known["val_labels"]
        best, loss = float(known["optimal_log_scale"]), float(known["optimal_val_nll"])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    text = text / np.linalg.norm(text, axis=1, keepdims=True)
    logits = 100.0 * x @ text.T
    T = optimal(logits, y)
    assert 100.0 / np.exp(best) == pytest.approx(T, rel=1e-6)
    assert loss == pytest.approx(-log_softmax(logits / T, 1)[np.arange(len(y)), y].mean(), rel=1e-9)


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_true_temperature_is_found(true: float) -> None:
    """Labels drawn from softmax(z / T): the estimate lies within four standard errors of T."""
    draw = np.random.default_rng([9, int(10 * true)])
    z = draw.normal(0, 2, (4000, 7))
    p = softmax(z / true, 1)
    labels = (p.cumsum(1) > draw.random((4000, 1))).argmax(1)
    information = ((p * z**2).sum(1) - (p * z).sum(1) ** 2).sum()  # Fisher's, of 1 / T
    assert abs(1 / optimal(z, labels) - 1 / true) < 4 / np.sqrt(information)


def test_a_shift_of_an_image_and_a_scale_of_all_are_understood() -> None:
    draw = np.random.default_rng(4)
    z, y = draw.normal(0, 2, (50, 5)), draw.integers(0, 5, 50)
    T = optimal(z, y)
    assert optimal(z + draw.normal(0, 50, (50, 1)), y) == pytest.approx(T, rel=1e-9)
    z[:, 0] += 3 * (y == 0)
    assert optimal(2.0 * z, y) == pytest.approx(2.0 * optimal(z, y), rel=1e-9)


def test_without_an_optimum_the_bounds_hold() -> None:
    eye, right = 5.0 * np.eye(4), np.arange(4)
    assert optimal(eye, right) == LOWEST, "no mistake: the smaller, the better"
    assert optimal(eye, (right + 1) % 4) == HIGHEST, "no hit: the larger, the better"
    assert optimal(np.zeros((4, 4)), right) == 1.0, "equal logits"
    assert optimal(1e6 * eye, right) == LOWEST, "the probabilities are exactly 0 and 1"
    assert optimal(1e6 * eye, (right + 1) % 4) == HIGHEST
    assert optimal(np.full((4, 4), 3.0), right) == 1.0, "equal logits, shifted"


class Plain(Method):
    name, title = "plain", "Plain"

    def logits(self, params: Any, consts: Any, features: Any, values: Any) -> torch.Tensor:
        if values["fail"]:
            raise OSError("no such answer")
        return features[POOLED]

    settings: ClassVar[dict[str, Any]] = {"fail": False}


def of_fit(slices: Callable[..., Iterator[Any]], fail: bool = False) -> tuple[float | None, str]:
    """The result for a fit on four validation images of two classes, which the store yields."""
    backbone = SimpleNamespace(config={"vision_cfg": {}, "embed_dim": 2}, family="other", image_size=8)
    cell = SimpleNamespace(
        protocol="recipe", shots=2, method="plain", dataset="d", seed=1, backbone="b", prompts="p", preset=""
    )
    fit: Any = SimpleNamespace(
        cell=cell, backbone=backbone, method=Plain(), parts=SimpleNamespace(source=""), changed={}, after={},
        draw=SimpleNamespace(val=Items(("a", "b", "c", "d"), (0, 1, 0, 1))),
        dataset=SimpleNamespace(classnames=("x", "y")), facts=SimpleNamespace(shots=2),
    )  # fmt: skip
    session: Any = SimpleNamespace(
        device="cpu", sharers=1, guard=Guard(), slices=slices, report=lambda line: None
    )
    case: Any = SimpleNamespace(task=SimpleNamespace(settings={"fail": fail}), consts={}, val=None)
    fitted: Any = SimpleNamespace(params={}, values={})
    return temperature.of_fit(session, fit, fitted, case)


def stored(*_: Any) -> Iterator[Any]:
    yield 0, torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 2.0]])


def damaged(*_: Any) -> Iterator[Any]:
    yield from ()
    raise BenchError("the store is damaged")


def test_what_reading_features_raises_ends_the_fit() -> None:
    """A record without a temperature would stay for good, though the features can be mended."""
    assert of_fit(stored)[0] is not None
    with pytest.raises(BenchError, match="the store is damaged") as raised:
        of_fit(damaged)
    assert stages.of(raised.value) == "fit" and hasattr(raised.value, stages._STAGE)


def test_logits_that_fail_leave_the_fit_without_a_temperature() -> None:
    assert of_fit(stored, fail=True) == (None, "no temperature could be fitted: OSError: no such answer")


def planned(protocol: str = "recipe", shots: int = 2, val: int = 4) -> Any:
    return SimpleNamespace(
        cell=SimpleNamespace(protocol=protocol),
        facts=SimpleNamespace(shots=shots),
        draw=SimpleNamespace(val=[0] * val),
    )


def test_which_fits_have_validation_images_to_fit_on() -> None:
    assert needs.calibrates(planned()) and needs.calibrates(planned("equal-budget"))
    assert not needs.calibrates(planned("no-val"))
    assert not needs.calibrates(planned("test-oracle")), "its selection set is the test set"
    assert not needs.calibrates(planned(shots=0)) and not needs.calibrates(planned(val=0))
