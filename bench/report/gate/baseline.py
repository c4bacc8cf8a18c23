"""Baselines: what `bench check` compares with.

A baseline is one JSON file: top-1 predictions of chosen cells with where they came from.

Legend: n test images of an evaluation.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.records import keys
from bench.report.coordinates import CELL

SCHEMA = 1


@dataclass(frozen=True)
class Kept:
    """One evaluation.

    ``overrides``: settings that were changed, by method, those of the fits below it included. ``top1``:
    predicted classes (n,). ``seconds``: fitting and evaluating, without the fits below. ``machine``: where.
    ``labels``: classes (n,), known for records only; a baseline does not hold them. ``precision``: of the
    image tower.
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
        """Coordinates in the order of ``coordinates.EVALUATION``."""
        return (*(self.cell[name] for name in CELL), self.target, self.variant)

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """The kind of machine and the precision: two runs of one kind should predict the same."""
        device = str(self.machine.get("device", "?")).partition(":")[0]
        torch = str(self.machine.get("libraries", {}).get("torch", "?"))
        return device, str(self.machine.get("device_name", "?")), torch, self.precision


@dataclass(frozen=True)
class Baseline:
    """Kept evaluations, and seconds of the calibration workload in their run (None: not measured)."""

    kept: tuple[Kept, ...]
    calibration: float | None = None


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
        whole = read_json(path)
        if whole["kind"] != "baseline" or whole["schema"] != SCHEMA:
            raise ValueError(f"kind {whole['kind']!r}, schema {whole['schema']!r}")
        return Baseline(tuple(_kept(row, whole["machines"]) for row in whole["cells"]), whole["calibration"])
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
    # old files do not say the precision
    fields = {name: row[name] for name in names} | {"precision": row.get("precision", keys.SINGLE)}
    return Kept(**fields, top1=_unpacked(row["top1"]), machine=machines[row["machine"]])


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
