"""Put the records of two methods side by side: the same cells, the same seeds, the same test images.

Legend: S seeds, n test images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.metrics import Metric
from bench.names import canonical, nearest
from bench.report.frame import correct
from bench.report.measures import ACCURACY, outcomes
from bench.report.outputs import outputs_of
from bench.report.select import called, require_one, usual_protocol


@dataclass(frozen=True)
class Pair:
    """Two methods in one cell: the paths of their records, and what they got right.

    ``seeds``: the seeds that both have. ``first`` and ``second`` are (S, n), or (1, n) for a method that
    draws no images. ``values``: those of the compared metric in the same shapes, natural units; for accuracy
    they are ``first`` and ``second``. ``alone``: the seeds that only the first method has, and those that
    only the second has. ``mute``: the seeds left out because the records of the first, or of the second, do
    not keep what the metric needs.
    """

    dataset: str
    shots: int
    seeds: tuple[int, ...]
    paths: tuple[tuple[str, ...], tuple[str, ...]]
    first: NDArray[np.bool_]
    second: NDArray[np.bool_]
    values: tuple[NDArray[Any], NDArray[Any]]
    alone: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    mute: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    @property
    def one_draw(self) -> bool:
        """Return whether images were drawn with one seed only, so that other draws are unknown."""
        return self.shots > 0 and len(self.seeds) == 1


@dataclass(frozen=True)
class Lost:
    """A cell in which two methods cannot be compared.

    ``seeds``: the seeds of the first and of the second method. ``failed``: whether a seed of theirs failed.
    ``untold``: whether records of theirs do not keep what the metric needs of every image. If both have
    seeds, none failed and all can tell the metric, no seed is common to both.
    """

    dataset: str
    shots: int
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    failed: tuple[bool, bool]
    untold: tuple[bool, bool] = (False, False)

    @property
    def other_seeds(self) -> bool:
        """Return whether both methods are complete here, but with different seeds."""
        return all(self.seeds) and not any(self.failed) and not any(self.untold)


@dataclass(frozen=True)
class Averaged:
    """The differences of two methods on one dataset, averaged over its numbers of shots.

    ``seeds``: the seeds that both methods have at every number of shots. ``gaps``: first - second by seed and
    test image (S, n), in natural units. ``draws``: whether the seeds drew support images.
    """

    dataset: str
    seeds: tuple[int, ...]
    gaps: NDArray[np.float64]
    draws: bool

    @property
    def one_draw(self) -> bool:
        """Return whether images were drawn with one seed only, so that other draws are unknown."""
        return self.draws and len(self.seeds) == 1


def sides(
    frame: pd.DataFrame, specs: tuple[str, str], prompts: str | None, protocol: str | None
) -> list[pd.DataFrame]:
    """Return the records of two methods named ``name``, ``name:key=value`` or ``name@prompts``.

    A method that has the default protocol is taken with it. If no prompt set is named, one that both have is
    taken. ``prompts`` is not asked of imported methods, of whose prompts nothing is known. Raises BenchError
    for names without records and if a choice is left open.
    """
    rows = [_side(frame, spec, prompts, protocol) for spec in specs]
    shared = set(rows[0]["prompts"]) & set(rows[1]["prompts"])
    if shared:
        most = pd.concat(rows)["prompts"].value_counts()
        usual = max(shared, key=lambda name: (most[name], name))
        rows = [r if "@" in spec else r[r["prompts"] == usual] for r, spec in zip(rows, specs, strict=True)]
    for spec, side in zip(specs, rows, strict=True):
        for column in ("prompts", "protocol", "preset"):
            require_one(side, column, f"{spec}: records of several {column}")
    return rows


def _side(frame: pd.DataFrame, spec: str, prompts: str | None, protocol: str | None) -> pd.DataFrame:
    rest, _, own_prompts = spec.partition("@")
    name, _, variant = rest.partition(":")
    known = {canonical(m): m for m in frame["method"].unique()}
    if canonical(name) not in known:
        raise BenchError(f"no records of method '{name}'{nearest(name, known.values())}; run it first")
    rows: pd.DataFrame = frame[frame["method"] == known[canonical(name)]]
    chosen = [v for v in rows["variant"].unique() if v.replace(" ", "") == variant.replace(" ", "")]
    if not chosen:
        listed = "; ".join(v or "(plain)" for v in sorted(rows["variant"].unique()))
        raise BenchError(f"{name} has no records with {variant or 'unchanged settings'}; there are: {listed}")
    rows = rows[rows["variant"] == chosen[0]]
    for column, value in (("prompts", own_prompts or prompts), ("protocol", protocol)):
        if column == "prompts" and not own_prompts and rows["imported"].all():
            continue
        if value:
            rows = called(rows, (value,)) if column == "prompts" else rows
            values = {canonical(v): v for v in rows[column].unique()}
            if canonical(value) not in values:
                there = ", ".join(sorted(values.values()))
                raise BenchError(f"{name} has no records with {column} '{value}'; there are: {there}")
            rows = rows[rows[column] == values[canonical(value)]]
    usual = usual_protocol(rows)
    if protocol is not None or usual is None:
        return rows
    rows = rows[rows["protocol"] == usual]
    return rows


def numbers(first: pd.DataFrame, second: pd.DataFrame) -> tuple[list[int], list[int]]:
    """Return the numbers of shots of each method, without 0; a method that draws no images has none."""
    one, other = (sorted(set(map(int, r["shots"])) - {0}) for r in (first, second))
    return one, other


def pairs(
    first: pd.DataFrame, second: pd.DataFrame, metric: Metric = ACCURACY
) -> tuple[list[Pair], list[Lost]]:
    """List the cells in which two methods can be compared by a metric, and those in which they cannot.

    A method that draws no images is paired with every number of shots of the other. Otherwise both need the
    number of shots, and the seeds that both have count. Of these, the ones whose records can tell the metric
    are compared.
    """
    drawn = numbers(first, second)
    shared = sorted(set(drawn[0]) & set(drawn[1])) if all(drawn) else drawn[0] or drawn[1] or [0]
    complete: list[Pair] = []
    lost: list[Lost] = []
    for shots in shared:
        for dataset in sorted(set(first["dataset"]) | set(second["dataset"])):
            rows = [
                r[(r["dataset"] == dataset) & (r["shots"] == (shots if d else 0))]
                for r, d in zip((first, second), drawn, strict=True)
            ]
            failed = [bool((r["status"] != "ok").any()) for r in rows]
            here = [dict(zip(r["seed"].astype(int), r["path"], strict=True)) for r in rows]
            both = [set(cell) for cell, d in zip(here, drawn, strict=True) if d]
            seeds = sorted(set.intersection(*both)) if both else [0]
            # Without the failed seeds a mean would be over survivors, so the whole cell is left out.
            if any(failed) or not seeds or not all(here):
                sets = (tuple(sorted(here[0])), tuple(sorted(here[1])))
                lost.append(Lost(dataset, shots, sets, (failed[0], failed[1])))
                continue
            silent = [
                tuple(s for s in (seeds if d else [0]) if not _tells(cell[s], metric))
                for cell, d in zip(here, drawn, strict=True)
            ]
            telling = [s for s in seeds if all(s not in some for some in silent)]
            if not telling or any(some and not d for some, d in zip(silent, drawn, strict=True)):
                sets = (tuple(sorted(here[0])), tuple(sorted(here[1])))
                lost.append(Lost(dataset, shots, sets, (False, False), (bool(silent[0]), bool(silent[1]))))
                continue
            alone = [tuple(sorted(set(cell) - set(seeds))) if all(drawn) else () for cell in here]
            seeds = telling
            paths = [
                tuple(cell[s] for s in (seeds if d else [0])) for cell, d in zip(here, drawn, strict=True)
            ]
            right = [np.stack([correct(p) for p in side]) for side in paths]
            if right[0].shape[1] != right[1].shape[1]:
                raise BenchError(
                    f"{dataset}: the two were measured on different test images; run the older one again"
                )
            values = [outcomes(side, metric) for side in paths]
            complete.append(
                Pair(
                    dataset=dataset,
                    shots=shots,
                    seeds=tuple(seeds),
                    paths=(paths[0], paths[1]),
                    first=right[0],
                    second=right[1],
                    values=(values[0], values[1]),
                    alone=(alone[0], alone[1]),
                    mute=(silent[0], silent[1]),
                )
            )
    return complete, lost


def _tells(path: str, metric: Metric) -> bool:
    """Return whether an evaluation keeps what a metric needs of every image."""
    return not metric.needs or metric.can(outputs_of(path))
