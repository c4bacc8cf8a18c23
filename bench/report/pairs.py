"""Put the records of two methods side by side: the same cells, the same seeds, the same test images.

Legend: S seeds, n test images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.names import canonical, nearest
from bench.report.frame import correct
from bench.report.select import called, require_one, usual_protocol


@dataclass(frozen=True)
class Pair:
    """Two methods in one cell: the paths of their records, and what they got right.

    ``first`` and ``second`` are (S, n), or (1, n) for a method that draws no images.
    """

    dataset: str
    shots: int
    seeds: tuple[int, ...]
    paths: tuple[tuple[str, ...], tuple[str, ...]]
    first: NDArray[np.bool_]
    second: NDArray[np.bool_]


def sides(
    frame: pd.DataFrame, specs: tuple[str, str], prompts: str | None, protocol: str | None
) -> list[pd.DataFrame]:
    """Return the records of two methods named ``name``, ``name:key=value`` or ``name@prompts``.

    A method that has the default protocol is taken with it. If no prompt set is named, one that both have is
    taken. Raises BenchError for names without records and if a choice is left open.
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


def pairs(first: pd.DataFrame, second: pd.DataFrame) -> tuple[list[Pair], list[tuple[str, int]]]:
    """List the cells that both methods have complete, and (dataset, shots) of those that are not.

    A method that draws no images is paired with every number of shots of the other. Otherwise both need the
    number of shots, and the seeds that both have count.
    """
    drawn = [sorted(set(r["shots"]) - {0}) for r in (first, second)]
    numbers = sorted(set(drawn[0]) & set(drawn[1])) if all(drawn) else drawn[0] or drawn[1] or [0]
    complete: list[Pair] = []
    lost: list[tuple[str, int]] = []
    for shots in numbers:
        for dataset in sorted(set(first["dataset"]) | set(second["dataset"])):
            here = [
                _cell(r[r["dataset"] == dataset], shots if d else 0)
                for r, d in zip((first, second), drawn, strict=True)
            ]
            both = [set(cell) for cell, d in zip(here, drawn, strict=True) if d]
            seeds = sorted(set.intersection(*both)) if both else [0]
            if not seeds or not all(here):
                lost.append((dataset, shots))
                continue
            paths = [
                tuple(cell[s] for s in (seeds if d else [0])) for cell, d in zip(here, drawn, strict=True)
            ]
            right = [np.stack([correct(p) for p in side]) for side in paths]
            if right[0].shape[1] != right[1].shape[1]:
                raise BenchError(
                    f"{dataset}: the two were measured on different test images; run the older one again"
                )
            complete.append(Pair(dataset, shots, tuple(seeds), (paths[0], paths[1]), right[0], right[1]))
    return complete, lost


def _cell(rows: pd.DataFrame, shots: int) -> dict[int, str]:
    """Return the record of each seed, or nothing if a seed failed: survivors alone are never compared."""
    rows = rows[rows["shots"] == shots]
    if (rows["status"] != "ok").any():
        return {}
    return dict(zip(rows["seed"].astype(int), rows["path"], strict=True))
