"""Compute the learning rates of a whole run as one array, in closed form (protocol 3).

``rates`` turns a ``Schedule`` (``bench.recipe``) into the absolute rate of every step. It returns no
multipliers, because some warm-ups start at 1e-5 whatever the base rate is. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.errors import BenchError
from bench.recipe import Schedule


def _half_cosine(position: np.ndarray, period: float) -> np.ndarray:
    """Return half a cosine wave at 0-based positions: 1 at position 0, and 0 at ``period``."""
    return 0.5 * (1.0 + np.cos(np.pi * position / period))


def _epochs(steps: int, per_epoch: int) -> tuple[np.ndarray, int]:
    """Return the 0-based epoch of every step, and the number of epochs begun."""
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
    # The cosine's period is the whole run, warm-up included, so the rate never reaches zero.
    return np.where(epoch < warmup_epochs, warmup_rate, lr * _half_cosine(epoch - warmup_epochs, epochs))


def _warmup_cosine_cm(
    lr: float, steps: int, per_epoch: int, *, warmup_steps: int, warmup_rate: float, period: int | None
) -> np.ndarray:
    i = np.arange(steps)
    warm = lr * i / max(warmup_steps, 1)
    fall = lr * _half_cosine(i - warmup_steps, _period("warmup-cosine-cm", period, steps))
    rate = np.where(i < warmup_steps, warm, fall)
    if warmup_steps > 0:
        rate[0] = warmup_rate  # absolute, so it may be above a base rate that is smaller than 1e-5
    return rate


def _linear_warmup_cosine(lr: float, steps: int, per_epoch: int, *, warmup_steps: int) -> np.ndarray:
    i = np.arange(steps)
    warm = lr * (i + 1) / max(warmup_steps, 1)
    return np.where(i < warmup_steps, warm, lr * _half_cosine(i - warmup_steps, max(steps - warmup_steps, 1)))


def _period(name: str, period: int | None, length: int) -> int:
    """Return the period of a cosine, or ``length`` if none is given. Raises BenchError if it is shorter."""
    if period is not None and period < length:
        raise BenchError(
            f"schedule '{name}': period {period} is shorter than the run ({length}); leave it out"
        )
    return length if period is None else period


_FORMS: dict[str, Callable[..., np.ndarray]] = {
    "constant": _constant,
    "cosine": _cosine,
    "dassl": _dassl,
    "warmup-cosine-cm": _warmup_cosine_cm,
    "linear-warmup-cosine": _linear_warmup_cosine,
}


def rates(schedule: Schedule, base_lr: float, steps: int, steps_per_epoch: int = 1) -> np.ndarray:
    """Return the learning rate of every step of a run, (steps,) float64 (protocol 3).

    ``base_lr`` is the recipe's rate and ``steps`` the number of optimiser steps. ``steps_per_epoch`` tells
    per-epoch schedules where epochs end; a last partial epoch counts as one. The rates are absolute. Raises
    BenchError if the schedule does not fit the run.
    """
    assert steps >= 0 and steps_per_epoch >= 1, (steps, steps_per_epoch)
    form = _FORMS[schedule.name]
    options = dict(schedule.options)
    if "per_epoch" in options:
        options["by_epoch"] = options.pop("per_epoch")
    if steps == 0:
        return np.zeros(0)
    return np.asarray(form(float(base_lr), steps, steps_per_epoch, **options), dtype=np.float64)
