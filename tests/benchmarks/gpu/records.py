"""What results folders say: how steps were made, what a replica step costs, whether two folders agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.records import store
from bench.records.types import Failure, FitRecord
from bench.report.frame import correct, load_results

COSTS = (
    "method",
    "fits",
    "prepare_s",
    "fit_s",
    "configurations",
    "steps",
    "us_a_step",
    "recorded",
    "not recorded because",
)
CELL = ("method", "dataset", "target", "shots", "seed", "backbone", "prompts")


def fits(results: Path) -> dict[str, list[FitRecord]]:
    """The fits of a folder by method, sorted."""
    found: dict[str, list[FitRecord]] = {}
    for _, record in store.every(results):
        if isinstance(record, FitRecord):
            found.setdefault(record.cell.method, []).append(record)
    return dict(sorted(found.items()))


def summary(results: Path) -> dict[str, Any]:
    """Cells, failures in words, and how each method's steps were made."""
    failed = [
        f"{r.cell.method} {r.cell.dataset} {r.cell.shots}-shot: {r.error}"
        for _, r in store.every(results)
        if isinstance(r, Failure)
    ]
    methods = {}
    for method, made in fits(results).items():
        budgets = [r.budget for r in made]
        methods[method] = {
            "fits": len(made),
            "recorded": sum(b.graphs > 0 for b in budgets),
            "eager": sorted({why for b in budgets for why in b.eager}),
            "apart": sorted({b.apart for b in budgets if b.apart}),
            "joined": max(len(b.joined) for b in budgets),
            "waves": max(b.waves for b in budgets),
            "halvings": max(b.halvings for b in budgets),
            "peak_GB": round(max(r.peak_memory for r in made) / 1e9, 3),
        }
    return {"cells": len(load_results(results)), "failed": failed, "methods": methods}


def costs(results: Path) -> list[dict[str, Any]]:
    """A row a method, means over its fits; ``steps`` counts those of all replicas, as ``us_a_step`` does."""
    rows = []
    for method, made in fits(results).items():
        steps = fmean(r.budget.steps for r in made)
        fit_s = fmean(r.seconds.get("fit", 0.0) for r in made)
        rows.append(
            {
                "method": method,
                "fits": len(made),
                "prepare_s": f"{fmean(r.seconds.get('prepare', 0.0) for r in made):.3f}",
                "fit_s": f"{fit_s:.3f}",
                "configurations": max(r.budget.configurations for r in made),
                "steps": round(steps),
                "us_a_step": f"{1e6 * fit_s / steps:.0f}" if steps else "",
                "recorded": int(all(r.budget.graphs > 0 for r in made)) if steps else "",
                "not recorded because": "; ".join(sorted({why for r in made for why in r.budget.eager})),
            }
        )
    return rows


def agreement(one: Path, other: Path) -> dict[str, Any]:
    """Cell by cell: differences of accuracy in points, and images that only one of the two judges rightly."""
    here, there = _cells(one), _cells(other)
    apart: list[tuple[float, str]] = []
    judged = images = 0
    for key, r in here.items():
        s = there.get(key)
        if s is None or r["status"] != "ok" or s["status"] != "ok":
            continue
        apart.append((abs(r["accuracy"] - s["accuracy"]), " ".join(map(str, key))))
        a, b = correct(r["path"]), correct(s["path"])
        judged, images = judged + int((a != b).sum()), images + len(a)
    apart.sort(reverse=True)
    return {
        "cells": len(here),
        "compared": len(apart),
        "largest_difference": apart[0][0] if apart else None,
        "mean_difference": fmean(d for d, _ in apart) if apart else None,
        "judged_otherwise": judged,
        "images": images,
        "worst": _worst(apart),
    }


def _worst(apart: Sequence[tuple[float, str]]) -> list[dict[str, Any]]:
    return [{"cell": name, "difference": round(d, 2)} for d, name in apart[:5] if d]


def _cells(results: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {tuple(r[n] for n in CELL): r for r in load_results(results).to_dict("records")}
