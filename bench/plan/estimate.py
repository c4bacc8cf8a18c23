"""Estimate what a plan costs: disk for features, and seconds from earlier records or the cost model.

This module imports no torch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from bench.clip.backbone import BackboneSpec
from bench.interface import DENSE, LAYER3, POOLED, PREPROJ, TOKENS
from bench.plan import cost, needs
from bench.plan.earlier import Earlier
from bench.plan.todo import Todo
from bench.plan.todo import kind as kind_of
from bench.records.types import Cell, EvaluationRecord, FitRecord

# A usual processor, by which cells can be compared without measuring this machine's. One step and one
# evaluation take these seconds on top of the operations that the cost model counts.
_USUAL = cost.Device("a processor", 5e10, 1e10)
_STEP, _EVALUATION = 0.001, 0.03
Kind = tuple[str, str, int | str]  # backbone, method, shots: cells of a kind take about as long as each other


@dataclass(frozen=True)
class Guess:
    """The expected seconds of a cell without encoding. ``recorded``: whether earlier records give them."""

    kind: Kind
    seconds: float
    recorded: bool


def row_shape(spec: BackboneSpec, tap: str) -> tuple[int, ...]:
    """Return the shape of one image's features at a tap, from the architecture alone."""
    vision, width = spec.config["vision_cfg"], int(spec.config["embed_dim"])
    if spec.family == "rn":
        tower, side = 32 * int(vision.get("width", 64)), spec.image_size // 32
        shapes = {
            DENSE: (side**2, tower),
            TOKENS: (side**2 + 1, width),
            LAYER3: (tower // 2, 2 * side, 2 * side),
        }
    elif spec.family == "vit":
        tower, tokens = (
            int(vision.get("width", 768)),
            (spec.image_size // int(vision.get("patch_size", 16))) ** 2 + 1,
        )
        shapes = {DENSE: (tokens, tower), TOKENS: (tokens, width)}
    else:
        tower, shapes = width, {}
    return {POOLED: (width,), PREPROJ: (tower,), **shapes}.get(tap, (width,))


def disk(todo: list[Todo], dense_cache: bool = True) -> int:
    """Return the bytes of the stored features (fp16) that cells read, each image x view x tap counted once.

    Features that the store holds already are counted too.
    """
    wanted: dict[tuple[str, str, str, str, str], tuple[BackboneSpec, set[str]]] = {}
    for t in todo:
        reads = [*needs.of_fit(t.fit)]
        reads += [n for e in t.evaluations for n in needs.of_evaluation(t.fit, e, dense_cache)]
        for dataset, part, paths, view, tap in reads:
            if needs.stored(tap, view):
                key = (t.fit.backbone.digest, *needs.pool(dataset, part), view, tap)
                wanted.setdefault(key, (t.fit.backbone, set()))[1].update(paths)
    return sum(
        2 * math.prod(row_shape(spec, tap)) * len(paths) for (*_, tap), (spec, paths) in wanted.items()
    )


def logits_disk(todo: list[Todo]) -> int:
    """Return the bytes of the logits (fp16) that ``--keep-logits`` adds for the evaluations that are left."""
    return sum(2 * len(e.target.test.paths) * len(e.target.classnames) for t in todo for e in t.evaluations)


def seconds(earlier: Earlier, todo: list[Todo], on: str) -> float | None:
    """Return the seconds of all fits and evaluations by earlier records, or None if some kind lacks records.

    ``on``: as in ``cells``.
    """
    guesses = cells(earlier, todo, on).values()
    return sum(g.seconds for g in guesses) if guesses and all(g.recorded for g in guesses) else None


def cells(
    earlier: Earlier, todo: list[Todo], on: str, device: cost.Device | None = None
) -> Mapping[str, Guess]:
    """Return by fit key each cell's expected seconds: its fit, if yet to be made, and its evaluations.

    The guess is the median of earlier records of the cell's kind that were made ``on`` the kind of device
    where the run will be, ``cpu`` or ``cuda``. Without such records it is the cost model's figure for
    ``device``, or for a usual processor if ``device`` is None.
    """
    fits: dict[Kind, list[float]] = defaultdict(list)
    evaluations: dict[Kind, list[float]] = defaultdict(list)
    for record in earlier.records:
        if kind_of(record) != on:
            continue
        if isinstance(record, FitRecord):
            fits[_kind(record.cell)].append(sum(record.seconds.values()))
        elif isinstance(record, EvaluationRecord):
            evaluations[_kind(record.cell)].append(record.seconds)
    guesses = {}
    for t in todo:
        kind = _kind(t.fit.cell)
        seconds = median(evaluations.get(kind, [_EVALUATION])) * len(t.evaluations)
        recorded = not t.evaluations or kind in evaluations
        if t.stored is None:
            seconds += median(fits[kind]) if kind in fits else _fit(t, device or _USUAL)
            recorded = recorded and kind in fits
        guesses[t.fit.key] = Guess(kind, seconds, recorded)
    return guesses


def usual(todo: list[Todo]) -> Mapping[str, float]:
    """Return by fit key the seconds of each cell on a usual processor, without measuring this machine's.

    Decisions that must not depend on measured times use it, because equal commands get equal figures.
    """
    return {
        t.fit.key: _EVALUATION * len(t.evaluations) + (_fit(t, _USUAL) if t.stored is None else 0.0)
        for t in todo
    }


def _fit(t: Todo, device: cost.Device) -> float:
    """Return the seconds of a fit on a device by the cost model."""
    return device.seconds(cost.whole(t.fit)) + _STEP * cost.steps(t.fit)


def _kind(cell: Cell) -> Kind:
    return cell.backbone, cell.method, cell.shots


def least(todo: list[Todo], device: cost.Device) -> float:
    """Return the least seconds that fitting takes on a device by the cost model."""
    return sum(device.seconds(cost.whole(t.fit)) for t in todo if t.stored is None)
