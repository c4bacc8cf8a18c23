"""Records as a DataFrame: one row per evaluation, failed fits included, each cell once."""

from __future__ import annotations

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
from bench.names import told_apart
from bench.paths import results_dir
from bench.records import codec, store
from bench.records.keys import PRECISIONS, SINGLE, FitKey
from bench.records.types import EvaluationRecord, Failure, FitRecord, Record
from bench.records.whole import Bad, said
from bench.report import current
from bench.report.apart import apart
from bench.report.believed import believed, left_out
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
)
# Prompt sets that were chosen or trained with labels. Records say it themselves; this is for a set with
# failed cells only, which never got as far as having its texts.
LABEL_PROMPTS = frozenset({"mined", "mined-val", "linear"})

_PRECISION = {dtype: name for name, dtype in PRECISIONS.items()}
_coordinates = attrgetter(*CELL)


def load_results(results: Path | str | Sequence[Path | str] = Path("results")) -> pd.DataFrame:
    """All records of a results folder, as files or packed: a row per evaluation and a row per failure.

    Of several folders: the records of all, as if one had been copied into the other.

    Failures have ``status = failed``. ``accuracy`` and ``top5`` are percent, ``seconds`` is fitting and
    evaluating, ``values`` the inference-time values, ``variant`` the settings that a user set away from the
    method's own and the precision (empty for the plain method in single precision), ``path`` the record,
    ``written`` when (ISO, UTC), ``label_prompts`` whether labels chose the prompts, ``also`` the other prompt
    sets with the same texts: of equal texts one set is recorded, and tables find it by every name.

    An evaluation (``coordinates.EVALUATION``) has one row. Records that newer ones replace are left out:
    those of an older version of a method or of one it builds on, of other weights under the same name, of
    another content of a test set, and of older settings; ``attrs["notes"]`` says what was left out.

    Every accuracy is counted again from its predictions. Records that are not believed (``believed``) are
    left out too: ``attrs["bad"]`` is a line on them, empty where there are none, and the first of the notes.
    Raises BenchError when a folder has no records, or none that is believed, or when packed ones do not
    unpack.
    """
    folders = [Path(results)] if isinstance(results, str | Path) else [Path(folder) for folder in results]
    bad: list[Bad] = []
    with codec.many():
        read = [record for folder in folders for record in _read(folder, bad)]
        named = apart(believed(read, bad))
        rows = rows_of(named)
        if bad and not rows:
            raise BenchError(f"no record can be believed: {said(bad)}; `bench run` makes its cells again")
        kept, notes = current.only(rows)
        kept.sort(key=itemgetter("dataset", "method", "shots", "seed", "target", "key"))
    frame = pd.DataFrame(kept, columns=list(COLUMNS))
    frame.attrs["bad"] = left_out(bad)
    frame.attrs["notes"] = [*filter(None, [frame.attrs["bad"]]), *_places(named), *notes]
    return frame


def _places(named: Sequence[tuple[Path, Record]]) -> list[str]:
    """A note on datasets of one name, which ``names.told_apart`` has marked: where each lies, if known."""
    places: dict[str, str] = {}  # by the name that tables print
    marked = set()
    for _, record in named:
        if isinstance(record, FitRecord) and record.dataset_identity:
            name = record.cell.dataset
            places[name] = record.dataset_place or places.get(name, "")
            if name.endswith(told_apart("", record.dataset_identity)):
                marked.add(name)
    alike = marked | {name.rpartition("-")[0] for name in marked}
    said = [f"{name} is {place}" for name, place in sorted(places.items()) if place and name in alike]
    return [f"datasets of one name: {', '.join(said)}"] if said else []


def _read(results: Path, bad: list[Bad]) -> list[tuple[Path, Record]]:
    before = len(bad)
    records = list(store.every(results, bad))
    if not records and len(bad) == before:
        shipped = results_dir() / "pocket"
        hint = f"; the records that come with the program: --results {shipped}" if shipped.is_dir() else ""
        raise BenchError(
            f"no records under {results / 'runs'}: "
            f"run `bench run` first, or name the folder with --results{hint}"
        )
    return records


def rows_of(records: Sequence[tuple[Path, Record]]) -> list[dict[str, Any]]:
    """The rows of evaluations and failures. A record that lies in two of the folders gives one."""
    fits = {r.key: r for _, r in records if isinstance(r, FitRecord)}
    said = {r.cell.prompts: r.prompts_use_labels for r in fits.values() if r.prompts_use_labels is not None}
    labelled = frozenset(name for name, uses in said.items() if uses) | (LABEL_PROMPTS - set(said))
    others = {
        (r.key, r.checksum or str(path)): (path, r) for path, r in records if not isinstance(r, FitRecord)
    }
    return [_row(path, r, fits, labelled) for path, r in others.values()]


def correct(path: str | Path) -> NDArray[np.bool_]:
    """Which test images (n,) the evaluation at ``path`` got right.

    Raises BenchError where its predictions are gone or are not its own.
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
        raise BenchError(f"{path}: the record has gone; load the results again")
    return store.outcome(path, record).right


def stacked(paths: Sequence[str]) -> NDArray[np.bool_]:
    """Right or wrong by seed and test image (S, n) of the evaluations at these paths, one for each seed.

    Raises BenchError where predictions are gone, or are of different test sets.
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
    if isinstance(r, EvaluationRecord):
        outcome = {"accuracy": 100.0 * r.top1, "top5": 100.0 * r.top5, "n": r.n, "status": "ok", "error": ""}
    else:
        outcome = {
            "accuracy": float("nan"),
            "top5": float("nan"),
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
        "seconds": (sum(fit.seconds.values()) if fit else 0.0)
        + (r.seconds if isinstance(r, EvaluationRecord) else 0.0),
        "fit": r.fit,
        "key": r.key,
        "path": str(path),
        "title": (fit.title if fit else "") or (r.title if isinstance(r, Failure) else "") or cell.method,
        "label_prompts": cell.prompts in labelled if uses is None else uses,
        "also": _also(cell.dataset, cell.prompts) if also is None else tuple(also),
        "written": r.provenance.written,
        "order": r.provenance.order,
        "folder": r.provenance.folder,
        "made": current.made(r, fit, fits),
    }


@cache
def _also(dataset: str, prompts: str) -> tuple[str, ...]:
    """For records that do not say it: what the catalog knows."""
    return prompt_sets.same(prompts, catalog.spec(dataset)) if dataset in catalog.names() else ()


def variant(record: EvaluationRecord | Failure, fit: FitRecord | None, fits: Mapping[str, FitRecord]) -> str:
    """The settings a user set away from the method's own, as ``key=value`` joined by commas; empty for none.

    Those of the fits that it builds on bear their method's name: ``safe.steps=100``. A precision other than
    fp32 stands last.
    """
    changed = {**(fit.changed if fit else {}), **record.changed}
    for other in current.below(fit, fits) if fit else ():
        changed |= {f"{other.cell.method}.{k}": v for k, v in other.changed.items()}
    key = fit.parts if fit else record.parts if isinstance(record, Failure) else None
    return with_precision(", ".join(f"{k}={short(v)}" for k, v in sorted(changed.items())), precision(key))


def precision(key: FitKey | None) -> str:
    """What a fit's image tower computed in, as ``--precision`` names it."""
    return _PRECISION.get(key.encode_dtype, SINGLE) if key else SINGLE


def with_precision(variant: str, precision: str) -> str:
    """A variant as it is called in this precision."""
    return ", ".join(filter(None, (variant, "" if precision == SINGLE else f"precision={precision}")))


def short(value: Any) -> str:
    """A setting's value as variants print it."""
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
