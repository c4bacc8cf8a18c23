"""Pack a results folder into two files that are small enough to commit (``bench.records.packed``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.records import packed, places, store
from bench.records.types import EvaluationRecord, Failure, FitRecord, Record
from bench.report import current
from bench.report.frame import load_results


@dataclass(frozen=True)
class Packed:
    """The outcome of ``pack``: counts of fits, evaluations and records left out, and bytes of the two files.

    ``bad``: a line about damaged or incomplete records, which are not counted; empty if there are none.
    """

    fits: int
    evaluations: int
    left_out: int
    size: int
    bad: str


def pack(results: Path, out: Path, limit: int | None = None) -> Packed:
    """Pack the records that count (``load_results``) and the fits behind them from ``results`` into ``out``.

    Top-5 predictions, tracebacks and fitted states are left out. ``out`` can then be read like ``results``;
    the same records give the same bytes. Raises BenchError if all records are damaged, or if the files
    would exceed ``limit`` bytes; nothing is written then. Records of an older schema are refused, because
    their keys differ from those in their file names.
    """
    store.require_present(results)
    frame = load_results(results)
    records = dict(store.every(results, []))
    fits = {r.key: (path, r) for path, r in records.items() if isinstance(r, FitRecord)}
    known = {key: r for key, (_, r) in fits.items()}
    kept: dict[Path, Record] = {}
    for path, fit in zip(map(Path, frame["path"]), frame["fit"], strict=True):
        kept[path] = records[path]
        chain = [known[fit], *current.below(known[fit], known)] if fit in known else []
        kept |= {fits[r.key][0]: r for r in chain}
    top1 = {path: _top1(path) for path, r in kept.items() if isinstance(r, EvaluationRecord)}
    root = places.runs(results)
    size = packed.write(
        out,
        {p.relative_to(root).as_posix(): r for p, r in kept.items()},
        {p.relative_to(root).as_posix(): arrays for p, arrays in top1.items()},
        limit,
    )
    count = sum(isinstance(r, FitRecord) or (isinstance(r, Failure) and r.of == "fit") for r in kept.values())
    return Packed(count, len(kept) - count, len(records) - len(kept), size, frame.attrs["bad"])


def _top1(path: Path) -> packed.Top1:
    arrays = store.predictions(path)
    return arrays["top1"], arrays["labels"]
