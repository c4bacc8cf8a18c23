"""Learning-rate tables: published check values, reference runs, and torch's own schedulers."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.recipe import SCHEDULES, Schedule
from bench.train.schedule import rates
from tests.fixtures.references import parity


def test_published_check_values() -> None:
    """Protocol 21.8: the first epochs of 3.1, and the first three and the last step of 3.2."""
    dassl = rates(Schedule("dassl"), 0.002, 50 * 3, 3)
    assert dassl[[0, 2]].tolist() == [1e-5, 1e-5]
    np.testing.assert_allclose(dassl[[3, 6, 9]], [2.0e-3, 1.998027e-3, 1.992115e-3], rtol=3e-7)
    assert dassl[-1] > 0
    cm = rates(Schedule("warmup-cosine-cm"), 1e-4, 12_800)
    np.testing.assert_allclose(cm[:3], [1e-5, 2e-6, 4e-6], rtol=1e-12)
    assert cm[-1] == pytest.approx(3.92e-9, rel=2e-3)
    assert cm.sum() == pytest.approx(6425e-4, rel=1e-4)


@pytest.mark.parametrize("base", ["1e-03", "1e-05"])
def test_parity_cm_schedule(base: str) -> None:
    reference = parity("cm_schedule")
    ours = rates(Schedule("warmup-cosine-cm"), float(base), 12_800)
    np.testing.assert_allclose(ours[reference["steps"]], reference[f"lr_{base}"], rtol=1e-11)
    assert ours.sum() == pytest.approx(float(reference[f"sum_{base}"]), rel=1e-12)


def test_parity_cm_linear_is_a_prefix_of_the_full_run() -> None:
    """A run stopped after 200 of 12,800 steps: ``period`` pins the cosine that a short run would rescale."""
    reference = parity("cm_linear")
    ours = rates(Schedule("warmup-cosine-cm", {"period": 12_800}), float(reference["lr"]), 200)
    np.testing.assert_allclose(ours, reference["lr_used"], rtol=1e-11)


@pytest.mark.parametrize("epochs", [50, 200])
def test_parity_dassl_schedule(epochs: int) -> None:
    reference = parity("dassl_schedule")
    schedule = Schedule("dassl", {"warmup_rate": float(reference["warmup_lr"])})
    ours = rates(schedule, float(reference["base_lr"]), epochs * 4, 4).reshape(epochs, 4)
    np.testing.assert_allclose(ours, np.repeat(reference[f"lr_E{epochs}"][:, None], 4, axis=1), rtol=1e-11)


def test_parity_taskres_rates() -> None:
    reference = parity("taskres")
    each = int(reference["batches_per_epoch"])
    ours = rates(Schedule("dassl"), 2e-3, int(reference["max_epoch"]) * each, each)
    np.testing.assert_allclose(ours[:6], reference["lr"], rtol=1e-11)


def test_parity_tip_rates() -> None:
    reference = parity("tip")
    ours = rates(Schedule("cosine"), float(reference["lr"]), len(reference["F_lr"]))
    np.testing.assert_allclose(ours, reference["F_lr"], rtol=1e-11)


def test_parity_clip_lora_rates() -> None:
    reference = parity("clip_lora")
    schedule = Schedule("cosine", {"floor": float(reference["eta_min"])})
    ours = rates(schedule, float(reference["lr_base"]), int(reference["total_steps"]))
    np.testing.assert_allclose(ours[:3], reference["lr_used"], rtol=1e-11)


def test_parity_wise_original_rates() -> None:
    reference = parity("wise_original")
    np.testing.assert_allclose(
        rates(Schedule("linear-warmup-cosine"), 3e-5, 2000), reference["schedule_lr"], rtol=1e-11
    )
    schedule = Schedule("linear-warmup-cosine", {"warmup_steps": int(reference["warmup_steps"])})
    ours = rates(schedule, float(reference["lr"]), int(reference["total_steps"]))
    np.testing.assert_allclose(ours, reference["lr_used"], rtol=1e-11)


def torch_rates(lr: float, steps: int, make: object) -> list[float]:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimiser)  # type: ignore[operator]
    used = []
    for _ in range(steps):
        used.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return used


@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_cosine_equals_torch(floor: float) -> None:
    theirs = torch_rates(
        2e-4, 1000, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 1000, eta_min=floor)
    )
    np.testing.assert_allclose(
        rates(Schedule("cosine", {"floor": floor}), 2e-4, 1000), theirs, rtol=1e-6, atol=1e-16
    )


def test_per_epoch_cosine_holds_within_an_epoch() -> None:
    whole = rates(Schedule("cosine", {"per_epoch": True}), 1e-3, 7 * 5, 5).reshape(7, 5)
    assert (whole == whole[:, :1]).all()
    np.testing.assert_array_equal(whole[:, 0], rates(Schedule("cosine"), 1e-3, 7))


def test_dassl_equals_torch_after_the_warm_up() -> None:
    theirs = torch_rates(0.1, 49, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50))
    np.testing.assert_allclose(rates(Schedule("dassl"), 0.1, 50)[1:], theirs, rtol=1e-9)


def test_short_cross_modal_run_scales_its_period() -> None:
    ours = rates(Schedule("warmup-cosine-cm"), 1e-3, 400)
    assert ours[50] == pytest.approx(1e-3)
    assert ours[250] == pytest.approx(0.5e-3)
    assert ours[-1] == pytest.approx(0.5e-3 * (1 + math.cos(math.pi * 349 / 400)))


def test_warm_up_start_is_absolute() -> None:
    """Below a base rate of 1e-5 the very first step is the largest of the run (protocol 1.4, trap 12)."""
    assert rates(Schedule("warmup-cosine-cm"), 1e-7, 200).argmax() == 0
    assert rates(Schedule("dassl"), 1e-7, 200, 10)[:10].tolist() == [1e-5] * 10


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(tuple(SCHEDULES)),
    lr=st.floats(1e-7, 1.0),
    steps=st.integers(0, 300),
    each=st.integers(1, 40),
)
def test_rates_are_finite_and_never_above_base_or_warm_up(
    name: str, lr: float, steps: int, each: int
) -> None:
    ours = rates(Schedule(name), lr, steps, each)
    assert ours.shape == (steps,) and ours.dtype == np.float64
    assert (ours >= 0).all() and (ours <= max(lr, 1e-5) * (1 + 1e-12)).all()


def test_schedule_is_json_and_spells_out_what_it_uses() -> None:
    given_short = Schedule("Warmup_Cosine_CM")
    restored = Schedule(**json.loads(json.dumps(asdict(given_short))))
    assert restored == given_short and hash(restored) == hash(given_short)
    assert restored == Schedule("warmup-cosine-cm", {"warmup-steps": 50})
    assert restored.options == {"warmup_steps": 50, "warmup_rate": 1e-5, "period": None}
    assert restored != Schedule("warmup-cosine-cm", {"warmup_steps": 49})


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("cosin", {}, "did you mean 'cosine'"),
        ("cosine", {"flor": 0.1}, "did you mean 'floor'"),
        ("constant", {"floor": 0.1}, "its options: none"),
        ("cosine", {"floor": -1.0}, "floor must be a number"),
        ("cosine", {"per_epoch": 1}, "true or false"),
        ("dassl", {"warmup_epochs": 0.5}, "whole number"),
        ("cosine", {"period": 0}, "positive whole number"),
    ],
)
def test_wrong_schedules_name_the_mend(name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(BenchError, match=says):
        Schedule(name, options)


def test_schedules_that_do_not_fit_the_run() -> None:
    with pytest.raises(BenchError, match="shorter than the run"):
        rates(Schedule("cosine", {"period": 10}), 0.1, 11)
    with pytest.raises(BenchError, match="above the base rate"):
        rates(Schedule("cosine", {"floor": 0.2}), 0.1, 11)
