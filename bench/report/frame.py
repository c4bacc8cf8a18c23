"""Records as a DataFrame: one row per evaluation, failed fits included, each cell once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import prompts as prompt_sets
from bench.data import catalog
from bench.errors import BenchError
from bench.paths import results_dir
from bench.report import current
from bench.run import record

COLUMNS = (
    "method", "dataset", "target", "shots", "seed", "backbone", "prompts", "protocol", "preset", "accuracy", "top5", "n",
    "status", "error", "variant", "values", "version", "steps", "configurations", "seconds", "fit", "key", "path",
    "title", "label_prompts", "also", "written",
)  # fmt: skip
# Prompt sets that were chosen or trained with labels. Records say it themselves; this is for a set with failed cells only,
# which never got as far as having its texts.
LABEL_PROMPTS = frozenset({"mined", "mined-val", "linear"})


def load_results(results: Path | str = Path("results")) -> pd.DataFrame:
    """All records of a results folder, as files or packed: one row per evaluation, one with ``status = failed`` per failure.

    ``accuracy`` and ``top5`` are percent, ``seconds`` is fitting and evaluating, ``values`` the inference-time values,
    ``variant`` the settings that a user set away from the method's own and the precision (empty for the plain method in
    single precision), ``path`` the record, ``written`` when (ISO, UTC), ``label_prompts`` whether labels chose the prompts,
    ``also`` the other prompt sets with the same texts: of equal texts one set is recorded, and tables find it by every name.

    A cell (``current.CELL``) has one row. Records that newer ones replace are left out: those of an older version of a method or
    of one it builds on, of other weights under the same name, of another content of a test set, and of older settings;
    ``attrs["notes"]`` says what was left out. Raises BenchError when there are no records, or when they mix schema
    versions.
    """
    results = Path(results)
    found = list(record.every(results))
    if not found:
        shipped = results_dir() / "pocket"
        hint = f"; the records that come with the program: --results {shipped}" if shipped.is_dir() else ""
        raise BenchError(f"no records under {results / 'runs'}: run `bench run` first, or name the folder with --results{hint}")
    schemas = {r["schema"] for _, r in found}
    if schemas != {record.SCHEMA}:
        raise BenchError(
            f"{results}: records of schema {', '.join(map(str, sorted(schemas)))}, this program writes {record.SCHEMA}: "
            "move the others to a folder of their own"
        )
    fits = {r["key"]: r for _, r in found if r["kind"] == "fit"}
    said = {r["cell"]["prompts"]: r["prompts_use_labels"] for r in fits.values() if "prompts_use_labels" in r}
    labelled = frozenset(name for name, uses in said.items() if uses) | (LABEL_PROMPTS - set(said))
    rows = []
    for path, r in found:
        if r["kind"] == "evaluation":
            rows.append(_row(path, r, fits.get(r["fit"], {}), fits, labelled))
        elif r["status"] == "failed":
            rows.append(_row(path, r, r, fits, labelled))
    kept, notes = current.only(rows)
    frame = pd.DataFrame(kept, columns=list(COLUMNS))
    frame = frame.sort_values(["dataset", "method", "shots", "seed", "target", "key"], ignore_index=True)
    frame.attrs["notes"] = notes
    return frame


def correct(path: str | Path) -> NDArray[np.bool_]:
    """Which test images (n,) the evaluation with this ``path`` got right. Raises BenchError if its predictions are gone."""
    npz = Path(path).with_suffix(".npz")
    return _correct(npz, npz.stat().st_mtime_ns if npz.is_file() else 0)


@cache
def _correct(npz: Path, stamp: int) -> NDArray[np.bool_]:
    top1, labels = record.read_top1(npz)
    return np.asarray(top1 == labels)


def _row(
    path: Path, r: dict[str, Any], fit: dict[str, Any], fits: dict[str, Any], labelled: frozenset[str]
) -> dict[str, Any]:  # fmt: skip
    ok, budget, parts = r["status"] == "ok", fit.get("budget", {}), fit.get("parts", {})
    cell = r["cell"]
    return {
        **cell,
        "target": r.get("target", cell["dataset"]),
        "accuracy": 100.0 * r["top1"] if ok else float("nan"),
        "top5": 100.0 * r["top5"] if ok else float("nan"),
        "n": r["n"] if ok else 0,
        "status": r["status"],
        "error": "" if ok else r["error"],
        "variant": variant(r, fit, fits),
        "values": r.get("values", {}),
        "version": parts.get("version"),
        "steps": budget.get("steps", 0),
        "configurations": budget.get("configurations", 0),
        "seconds": sum(fit.get("seconds", {}).values()) + (r["seconds"] if ok else 0.0),
        "fit": fit.get("key", r["key"]),
        "key": r["key"],
        "path": str(path),
        "title": fit.get("title", cell["method"]),
        "label_prompts": fit.get("prompts_use_labels", cell["prompts"] in labelled),
        "also": tuple(fit["prompts_also"]) if "prompts_also" in fit else _also(cell["dataset"], cell["prompts"]),
        "written": r.get("provenance", {}).get("written") or current.time_of(path),
        "made": current.made(r, fit, fits),
    }


@cache
def _also(dataset: str, prompts: str) -> tuple[str, ...]:
    """For records that do not say it: what the catalog knows."""
    return prompt_sets.same(prompts, catalog.spec(dataset)) if dataset in catalog.names() else ()


def variant(evaluation: dict[str, Any], fit: dict[str, Any], fits: dict[str, Any] | None = None) -> str:
    """The settings a user set away from the method's own, as ``key=value`` joined by commas; empty for none.

    Those of the fits that it builds on bear their method's name: ``safe.steps=100``. A precision other than fp32 stands last.
    """
    changed = {**fit.get("changed", {}), **evaluation.get("changed", {})}
    for other in current.below(fit, fits or {}):
        changed |= {f"{other['cell']['method']}.{k}": v for k, v in other.get("changed", {}).items()}
    return with_precision(", ".join(f"{k}={short(v)}" for k, v in sorted(changed.items())), precision(fit))


def precision(fit: dict[str, Any]) -> str:
    """What a fit's image tower computed in, as ``--precision`` names it."""
    dtype = fit.get("parts", {}).get("encode_dtype")
    return next((name for name, of in record.PRECISIONS.items() if of == dtype), record.SINGLE)


def with_precision(variant: str, precision: str) -> str:
    """A variant as it is called in this precision."""
    return ", ".join(filter(None, (variant, "" if precision == record.SINGLE else f"precision={precision}")))


def short(value: Any) -> str:
    """A setting's value as variants print it."""
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
