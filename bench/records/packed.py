"""Write and read packed records: a whole results folder in two files, small enough to commit.

``records.jsonl.xz`` holds one record in each line, with its path below ``runs/`` and, for an evaluation, the
place of its predictions. ``predictions.npz`` holds, for every test set, the top-1 classes of all evaluations
on it, (n images, evaluations), and the labels. A packed folder can be read like the folder that it was made
from, but it has no top-5 predictions and no tracebacks.
"""

from __future__ import annotations

import io
import lzma
import os
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from msgspec.structs import replace
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.files import Stamp, digest, stamp_if_there, write_bytes, write_together
from bench.names import counted, short, shown
from bench.records import codec, convert, places
from bench.records.codec import Unreadable
from bench.records.convert import SCHEMA as OLD
from bench.records.outcomes import Outcome, of_columns
from bench.records.types import EvaluationRecord, Failure, Record
from bench.records.whole import Bad, fault, is_place
from bench.typed import said
from bench.unpack import GIB, Torn, npz, xz

RECORDS, PREDICTIONS = "records.jsonl.xz", "predictions.npz"

MOST = GIB  # bytes that all records of a folder may take
_SOURCE = "copy the file again from where it came"

Place = tuple[str, Annotated[int, Meta(ge=0, le=2**62)]]  # array, column
Top1 = tuple[NDArray[Any], NDArray[Any]]  # predicted classes and labels, (n,) each


class Line(NamedTuple):
    """A record, its path below ``runs/``, and the place of its predictions if it has any."""

    at: str
    record: Record
    place: Place | None


class Row(msgspec.Struct, array_like=True):
    """A line as it stands in the file. Its record is not decoded yet."""

    at: str
    record: msgspec.Raw
    place: Place | None


def write(
    folder: Path, records: Mapping[str, Record], top1: Mapping[str, Top1], limit: int | None = None
) -> int:
    """Pack ``records`` and the predictions ``top1`` of the evaluations, both by path below ``runs/``.

    The same input gives the same bytes. Returns the size of the two files in bytes. Raises BenchError, and
    writes nothing, if that exceeds ``limit``.
    """
    arrays: dict[str, NDArray[Any]] = {}
    spots = _append(arrays, {}, records, top1)
    predictions = _archive(arrays)
    squeezed = _squeezed(Line(at, records[at], spots.get(at)) for at in sorted(records))
    size = len(squeezed) + len(predictions)
    if limit is not None and size > limit:
        raise BenchError(
            f"{counted(len(records), 'record takes', 'records take')} {size / 1e6:.1f} MB packed, "
            f"the limit is {limit / 1e6:.1f}: see --limit"
        )
    # Both files are written before either takes its place: on a full disk the earlier pair stays.
    write_together({folder / RECORDS: squeezed, folder / PREDICTIONS: predictions})
    return size


def write_lines(folder: Path, lines: Iterable[Line]) -> None:
    """Write the records without predictions, which are in the folder already."""
    write_bytes(folder / RECORDS, _squeezed(sorted(lines, key=lambda line: line.at)))


def add(folder: Path, new: Mapping[str, Record], top1: Mapping[str, Top1], without: Collection[str]) -> None:
    """Add records to the packed ones of ``folder``, in place of those of the same paths; omit ``without``.

    ``top1``: the predictions of the new evaluations. All three are by path below ``runs/``. Lines whose
    record cannot be read stay as they are, but for what is no line at all.

    An interrupted call loses nothing: the predictions are written first, and every column in them that an
    old line names keeps its place there. So the old lines are true of the new file too.
    """
    old = rows(folder)
    named: dict[str, int] = {}
    for name, column in (row.place for row in old.values() if row.place):
        named[name] = max(column, named.get(name, 0))
    arrays: dict[str, NDArray[Any]] = {}
    for name in sorted(named):
        with suppress(Torn, FileNotFoundError):
            arrays |= npz(folder / PREDICTIONS, (name, f"{name}-labels"))
    spots = _append(arrays, named, new, top1)
    kept = {at: row for at, row in old.items() if at not in without}
    kept |= {at: _row(Line(at, record, spots.get(at))) for at, record in new.items()}
    write_bytes(folder / PREDICTIONS, _archive(arrays))
    write_bytes(folder / RECORDS, _compressed(kept[at] for at in sorted(kept)))


def _append(
    arrays: dict[str, NDArray[Any]],
    named: Mapping[str, int],
    records: Mapping[str, Record],
    top1: Mapping[str, Top1],
) -> dict[str, Place]:
    """Add predictions to the arrays of their test sets, and return their places by path.

    ``named``: by array, the last column that a line names already. If an array lacks that column, the
    predictions go to another array, so that the line does not get those of another record.
    """
    runs: dict[str, list[str]] = {}
    for at in sorted(top1):
        record, (classes, labels) = records[at], top1[at]
        assert isinstance(record, EvaluationRecord)
        runs.setdefault(f"{record.target}-{digest([len(classes), labels.tolist()])[:8]}", []).append(at)
    spots: dict[str, Place] = {}
    for test_set, those in runs.items():
        labels = top1[those[0]][1]
        fresh = np.empty((len(labels), 0), np.uint8)
        for name in chain([test_set], (f"{test_set}-{number}" for number in count(2))):
            columns, its_labels = arrays.get(name, fresh), arrays.get(f"{name}-labels", labels)
            whole = (
                columns.ndim == 2 and len(columns) == len(labels) and named.get(name, -1) < _width(columns)
            )
            if whole and np.array_equal(its_labels, labels):
                break
        stacked = np.concatenate([columns, np.stack([top1[at][0] for at in those], 1)], 1)
        kind = np.uint8 if max(stacked.max(initial=0), labels.max(initial=0)) < 256 else np.uint16
        arrays[name], arrays[f"{name}-labels"] = stacked.astype(kind), labels.astype(kind)
        spots |= {at: (name, _width(columns) + i) for i, at in enumerate(those)}
    return spots


def _archive(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of a compressed npz file; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, x in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, x, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _squeezed(lines: Iterable[Line]) -> bytes:
    return _compressed(map(_row, lines))


def _row(line: Line) -> Row:
    return Row(line.at, msgspec.Raw(codec.encode(_for_packing(line.record))), line.place)


def _compressed(rows: Iterable[Row]) -> bytes:
    return lzma.compress(b"".join(msgspec.json.encode(row) + b"\n" for row in rows), preset=9)


def _for_packing(record: Record) -> Record:
    """Return a record without the checksum of its top-5 predictions and without its traceback.

    A packed folder has no top-5 predictions, and a traceback shows paths of somebody's machine.
    """
    if isinstance(record, Failure):
        return replace(record, traceback="")
    if isinstance(record, EvaluationRecord):
        return replace(
            record, predictions={k: v for k, v in record.predictions.items() if k in ("top1", "labels")}
        )
    return record


def records(results: Path) -> Iterator[tuple[Path, Record | Bad]]:
    """Yield the packed records of a folder under the paths that they would have as files.

    If a record is damaged or out of place, the reason (a Bad) is yielded in its place.
    """
    file = str(results / RECORDS)
    yield from _with_paths(file, places.runs(results), _lines(file, stamp_if_there(file)))


def within(where: Path) -> Iterator[tuple[Path, Record | Bad]]:
    """Yield the packed records in the folder of one method on one dataset, as ``records`` does."""
    if len(where.parents) < 4 or where.parents[2].name != "runs":
        return
    root = where.parents[2]
    file = str(root.parent / RECORDS)
    yield from _with_paths(
        file, root, _by_folder(file, stamp_if_there(file)).get(where.relative_to(root).as_posix(), {})
    )


def _with_paths(file: str, root: Path, kept: Mapping[str, Line | str]) -> Iterator[tuple[Path, Record | Bad]]:
    for at, line in kept.items():
        yield root / at, line.record if isinstance(line, Line) else _bad_line(file, at, line)


def record(path: Path) -> Record | None:
    """Return the packed record that stands for the file ``path``, or None.

    Raises Unreadable if it is damaged or out of place.
    """
    found = _line_of(path)
    if found is None:
        return None
    if isinstance(found.line, str):
        raise Unreadable(_bad_line(found.file, found.at, found.line).line)
    return found.line.record


def top1(path: Path) -> Top1 | None:
    """Return the packed top-1 classes (n,) and labels (n,) of the record for ``path``; None if it has none.

    Raises Unreadable, and names the file of predictions, if they are gone or damaged.
    """
    found = _line_of(path)
    if found is None or not isinstance(found.line, Line) or found.line.place is None:
        return None
    name, column = found.line.place
    file = _predictions_of(found.file)
    classes, labels = _arrays(file, stamp_if_there(file), name)
    if column >= _width(classes):
        raise Unreadable(f"{file}: '{shown(name)}' has no column {column}; {_SOURCE}")
    return classes[:, column], labels


def outcome(path: Path) -> Outcome | None:
    """Return the counts from the packed predictions for ``path``, or None. Raises as ``top1`` does."""
    found = _line_of(path)
    if found is None or not isinstance(found.line, Line) or found.line.place is None:
        return None
    name, column = found.line.place
    file = _predictions_of(found.file)
    counted = _outcomes(file, stamp_if_there(file), name)
    if column >= len(counted):
        raise Unreadable(f"{file}: '{shown(name)}' has no column {column}; {_SOURCE}")
    return counted[column]


class _Located(NamedTuple):
    """A line of a file of packed records, and its path below ``runs/``."""

    file: str
    at: str
    line: Line | str


def _line_of(path: Path) -> _Located | None:
    """Return the line for ``<results>/runs/<backbone>/<dataset>/<method>/<file>``, or None."""
    text = str(path)  # a path caches its text, while taking it apart is slower
    parts = text.rsplit(os.sep, 5)
    if parts[-5:-4] != ["runs"]:
        return None
    at = "/".join(parts[-4:])
    file = text[: -len(f"runs/{at}")] + RECORDS
    line = _lines(file, stamp_if_there(file)).get(at)
    return _Located(file, at, line) if line is not None else None


def _predictions_of(file: str) -> str:
    """Return the file of predictions that lies beside a file of packed records."""
    return file.removesuffix(RECORDS) + PREDICTIONS


def _bad_line(file: str, at: str, why: str) -> Bad:
    return Bad(f"{file}, {shown(at)}", why)


def rows(results: Path) -> dict[str, Row]:
    """Return the lines of a folder as they stand in the file, by path. They may be of any schema.

    Lines that cannot be read are left out. ``odd_rows`` returns these.
    """
    file = str(results / RECORDS)
    return {at: row for at, row in _rows(file, stamp_if_there(file)).items() if isinstance(row, Row)}


def odd_rows(results: Path) -> list[Bad]:
    """Return the lines that ``rows`` leaves out, with the reasons."""
    file = str(results / RECORDS)
    return [
        _bad_line(file, at, row)
        for at, row in _rows(file, stamp_if_there(file)).items()
        if isinstance(row, str)
    ]


@lru_cache(maxsize=4)
def _rows(file: str, stamped: Stamp | None) -> dict[str, Row | str]:
    """Return the lines by path. For a line that cannot be read, return the reason by path or line number."""
    if stamped is None:
        return {}
    try:
        data = xz(Path(file), MOST)
    except Torn as error:
        raise BenchError(f"{error}: not readable packed records; {_SOURCE}") from error
    decoder = msgspec.json.Decoder(Row)
    found: dict[str, Row | str] = {}
    with codec.many():
        for number, text in enumerate(data.splitlines(), 1):
            try:
                row = decoder.decode(text)
            except codec.NO_JSON as error:
                found[f"line {number}"] = f"no line of packed records: {said(error)}"
                continue
            if not is_place(row.at):
                found[f"line {number}"] = f"'{shown(short(row.at))}' is not a place of a record"
            elif row.at in found:
                found[row.at] = "there are two lines of this path"
            else:
                found[row.at] = row
    return found


@lru_cache(maxsize=4)
def _lines(file: str, stamped: Stamp | None) -> dict[str, Line | str]:
    """Return the lines with their records by path. For a damaged or misplaced record, return the reason."""
    kept = _rows(file, stamped)
    first = next((row for row in kept.values() if isinstance(row, Row)), None)
    old = first is not None and codec.schema_of(first.record) == OLD
    decode: Callable[[bytes], Record] = _converting(kept) if old else codec.decode

    def line(at: str, row: Row | str) -> Line | str:
        if isinstance(row, str):
            return row
        try:
            read = decode(row.record)
        except Unreadable as error:
            return str(error)
        # The paths of an older schema have its old keys, so they say nothing about the converted record.
        return ("" if old else fault(at, read)) or Line(at, read, row.place)

    with codec.many():
        return {at: line(at, row) for at, row in kept.items()}


@lru_cache(maxsize=4)
def _by_folder(file: str, stamped: Stamp | None) -> dict[str, dict[str, Line | str]]:
    by_folder: dict[str, dict[str, Line | str]] = {}
    for at, line in _lines(file, stamped).items():
        by_folder.setdefault(at.rpartition("/")[0], {})[at] = line
    return by_folder


def _converting(rows: Mapping[str, Row | str]) -> Callable[[bytes], Record]:
    def fetch(cell: Mapping[str, Any], method: str, key: str) -> dict[str, Any] | None:
        where = places.folder(Path(), cell["backbone"], cell["dataset"], method)
        row = rows.get(places.fit_path(where, key).relative_to("runs").as_posix())
        return convert.fields_of(row.record) if isinstance(row, Row) else None

    converter = convert.Converter(fetch)
    return lambda data: converter.record(convert.fields_of(data))


@lru_cache(maxsize=64)
def _arrays(file: str, stamped: Stamp | None, name: str) -> Top1:
    """Return the packed classes (n, runs) and labels (n,) of one test set."""
    if stamped is None:
        raise Unreadable(f"{file}: the predictions are gone; {_SOURCE}")
    try:
        arrays = npz(Path(file), (name, f"{name}-labels"))
    except Torn as error:
        raise Unreadable(f"{error}: not readable predictions; {_SOURCE}") from error
    return np.asfortranarray(arrays[name]), arrays[f"{name}-labels"]


@lru_cache(maxsize=64)
def _outcomes(file: str, stamped: Stamp | None, name: str) -> list[Outcome]:
    try:
        return of_columns(*_arrays(file, stamped, name))
    except ValueError as error:
        if isinstance(error, BenchError):
            raise
        raise Unreadable(
            f"{file}: '{shown(name)}' is no array of predictions ({error}); {_SOURCE}"
        ) from error


def _width(classes: NDArray[Any]) -> int:
    return int(classes.shape[1]) if classes.ndim == 2 else 0
