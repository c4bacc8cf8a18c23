"""Read and write baselines: the old results that ``bench check`` compares with.

A baseline is one JSON file. It holds the top-1 predictions of chosen cells, and where they came from.

Legend: n test images of an evaluation.
"""

from __future__ import annotations

import base64
import dataclasses
import shlex
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct, field
from msgspec.structs import asdict
from numpy.typing import NDArray

from bench import typed
from bench.errors import BenchError
from bench.files import write_json
from bench.names import shown
from bench.records import keys
from bench.records.types import Seconds
from bench.report.coordinates import CELL
from bench.stats.speed import Repeat
from bench.unpack import GIB

SCHEMA = 1
REFERENCE = 1  # version of the reference workload (bench.cli.speed); raise it when the workload changes
_Positive = Annotated[float, Meta(gt=0, le=1e12)]  # seconds


@dataclass(frozen=True)
class Timing:
    """The repeats of fitting and evaluating a cell, in seconds: on the clock, and of the processor.

    ``cpu``: seconds that the process spent on a processor. It is empty for a run on a GPU. ``reference``: the
    version of the reference workload.
    """

    wall: tuple[Repeat, ...]
    cpu: tuple[Repeat, ...] = ()
    reference: int = REFERENCE


@dataclass(frozen=True)
class Kept:
    """One evaluation that a baseline keeps.

    ``overrides``: settings that were changed, by method, with those of the fits below. ``top1``: predicted
    classes (n,). ``seconds``: time of fitting and evaluating, without the fits below. ``machine``: where it
    ran. ``labels``: true classes (n,); only records have them, a baseline does not. ``precision``: precision
    of the image tower. ``timing``: the repeats of ``bench check --speed``; one cell of each group has them.
    """

    cell: Mapping[str, Any]
    target: str
    variant: str
    target_digest: str
    version: int | None
    seconds: float
    overrides: Mapping[str, Mapping[str, Any]]
    top1: NDArray[np.uint16]
    machine: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labels: NDArray[np.uint16] | None = None
    precision: str = keys.SINGLE
    timing: Timing | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        """Return the coordinates in the order of ``coordinates.EVALUATION``."""
        return (*(self.cell[name] for name in CELL), self.target, self.variant)

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """Return the kind of machine and the precision.

        Two runs of one kind should predict the same classes.
        """
        device = str(self.machine.get("device", "?")).partition(":")[0]
        torch = str(self.machine.get("libraries", {}).get("torch", "?"))
        return device, str(self.machine.get("device_name", "?")), torch, self.precision


@dataclass(frozen=True)
class Baseline:
    """The kept evaluations."""

    kept: tuple[Kept, ...]


def save(path: Path, baseline: Baseline) -> None:
    """Write a baseline, with its cells in order and each machine once."""
    machines: list[Mapping[str, Any]] = []
    cells = []
    for kept in sorted(baseline.kept, key=lambda k: tuple(map(str, k.identity))):
        if kept.machine not in machines:
            machines.append(kept.machine)
        own = ("top1", "machine", "labels", "timing")
        row = {k: v for k, v in dataclasses.asdict(kept).items() if k not in own}
        if kept.timing is not None:
            row["timing"] = dataclasses.asdict(kept.timing)
        cells.append({**row, "machine": machines.index(kept.machine), "top1": _packed(kept.top1)})
    head = {"kind": "baseline", "schema": SCHEMA, "machines": machines}
    write_json(path, {**head, "cells": cells})


def load(path: Path) -> Baseline:
    """Read a baseline. Raises BenchError if there is none or if the file is something else."""
    if not path.is_file():
        update = shlex.join(["bench", "check", "--baseline", str(path), "--update"])
        raise BenchError(
            f"{path}: no such baseline; `{update}` writes it from the records of --results, of all their "
            "cells or of those that --methods, --datasets, --shots and --seeds choose"
        )
    try:
        whole = typed.json(path, _Whole)
        if 2 * sum(row.top1.n for row in whole.cells) > GIB:
            raise ValueError("predictions of more images than fit into 1 GiB")
        kept = tuple(_kept(row, whole.machines) for row in whole.cells)
        if len({k.identity for k in kept}) < len(kept):
            raise ValueError("a cell is there twice")
    except ValueError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise BenchError(
            f"{path}: not a baseline of this program ({reason}); write one with --update"
        ) from error
    return Baseline(kept)


class _Top1(Struct):
    """Predicted classes: how many, the bytes of each, and all of them, compressed (zlib)."""

    n: Annotated[int, Meta(ge=1, le=10**7)]
    size: Literal[1, 2] = field(name="bytes")
    data: bytes


class _Cell(Struct, forbid_unknown_fields=True):
    """The coordinates of a cell as ``coordinates.CELL`` names them."""

    method: str
    dataset: str
    shots: keys.Count
    seed: keys.Count
    backbone: str
    prompts: str
    protocol: str
    preset: str


class _Repeat(Struct, forbid_unknown_fields=True):
    """The seconds of one repeat as ``Repeat`` names them."""

    work: _Positive
    before: _Positive
    after: _Positive


class _Timing(Struct, forbid_unknown_fields=True):
    """The repeats of a cell as ``Timing`` names them."""

    wall: Annotated[tuple[_Repeat, ...], Meta(min_length=2, max_length=1000)]
    cpu: Annotated[tuple[_Repeat, ...], Meta(max_length=1000)]
    reference: keys.Count


class _Row(Struct):
    """A kept evaluation as it is written. Old files have neither precision nor timing."""

    cell: _Cell
    target: str
    variant: str
    target_digest: str
    version: int | None
    seconds: Seconds
    overrides: dict[str, dict[str, Any]]
    machine: keys.Count
    top1: _Top1
    precision: str = keys.SINGLE
    timing: _Timing | None = None


class _Machine(Struct):
    """The facts of a machine that decide on a comparison. The others are kept as they are."""

    device: str = ""
    device_name: str = ""
    libraries: dict[str, str] = {}
    threads: keys.Count = 0


class _Whole(Struct):
    """A baseline as it is written. Old files also have ``calibration``, which nothing reads."""

    kind: Literal["baseline"]
    schema: Literal[1]
    machines: list[dict[str, Any]]
    cells: list[_Row]


def _kept(row: _Row, machines: Sequence[Mapping[str, Any]]) -> Kept:
    if row.machine >= len(machines):
        raise ValueError(f"there is no machine {row.machine}")
    if row.precision not in keys.PRECISIONS:
        raise ValueError(f"there is no precision '{shown(row.precision)}'")
    machine = machines[row.machine]
    typed.converted(machine, _Machine, f"machine {row.machine}")
    return Kept(
        cell=asdict(row.cell),
        target=row.target,
        variant=row.variant,
        target_digest=row.target_digest,
        version=row.version,
        seconds=row.seconds,
        overrides=row.overrides,
        top1=_unpacked(row.top1),
        machine=machine,
        precision=row.precision,
        timing=_timing(row.timing) if row.timing else None,
    )


def _timing(stored: _Timing) -> Timing:
    if len(stored.cpu) == 1:
        raise ValueError("a timing of one repeat")
    wall, cpu = (tuple(Repeat(**asdict(one)) for one in clock) for clock in (stored.wall, stored.cpu))
    return Timing(wall, cpu, stored.reference)


def _packed(top1: NDArray[np.uint16]) -> dict[str, Any]:
    small = np.dtype("<u1" if top1.max(initial=0) < 256 else "<u2")
    data = base64.b64encode(zlib.compress(top1.astype(small).tobytes(), 9)).decode()
    return {"n": len(top1), "bytes": small.itemsize, "data": data}


def _unpacked(stored: _Top1) -> NDArray[np.uint16]:
    size = stored.n * stored.size
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(stored.data, size + 1)
    except zlib.error as error:
        raise ValueError(f"predictions do not unpack: {error}") from error
    if len(data) != size or not unpacker.eof:
        raise ValueError(f"predictions that are not of {stored.n} images")
    return np.frombuffer(data, dtype={1: "<u1", 2: "<u2"}[stored.size]).astype(np.uint16)
