"""Baselines: what `bench check` compares with. Top-1 predictions of chosen cells with where they came from,
one JSON file.

Legend: n test images of an evaluation.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.names import canonical
from bench.records import keys, store
from bench.records.types import EvaluationRecord
from bench.report.frame import precision, with_precision

SCHEMA = 1
CELL = ("method", "dataset", "shots", "seed", "backbone", "prompts", "protocol", "preset")
IDENTITY = (*CELL, "target", "variant")
# of a record's provenance, what its machine does not determine
_PER_RECORD = (
    "written",
    "order",
    "folder",
    "source",
)


@dataclass(frozen=True)
class Kept:
    """One evaluation. ``overrides``: settings that were changed, by method, those of the fits below it
    included.

    ``top1``: predicted classes (n,). ``seconds``: fitting and evaluating, without the fits below.
    ``machine``: where. ``labels``: classes (n,), known for records only; a baseline does not hold them.
    ``precision``: of the image tower.
    """

    cell: Mapping[str, Any]
    target: str
    variant: str
    target_digest: str
    version: int | None
    seconds: float
    overrides: Mapping[str, Mapping[str, Any]]
    top1: NDArray[np.uint16]
    machine: Mapping[str, Any] = field(default_factory=dict)
    labels: NDArray[np.uint16] | None = None
    precision: str = keys.SINGLE

    @property
    def identity(self) -> tuple[Any, ...]:
        """Coordinates in the order of ``IDENTITY``."""
        return (*(self.cell[name] for name in CELL), self.target, self.variant)

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """The kind of machine and the precision: two runs of one kind should predict the same."""
        device = str(self.machine.get("device", "?")).partition(":")[0]
        torch = str(self.machine.get("libraries", {}).get("torch", "?"))
        return device, str(self.machine.get("device_name", "?")), torch, self.precision


@dataclass(frozen=True)
class Baseline:
    """Kept evaluations, and the seconds of the calibration workload in the run that made them (None: not
    measured).
    """

    kept: tuple[Kept, ...]
    calibration: float | None = None


def collect(frame: pd.DataFrame) -> list[Kept]:
    """The successful evaluations of a frame with their predictions. Raises BenchError where predictions are
    gone.
    """
    return [
        _keep(Path(path), variant)
        for path, variant, s in zip(frame["path"], frame["variant"], frame["status"], strict=True)
        if s == "ok"
    ]


def _keep(path: Path, variant: str) -> Kept:
    found = store.read(path)
    if not isinstance(found, EvaluationRecord):
        raise BenchError(f"{path}: the record has gone; load the results again")
    fits = store.behind(path, found)
    overrides = {f.cell.method: dict(f.changed) for f in fits}
    overrides.setdefault(found.cell.method, {}).update(found.changed)
    arrays = store.predictions(path)
    fit = fits[0] if fits else None
    return Kept(
        cell={name: getattr(found.cell, name) for name in CELL},
        target=found.target,
        variant=variant,
        target_digest=found.parts.target,
        version=fit.parts.version if fit else None,
        seconds=(sum(fit.seconds.values()) if fit else 0.0) + found.seconds,
        overrides={name: values for name, values in overrides.items() if values},
        top1=arrays["top1"].astype(np.uint16),
        machine={k: v for k, v in msgspec.to_builtins(found.provenance).items() if k not in _PER_RECORD},
        labels=arrays["labels"],
        precision=precision(fit.parts if fit else None),
    )


def narrow(baseline: Baseline, chosen: Mapping[str, Sequence[Any]]) -> Baseline:
    """The cells of these methods, datasets, shots and seeds (keys as in a cell; empty: all). BenchError where
    none is left.

    Cells without labels count for all shots and seeds.
    """
    kept = tuple(k for k in baseline.kept if _wanted(k.cell, chosen))
    if not kept:
        raise BenchError(
            "the baseline holds no such cell; leave out --methods, --datasets, --shots or --seeds"
        )
    return replace(baseline, kept=kept)


def in_precision(baseline: Baseline, wanted: str) -> Baseline:
    """The cells under the names that they have in another precision; each still says which one it was kept
    in.
    """
    keys.dtype(wanted)

    def renamed(k: Kept) -> Kept:
        settings = k.variant.removesuffix(with_precision("", k.precision)).removesuffix(", ")
        return replace(k, variant=with_precision(settings, wanted))

    return replace(baseline, kept=tuple(map(renamed, baseline.kept)))


def select(frame: pd.DataFrame, baseline: Baseline) -> pd.DataFrame:
    """The rows of a frame that a baseline has a cell for."""
    wanted = {kept.identity for kept in baseline.kept}
    return frame.loc[
        np.array([tuple(row) in wanted for row in frame[list(IDENTITY)].to_numpy().tolist()], dtype=bool)
    ]


def chosen(
    frame: pd.DataFrame, old: Baseline | None, wanted: Mapping[str, Sequence[Any]], in_: str = keys.SINGLE
) -> list[Kept]:
    """What a new baseline holds: the old one's cells, or all plain ones in a precision that are wanted, from
    a frame's records.

    Raises BenchError when there are none, when one of them failed or when an old one is missing.
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
            f"{len(lost) or len(rows) - len(kept)} cells failed or have no record"
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


def save(path: Path, baseline: Baseline) -> None:
    """Write a baseline: cells in order, each machine once."""
    machines: list[Mapping[str, Any]] = []
    cells = []
    for kept in sorted(baseline.kept, key=lambda k: tuple(map(str, k.identity))):
        if kept.machine not in machines:
            machines.append(kept.machine)
        row = {k: v for k, v in asdict(kept).items() if k not in ("top1", "machine", "labels")}
        cells.append({**row, "machine": machines.index(kept.machine), "top1": _packed(kept.top1)})
    head = {"kind": "baseline", "schema": SCHEMA, "calibration": baseline.calibration, "machines": machines}
    write_json(path, {**head, "cells": cells})


def load(path: Path) -> Baseline:
    """Read a baseline. Raises BenchError when there is none or the file is something else."""
    if not path.is_file():
        raise BenchError(f"{path}: no such baseline; write it with `bench check --baseline {path} --update`")
    try:
        found = read_json(path)
        if found["kind"] != "baseline" or found["schema"] != SCHEMA:
            raise ValueError(f"kind {found['kind']!r}, schema {found['schema']!r}")
        return Baseline(tuple(_kept(row, found["machines"]) for row in found["cells"]), found["calibration"])
    except (
        OSError,
        json.JSONDecodeError,
        UnicodeDecodeError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
    ) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BenchError(
            f"{path}: not a baseline of this program ({reason}); write one with --update"
        ) from error


def _kept(row: Mapping[str, Any], machines: Sequence[Mapping[str, Any]]) -> Kept:
    names = ("cell", "target", "variant", "target_digest", "version", "seconds", "overrides")
    if set(row["cell"]) != set(CELL):
        raise ValueError(f"a cell has {', '.join(CELL)}, not {', '.join(row['cell'])}")
    # old files do not say
    found = {name: row[name] for name in names} | {"precision": row.get("precision", keys.SINGLE)}
    return Kept(**found, top1=_unpacked(row["top1"]), machine=machines[row["machine"]])


def _packed(top1: NDArray[np.uint16]) -> dict[str, Any]:
    small = np.dtype("<u1" if top1.max(initial=0) < 256 else "<u2")
    data = base64.b64encode(zlib.compress(top1.astype(small).tobytes(), 9)).decode()
    return {"n": len(top1), "bytes": small.itemsize, "data": data}


def _unpacked(stored: Mapping[str, Any]) -> NDArray[np.uint16]:
    try:
        data = zlib.decompress(base64.b64decode(stored["data"], validate=True))
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"predictions do not unpack: {error}") from error
    top1 = np.frombuffer(data, dtype={1: "<u1", 2: "<u2"}[stored["bytes"]]).astype(np.uint16)
    if len(top1) != stored["n"]:
        raise ValueError(f"predictions of {len(top1)} images, not of {stored['n']}")
    return top1
