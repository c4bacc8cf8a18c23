"""Turn records into a DataFrame, which has one row per evaluation and per failed fit, and each cell once."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import prompts as prompt_sets
from bench.data import catalog
from bench.errors import BenchError
from bench.files import Stamp, stamp_if_there
from bench.metrics import METRICS
from bench.names import counted, told_apart
from bench.paths import results_dir
from bench.records import codec, store
from bench.records.keys import ALL, PRECISIONS, SINGLE, FitKey
from bench.records.types import EvaluationRecord, Failure, FitRecord, Record
from bench.records.whole import Bad, said
from bench.report import current
from bench.report.apart import apart
from bench.report.believed import believed, left_out
from bench.report.command import command
from bench.report.coordinates import CELL

COLUMNS = (
    "method",
    "dataset",
    "target",
    "shots",
    "seed",
    "backbone",
    "prompts",
    "protocol",
    "preset",
    "accuracy",
    "top5",
    "n",
    "status",
    "error",
    "variant",
    "values",
    "version",
    "steps",
    "configurations",
    "seconds",
    "fit",
    "key",
    "path",
    "title",
    "label_prompts",
    "also",
    "written",
    "temperature",
    "imported",
    *(name for name in METRICS if name != "top5"),
    "per_class",
)
# Prompt sets that were chosen or trained with labels. Records say so themselves. This list is for a set that
# has failed cells only, because these never got as far as having texts.
LABEL_PROMPTS = frozenset({"mined", "mined-val", "linear"})

_NAN = float("nan")
_PRECISION = {dtype: name for name, dtype in PRECISIONS.items()}
_coordinates = attrgetter(*CELL)


def load_results(results: Path | str | Sequence[Path | str] = Path("results")) -> pd.DataFrame:
    """Read all records of results folders, loose or packed: a row per evaluation and a row per failure.

    Several folders are read as if one had been copied into the other.

    Failures have ``status = failed``. ``accuracy`` and ``top5`` are percent. Each metric of ``bench.metrics``
    has a column of its name, in the unit and the scale in which tables print it (``top1`` repeats
    ``accuracy``). It is NaN where the record does not say it; ``measures.filled`` computes what predictions
    can tell, and compares the metrics that loading does not (calibration errors, risks) with the images.
    ``temperature`` is that of the fit, NaN if none was recorded. ``per_class`` has the lists ``images``,
    ``right`` and ``predicted`` with a count for each class; it is None in older records. ``seconds`` is the
    time of fitting and evaluating, NaN for imported predictions. ``imported`` says whether predictions were
    made elsewhere. ``values`` holds the inference-time values. ``variant`` holds the settings that a user set
    away from the method's own, and the precision; it is empty for the plain method in single precision.
    ``path`` is the file of the record. ``written`` is the time of writing (ISO, UTC). ``label_prompts`` says
    whether labels chose the prompts. ``also`` lists the other prompt sets with the same texts: only one of
    several sets with equal texts is recorded, and tables find it by every name.

    Each evaluation (``coordinates.EVALUATION``) has one row. Records that newer ones replace are left out:
    those of an older version of a method or of a method it builds on, of other weights under the same name,
    of other content of a test set, and of older settings. ``attrs["notes"]`` says what was left out, and
    ``attrs["folders"]`` names the folders.

    Every accuracy is counted again from its predictions. Damaged or incomplete records (``believed``) are
    left out too: ``attrs["bad"]`` is a line about them, empty if there are none, and the first of the notes.
    Raises BenchError if a folder has no records or only damaged ones, or if packed ones do not unpack.
    """
    folders = [Path(results)] if isinstance(results, str | Path) else [Path(folder) for folder in results]
    bad: list[Bad] = []
    with codec.many():
        read = [record for folder in folders for record in _read(folder, bad)]
        named, folded = few_shot(apart(believed(read, bad)))
        if folded and not named:
            raise BenchError(
                f"there are only {counted(folded, 'result')} of folds here, which tables and figures do not "
                "show: run few-shot cells, as in `bench run --shots 1`"
            )
        rows = rows_of(named)
        if bad and not rows:
            raise BenchError(
                f"all records are damaged or incomplete: {said(bad)}; repeat the `bench run` of these cells"
            )
        kept, notes = current.only(rows)
        kept.sort(key=itemgetter("dataset", "method", "shots", "seed", "target", "key"))
    frame = pd.DataFrame(kept, columns=list(COLUMNS))
    frame.attrs["bad"] = left_out(bad)
    alone = [_without_folds(folded)] if folded else []
    frame.attrs["notes"] = [*filter(None, [frame.attrs["bad"]]), *_places(named), *alone, *notes]
    frame.attrs["folders"] = [str(folder) for folder in folders]
    return frame


def few_shot(named: Sequence[tuple[Path, Record]]) -> tuple[list[tuple[Path, Record]], int]:
    """Return the records of few-shot cells, and the number of results of folds (``bench run --folds``).

    The test images of a fold are those of no other cell, so no row of a table could hold both.
    """
    few = [(path, r) for path, r in named if r.cell.shots != ALL]
    return few, sum(r.cell.shots == ALL and not isinstance(r, FitRecord) for _, r in named)


def _without_folds(count: int) -> str:
    """Return the note on results of folds that are left out."""
    return f"Left out: {counted(count, 'result')} of folds (`bench run --folds`), which tables do not show."


def _places(named: Sequence[tuple[Path, Record]]) -> list[str]:
    """Return a note that says where each of several datasets with one name lies, if known.

    ``names.told_apart`` has marked their names.
    """
    places: dict[str, str] = {}  # by the name that tables print
    marked = set()
    for _, record in named:
        if isinstance(record, FitRecord) and record.dataset_identity:
            name = record.cell.dataset
            places[name] = record.dataset_place or places.get(name, "")
            if name.endswith(told_apart("", record.dataset_identity)):
                marked.add(name)
    alike = marked | {name.rpartition("-")[0] for name in marked}
    where = [f"{name} is {place}" for name, place in sorted(places.items()) if place and name in alike]
    return [f"Several datasets have the same name: {', '.join(where)}."] if where else []


def _read(results: Path, bad: list[Bad]) -> list[tuple[Path, Record]]:
    before = len(bad)
    records = list(store.every(results, bad))
    if not records and len(bad) == before:
        shipped = results_dir() / "pocket"
        hint = (
            f"; --results {shlex.quote(str(shipped))} reads the records that come with the program"
            if shipped.is_dir()
            else ""
        )
        raise BenchError(
            f"no records under {results / 'runs'}: "
            f"make some with `{command('run', results=[str(results)])}`, "
            f"or name another folder with --results{hint}"
        )
    return records


def rows_of(records: Sequence[tuple[Path, Record]]) -> list[dict[str, Any]]:
    """Return the rows of evaluations and failures. A record that lies in two of the folders gives one row."""
    fits = {r.key: r for _, r in records if isinstance(r, FitRecord)}
    known = {r.cell.prompts: r.prompts_use_labels for r in fits.values() if r.prompts_use_labels is not None}
    labelled = frozenset(name for name, uses in known.items() if uses) | (LABEL_PROMPTS - set(known))
    others = {
        (r.key, r.checksum or str(path)): (path, r) for path, r in records if not isinstance(r, FitRecord)
    }
    return [_row(path, r, fits, labelled) for path, r in others.values()]


def correct(path: str | Path) -> NDArray[np.bool_]:
    """Return which test images (n,) the evaluation at ``path`` got right.

    Raises BenchError if its predictions are gone or are not its own.
    """
    name = str(path)
    own = stamp_if_there(name)
    arrays = own and stamp_if_there(name.removesuffix(".json") + ".npz")
    return _correct(name, (own, arrays)) if arrays else _right(Path(name))


@cache
def _correct(name: str, stamps: tuple[Stamp | None, ...]) -> NDArray[np.bool_]:
    return _right(Path(name))


def _right(path: Path) -> NDArray[np.bool_]:
    record = store.read(path)
    if not isinstance(record, EvaluationRecord):
        raise BenchError(f"{path}: this record was deleted meanwhile; load the results again")
    return store.outcome(path, record).right


def stacked(paths: Sequence[str]) -> NDArray[np.bool_]:
    """Return right or wrong by seed and test image (S, n) for these evaluations, one for each seed.

    Raises BenchError if predictions are gone or belong to different test sets.
    """
    vectors = [correct(path) for path in paths]
    if len({len(v) for v in vectors}) > 1:
        raise BenchError(f"{paths[0]}: other seeds were measured on another test set; run the cell again")
    return np.stack(vectors)


def _row(
    path: Path, r: EvaluationRecord | Failure, fits: Mapping[str, FitRecord], labelled: frozenset[str]
) -> dict[str, Any]:
    fit, cell = fits.get(r.fit), r.cell
    key = fit.parts if fit else r.parts if isinstance(r, Failure) else None
    outcome: dict[str, Any]
    imported = isinstance(r, EvaluationRecord) and bool(r.imported)
    if isinstance(r, EvaluationRecord):
        shares = {"top1": r.top1, "top5": _NAN if r.top5 is None else r.top5}
        told = {
            name: one.scale * shares.get(name, r.metrics.get(name, _NAN)) for name, one in METRICS.items()
        }
        outcome = {"accuracy": 100.0 * r.top1, **told, "n": r.n, "status": "ok", "error": ""}
        outcome["per_class"] = r.per_class
    else:
        outcome = {
            "accuracy": _NAN,
            **dict.fromkeys(METRICS, _NAN),
            "per_class": None,
            "n": 0,
            "status": "failed",
            "error": r.error,
        }
    also = fit.prompts_also if fit else None
    uses = fit.prompts_use_labels if fit else None
    return {
        **dict(zip(CELL, _coordinates(cell), strict=True)),
        **outcome,
        "target": r.target or cell.dataset,
        "variant": variant(r, fit, fits),
        "values": r.values,
        "version": key.version if key else None,
        "steps": fit.budget.steps if fit else 0,
        "configurations": fit.budget.configurations if fit else 0,
        "seconds": _NAN if imported else _seconds(r, fit),
        "imported": imported,
        "fit": r.fit,
        "key": r.key,
        "path": str(path),
        "title": (fit.title if fit else "") or (r.title if isinstance(r, Failure) else "") or cell.method,
        "label_prompts": cell.prompts in labelled if uses is None else uses,
        "also": _also(cell.dataset, cell.prompts) if also is None else tuple(also),
        "written": r.provenance.written,
        "temperature": fit.temperature if fit and fit.temperature is not None else _NAN,
        "order": r.provenance.order,
        "folder": r.provenance.folder,
        "made": current.made(r, fit, fits),
    }


def _seconds(r: EvaluationRecord | Failure, fit: FitRecord | None) -> float:
    fitting = fit.cost if fit else 0.0
    return fitting + (r.seconds if isinstance(r, EvaluationRecord) else 0.0)


@cache
def _also(dataset: str, prompts: str) -> tuple[str, ...]:
    """Return the prompt sets with equal texts that the catalog knows, for records that name none."""
    return prompt_sets.same(prompts, catalog.spec(dataset)) if dataset in catalog.names() else ()


def variant(record: EvaluationRecord | Failure, fit: FitRecord | None, fits: Mapping[str, FitRecord]) -> str:
    """Describe the settings that a user set away from the method's own, as ``key=value`` joined by commas.

    The text is empty if there are none. Settings of the fits that it builds on have their method's name:
    ``safe.steps=100``. A precision other than fp32 stands last.
    """
    changed = {**(fit.changed if fit else {}), **record.changed}
    for other in current.below(fit, fits) if fit else ():
        changed |= {f"{other.cell.method}.{k}": v for k, v in other.changed.items()}
    key = fit.parts if fit else record.parts if isinstance(record, Failure) else None
    return with_precision(", ".join(f"{k}={short(v)}" for k, v in sorted(changed.items())), precision(key))


def precision(key: FitKey | None) -> str:
    """Return the precision in which a fit's image tower computed, as ``--precision`` names it."""
    return _PRECISION.get(key.encode_dtype, SINGLE) if key else SINGLE


def with_precision(variant: str, precision: str) -> str:
    """Add the precision to the name of a variant, unless it is the usual one."""
    return ", ".join(filter(None, (variant, "" if precision == SINGLE else f"precision={precision}")))


def short(value: Any) -> str:
    """Return the text by which variants print the value of a setting."""
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
