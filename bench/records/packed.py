"""Write and read packed records: a whole results folder in a few files, small enough to commit.

``records.jsonl.xz`` holds one record in each line, with its path below ``runs/`` and, for an evaluation, the
place of its predictions. ``predictions.npz`` holds, for every test set, the top-1 classes of all evaluations
on it, (n images, evaluations), and the labels. ``outputs.npz`` (bench.records.packed_outputs) is there if
further arrays of some evaluations were kept. A packed folder can be read like the folder that it was made
from, but it has no tracebacks, and further arrays of those evaluations only.
"""

from __future__ import annotations

import lzma
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.files import Stamp, stamp_if_there, write_bytes, write_together
from bench.names import counted, short, shown
from bench.records import codec, columns, convert, packed_outputs, places
from bench.records.codec import Unreadable
from bench.records.columns import Place, Top1
from bench.records.convert import SCHEMA as OLD
from bench.records.outcomes import Outcome, of_columns
from bench.records.packed_outputs import archive, flat, for_packing
from bench.records.types import EvaluationRecord, Record
from bench.records.whole import Bad, fault, is_place
from bench.typed import said
from bench.unpack import GIB, Torn, npz, xz

RECORDS, PREDICTIONS = "records.jsonl.xz", "predictions.npz"

MOST = GIB  # bytes that all records of a folder may take
_SOURCE = "copy the file again from where it came"


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
    folder: Path,
    records: Mapping[str, Record],
    top1: Mapping[str, Top1],
    limit: int | None = None,
    outputs: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
) -> int:
    """Pack ``records``, the predictions ``top1`` of the evaluations, and further arrays of some of them.

    All three are by path below ``runs/``. The same input gives the same bytes. Returns the size of the files
    in bytes. Raises BenchError, and writes nothing, if that exceeds ``limit``.
    """
    outputs = outputs or {}
    arrays: dict[str, NDArray[Any]] = {}
    spots = columns.append(arrays, {}, records, top1)
    rows = [_row(Line(at, records[at], spots.get(at)), at in outputs) for at in sorted(records)]
    files = {folder / RECORDS: _compressed(rows), folder / PREDICTIONS: archive([arrays])}
    if outputs:
        files[folder / packed_outputs.FILE] = archive([flat(outputs)])
    size = sum(map(len, files.values()))
    if limit is not None and size > limit:
        raise BenchError(
            f"{counted(len(records), 'record takes', 'records take')} {size / 1e6:.1f} MB packed, "
            f"the limit is {limit / 1e6:.1f}: see --limit"
        )
    # All files are written before one takes its place: on a full disk the earlier ones stay.
    write_together(files)
    if not outputs:
        (folder / packed_outputs.FILE).unlink(missing_ok=True)
    return size


def write_lines(folder: Path, lines: Iterable[Line]) -> None:
    """Write the records without predictions, which are in the folder already."""
    write_bytes(folder / RECORDS, _compressed(map(_row, sorted(lines, key=lambda line: line.at))))


def add(
    folder: Path,
    new: Mapping[str, Record],
    top1: Mapping[str, Top1],
    without: Collection[str],
    outputs: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
) -> None:
    """Add records to the packed ones of ``folder``, in place of those of the same paths; omit ``without``.

    ``top1``: the predictions of the new evaluations; ``outputs``: further arrays of some of them. All of
    these are by path below ``runs/``. Lines whose record cannot be read stay as they are, but for what is no
    line at all. Raises Unreadable, and writes nothing, if the list of what ``outputs.npz`` holds is damaged
    and old lines name arrays there.

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
    spots = columns.append(arrays, named, new, top1)
    kept = {at: row for at, row in old.items() if at not in without}
    outputs = outputs or {}
    kept |= {at: _row(Line(at, record, spots.get(at)), at in outputs) for at, record in new.items()}
    named_there = [at for at, row in kept.items() if at not in new and _names_outputs(row)]
    further = packed_outputs.added(folder, named_there, outputs)
    if further is not None:
        write_bytes(folder / packed_outputs.FILE, further)
    write_bytes(folder / PREDICTIONS, archive([arrays]))
    write_bytes(folder / RECORDS, _compressed(kept[at] for at in sorted(kept)))


def _row(line: Line, with_outputs: bool = False) -> Row:
    return Row(line.at, msgspec.Raw(codec.encode(for_packing(line.record, with_outputs))), line.place)


class _Named(msgspec.Struct):
    """The field of a record that names its further arrays."""

    outputs: list[str] = []


def _names_outputs(row: Row) -> bool:
    """Return whether the record of a line names further arrays; True if it cannot be read."""
    try:
        return bool(msgspec.json.decode(row.record, type=_Named).outputs)
    except codec.NO_JSON:
        return True


def _compressed(rows: Iterable[Row]) -> bytes:
    return lzma.compress(b"".join(msgspec.json.encode(row) + b"\n" for row in rows), preset=9)


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
    if column >= columns.width(classes):
        raise Unreadable(f"{file}: '{shown(name)}' has no column {column}; {_SOURCE}")
    return classes[:, column], labels


def arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return the packed predictions, labels and further arrays of the evaluation for ``path``, or None.

    Raises Unreadable, and names the file, if they are gone or damaged.
    """
    kept, found = top1(path), _line_of(path)
    if kept is None or found is None or not isinstance(found.line, Line):
        return None
    both, record = dict(zip(("top1", "labels"), kept, strict=True)), found.line.record
    if not isinstance(record, EvaluationRecord) or not record.outputs:
        return both
    return {**both, **packed_outputs.read(_beside(found.file, packed_outputs.FILE), found.at, record.outputs)}


def outcome(path: Path) -> Outcome | None:
    """Return the counts from the packed predictions for ``path``, or None. Raises as ``top1`` does.

    Further arrays are not read: an accuracy stays good if these are gone.
    """
    found = _line_of(path)
    if found is None or not isinstance(found.line, Line) or found.line.place is None:
        return None
    name, column = found.line.place
    file = _predictions_of(found.file)
    counted = _outcomes(file, stamp_if_there(file), name)
    if column >= len(counted):
        raise Unreadable(f"{file}: '{shown(name)}' has no column {column}; {_SOURCE}")
    return counted[column]


def stamps(path: Path) -> tuple[Stamp | None, ...]:
    """Return the stamps of the files that hold the packed evaluation for ``path``; () if it is not packed."""
    found = _line_of(path)
    if found is None:
        return ()
    names = (RECORDS, PREDICTIONS, packed_outputs.FILE)
    return tuple(stamp_if_there(_beside(found.file, name)) for name in names)


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


def _beside(file: str, name: str) -> Path:
    """Return the file of that name that lies beside a file of packed records."""
    return Path(file.removesuffix(RECORDS) + name)


def _predictions_of(file: str) -> str:
    return str(_beside(file, PREDICTIONS))


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
