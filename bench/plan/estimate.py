"""What a plan will cost: disk for features, and seconds judged from earlier records. No torch."""

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

# A processor whose figures need no measuring, and what it takes for a step and for an evaluation beside the
# model's operations: for how cells compare with each other.
_USUAL = cost.Device("a processor", 5e10, 1e10)
_STEP, _EVALUATION = 0.001, 0.03
Kind = tuple[str, str, int | str]  # backbone, method, shots: cells of a kind take about as long as each other


@dataclass(frozen=True)
class Guess:
    """What a cell will take, in seconds without encoding; ``recorded``: as earlier records say."""

    kind: Kind
    seconds: float
    recorded: bool


def row_shape(spec: BackboneSpec, tap: str) -> tuple[int, ...]:
    """Shape of one image's features at a tap, from the architecture alone."""
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
    """Bytes of the stored features (fp16) that cells read, each image x view x tap once, old ones too."""
    wanted: dict[tuple[str, str, str, str, str], tuple[BackboneSpec, set[str]]] = {}
    for t in todo:
        reads = [*needs.of_fit(t.fit)]
        reads += [n for e in t.evaluations for n in needs.of_evaluation(t.fit, e, dense_cache)]
        for dataset, part, paths, view, tap in reads:
            if needs.stored(tap, view):
                key = (t.fit.backbone.digest, dataset.digest, part, view, tap)
                wanted.setdefault(key, (t.fit.backbone, set()))[1].update(paths)
    return sum(
        2 * math.prod(row_shape(spec, tap)) * len(paths) for (*_, tap), (spec, paths) in wanted.items()
    )


def seconds(earlier: Earlier, todo: list[Todo], on: str) -> float | None:
    """Seconds of fits and evaluations, by earlier records; None where there are none of some kind of cell.

    ``on``: as in ``cells``.
    """
    guesses = cells(earlier, todo, on).values()
    return sum(g.seconds for g in guesses) if guesses and all(g.recorded for g in guesses) else None


def cells(
    earlier: Earlier, todo: list[Todo], on: str, device: cost.Device | None = None
) -> Mapping[str, Guess]:
    """By fit key what each cell will take: its fit, if it has yet to be made, and its evaluations.

    By the median of earlier records of its kind that were made ``on`` the kind of device where the run will
    be, ``cpu`` or ``cuda``; without any, by the cost model for ``device``, or else for a usual processor.
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
    """By fit key what each cell takes on a usual processor, in seconds, whatever this one does.

    For what may not depend on a clock: equal commands get equal figures.
    """
    return {
        t.fit.key: _EVALUATION * len(t.evaluations) + (_fit(t, _USUAL) if t.stored is None else 0.0)
        for t in todo
    }


def _fit(t: Todo, device: cost.Device) -> float:
    return device.seconds(cost.whole(t.fit)) + _STEP * cost.steps(t.fit)


def _kind(cell: Cell) -> Kind:
    return cell.backbone, cell.method, cell.shots


def least(todo: list[Todo], device: cost.Device) -> float:
    """Seconds that fitting takes at the least on a device, by the cost model."""
    return sum(device.seconds(cost.whole(t.fit)) for t in todo if t.stored is None)
