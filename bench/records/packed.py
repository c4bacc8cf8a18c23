"""Packed records: a whole results folder in two files, small enough to commit.

``records.jsonl.xz`` holds one record a line with its path below ``runs/`` and, for evaluations, where its
predictions are; ``predictions.npz`` holds for every test set the top-1 classes of all evaluations on it, (n
images, runs), and the labels. A packed folder reads like the folder it was made of; top-5 predictions and
tracebacks are left out.
"""

from __future__ import annotations

import io
import lzma
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.files import digest, write_bytes
from bench.records import codec, places
from bench.records.convert import SCHEMA as OLD
from bench.records.convert import Converter
from bench.records.types import EvaluationRecord, Failure, Record

RECORDS, PREDICTIONS = "records.jsonl.xz", "predictions.npz"

Place = tuple[str, int]  # array, column
Top1 = tuple[NDArray[Any], NDArray[Any]]  # predicted classes and labels, (n,) each


class Line(NamedTuple):
    """One record, its path below ``runs/``, and the place of its predictions if it has any."""

    at: str
    record: Record
    place: Place | None


class Row(msgspec.Struct, array_like=True):
    """A line as it is written."""

    at: str
    record: msgspec.Raw
    place: Place | None


def write(
    folder: Path, records: Mapping[str, Record], top1: Mapping[str, Top1], limit: int | None = None
) -> int:
    """Pack ``records`` (by path below ``runs/``) and (top-1, labels) of the evaluations.

    The same input gives the same bytes. Returns the size of the two files. Raises BenchError, and writes
    nothing, when it would exceed ``limit``.
    """
    columns: dict[str, list[str]] = {}
    for at in sorted(top1):
        classes, labels = top1[at]
        evaluation = records[at]
        assert isinstance(evaluation, EvaluationRecord)
        test_set = f"{evaluation.target}-{digest([len(classes), labels.tolist()])[:8]}"
        columns.setdefault(test_set, []).append(at)
    arrays: dict[str, Any] = {}
    spots: dict[str, Place] = {}
    for name, runs in columns.items():
        labels = top1[runs[0]][1]
        stacked = np.stack([top1[at][0] for at in runs], 1)
        kind = np.uint8 if max(stacked.max(initial=0), labels.max(initial=0)) < 256 else np.uint16
        arrays[name], arrays[f"{name}-labels"] = stacked.astype(kind), labels.astype(kind)
        spots |= {at: (name, i) for i, at in enumerate(runs)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    squeezed = _squeezed([Line(at, records[at], spots.get(at)) for at in sorted(records)])
    size = len(squeezed) + len(buffer.getvalue())
    if limit is not None and size > limit:
        raise BenchError(
            f"{len(records)} records take {size / 1e6:.1f} MB packed, "
            f"the limit is {limit / 1e6:.1f}: see --limit"
        )
    # Where the disk is full the earlier pair stays: both are there before one takes the other's place.
    ready = folder / f".{PREDICTIONS}.new.tmp"
    try:
        write_bytes(ready, buffer.getvalue())
        write_bytes(folder / RECORDS, squeezed)
        os.replace(ready, folder / PREDICTIONS)
    except OSError as error:
        ready.unlink(missing_ok=True)
        if error.filename == str(ready):
            error.filename = str(folder / PREDICTIONS)
        raise
    return size


def write_lines(folder: Path, lines: Iterable[Line]) -> None:
    """Write the records alone, for predictions that are there already."""
    write_bytes(folder / RECORDS, _squeezed(sorted(lines, key=lambda line: line.at)))


def _squeezed(lines: Iterable[Line]) -> bytes:
    rows = [Row(line.at, msgspec.Raw(codec.encode(_slim(line.record))), line.place) for line in lines]
    return lzma.compress(b"".join(msgspec.json.encode(row) + b"\n" for row in rows), preset=9)


def _slim(record: Record) -> Record:
    """A record without top-5 predictions and tracebacks, which name places on somebody's machine."""
    if isinstance(record, Failure):
        return replace(record, traceback="")
    if isinstance(record, EvaluationRecord):
        return replace(
            record, predictions={k: v for k, v in record.predictions.items() if k in ("top1", "labels")}
        )
    return record


def records(results: Path) -> Iterator[tuple[Path, Record]]:
    """All packed records of a folder, under the paths that they would have as files."""
    root = places.runs(results)
    for line in lines(results).values():
        yield root / line.at, line.record


def within(where: Path) -> list[tuple[Path, Record]]:
    """The packed records in the folder of one method on one dataset."""
    kept = _line_folder(where)
    return [(where / Path(line.at).name, line.record) for line in kept]


def record(path: Path) -> Record | None:
    """The packed record that stands for the file ``path``, or None."""
    found = _found(path)
    return _read(found.file, found.stamp)[found.row.at].record if found else None


def top1(path: Path) -> Top1 | None:
    """Top-1 classes (n,) and labels (n,) packed with the record that stands for ``path``, or None."""
    found = _found(path)
    if found is None or found.row.place is None:
        return None
    name, column = found.row.place
    stamp = _stamp(found.predictions)
    labels = _array(found.predictions, stamp, f"{name}-labels")
    return _array(found.predictions, stamp, name)[:, column], labels


def has_top1(path: Path) -> bool:
    """Whether predictions are packed with the record that stands for ``path``; they are not read."""
    found = _found(path)
    return found is not None and found.row.place is not None


class _Found(NamedTuple):
    """A line as it is written, the two files of its folder, and when that of the records was changed."""

    row: Row
    file: str
    predictions: str
    stamp: int


def _found(path: Path) -> _Found | None:
    """The line for ``<results>/runs/<backbone>/<dataset>/<method>/<file>``."""
    parts = path.parts
    if parts[-5:-4] != ("runs",):
        return None
    file, predictions = _files(parts[:-5])
    stamp = _stamp(file)
    row = _rows(file, stamp).get("/".join(parts[-4:])) if stamp else None
    return _Found(row, file, predictions, stamp) if row else None


@lru_cache(maxsize=64)
def _files(results: tuple[str, ...]) -> tuple[str, str]:
    """The two files of a results folder that is given by its parts."""
    return str(Path(*results) / RECORDS), str(Path(*results) / PREDICTIONS)


def _line_folder(where: Path) -> list[Line]:
    if len(where.parents) < 4 or where.parents[2].name != "runs":
        return []
    file = str(where.parents[3] / RECORDS)
    folders = _by_folder(file, _stamp(file))
    return folders.get(where.relative_to(where.parents[2]).as_posix(), [])


def _stamp(file: str) -> int:
    try:
        return os.stat(file).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return 0


def lines(results: Path) -> dict[str, Line]:
    """The lines of a packed folder by their paths; none where there is no packed file."""
    file = str(results / RECORDS)
    stamp = _stamp(file)
    return _read(file, stamp) if stamp else {}


def rows(results: Path) -> dict[str, Row]:
    """The lines as they are written, by their paths, whatever their schema."""
    file = str(results / RECORDS)
    stamp = _stamp(file)
    return _rows(file, stamp) if stamp else {}


@lru_cache(maxsize=4)
def _rows(file: str, stamp: int) -> dict[str, Row]:
    try:
        decoder, data = msgspec.json.Decoder(Row), lzma.decompress(Path(file).read_bytes())
        with codec.many():
            return {row.at: row for row in map(decoder.decode, data.splitlines())}
    except (lzma.LZMAError, EOFError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(file, error) from error


@lru_cache(maxsize=4)
def _read(file: str, stamp: int) -> dict[str, Line]:
    rows = _rows(file, stamp)
    decode: Callable[[bytes], Record] = codec.decode
    if any(codec.schema_of(row.record) == OLD for row in list(rows.values())[:1]):
        decode = _converting(rows)
    try:
        with codec.many():
            return {row.at: Line(row.at, decode(row.record), row.place) for row in rows.values()}
    except codec.Unreadable as error:
        raise _damaged(file, error) from error


def _damaged(file: str, error: Exception) -> BenchError:
    return BenchError(f"{file}: not readable packed records ({error}); take the file from its source again")


@lru_cache(maxsize=4)
def _by_folder(file: str, stamp: int) -> dict[str, list[Line]]:
    by_folder: dict[str, list[Line]] = {}
    for line in (_read(file, stamp) if stamp else {}).values():
        by_folder.setdefault(line.at.rpartition("/")[0], []).append(line)
    return by_folder


def _converting(rows: Mapping[str, Row]) -> Callable[[bytes], Record]:
    def fetch(cell: Mapping[str, Any], method: str, key: str) -> dict[str, Any] | None:
        where = places.folder(Path(), cell["backbone"], cell["dataset"], method)
        row = rows.get(places.fit_path(where, key).relative_to("runs").as_posix())
        return msgspec.json.decode(row.record) if row is not None else None

    converter = Converter(fetch)
    return lambda data: converter.record(msgspec.json.decode(data))


@lru_cache(maxsize=64)
def _array(file: str, stamp: int, name: str) -> NDArray[Any]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return np.asfortranarray(arrays[name])
    except codec.TORN as error:
        raise BenchError(
            f"{file}: not readable predictions ({error}); take the file from its source again"
        ) from error
