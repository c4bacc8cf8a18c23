"""Pack a results folder into a few files that are small enough to commit (``bench.records.packed``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.names import few, nearest, shown
from bench.records import outcomes, packed, places, store
from bench.records.columns import Top1
from bench.records.types import EvaluationRecord, Failure, FitRecord, Record
from bench.report import current
from bench.report.frame import load_results


@dataclass(frozen=True)
class Packed:
    """The outcome of ``pack``: counts of fits, evaluations and records left out, and bytes of the files.

    ``with_outputs``: how many of the evaluations keep the outputs of every image. ``bad``: a line about
    damaged or incomplete records, which are not counted; empty if there are none.
    """

    fits: int
    evaluations: int
    left_out: int
    size: int
    bad: str
    with_outputs: int = 0


# What a filter of outputs may name, and how a record says it. A filter names them as `bench run` does.
_FIELDS: Mapping[str, Callable[[EvaluationRecord], str]] = {
    "methods": lambda r: r.cell.method,
    "datasets": lambda r: r.target,
    "shots": lambda r: str(r.cell.shots),
    "seeds": lambda r: str(r.cell.seed),
    "backbone": lambda r: r.cell.backbone,
    "prompts": lambda r: r.cell.prompts,
    "protocol": lambda r: r.cell.protocol,
}


def parsed(text: str) -> dict[str, tuple[str, ...]]:
    """Return the filter of ``--keep-outputs``: by name, the values of which a record has one.

    Example: ``methods=safe,coop shots=16`` gives ``{"methods": ("safe", "coop"), "shots": ("16",)}``; ``all``
    gives a filter that every record passes. Raises BenchError for anything else.
    """
    found: dict[str, tuple[str, ...]] = {}
    before = ""
    for word in text.split() if text.strip() != "all" else ():
        name, equal, values = word.partition("=")
        named = tuple(filter(None, values.split(",")))
        if before.endswith(",") and not equal:
            raise BenchError(f"--keep-outputs: no blank may follow the comma: write '{before}{word}'")
        before = word
        if not equal or name not in _FIELDS or not named or name in found:
            hint = nearest(name, _FIELDS)
            raise BenchError(
                f"--keep-outputs: '{word}' is no filter{hint}; write all, or for example "
                f"'methods=safe,coop shots=16 seeds=1' with names among {', '.join(_FIELDS)}"
            )
        found[name] = named
    if not found and text.strip() != "all":
        raise BenchError("--keep-outputs names nothing: write all, or for example 'methods=safe shots=16'")
    return found


def _require_values(wanted: Mapping[str, tuple[str, ...]], records: Iterable[EvaluationRecord]) -> None:
    """Raise BenchError, with the nearest, if a filter names a value that none of these records has."""
    every = list(records)
    for name, values in wanted.items():
        there = sorted({_FIELDS[name](record) for record in every})
        for value in values:
            if value not in there:
                raise BenchError(
                    f"--keep-outputs: no evaluation has {name}={shown(value)}{nearest(value, there)}; "
                    f"there are {few(there, 10)}"
                )


def _passes(record: EvaluationRecord, fit: FitRecord | None, wanted: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether an evaluation passes a filter of outputs.

    Cells without labels have neither shots nor a seed, and pass every filter of these. Rows with changed
    settings pass none but ``all``.
    """
    if wanted and (record.changed or (fit is not None and fit.changed)):
        return False
    free = () if record.cell.shots else ("shots", "seeds")
    return all(_FIELDS[name](record) in values for name, values in wanted.items() if name not in free)


def pack(
    results: Path,
    out: Path,
    limit: int | None = None,
    keep_outputs: Mapping[str, tuple[str, ...]] | None = None,
) -> Packed:
    """Pack the records that count (``load_results``) and the fits behind them from ``results`` into ``out``.

    Metrics, counts by class and top-1 predictions are kept of every evaluation. The other arrays with a row
    for each image are kept of the evaluations that pass the filter ``keep_outputs`` (``parsed``); None:
    of none. Logits, tracebacks and fitted states are left out. ``out`` can then be read like ``results``;
    the same records give the same bytes. Raises BenchError if all records are damaged, if the files would
    exceed ``limit`` bytes, if the filter names a value that no evaluation has, or if none that passes it
    has outputs; nothing is written then. Records of an older schema are refused, because their keys differ
    from those in their file names.
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
    _require_values(keep_outputs or {}, (r for r in kept.values() if isinstance(r, EvaluationRecord)))
    top1 = {path: _top1(path) for path, r in kept.items() if isinstance(r, EvaluationRecord)}
    outputs: dict[Path, Mapping[str, NDArray[Any]]] = {}
    for path, r in kept.items() if keep_outputs is not None else ():
        fit_record = known.get(r.fit) if isinstance(r, EvaluationRecord) else None
        if isinstance(r, EvaluationRecord) and r.outputs and _passes(r, fit_record, keep_outputs or {}):
            arrays = store.arrays(path, r)
            outputs[path] = {name: x for name, x in arrays.items() if name != outcomes.LOGITS}
            kept[path] = replace(r, outputs=[name for name in r.outputs if name != outcomes.LOGITS])
    if keep_outputs is not None and not outputs:
        raise BenchError(
            "--keep-outputs: no evaluation that passes it has kept outputs; widen it, or run the cells again"
        )
    root = places.runs(results)
    size = packed.write(
        out,
        {p.relative_to(root).as_posix(): r for p, r in kept.items()},
        {p.relative_to(root).as_posix(): arrays for p, arrays in top1.items()},
        limit,
        {p.relative_to(root).as_posix(): arrays for p, arrays in outputs.items()},
    )
    count = sum(isinstance(r, FitRecord) or (isinstance(r, Failure) and r.of == "fit") for r in kept.values())
    return Packed(count, len(kept) - count, len(records) - len(kept), size, frame.attrs["bad"], len(outputs))


def _top1(path: Path) -> Top1:
    arrays = store.predictions(path)
    return arrays["top1"], arrays["labels"]
