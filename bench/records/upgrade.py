"""Bringing a results folder from schema 1 to the present one, without a single fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from bench.records import codec, convert, packed, places, store
from bench.records.types import EvaluationRecord, FitRecord, Record


@dataclass(frozen=True)
class Upgraded:
    """How many records were brought over, and of how many by backbone a run will not know the keys."""

    records: int
    unmatched: dict[str, int]


def upgrade(results: Path) -> Upgraded:
    """Convert what is packed and what lies in files; what is of the present schema stays as it is.

    New files are written first and old ones removed after them, so that an interruption loses nothing; a second call goes on.
    """
    done = [*_packed(results), *_files(results)]
    unmatched = Counter(r.cell.backbone for r in done if isinstance(r, FitRecord) and convert.UNKNOWN in r.parts.preprocessing)
    return Upgraded(len(done), dict(unmatched))


def _packed(results: Path) -> Iterable[Record]:
    if packed.schema(results) != convert.SCHEMA:
        return []
    found: dict[str, Record] = {}
    arrays: dict[str, packed.Top1] = {}
    for path, record in packed.records(results):
        here = _place(results, path, record).relative_to(places.runs(results)).as_posix()
        kept = packed.top1(path.with_suffix(".npz"))
        if isinstance(record, EvaluationRecord) and kept is not None:
            arrays[here] = kept
            record = replace(record, predictions=dict(zip(("top1", "labels"), map(codec.checksum_of, kept), strict=True)))
        found[here] = record
    packed.write(results, found, arrays)
    return list(found.values())


def _files(results: Path) -> Iterable[Record]:
    old = [f for f in sorted(places.runs(results).rglob("*.json")) if codec.schema_of(f.read_bytes()) == convert.SCHEMA]
    done = []
    for file in old:
        record = store.read(file)
        assert record is not None
        place = _place(results, file, record)
        if isinstance(record, EvaluationRecord) and file.with_suffix(".npz").is_file():
            arrays = store.predictions(file, ("top1", "top5", "labels"))
            record = replace(record, predictions=store.write_predictions(place, arrays))
        state = places.state_path(results, file.stem)
        if isinstance(record, FitRecord) and state.is_file():
            record = replace(record, state=codec.checksum_bytes(state.read_bytes()))
            store.put(place, record)
            state.rename(places.state_path(results, record.key))
        else:
            store.put(place, record)
        done.append(record)
    for file in sorted(old, key=lambda f: "-" not in f.stem):  # evaluations first: they are found by their fits
        for part in (file, file.with_suffix(".npz")):
            part.unlink(missing_ok=True)
    return done


def _place(results: Path, path: Path, record: Record) -> Path:
    """Where the record belongs by its own key."""
    if isinstance(record, FitRecord) or record.key == record.fit:
        return places.fit_path(path.parent, record.key)
    return places.evaluation_path(path.parent, record.fit, record.key)
