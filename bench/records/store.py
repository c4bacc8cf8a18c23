"""The store of records: small JSON files named by their keys, predictions beside them.

``results/runs/<backbone>/<dataset>/<method>/<fit key>.json`` and ``<fit key>-<evaluation key>.{json,npz}``.
Each file is written atomically the moment it is known; merging two machines' results is copying files. A
folder of packed records (bench.records.packed) reads in the same way; a file that lies beside them counts in
place of the packed one. Records of schema 1 are read too (bench.records.convert).
"""

from __future__ import annotations

import io
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.files import read_json, sweep, write_bytes, write_new
from bench.records import codec, convert, packed, places
from bench.records.types import EvaluationRecord, FitRecord, Record

FOLDER = "folder.json"  # names a results folder; beside runs/
PARTS = ("runs", "states", "splits", "images")  # folders that a run writes below a results folder
_AGAIN = "delete it to run its cell again"


@dataclass
class Clock:
    """Numbers records so that a later one in a folder has the larger number, even if the clock was set back.

    ``folder`` names the results folder; ``last`` is the largest number that is there. Numbers are
    milliseconds since 1970 while the clock agrees, so that records of two folders are in order as well as
    their clocks are.
    """

    folder: str
    last: int = 0

    @classmethod
    def of(cls, results: Path, last: int | None = None) -> Clock:
        """The clock of a results folder, which gets a name if it has none yet.

        ``last``: the largest number there, where the caller has read the records already.
        """
        name = results / FOLDER
        if not name.is_file():
            write_new(name, msgspec.json.encode({"id": secrets.token_hex(8)}))
        try:
            folder = str(read_json(name)["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise BenchError(
                f"{name}: does not name the results folder ({error}); delete it, and it is made anew"
            ) from error
        if last is None:
            last = max((record.provenance.order for _, record in every(results)), default=0)
        return cls(folder, last)

    def tick(self) -> int:
        """The next number."""
        self.last = max(self.last + 1, time.time_ns() // 1_000_000)
        return self.last


def tidy(results: Path) -> None:
    """Delete what runs that were killed left half written in a results folder."""
    sweep(results, deep=False)
    for part in PARTS:
        sweep(results / part)


def read(path: Path) -> Record | None:
    """A record, or None if there is none.

    Raises BenchError for a file that is not one of ours, that holds other fields or values than a record may,
    or that is not as it was written.
    """
    if not os.path.isfile(path):
        return packed.record(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BenchError(
            f"{path}: not readable ({error.strerror}); mend that, or move the file away"
        ) from error
    try:
        try:
            return codec.decode(data)
        except codec.Unreadable:
            if codec.schema_of(data) != convert.SCHEMA:
                raise
            return _old(path.parents[4], data)
    except codec.Unreadable as error:
        raise BenchError(f"{path}: {error}; {_AGAIN}") from error


def _old(results: Path, data: bytes) -> Record:
    """A record of schema 1; what it builds on lies in the same results folder."""

    def fetch(cell: Mapping[str, Any], method: str, key: str) -> dict[str, Any] | None:
        file = places.fit_path(places.folder(results, cell["backbone"], cell["dataset"], method), key)
        if file.is_file():
            return dict(read_json(file))
        row = packed.rows(results).get(file.relative_to(places.runs(results)).as_posix())
        return msgspec.json.decode(row.record) if row else None

    return convert.Converter(fetch).record(msgspec.json.decode(data))


def fit(path: Path, key: str) -> FitRecord | None:
    """The record at ``path`` if it is of a fit that succeeded and bears this key."""
    record = read(path)
    return record if isinstance(record, FitRecord) and record.key == key else None


def evaluation(path: Path, key: str) -> EvaluationRecord | None:
    """The record at ``path`` if it is of a successful evaluation, bears this key and has its predictions."""
    record = read(path)
    if not isinstance(record, EvaluationRecord) or record.key != key:
        return None
    return record if has_predictions(path) else None


def fit_of(path: Path, record: Record) -> FitRecord | None:
    """The fit of the record at ``path``; None where its record is gone or says that it failed."""
    own = record if isinstance(record, FitRecord) else read(places.fit_path(path.parent, record.fit))
    return own if isinstance(own, FitRecord) else None


def behind(path: Path, record: Record) -> list[FitRecord]:
    """The fit of the record at ``path``, then those it builds on, without those whose records are gone."""
    own = fit_of(path, record)
    if own is None:
        return []
    fits = {own.key: own}
    for role, key in own.parts.after.items():
        below = places.fit_path(path.parent.parent / places.safe(own.reads.get(role, role)), key)
        other = read(below)
        if other is not None:
            fits |= {fit.key: fit for fit in behind(below, other)}
    return list(fits.values())


def write(path: Path, record: Record, clock: Clock) -> None:
    """Write a record with its number, time and checksum; BenchError where a field holds what it may not."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    facts = replace(record.provenance, written=now, order=clock.tick(), folder=clock.folder)
    put(path, replace(record, provenance=facts))


def put(path: Path, record: Record) -> None:
    """Write one record as it is, with its checksum."""
    write_bytes(path, codec.encode(record, indent=1) + b"\n")


def write_predictions(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Write what an evaluation says of every test image, in the order of the test list.

    Its record will lie at ``path``. ``top1`` (n,), ``top5`` (n, 5) and ``labels`` (n,) are classes, uint16.
    Returns the checksum of each array.
    """
    kept = {name: np.asarray(x, np.uint16) for name, x in arrays.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **kept)
    write_bytes(path.with_suffix(".npz"), buffer.getvalue())
    return {name: codec.checksum_of(x) for name, x in kept.items()}


def has_predictions(path: Path) -> bool:
    """Whether the evaluation whose record lies at ``path`` has predictions, as a file or packed."""
    return path.with_suffix(".npz").is_file() or packed.has_top1(path)


def predictions(path: Path, names: Iterable[str] = ("top1", "labels")) -> dict[str, NDArray[Any]]:
    """The named arrays of the evaluation whose record lies at ``path``; packed predictions have no ``top5``.

    Raises BenchError where there are none, or where they are not those that the record speaks of.
    """
    record = read(path)
    if not isinstance(record, EvaluationRecord):
        raise BenchError(f"{path}: the record has gone; load the results again")
    by_name = arrays(path, names)
    for name, x in by_name.items():
        if name in record.predictions and record.predictions[name] != codec.checksum_of(x):
            raise BenchError(
                f"{path.with_suffix('.npz')}: not the predictions that its record speaks of ({name} differ); "
                "run the cell with --fresh"
            )
    return by_name


def arrays(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """``predictions`` without a look at what the record says of them."""
    file = path.with_suffix(".npz")
    if not os.path.isfile(file):
        kept = packed.top1(path)
        if kept is None:
            raise BenchError(f"{file}: the predictions are gone; run the cell again with --fresh")
        return {name: x for name, x in zip(("top1", "labels"), kept, strict=True) if name in names}
    try:
        with np.load(file, allow_pickle=False) as kept_here:
            return {name: kept_here[name] for name in names}
    except codec.TORN as error:
        raise BenchError(
            f"{file}: not readable predictions ({error}); delete the file to run its cell again"
        ) from error


def every(results: Path) -> Iterator[tuple[Path, Record]]:
    """All records under ``results/runs``: packed ones, then files, in path order."""
    yield from _with_files(packed.records(results), places.runs(results))


def within(where: Path) -> Iterator[tuple[Path, Record]]:
    """The records in the folder of one method on one dataset, as ``every`` gives them."""
    yield from _with_files(packed.within(where), where)


def _with_files(kept: Iterable[tuple[Path, Record]], where: Path) -> Iterator[tuple[Path, Record]]:
    files = sorted(where.rglob("*.json"))
    known = set(files)
    for path, record in kept:
        if not known or path not in known:
            yield path, record
    for path in files:
        stored = read(path)
        if stored is not None:
            yield path, stored


def outdated(results: Path) -> bool:
    """Whether a folder has records of schema 1, which read but no run takes for its own.

    bench.records.upgrade converts them.
    """
    files = places.runs(results).rglob("*.json")
    first = next(iter(packed.rows(results).values()), None)
    if first is not None and codec.schema_of(first.record) == convert.SCHEMA:
        return True
    return any(codec.schema_of(f.read_bytes()) == convert.SCHEMA for f in files)


def require_present(results: Path) -> None:
    """Raises BenchError, naming the command, for a folder with records of an older schema."""
    if outdated(results):
        raise BenchError(
            f"{results} holds records of an older schema: "
            f"`bench convert --results {results}` brings them over, and nothing that they hold is run again"
        )
