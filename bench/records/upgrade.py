"""Convert a results folder from schema 1 to the present schema, without running anything again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from bench.errors import BenchError
from bench.records import codec, convert, packed, places, store
from bench.records.types import EvaluationRecord, FitRecord, Record


@dataclass(frozen=True)
class Upgraded:
    """The result of ``upgrade``.

    ``records``: how many records were brought over. ``unmatched``: how many of them a run will make again, by
    reason.
    """

    records: int
    unmatched: dict[str, int]


def upgrade(results: Path) -> Upgraded:
    """Convert the records of schema 1 in a results folder, both files and packed ones.

    Records of the present schema stay as they are. An old record is removed only after its replacement is
    written, so an interruption loses nothing, and a second call goes on. Raises BenchError if there are no
    records, or if predictions are not those of their record.
    """
    if not places.runs(results).is_dir() and not packed.rows(results):
        raise BenchError(f"{results}: no records there; name the folder that `bench run --results` wrote to")
    regular = filter(Path.is_file, sorted(places.runs(results).rglob("*.json")))
    files = {f: data for f in regular if _old(data := f.read_bytes())}
    for odd in packed.odd_rows(results):
        raise BenchError(f"{odd.line}; nothing was converted: copy the file again from where it came")
    rows = {results / "runs" / at: line for at, line in packed.rows(results).items() if _old(line.record)}
    # A packed evaluation may be of a fit in a file, and the other way round, so one converter sees both.
    # Packed records are replaced last, all at once.
    raw: dict[Path, bytes] = {**{path: bytes(line.record) for path, line in rows.items()}, **files}
    converter = convert.Converter(lambda cell, method, key: _fit(raw, results, cell, method, key))
    done = [*_files(results, files, converter), *_packed(results, rows, converter)]
    return Upgraded(len(done), dict(Counter(filter(None, map(_why_run_again, done)))))


def _old(data: bytes | msgspec.Raw) -> bool:
    return codec.schema_of(data) == convert.SCHEMA


def _fit(
    raw: Mapping[Path, bytes], results: Path, cell: Mapping[str, Any], method: str, key: str
) -> dict[str, Any] | None:
    where = places.folder(results, cell["backbone"], cell["dataset"], method)
    data = raw.get(places.fit_path(where, key))
    return None if data is None else convert.fields_of(data)


def _why_run_again(record: Record) -> str:
    """Return why a run will make this record again, or "" if it will not."""
    if isinstance(record, FitRecord) and record.parts.preprocessing == convert.UNKNOWN:
        return f"fits of {record.cell.backbone}, whose weights are not here"
    if isinstance(record, FitRecord) and record.parts.source:
        return (
            f"fits of {record.cell.method}, a plugin whose other files schema {convert.SCHEMA} did not know"
        )
    return ""


def _files(results: Path, files: Mapping[Path, bytes], converter: convert.Converter) -> Iterator[Record]:
    written = set()
    for file, data in files.items():
        record = converter.record(convert.fields_of(data))
        place = _right_place(file, record)
        if isinstance(record, EvaluationRecord) and file.with_suffix(".npz").is_file():
            _check(file, record)
            arrays = store.named(file, ("top1", "top5", "labels"))
            record = replace(record, predictions=store.write_predictions(place, arrays))
        if isinstance(record, FitRecord):
            old, new = places.state_path(results, file.stem), places.state_path(results, record.key)
            kept = next((p for p in (old, new) if p.is_file()), None)
            record = replace(record, state=codec.checksum_bytes(kept.read_bytes()) if kept else "")
            store.put(place, record)
            if old.is_file():
                old.replace(new)
        else:
            store.put(place, record)
        written |= {place, place.with_suffix(".npz")}
        yield record
    # Evaluations go before their fits, because a second call finds their new keys by these fits. Records go
    # before their predictions, because a record without them would be damaged.
    for file in sorted(files, key=lambda f: "-" not in f.stem):
        for part in (file, file.with_suffix(".npz")):
            if part not in written:
                part.unlink(missing_ok=True)


def _packed(results: Path, rows: Mapping[Path, packed.Row], converter: convert.Converter) -> Iterator[Record]:
    """Write packed records again and yield them. Their predictions stay as they are."""
    if not rows:
        return
    lines = []
    for path, row in rows.items():
        record = converter.record(convert.fields_of(row.record))
        kept = packed.top1(path) if row.place else None
        if isinstance(record, EvaluationRecord) and kept is not None:
            _check(path, record)
            record = replace(
                record, predictions=dict(zip(("top1", "labels"), map(codec.checksum_of, kept), strict=True))
            )
        lines.append(
            packed.Line(
                _right_place(path, record).relative_to(places.runs(results)).as_posix(), record, row.place
            )
        )
    packed.write_lines(results, lines)
    yield from (line.record for line in lines)


def _check(path: Path, record: EvaluationRecord) -> None:
    """Raise BenchError if predictions do not give the recorded accuracies; schema 1 had no checksums."""
    try:
        store.outcome(path, record)
    except BenchError as error:
        raise BenchError(f"{store.bad_of(path, error).line}; delete it") from error


def _right_place(path: Path, record: Record) -> Path:
    """Return the path that a record has by its own key."""
    if isinstance(record, FitRecord) or record.key == record.fit:
        return places.fit_path(path.parent, record.key)
    return places.evaluation_path(path.parent, record.fit, record.key)
