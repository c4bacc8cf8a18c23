"""Take the cells of a baseline from records, narrow them down, and find them again in a frame."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.names import canonical, counted, nearest
from bench.records import keys, store
from bench.records.types import EvaluationRecord
from bench.report.coordinates import CELL, EVALUATION, ROW
from bench.report.frame import precision, with_precision
from bench.report.gate.baseline import Baseline, Kept
from bench.report.wording import shots_text

# The fields of a record's provenance that do not describe its machine.
_PER_RECORD = ("written", "order", "folder", "source")


def collect(frame: pd.DataFrame) -> list[Kept]:
    """Return the successful evaluations of a frame with their predictions.

    Imported ones are left out, because the gate asks what the program computes, and it cannot run them.
    Raises BenchError if predictions are gone.
    """
    every = (_keep(row) for row in frame[frame["status"] == "ok"].to_dict("records"))
    return [kept for kept in every if kept is not None]


def _keep(row: Mapping[Hashable, Any]) -> Kept | None:
    """Return an evaluation under the coordinates of its row, which tell datasets of one name apart.

    Return None for an imported one.
    """
    path = Path(row["path"])
    record = store.read(path)
    if not isinstance(record, EvaluationRecord):
        raise BenchError(f"{path}: this record was deleted meanwhile; load the results again")
    if record.imported:
        return None
    fits = store.behind(path, record)
    overrides = {f.cell.method: dict(f.changed) for f in fits}
    overrides.setdefault(record.cell.method, {}).update(record.changed)
    arrays = store.predictions(path)
    fit = fits[0] if fits else None
    return Kept(
        cell={name: row[name] for name in CELL},
        target=row["target"],
        variant=row["variant"],
        target_digest=record.parts.target,
        version=fit.parts.version if fit else None,
        seconds=(fit.cost if fit else 0.0) + record.seconds,
        overrides={name: values for name, values in overrides.items() if values},
        top1=arrays["top1"].astype(np.uint16),
        machine={k: v for k, v in msgspec.to_builtins(record.provenance).items() if k not in _PER_RECORD},
        labels=arrays["labels"],
        precision=precision(fit.parts if fit else None),
    )


def groups(kept: Iterable[Kept]) -> dict[tuple[Any, ...], list[Kept]]:
    """Return the evaluations by group: a method at a number of shots, over all its test sets and seeds."""
    found: dict[tuple[Any, ...], list[Kept]] = {}
    for k in kept:
        found.setdefault(tuple({**k.cell, "variant": k.variant}[name] for name in ROW), []).append(k)
    return found


def group_name(kept: Kept) -> str:
    """Return the name of the group of an evaluation."""
    c = kept.cell
    shots = f" {shots_text(c['shots'])}" if c["shots"] else ""
    return f"{c['method']}{shots} ({', '.join(filter(None, (c['backbone'], c['prompts'], kept.variant)))})"


def narrow(baseline: Baseline, chosen: Mapping[str, Sequence[Any]]) -> Baseline:
    """Return the baseline with only the cells of these methods, datasets, shots and seeds.

    The keys are those of a cell; an empty value means all. Cells without labels count for all shots and
    seeds. Raises BenchError if a chosen value is in no cell of the baseline, or if no cell is left.
    """
    for name, values in chosen.items():
        flag = f"--{name}{'' if name == 'shots' else 's'}"
        there = sorted({k.cell[name] for k in baseline.kept} - {0})
        for value in values:
            if not any(_wanted(k.cell, {name: [value]}) and k.cell[name] != 0 for k in baseline.kept):
                near = nearest(str(value), list(map(str, there)))
                raise BenchError(
                    f"{flag}: the baseline has no {name} {value}{near}; it has {', '.join(map(str, there))}"
                )
    kept = tuple(k for k in baseline.kept if _wanted(k.cell, chosen))
    if not kept:
        raise BenchError(
            "the baseline has no cell with all of these; leave out --methods, --datasets, --shots or --seeds"
        )
    return replace(baseline, kept=kept)


def in_precision(baseline: Baseline, wanted: str) -> Baseline:
    """Return the cells under their names in another precision. Each still says in which one it was kept."""
    keys.dtype(wanted)

    def renamed(k: Kept) -> Kept:
        settings = k.variant.removesuffix(with_precision("", k.precision)).removesuffix(", ")
        return replace(k, variant=with_precision(settings, wanted))

    return replace(baseline, kept=tuple(map(renamed, baseline.kept)))


def select(frame: pd.DataFrame, baseline: Baseline) -> pd.DataFrame:
    """Return the rows of a frame for which a baseline has a cell."""
    wanted = {kept.identity for kept in baseline.kept}
    return frame.loc[
        np.array([tuple(row) in wanted for row in frame[list(EVALUATION)].to_numpy().tolist()], dtype=bool)
    ]


def chosen(
    frame: pd.DataFrame, old: Baseline | None, wanted: Mapping[str, Sequence[Any]], in_: str = keys.SINGLE
) -> list[Kept]:
    """Return what a new baseline holds, from the records of a frame.

    These are the cells of the old baseline or, without one, all wanted plain cells in a precision. Raises
    BenchError if there are none, if one of them failed, or if a cell of the old baseline is missing.
    """
    if old is not None:
        rows = select(frame, old)
    else:
        plain = frame[frame["variant"] == with_precision("", in_)]
        cells = (dict(zip(CELL, row, strict=True)) for row in plain[list(CELL)].to_numpy().tolist())
        rows = plain.loc[np.array([_wanted(cell, wanted) for cell in cells], dtype=bool)]
    kept = collect(rows)
    lost = {k.identity for k in old.kept} - {k.identity for k in kept} if old is not None else set()
    if lost or not kept or len(kept) < len(rows):
        what = (
            counted(
                len(lost) or len(rows) - len(kept),
                "cell failed or has no record",
                "cells failed or have no record",
            )
            if lost or len(rows)
            else "no such records"
        )
        raise BenchError(f"the baseline is not written: {what}; run them first with `bench run`")
    return kept


def _wanted(cell: Mapping[str, Any], chosen: Mapping[str, Sequence[Any]]) -> bool:
    def fits(name: str, value: Any) -> bool:
        if name in ("shots", "seed"):
            return value == 0 or value in chosen[name]
        return canonical(str(value)) in {canonical(v) for v in chosen[name]}

    return all(fits(name, cell[name]) for name in chosen if chosen[name])
