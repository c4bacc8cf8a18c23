"""Hours that the paper's grid would take here, by what was measured: a projection, not a measurement.

A method's hours are its replica steps in the grid times the microseconds of one (methods.csv: at K = 64, with
few replicas together, checks on validation included as often as published), times how much dearer the cost
model thinks the step of a dataset with more classes. SAFE's steps alone, 36 replicas together, stand beside.
Methods that take no steps count their seconds a fit. Encoding is added once: all test images, and the support
images of every draw with ten views, at the rate from files.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import suite
from bench.data import catalog
from bench.plan import cost
from bench.recipe import points
from bench.registry import builtin
from tests.benchmarks import projection
from tests.benchmarks.gpu import cells
from tests.benchmarks.gpu.place import Place
from tests.benchmarks.gpu.watch import read
from tests.benchmarks.gpu.worker import Missing

Found = Iterator[tuple[str, Any]]
MAIN = ("zero-shot", "tip-adapter-f", "safe", "safe-a")
TABLE_1 = (*MAIN, "cupl", "coop", "prograd", "linear-probe-sgd", "wise-ft", "cross-modal")
GOALS = {"main": 2.0, "table 1": 8.0}
VIEWS = 10  # of a support image


def hours(place: Place) -> Found:
    """Hours of each method, of encoding, of the two goals' groups; what could not be projected is named."""
    for family in cells.METHODS:  # what a step that was stopped has recorded
        cells.collect(place, family)
    yield from project(place.out, place.pick("RN50", "pocket-rn"))


def project(out: Path, size: str = "RN50") -> Found:
    """As ``hours``, from the files of a folder and the rows of methods.csv that begin with ``size``."""
    measured = rates(out / "methods.csv", size)
    if not measured:
        raise Missing(f"methods.csv has no row of {size}: run the step methods first")
    speed = _encoding(read(out, "files").get("found", {}))
    roof = read(out, "ceilings").get("found", {}).get("roofline")
    device = cost.Device("measured", roof["flops"], roof["bytes"]) if roof else cost.H100
    yield (
        "rests on",
        {
            "microseconds": f"methods.csv, rows of {size}",
            "images a second from files": speed,
            "scale to more classes": f"the cost model on {'this device' if roof else 'an H100'}",
        },
    )
    spec = projection.backbone("RN50")
    found = {m: _method(m, measured[m], spec, device) for m in TABLE_1 if m in measured}
    yield "methods", found
    grid = 36  # points of three seeds' published grids together
    together = read(out, "safe").get("found", {}).get(f"RN50 R={grid}")
    if together and "safe" in measured:
        n = _replica_steps("safe", spec)
        yield "safe, steps alone", n / together["replica_steps_per_s"] / 3600
    lacking = [m for m in TABLE_1 if m not in measured]
    yield "not measured", lacking
    encoding = _images() / speed / 3600 if speed else None
    yield "encoding", encoding
    for name, group in (("main", MAIN), ("table 1", TABLE_1)):
        lacks_main = encoding is None or any(m in lacking for m in MAIN)  # what is left would look like all
        whole = None if lacks_main else sum(found[m] for m in group if m in found) + (encoding or 0.0)
        yield (
            name,
            {
                "hours": whole,
                "goal": GOALS[name],
                "without": [m for m in group if m in lacking]
                + ([] if encoding is not None else ["encoding"]),
            },
        )


def rates(file: Path, size: str) -> dict[str, dict[str, float]]:
    """Seconds a replica step and a fit of each method, of the rows that begin with ``size``."""
    if not file.exists():
        return {}
    with file.open(newline="", encoding="utf-8") as rows:
        return {
            r["method"]: {
                "step": 1e-6 * float(r["us_a_step"] or 0),
                "fit": float(r["prepare_s"]) + float(r["fit_s"]),
                "prepare": float(r["prepare_s"]),
            }
            for r in csv.DictReader(rows)
            if r["what"].startswith(size)
        }


def _replica_steps(name: str, spec: Any) -> int:
    """Steps of all grid points in the whole grid."""
    paper = suite.load("paper")
    fits = (projection.fit(builtin().get(name), d, s, spec) for d in paper.datasets for s in paper.shots)
    return len(paper.seeds) * sum(projection.steps(f) * len(points(f.recipe.grid)) for f in fits)


def _method(name: str, rate: dict[str, float], spec: Any, device: cost.Device) -> float:
    paper = suite.load("paper")
    method = builtin().get(name)
    here = projection.fit(method, "emoji", 16, spec)
    trained = bool(rate["step"]) and bool(here.recipe.optim)
    unit = device.seconds(cost.step(here)) if trained else 0.0
    seconds = 0.0
    for dataset in paper.datasets:
        for shots in paper.shots:
            fit = projection.fit(method, dataset, shots, spec)
            if not trained:
                seconds += rate["fit"]
                continue
            dearer = max(1.0, device.seconds(cost.step(fit)) / unit) if unit else 1.0
            n = projection.steps(fit) * len(points(fit.recipe.grid))
            seconds += rate["prepare"] + n * rate["step"] * dearer
    return len(paper.seeds) * seconds / 3600


def _images() -> int:
    """Passes through the tower that the grid reads."""
    paper = suite.load("paper")
    counts = [catalog.describe(d).counts for d in paper.datasets]
    support = len(paper.seeds) * max(paper.shots) * sum(int(c["classes"]) for c in counts)
    return sum(int(c["test"]) for c in counts) + VIEWS * support


def _encoding(found: dict[str, Any]) -> float | None:
    """Passes a second from files in single precision with dense features kept."""
    for name, value in found.items():
        if "dense" in name and name.startswith("fp32"):
            return float(value["passes_per_s"])
    return None
