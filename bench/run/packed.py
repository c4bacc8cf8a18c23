"""Packed records: a whole results folder in two files, small enough to commit.

``records.jsonl.xz`` holds one record a line with its path below ``runs/`` and, for evaluations, where its predictions
are; ``predictions.npz`` holds for every test set the top-1 classes of all evaluations on it, (n images, runs), and the
labels. A packed folder reads like the folder it was made of; top-5 predictions and tracebacks are left out.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.errors import BenchError
from bench.files import digest, write_bytes

RECORDS, PREDICTIONS = "records.jsonl.xz", "predictions.npz"
DROPPED = ("traceback",)  # names places on somebody's machine

Record = dict[str, Any]


class Line(NamedTuple):
    """One record, its path below ``runs/``, and (array, column) of its predictions if it has any."""

    at: str
    record: Record
    place: tuple[str, int] | None


def write(
    folder: Path, records: Mapping[str, Record], top1: Mapping[str, tuple[np.ndarray, np.ndarray]], limit: int | None = None
) -> int:
    """Pack ``records`` (by path below ``runs/``) and (top-1, labels) of the evaluations; the same input, the same bytes.

    Returns the size of the two files. Raises BenchError, and writes nothing, when it would exceed ``limit``.
    """
    columns: dict[str, list[str]] = {}
    for at in sorted(top1):
        classes, labels = top1[at]
        columns.setdefault(f"{records[at]['target']}-{digest([len(classes), labels.tolist()])[:8]}", []).append(at)
    arrays: dict[str, Any] = {}
    places: dict[str, tuple[str, int]] = {}
    for name, runs in columns.items():
        labels = top1[runs[0]][1]
        stacked = np.stack([top1[at][0] for at in runs], 1)
        kind = np.uint8 if max(stacked.max(initial=0), labels.max(initial=0)) < 256 else np.uint16
        arrays[name], arrays[f"{name}-labels"] = stacked.astype(kind), labels.astype(kind)
        places |= {at: (name, i) for i, at in enumerate(runs)}
    lines = [[at, {k: v for k, v in records[at].items() if k not in DROPPED}, places.get(at)] for at in sorted(records)]
    text = "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    squeezed = lzma.compress(text.encode(), preset=9)
    size = len(squeezed) + len(buffer.getvalue())
    if limit is not None and size > limit:
        raise BenchError(f"{len(records)} records take {size / 1e6:.1f} MB packed, the limit is {limit / 1e6:.1f}: see --limit")
    write_bytes(folder / PREDICTIONS, buffer.getvalue())
    write_bytes(folder / RECORDS, squeezed)
    return size


def records(results: Path) -> Iterator[tuple[Path, Record]]:
    """All packed records of a folder, under the paths that they would have as files."""
    for line in _lines(results).values():
        yield results / "runs" / line.at, line.record


def record(path: Path) -> Record | None:
    """The packed record that stands for the file ``path``, or None."""
    found = _line(path)
    return found.record if found else None


def top1(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Top-1 classes (n,) and labels (n,) that stand for the predictions ``path``, or None."""
    found = _line(path.with_suffix(".json"))
    if found is None or found.place is None:
        return None
    name, column = found.place
    file = path.parents[4] / PREDICTIONS
    return _array(file, _stamp(file), name)[:, column], _array(file, _stamp(file), f"{name}-labels")


def _line(path: Path) -> Line | None:
    """The line for ``<results>/runs/<backbone>/<dataset>/<method>/<file>``."""
    if len(path.parents) < 5 or path.parents[3].name != "runs":
        return None
    return _lines(path.parents[4]).get(path.relative_to(path.parents[3]).as_posix())


def _stamp(file: Path) -> int:
    return file.stat().st_mtime_ns if file.is_file() else 0


def _lines(results: Path) -> dict[str, Line]:
    file = results / RECORDS
    stamp = _stamp(file)
    return _read(file, stamp) if stamp else {}


@lru_cache(maxsize=4)
def _read(file: Path, stamp: int) -> dict[str, Line]:
    try:
        rows: Iterable[list[Any]] = [json.loads(line) for line in lzma.decompress(file.read_bytes()).decode().splitlines()]
        return {at: Line(at, found, tuple(place) if place else None) for at, found, place in rows}
    except (lzma.LZMAError, ValueError) as error:
        raise BenchError(f"{file}: not readable packed records ({error}); take the file from its source again") from error


@lru_cache(maxsize=64)
def _array(file: Path, stamp: int, name: str) -> np.ndarray:
    with np.load(file, allow_pickle=False) as arrays:
        return np.asfortranarray(arrays[name])
