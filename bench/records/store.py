"""Read and write the records of a results folder: small JSON files named by their keys, and predictions.

``results/runs/<backbone>/<dataset>/<method>/<fit key>.json`` and ``<fit key>-<evaluation key>.{json,npz}``.
A run writes each file atomically, as soon as it knows what is in it. ``bench merge`` (bench.records.merge)
joins the folders of several machines. Packed records (bench.records.packed) are read in the same way. If a
record is there both packed and as a file, the file counts. Records of schema 1 are converted while they are
read (bench.records.convert).
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
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from bench import typed
from bench.errors import BenchError
from bench.files import sweep, write_bytes, write_new
from bench.records import codec, convert, outcomes, packed, places
from bench.records.keys import FitKey
from bench.records.outcomes import Outcome
from bench.records.types import EvaluationRecord, Failure, FitRecord, Record
from bench.records.whole import NO_PLACE, Bad, fault, fault_beside, is_place
from bench.unpack import npz

FOLDER = "folder.json"  # the file beside runs/ that holds the name of the results folder
PARTS = ("runs", "states", "splits", "images")  # folders that a run writes below a results folder
_AGAIN = "delete it to run its cell again"
_FRESH = "run the cell again"


class _Named(msgspec.Struct):
    """The content of ``folder.json``."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


@dataclass
class Clock:
    """The counter that numbers the records of a results folder.

    A later record has the larger number, even if the machine's clock was set back. ``folder`` names the
    results folder. ``last`` is the largest number there. A number is the time in milliseconds since 1970, or
    ``last`` + 1 if that is larger. So records of two folders are in order if the clocks of both machines are
    right.
    """

    folder: str
    last: int = 0

    @classmethod
    def of(cls, results: Path, last: int | None = None) -> Clock:
        """Return the clock of a results folder, and give the folder a name if it has none yet.

        ``last``: the largest number there, if the caller has read the records already. Raises BenchError if
        ``folder.json`` cannot be read.
        """
        name = results / FOLDER
        if not name.is_file():
            write_new(name, msgspec.json.encode({"id": secrets.token_hex(8)}))
        try:
            folder = typed.json(name, _Named).id
        except typed.Odd as error:
            raise BenchError(
                f"{error}; it names the results folder: delete it, and it is made anew"
            ) from error
        if last is None:
            last = max((record.provenance.order for _, record in every(results, [])), default=0)
        return cls(folder, last)

    def tick(self) -> int:
        """Return the next number."""
        self.last = max(self.last + 1, time.time_ns() // 1_000_000)
        return self.last


def tidy(results: Path) -> None:
    """Delete the half-written files that killed runs left in a results folder."""
    sweep(results, deep=False)
    for part in PARTS:
        sweep(results / part)


def read(path: Path) -> Record | None:
    """Return the record at ``path``, as a file or packed; None if there is none.

    Raises Unreadable if the file is no record, holds fields or values that a record cannot have, was changed
    after it was written, or lies in another place than its key says (bench.records.whole).
    """
    if not os.path.isfile(path):
        return packed.record(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise codec.Unreadable(
            f"{path}: not readable ({error.strerror}); mend that, or move the file away"
        ) from error
    at = "/".join(path.parts[-4:])
    try:
        if path.parts[-5:-4] != ("runs",) or not is_place(at):
            raise codec.Unreadable(NO_PLACE)
        if codec.schema_of(data) == convert.SCHEMA:
            return _old(path.parents[4], data)
        record = codec.decode(data)
        if why := fault(at, record):
            raise codec.Unreadable(why)
    except codec.Unreadable as error:
        raise codec.Unreadable(f"{path}: {error}; {_AGAIN}") from error
    return record


def _old(results: Path, data: bytes) -> Record:
    """Convert a record of schema 1. The fits that it builds on are looked up in the same results folder."""

    def fetch(cell: Mapping[str, Any], method: str, key: str) -> dict[str, Any] | None:
        file = places.fit_path(places.folder(results, cell["backbone"], cell["dataset"], method), key)
        if file.is_file():
            return convert.fields_of(file.read_bytes())
        row = packed.rows(results).get(file.relative_to(places.runs(results)).as_posix())
        return convert.fields_of(row.record) if row else None

    return convert.Converter(fetch).record(convert.fields_of(data))


def fit(path: Path, key: str, bad: list[Bad] | None = None) -> FitRecord | None:
    """Return the record at ``path`` if it is of a fit that succeeded and has this key; None otherwise.

    A record that is damaged or out of place is added to ``bad`` and counts as missing, so that a run makes it
    again.
    """
    record = _believed(path, bad)
    return record if isinstance(record, FitRecord) and record.key == key else None


def failed(path: Path) -> bool:
    """Return whether the record at ``path`` says that a fit or an evaluation failed."""
    return isinstance(_believed(path, None), Failure)


def evaluation(
    path: Path, key: str, bad: list[Bad] | None = None, labels: str = "", fit: FitKey | None = None
) -> EvaluationRecord | None:
    """Return the record at ``path`` if it is of a successful evaluation with this key; None otherwise.

    A record that is damaged or out of place, or whose predictions do not give its numbers, is added to
    ``bad`` and counts as missing. ``labels``: the checksum of the test set's labels, if it is known. ``fit``:
    the key of the fit, if it is known.
    """
    record = _believed(path, bad)
    if not isinstance(record, EvaluationRecord) or record.key != key:
        return None
    try:
        if fit is not None and (why := fault_beside(record, fit)):
            raise codec.Unreadable(f"{path}: {why}")
        its_labels = outcome(path, record).sums["labels"]
        if labels and labels != its_labels:
            raise codec.Unreadable("its labels are not those of the test set")
    except BenchError as error:
        if bad is not None:
            bad.append(bad_of(path, error))
        return None
    return record


def _believed(path: Path, bad: list[Bad] | None) -> Record | None:
    try:
        return read(path)
    except codec.Unreadable as error:
        if bad is not None:
            bad.append(bad_of(path, error))
        return None


def failure(path: Path) -> Failure | None:
    """Return the record at ``path`` if it is of a failure and undamaged; None otherwise."""
    record = _believed(path, None)
    return record if isinstance(record, Failure) else None


def bad_of(path: Path, error: BenchError) -> Bad:
    """Return the damaged or misplaced file and the reason, from an error about the record at ``path``."""
    text = str(error).removesuffix(f"; {_AGAIN}").removesuffix(f"; {_FRESH}")
    for what in (str(path), str(path.with_suffix(".npz"))):
        if text.startswith(f"{what}: "):
            return Bad(what, text.removeprefix(f"{what}: "))
    return Bad(str(path), text)


def fit_of(path: Path, record: Record) -> FitRecord | None:
    """Return the fit of the record at ``path``; None if the fit's record is gone or is a failure."""
    own = record if isinstance(record, FitRecord) else read(places.fit_path(path.parent, record.fit))
    return own if isinstance(own, FitRecord) else None


def behind(path: Path, record: Record) -> list[FitRecord]:
    """Return the fit of the record at ``path`` and the fits that it builds on, if their records are there."""
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
    """Write a record with its number, time and checksum.

    Raises BenchError if a field holds a value that it may not hold.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    facts = replace(record.provenance, written=now, order=clock.tick(), folder=clock.folder)
    put(path, replace(record, provenance=facts))


def put(path: Path, record: Record) -> None:
    """Write a record with its checksum, and leave all other fields as they are."""
    write_bytes(path, codec.encode(record, indent=1) + b"\n")


def write_predictions(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Write the predictions of the evaluation whose record will lie at ``path``, and return their checksums.

    ``arrays`` have a row for each test image in the order of the test list. ``top1`` and ``labels`` (n,) hold
    numbers of classes as uint16. ``bench.records.outcomes.OUTPUTS`` lists the further ones, which keep their
    types; ``run.outputs.empty`` says what they hold.
    """
    further = (*outcomes.OUTPUTS, outcomes.LOGITS)
    kept = {name: x if name in further else np.asarray(x, np.uint16) for name, x in arrays.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **kept)
    write_bytes(path.with_suffix(".npz"), buffer.getvalue())
    return {name: codec.checksum_of(x) for name, x in kept.items()}


def outcome(path: Path, record: EvaluationRecord) -> Outcome:
    """Return the counts from the predictions of the evaluation at ``path``, from their file or packed.

    Raises BenchError if the predictions are gone, belong to another record, or do not give its numbers.
    """
    file = f"{str(path).removesuffix('.json')}.npz"
    found = outcomes.of_file(Path(file), record) if os.path.isfile(file) else packed.outcome(path)
    if found is None:
        raise codec.Unreadable(f"{file}: the predictions are gone; {_FRESH}")
    if why := outcomes.fault(record, found):
        raise codec.Unreadable(f"{file}: not the predictions that its record speaks of ({why}); {_FRESH}")
    return found


def predictions(path: Path, names: Iterable[str] = ("top1", "labels")) -> dict[str, NDArray[Any]]:
    """Return the named arrays of the evaluation whose record lies at ``path``, loose or packed.

    Only those that are kept are returned. Raises BenchError as ``outcome`` and ``arrays`` do.
    """
    record = read(path)
    if not isinstance(record, EvaluationRecord):
        raise BenchError(f"{path}: the record has gone; load the results again")
    wanted = tuple(names)
    if not {"top1", "labels"}.issuperset(wanted):
        found = arrays(path, record)
        return {name: found[name] for name in wanted if name in found}
    outcome(path, record)
    return named(path, wanted)


def arrays(path: Path, record: EvaluationRecord) -> dict[str, NDArray[Any]]:
    """Return all arrays that are kept of the evaluation at ``path``: predictions, labels, ``record.outputs``.

    They are ``top1`` and ``labels`` (n,), and those of ``bench.records.outcomes.OUTPUTS`` that its record
    names; a record that is older than these has ``top5`` (n, 5) in their place. Packed evaluations have
    those that ``bench pack`` kept. All metrics of the record are computed again. Raises BenchError as
    ``outcome`` does, also for arrays that are not those of the record.
    """
    file = path.with_suffix(".npz")
    found = outcomes.read(file, record) if os.path.isfile(file) else packed.arrays(path)
    if found is None:
        raise codec.Unreadable(f"{file}: the predictions are gone; {_FRESH}")
    try:
        why = outcomes.fault(record, outcomes.of_all(found, record))
    except ValueError as error:
        raise codec.Unreadable(f"{file}: damaged ({error}); {_FRESH}") from error
    if why:
        raise codec.Unreadable(f"{file}: not the arrays that its record speaks of ({why}); {_FRESH}")
    return found


def named(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return the named arrays of an evaluation's file without comparing them with its record.

    Of a packed evaluation only ``top1`` and ``labels`` are returned.
    """
    file = path.with_suffix(".npz")
    if os.path.isfile(file):
        return npz(file, names)
    kept = packed.top1(path)
    if kept is None:
        raise BenchError(f"{file}: the predictions are gone; {_FRESH}")
    return {name: x for name, x in zip(("top1", "labels"), kept, strict=True) if name in names}


def every(results: Path, bad: list[Bad] | None = None) -> Iterator[tuple[Path, Record]]:
    """Yield all records of a results folder with their paths: packed ones, then files in the order of paths.

    Damaged and misplaced records are added to ``bad``. Without ``bad``, the first of them raises Unreadable.
    """
    yield from _with_files(packed.records(results), places.runs(results), bad)


def within(where: Path, bad: list[Bad] | None = None) -> Iterator[tuple[Path, Record]]:
    """Yield the records in the folder of one method on one dataset, as ``every`` does."""
    yield from _with_files(packed.within(where), where, bad)


def _with_files(
    kept: Iterable[tuple[Path, Record | Bad]], where: Path, bad: list[Bad] | None
) -> Iterator[tuple[Path, Record]]:
    files = sorted(where.rglob("*.json"))
    known = set(files)
    for path, record in kept:
        if known and path in known:
            continue
        if not isinstance(record, Bad):
            yield path, record
        elif bad is None:
            raise codec.Unreadable(record.line)
        else:
            bad.append(record)
    for path in files:
        stored = read(path) if bad is None else _believed(path, bad)
        if stored is not None:
            yield path, stored


def outdated(results: Path) -> bool:
    """Return whether a folder has records of schema 1."""
    return next(of_older_schema(results), None) is not None


def of_older_schema(results: Path) -> Iterator[Path]:
    """Yield the paths of records of schema 1: tables show them, but no run takes them for its own.

    ``bench convert`` (bench.records.upgrade) brings them over.
    """
    for at, row in packed.rows(results).items():
        if codec.schema_of(row.record) != convert.SCHEMA:
            break  # all lines of a folder are of one schema
        yield places.runs(results) / at
    yield from filter(_is_old, places.runs(results).rglob("*.json"))


def _is_old(file: Path) -> bool:
    """Return whether a file holds a record of schema 1.

    The answer is False for a file that cannot be read. ``read`` reports what is wrong with it.
    """
    try:
        return file.is_file() and codec.schema_of(file.read_bytes()) == convert.SCHEMA
    except OSError:
        return False


def require_present(results: Path) -> None:
    """Raise BenchError, which names the command to run, if a folder has records of an older schema."""
    if outdated(results):
        raise BenchError(
            f"{results} holds records of an older schema: "
            f"`bench convert --results {results}` brings them over, and nothing that they hold is run again"
        )
