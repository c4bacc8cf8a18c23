"""Recipes: how a method is trained, as data (streams of rows, optimiser, schedule, grid and selection).

A recipe is part of the fit key, and so are the names, the order and the defaults of its fields. This module
also computes what follows from a recipe alone, such as whether a batch is legal and how many steps make an
epoch. It imports only the ground and needs no torch, so that plans are made and priced without it; the engine
in ``bench.train`` does what a recipe says.

Legend: N images, V views of each, B rows of a batch.

Batch rules (``Stream.order``)
    ``restart``     shuffled passes without a last partial batch, reshuffled at their end (Cross-Modal, SAFE)
    ``epoch-keep``  shuffled every epoch, last partial batch kept (Tip-Adapter-F)
    ``epoch-drop``  shuffled every epoch, last partial batch dropped if at least one is full (Dassl trainers)
    ``full``        one batch of all rows in their own order
    ``images``      max(1, N // B) batches from a fresh permutation of all V*N rows (CLAP, ZS-LP)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from bench.errors import BenchError
from bench.names import canonical, nearest

# Taps: places in the image tower where features are taken. Features are never normalised.
PIXELS, LAYER3, DENSE, TOKENS, PREPROJ, POOLED = "pixels", "layer3", "dense", "tokens", "preproj", "pooled"
EVAL, FLIP = "eval", "flip"  # views with a fixed name; the i-th random crop is rrc(a)#i
SUPPORT, TEXT, PREPARED = "support", "text", "prepared"  # sources of a stream's rows
LR, WD = "lr", "wd"  # the two grid axes that the optimiser reads: learning rate and weight decay

RULES = ("restart", "epoch-keep", "epoch-drop", "full", "images")
LAYOUTS = ("union", "per-epoch")
OPTIMISERS = ("adamw", "adam", "sgd")
# The options of each schedule, with their published values as defaults.
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {},
    "cosine": {"floor": 0.0, "per_epoch": False, "period": None},
    "dassl": {"warmup_epochs": 1, "warmup_rate": 1e-5},
    "warmup-cosine-cm": {"warmup_steps": 50, "warmup_rate": 1e-5, "period": None},
    "linear-warmup-cosine": {"warmup_steps": 500},
}


@dataclass(frozen=True)
class Stream:
    """A source of rows for the batches of a fit.

    ``source``: 'support' (the support images), 'text' (the raw features of the prompts, one row each) or
    'prepared' (a tensor (V, N, ...) that ``prepare`` put into the constants under the name ``tap``). ``tap``
    and ``views``: which features of the images. ``rows``: with 'union' every view of every image is a row,
    ordered view by view (V * N rows); with 'per-epoch' epoch e uses view (e + ``first``) mod V (N rows).
    ``order``: a batch rule. ``batch``: rows of a batch; None takes as many as the rule can draw.
    """

    source: str = SUPPORT
    tap: str = POOLED
    views: tuple[str, ...] = (EVAL,)
    rows: str = "union"
    order: str = "restart"
    batch: int | None = None
    first: int = 0


@dataclass(frozen=True)
class OptimSpec:
    """An optimiser as data. ``dataclasses.asdict`` makes it JSON-able; ``OptimSpec(**that)`` restores it.

    ``name``: adamw (decoupled decay), adam (L2-coupled decay) or sgd (coupled decay, no Nesterov, no
    dampening). ``betas`` and ``eps`` are for adam and adamw, ``momentum`` is for sgd. ``half_state`` sets
    second moments below 3e-8 to zero, as an fp16 optimiser state does (protocol 12.4). ``clip_norm`` bounds
    each replica's global gradient norm (protocol 7.1). Raises BenchError for an unknown name or values out of
    range.
    """

    name: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    half_state: bool = False
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        name = canonical(self.name)
        if name not in OPTIMISERS:
            raise BenchError(
                f"unknown optimiser '{self.name}'{nearest(self.name, OPTIMISERS)}; "
                f"one of: {', '.join(OPTIMISERS)}"
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise BenchError(f"optimiser '{name}': betas must be two numbers in [0, 1), not {self.betas}")
        if not (self.eps >= 0.0 and self.momentum >= 0.0):
            raise BenchError(f"optimiser '{name}': eps and momentum must not be negative")
        if self.clip_norm is not None and not self.clip_norm > 0.0:
            raise BenchError(f"optimiser '{name}': clip_norm must be positive, or left out")
        if self.half_state and name == "sgd":
            raise BenchError("optimiser 'sgd' has no second moment; leave half_state out")


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule as data. ``asdict`` makes it JSON-able; ``Schedule(**that)`` restores it.

    ``options`` that are not given get their published values, so that equal schedules compare equal and have
    equal digests.

    - ``constant``: the rate stays as it is
    - ``cosine`` (protocol 3.3): falls to zero step by step. ``floor``: the lowest rate, absolute (3.4).
      ``per_epoch``: the rate stays the same within an epoch (3.5). ``period``: T in steps (or epochs), for a
      run that is the beginning of a longer one
    - ``dassl`` (3.1): changes epoch by epoch: ``warmup_epochs`` at the absolute ``warmup_rate``, and a cosine
      whose period is all epochs
    - ``warmup-cosine-cm`` (3.2): step 0 at the absolute ``warmup_rate``, linear for ``warmup_steps``, then a
      cosine whose T is the run's steps (12,800 as published; shorter runs scale); ``period`` sets T instead
    - ``linear-warmup-cosine`` (3.6): ``lr (i+1)/warmup_steps``, then cosine to zero over the remaining steps

    Raises BenchError for an unknown name or option and for values out of range.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        name = canonical(self.name)
        if name not in SCHEDULES:
            known = ", ".join(SCHEDULES)
            raise BenchError(
                f"unknown schedule '{self.name}'{nearest(self.name, SCHEDULES)}; schedules: {known}"
            )
        defaults = SCHEDULES[name]
        given = {str(option).replace("-", "_"): value for option, value in dict(self.options).items()}
        for option, value in given.items():
            if option not in defaults:
                hint = nearest(option, defaults) or f"; its options: {', '.join(defaults) or 'none'}"
                raise BenchError(f"schedule '{name}' has no option '{option}'{hint}")
            _check_option(name, option, value, defaults[option])
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "options", {**defaults, **given})


def _check_option(name: str, option: str, value: Any, default: Any) -> None:
    """Raise BenchError if the value of an option is not of the kind that its default has.

    Options are flags, whole numbers (``period`` may be None) and rates.
    """
    if isinstance(default, bool):
        good, want = isinstance(value, bool), "true or false"
    elif option == "period":
        good = value is None or (type(value) is int and value > 0)
        want = "a positive whole number, or left out"
    elif isinstance(default, int):
        good, want = type(value) is int and value >= 0, "a whole number, zero or more"
    else:
        good, want = type(value) in (int, float) and 0.0 <= value < float("inf"), "a number, zero or more"
    if not good:
        raise BenchError(f"schedule '{name}': {option} must be {want}, not {value!r}")


@dataclass(frozen=True)
class Recipe:
    """A description of how a method is fitted and selected. It is part of the fit key.

    ``streams``, ``optim``, ``schedule``: how a method is trained; without ``optim`` it is solved instead.
    ``steps`` or ``epochs``: the length of the training.

    ``grid``: numbers that differ between replicas, first axis outermost; the optimiser reads ``lr`` and
    ``wd``. ``static``: values that change shapes; each combination trains in a group of its own. ``search``:
    values that act at inference and are tried on validation after the fit. ``fixed``: one value for each axis
    of these three, for protocols without validation. ``support``: taps and views of the support images that
    ``prepare``, ``solve`` and ``init`` read.

    ``check``: values that replace the settings while checkpoints are scored. A value of ``Method.inference``
    that is neither here nor searched has its default of the class then, whatever the user sets.
    ``check_every``: checks come after steps 0, check_every, 2 check_every, ...; None: after every epoch.
    ``select``: 'best' keeps each replica's best checkpoint on validation, 'last' its final step.
    ``criterion``: what is best, 'accuracy' or 'loss'. ``patience``: checks without improvement after which a
    replica stops. ``halving``, for solved methods: rounds of refinement by grid axis. The interval of two
    decades around the best value of the axis is halved so many times (protocol 6.1).
    """

    streams: Mapping[str, Stream] = field(default_factory=dict)
    optim: OptimSpec | None = None
    schedule: Schedule | None = None
    steps: int | None = None
    epochs: int | None = None
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    static: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    search: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    support: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    check: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    check_every: int | None = None
    select: str = "best"
    criterion: str = "accuracy"
    patience: int | None = None
    halving: Mapping[str, int] = field(default_factory=dict)


def points(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the axes' values, first axis outermost; one empty point for no axes."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def steps_of(recipe: Recipe, per_epoch: int) -> int:
    """Return the number of optimiser steps of a recipe whose epoch has ``per_epoch`` steps."""
    if recipe.steps is not None:
        return recipe.steps
    assert recipe.epochs is not None, "a trained recipe names steps or epochs"
    return math.ceil(recipe.epochs * per_epoch)


def rule_named(name: str) -> str:
    """Return a batch rule in canonical spelling. Raises BenchError with the nearest one if it is unknown."""
    return _named(name, "batch rule", RULES)


def layout_named(name: str) -> str:
    """Return a stream's ``rows`` in canonical spelling. Raises BenchError if the layout is unknown."""
    return _named(name, "view layout", LAYOUTS)


def _named(name: str, kind: str, names: Sequence[str]) -> str:
    folded = canonical(name)
    if folded not in names:
        raise BenchError(f"unknown {kind} '{name}'{nearest(name, names)}; one of: {', '.join(names)}")
    return folded


def legal(rule: str, n_rows: int, batch: int) -> bool:
    """Return whether a batch of ``batch`` rows can be drawn from ``n_rows`` rows.

    ``restart`` needs strictly fewer rows than there are (protocol 13.1, 21.10); the other rules shorten the
    batch. Raises BenchError for an unknown rule.
    """
    rule = rule_named(rule)
    return n_rows > 0 and (rule == "full" or (batch > 0 and (rule != "restart" or batch < n_rows)))


def check_legal(rule: str, n_rows: int, batch: int, stream: str = "this stream") -> None:
    """Raise BenchError, which names the ``stream``, if ``legal`` says that a batch cannot be drawn."""
    if legal(rule, n_rows, batch):
        return
    if n_rows < 1:
        raise BenchError(f"{stream} has no rows to draw batches from")
    if batch < 1:
        raise BenchError(f"batch {batch} of {stream} is not a positive number of rows")
    mend = f"choose at most {n_rows - 1}" if n_rows > 1 else "add shots or views"
    raise BenchError(
        f"batch {batch} of {stream} must be strictly smaller than its number of rows, {n_rows}; {mend}"
    )


def steps_per_epoch(rule: str, n_rows: int, batch: int, n_images: int | None = None) -> int:
    """Return the number of steps of one epoch. Raises BenchError for an unknown rule or an illegal batch.

    The rule ``images`` (protocol 18.4) counts the ``n_images`` behind the rows instead of the rows.
    """
    rule = rule_named(rule)
    check_legal(rule, n_rows, batch)
    if rule == "full":
        return 1
    if rule == "epoch-keep":
        return -(-n_rows // batch)
    if rule == "images":
        return max(1, (n_rows if n_images is None else n_images) // batch)
    return max(1, n_rows // batch)


def pool_rows(layout: str, n_images: int, n_views: int) -> int:
    """Return how many rows a stream offers: V * N with ``union`` (every view is a row), else N."""
    return n_images * n_views if layout_named(layout) == "union" else n_images


def drawn(stream: Stream, n_images: int, n_views: int) -> tuple[int, int]:
    """Return how many rows a stream offers, and how many of them it takes at a step.

    A ``batch`` of None takes as many as its rule can draw: all rows, with ``restart`` all but one.
    """
    n_rows = pool_rows(stream.rows, n_images, n_views)
    most = n_rows - 1 if rule_named(stream.order) == "restart" else n_rows
    return n_rows, most if stream.batch is None else stream.batch
