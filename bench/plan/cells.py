"""What a plan is made of: fits with their keys and what they read, their evaluations, and what cannot run.

Fit key: everything that may change a fit. Evaluation key: fit key, test set, inference-time values
(docs/architecture.md, "What can change a number"). No torch.
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
from bench.records.keys import EvaluationKey, FitKey
from bench.records.types import Cell

TUNED = "prompts"  # in ``Planned.after``: the fit whose class rows become the prompt set's W


@dataclass(frozen=True)
class Evaluation:
    """One test set under one choice of inference-time values. ``key``: the digest of ``parts``, its name."""

    target: Dataset
    values: Mapping[str, Any]
    parts: EvaluationKey
    key: str
    changed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """A fit with its key, what it reads, and its evaluations. ``key``: the digest of ``parts``, its name.

    ``after``: fits of other methods whose state it reads, or its prompt set does (``TUNED``). ``changed``:
    settings that the user set away from their values for this preset and dataset (those that act at
    evaluation only are in ``Evaluation.changed``). ``notes``: what the user should know of the fit, such as
    a batch that was shortened. ``learned``: what the method learns inside the prompts, for the price alone.
    ``asked``: False for a fit that others alone read.
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
    """A cell that cannot run here, and why. ``failed``: because its method fails at planning it."""

    method: str
    dataset: str
    reason: str
    failed: bool = False


@dataclass
class Plan:
    """Fits in the order they run, what is blocked, and what is recorded once though it has two names.

    ``equal``: prompt sets of equal texts, as (dataset, name in the records, name). ``twins``: datasets of
    equal content and backbones of equal weights, as (kind, name in the records, name). ``contents``: the
    digests of the datasets, by the names that they were asked for.
    """

    fits: list[Planned]
    blocked: list[Blocked]
    equal: frozenset[tuple[str, str, str]] = frozenset()
    twins: frozenset[tuple[str, str, str]] = frozenset()
    contents: Mapping[str, str] = field(default_factory=dict)


def chain(fit: Planned) -> Iterator[Planned]:
    """The fits whose states a fit reads, those that they read first, and itself."""
    for other in fit.after.values():
        yield from chain(other)
    yield fit


def kind(fit: Planned) -> Cell:
    """What fits have in common that may train together: all coordinates but shots and seed."""
    return replace(fit.cell, shots=0, seed=0)


def label(fit: Planned) -> str:
    """A cell in one line."""
    c = fit.cell
    shots = f" {c.shots}-shot seed {c.seed}" if c.shots else ""
    return f"{c.method} {c.dataset}{shots} ({c.backbone}, {c.prompts})"
