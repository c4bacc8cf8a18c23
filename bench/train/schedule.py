"""Learning-rate schedules in closed form: a whole run's rates as one array (protocol 3).

A schedule is data, ``Schedule(name, options)``; ``rates`` turns it into the absolute rate of every step.
Rates and not multipliers, because some warm-ups start at 1e-5 whatever the base rate is. No torch here: plans
print schedules too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.names import canonical, nearest


def _half_cosine(position: np.ndarray, period: float) -> np.ndarray:
    """1 at position 0, 0 at ``period``; positions are counted from 0."""
    return 0.5 * (1.0 + np.cos(np.pi * position / period))


def _epochs(steps: int, per_epoch: int) -> tuple[np.ndarray, int]:
    """The 0-based epoch of every step and the number of epochs begun."""
    return np.arange(steps) // per_epoch, -(-steps // per_epoch)


def _constant(lr: float, steps: int, per_epoch: int) -> np.ndarray:
    return np.full(steps, lr)


def _cosine(
    lr: float, steps: int, per_epoch: int, *, floor: float, by_epoch: bool, period: int | None
) -> np.ndarray:
    if floor > lr:
        raise BenchError(f"schedule 'cosine': floor {floor:g} is above the base rate {lr:g}; lower the floor")
    position, length = _epochs(steps, per_epoch if by_epoch else 1)
    return floor + (lr - floor) * _half_cosine(position, _period("cosine", period, length))


def _dassl(lr: float, steps: int, per_epoch: int, *, warmup_epochs: int, warmup_rate: float) -> np.ndarray:
    epoch, epochs = _epochs(steps, per_epoch)
    # The cosine's period is the whole run and not the run less its warm-up, so the last epoch never reaches
    # zero.
    return np.where(epoch < warmup_epochs, warmup_rate, lr * _half_cosine(epoch - warmup_epochs, epochs))


def _warmup_cosine_cm(
    lr: float, steps: int, per_epoch: int, *, warmup_steps: int, warmup_rate: float, period: int | None
) -> np.ndarray:
    i = np.arange(steps)
    warm = lr * i / max(warmup_steps, 1)
    fall = lr * _half_cosine(i - warmup_steps, _period("warmup-cosine-cm", period, steps))
    rate = np.where(i < warmup_steps, warm, fall)
    if warmup_steps > 0:
        rate[0] = warmup_rate  # absolute: above the base rate when that is smaller than 1e-5
    return rate


def _linear_warmup_cosine(lr: float, steps: int, per_epoch: int, *, warmup_steps: int) -> np.ndarray:
    i = np.arange(steps)
    warm = lr * (i + 1) / max(warmup_steps, 1)
    return np.where(i < warmup_steps, warm, lr * _half_cosine(i - warmup_steps, max(steps - warmup_steps, 1)))


def _period(name: str, period: int | None, length: int) -> int:
    if period is not None and period < length:
        raise BenchError(
            f"schedule '{name}': period {period} is shorter than the run ({length}); leave it out"
        )
    return length if period is None else period


# Name -> (closed form, its options with the published values).
_FORMS: dict[str, tuple[Callable[..., np.ndarray], dict[str, Any]]] = {
    "constant": (_constant, {}),
    "cosine": (_cosine, {"floor": 0.0, "per_epoch": False, "period": None}),
    "dassl": (_dassl, {"warmup_epochs": 1, "warmup_rate": 1e-5}),
    "warmup-cosine-cm": (_warmup_cosine_cm, {"warmup_steps": 50, "warmup_rate": 1e-5, "period": None}),
    "linear-warmup-cosine": (_linear_warmup_cosine, {"warmup_steps": 500}),
}
NAMES = tuple(_FORMS)


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule as data; ``dataclasses.asdict`` is JSON-able and ``Schedule(**that)`` restores
    it.

    Missing options are filled in with the published values, so that equal schedules compare and serialise
    equal.

    - ``constant``
    - ``cosine`` (protocol 3.3): per step to zero; ``floor`` is an absolute rate (3.4), ``per_epoch`` holds
      the rate within an epoch (3.5), ``period`` pins T (in steps, or epochs) when a run is a prefix of a
      longer one
    - ``dassl`` (3.1): per epoch; ``warmup_epochs`` at the absolute ``warmup_rate``, cosine period = all
      epochs
    - ``warmup-cosine-cm`` (3.2): step 0 at the absolute ``warmup_rate``, linear for ``warmup_steps``, then
      cosine with T = the run's steps (12,800 as published, shorter runs scale); ``period`` pins T instead
    - ``linear-warmup-cosine`` (3.6): ``lr (i+1)/warmup_steps``, then cosine to zero over the remaining steps

    Raises ``BenchError`` for an unknown name or option and for values out of range.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        name = canonical(self.name)
        if name not in _FORMS:
            known = ", ".join(NAMES)
            raise BenchError(f"unknown schedule '{self.name}'{nearest(self.name, NAMES)}; schedules: {known}")
        defaults = _FORMS[name][1]
        given = {str(option).replace("-", "_"): value for option, value in dict(self.options).items()}
        for option, value in given.items():
            if option not in defaults:
                hint = nearest(option, defaults) or f"; its options: {', '.join(defaults) or 'none'}"
                raise BenchError(f"schedule '{name}' has no option '{option}'{hint}")
            _check_option(name, option, value, defaults[option])
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "options", {**defaults, **given})


def _check_option(name: str, option: str, value: Any, default: Any) -> None:
    """Refuse a value of the wrong kind: a flag, a whole number (None where that is the default) or a rate."""
    if isinstance(default, bool):
        good, want = isinstance(value, bool), "true or false"
    elif option == "period":
        good, want = (
            value is None or (type(value) is int and value > 0),
            "a positive whole number, or left out",
        )
    elif isinstance(default, int):
        good, want = type(value) is int and value >= 0, "a whole number, zero or more"
    else:
        good, want = type(value) in (int, float) and 0.0 <= value < float("inf"), "a number, zero or more"
    if not good:
        raise BenchError(f"schedule '{name}': {option} must be {want}, not {value!r}")


def rates(schedule: Schedule, base_lr: float, steps: int, steps_per_epoch: int = 1) -> np.ndarray:
    """The learning rate used in every step of a run (protocol 3).

    ``base_lr`` is the recipe's rate, ``steps`` the number of optimiser steps, ``steps_per_epoch`` tells
    per-epoch schedules where epochs end (a last partial epoch counts as one). Returns (steps,) float64,
    absolute rates. Raises ``BenchError`` when the schedule does not fit the run.
    """
    assert steps >= 0 and steps_per_epoch >= 1, (steps, steps_per_epoch)
    form, _ = _FORMS[schedule.name]
    options = dict(schedule.options)
    if "per_epoch" in options:
        options["by_epoch"] = options.pop("per_epoch")
    if steps == 0:
        return np.zeros(0)
    return np.asarray(form(float(base_lr), steps, steps_per_epoch, **options), dtype=np.float64)
