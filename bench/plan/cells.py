"""Define the parts of a plan: fits with keys, their evaluations, and cells that cannot run.

The fit key holds everything that may change a fit. The evaluation key holds the fit key, the test set and the
values that act at inference (docs/architecture.md, "What can change a number"). This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.clip.backbone import BackboneSpec
from bench.data.dataset import Dataset, Draw
from bench.interface import Facts, LearnedText, Method, Recipe
from bench.prompts import PromptSet
from bench.records.keys import ALL, EvaluationKey, FitKey
from bench.records.types import Cell

TUNED = "prompts"  # the role in ``Planned.after`` of the fit whose class rows become W


@dataclass(frozen=True)
class Evaluation:
    """An evaluation on one test set with one choice of inference-time values.

    ``key``: the digest of ``parts``, which is the evaluation's name. ``changed``: the values that the user
    set.
    """

    target: Dataset
    values: Mapping[str, Any]
    parts: EvaluationKey
    key: str
    changed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """A fit with its key, what it reads, and its evaluations.

    ``key``: the digest of ``parts``, which is the fit's name. ``where``: the folder of its records.
    ``after``: the fits of other methods whose states it reads, by role; under ``TUNED`` the fit that its
    prompt set reads. ``changed``: settings that the user changed from their values for this preset and
    dataset, except those that act at evaluation (``Evaluation.changed`` has them). ``notes``: lines that the
    user should read about the fit, such as a batch that was shortened. ``learned``: the text that the method
    learns inside the prompts; only the cost model reads it. ``asked``: False for a fit that is planned only
    because another one reads its state.
    """

    cell: Cell
    method: Method
    settings: Mapping[str, Any]
    recipe: Recipe
    learned: LearnedText | None
    facts: Facts
    dataset: Dataset
    draw: Draw
    prompts: PromptSet
    backbone: BackboneSpec
    after: Mapping[str, Planned]
    parts: FitKey
    key: str
    where: Path
    changed: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    asked: bool = True


@dataclass(frozen=True)
class Blocked:
    """A cell that cannot run here, and why. ``failed``: whether its method failed while planning."""

    method: str
    dataset: str
    reason: str
    failed: bool = False


@dataclass
class Plan:
    """The fits in the order in which they run, and what is blocked.

    ``equal``: prompt sets of equal texts, which are recorded once, as (dataset, name in the records, other
    name). ``twins``: datasets of equal content and backbones of equal weights, as (kind, name
    in the records, other name). ``contents``: the digests of the datasets, by the names that the user asked
    for.
    """

    fits: list[Planned]
    blocked: list[Blocked]
    equal: frozenset[tuple[str, str, str]] = frozenset()
    twins: frozenset[tuple[str, str, str]] = frozenset()
    contents: Mapping[str, str] = field(default_factory=dict)


def chain(fit: Planned) -> Iterator[Planned]:
    """Yield the fits whose states a fit reads, dependencies first, and last the fit itself."""
    for other in fit.after.values():
        yield from chain(other)
    yield fit


def kind(fit: Planned) -> Cell:
    """Return the cell without its shots and seed. Fits that agree on it may train together."""
    return replace(fit.cell, shots=0, seed=0)


def label(fit: Planned) -> str:
    """Return a fit's coordinates in one line, such as "safe digits 1-shot seed 1 (pocket-rn, coop)".

    A cell of a fold is written "safe digits fold 1 (pocket-rn, coop)".
    """
    c = fit.cell
    shots = f" {c.shots}-shot seed {c.seed}" if c.shots else ""
    if c.shots == ALL:
        shots = f" fold {c.seed}"
    return f"{c.method} {c.dataset}{shots} ({c.backbone}, {c.prompts})"
