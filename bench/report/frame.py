"""Records as a DataFrame: one row per evaluation, failed fits included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.run import record

COLUMNS = (
    "method", "dataset", "target", "shots", "seed", "backbone", "prompts", "protocol", "preset", "accuracy", "top5", "n",
    "status", "error", "variant", "values", "version", "steps", "configurations", "seconds", "fit", "key", "path",
)  # fmt: skip


def load_results(results: Path = Path("results")) -> pd.DataFrame:
    """All records under ``results/runs``: one row per evaluation, one with ``status = failed`` per failed fit.

    ``accuracy`` and ``top5`` are percent, ``seconds`` is fitting and evaluating, ``values`` the inference-time values,
    ``variant`` the settings that are not the method's most frequent ones (empty for the plain method), ``path`` the record.
    Raises BenchError when there are no records, or when they mix schema versions.
    """
    found = list(record.every(results))
    if not found:
        raise BenchError(f"no records under {results / 'runs'}: run `bench run` first, or name the folder with --results")
    schemas = {r["schema"] for _, r in found}
    if schemas != {record.SCHEMA}:
        raise BenchError(
            f"{results}: records of schema {', '.join(map(str, sorted(schemas)))}, this program writes {record.SCHEMA}: "
            "move the others to a folder of their own"
        )
    fits = {r["key"]: r for _, r in found if r["kind"] == "fit"}
    evaluations = [(path, r, fits.get(r["fit"], {})) for path, r in found if r["kind"] == "evaluation"]
    rows = [_row(path, r, fit) if r["status"] == "ok" else _failed(path, r, fit) for path, r, fit in evaluations]
    rows += [_failed(path, r, r) for path, r in found if r["kind"] == "fit" and r["status"] == "failed"]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.sort_values(["dataset", "method", "shots", "seed", "target", "key"], ignore_index=True)


def _row(path: Path, r: dict[str, Any], fit: dict[str, Any]) -> dict[str, Any]:
    budget = fit.get("budget", {})
    return {
        **r["cell"],
        "target": r["target"],
        "accuracy": 100.0 * r["top1"],
        "top5": 100.0 * r["top5"],
        "n": r["n"],
        "status": r["status"],
        "error": "",
        "variant": variant(r, fit),
        "values": r["values"],
        "version": fit.get("parts", {}).get("version"),
        "steps": budget.get("steps", 0),
        "configurations": budget.get("configurations", 0),
        "seconds": sum(fit.get("seconds", {}).values()) + r["seconds"],
        "fit": r["fit"],
        "key": r["key"],
        "path": str(path),
    }


def _failed(path: Path, r: dict[str, Any], fit: dict[str, Any]) -> dict[str, Any]:
    blank = {"accuracy": float("nan"), "top5": float("nan"), "n": 0, "seconds": 0.0, "steps": 0, "configurations": 0}
    return {
        **r["cell"], **blank, "target": r.get("target", r["cell"]["dataset"]), "status": "failed", "error": r["error"],
        "variant": variant(r, fit), "values": r.get("values", {}), "version": fit.get("parts", {}).get("version"),
        "fit": fit.get("key", r["key"]), "key": r["key"], "path": str(path),
    }  # fmt: skip


def variant(evaluation: dict[str, Any], fit: dict[str, Any]) -> str:
    """The settings a user set away from the method's own, as ``key=value`` joined by commas; empty for none."""
    changed = {**fit.get("changed", {}), **evaluation.get("changed", {})}
    return ", ".join(f"{k}={v}" for k, v in sorted(changed.items()))
