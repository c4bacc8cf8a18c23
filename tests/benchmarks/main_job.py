"""How long ``make run`` takes: the main job in fresh folders, then once more with everything recorded.

    python -m tests.benchmarks.main_job [--times 1] [--out results/benchmarks/main-job.json]

The README's sentence about it is made of the file (``--sentence`` prints it), and a test holds that it is.
Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.ratios import ROOT, commit

FILE = ROOT / "results" / "benchmarks" / "main-job.json"
WORDS = {1: "one", 2: "two", 3: "three", 4: "four"}


def job(makefile: str) -> list[str]:
    """The flags of the main job, as the Makefile has them."""
    line = re.search(r"^MAIN_JOB := (.+)$", makefile, re.M)
    assert line, "the Makefile names no MAIN_JOB"
    return shlex.split(line[1])


def sentence(measured: dict[str, Any]) -> str:
    """What the README says of it; of a measurement with a note also when it was made."""
    seconds, again = statistics.median(measured["seconds"]), measured["again"]
    took = f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
    cores = WORDS.get(measured["cores"], str(measured["cores"]))
    where = f"{cores} {measured['processor']} core{'s' if measured['cores'] > 1 else ''}"
    when = f"on {measured['day']}, at commit {measured['commit']}, " if measured.get("note") else ""
    job = f"the whole job took {took} on {where} after the set-up"
    return f"{when}{job}, and {again:.0f} seconds the second time"


def run(flags: Sequence[str], folder: Path) -> float:
    """Seconds of one ``bench run`` with store, caches and results in ``folder``; raises where it fails."""
    where = ["--cache", str(folder / "features"), "--results", str(folder / "results")]
    env = {**os.environ, "BENCH_CACHE": str(folder / "cache")}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bench", "run", *flags, *where], cwd=ROOT, env=env, check=True)
    return time.perf_counter() - began


def passes(store: Path) -> int:
    """Images, each counted once a view, that were encoded into a store."""
    from bench.features.store import FeatureStore

    rows: dict[tuple[str, str, str], int] = {}
    for found in FeatureStore(store).feature_sets():
        of = found.key.weights, found.key.dataset, found.key.view
        rows[of] = max(rows.get(of, 0), found.rows())
    return sum(rows.values())


def cells(results: Path) -> int:
    """Evaluations that a results folder holds."""
    from bench.records import store
    from bench.records.types import EvaluationRecord

    return sum(isinstance(record, EvaluationRecord) for _, record in store.every(results))


def measure(flags: Sequence[str], times: int) -> dict[str, Any]:
    """The job ``times`` times, each in a folder of its own, then again in the last."""
    import torch

    from bench.run.provenance import device_name
    from tests.benchmarks.ratios_device import cores

    seconds, load = [], os.getloadavg()
    with tempfile.TemporaryDirectory() as base:
        for i in range(times):
            folder = Path(base, str(i))
            seconds.append(round(run(flags, folder), 1))
        return {
            "command": f"bench run {shlex.join(flags)}",
            "processor": device_name("cpu"),
            "cores": cores(),
            "torch": torch.__version__,
            "commit": commit(),
            "day": datetime.now(UTC).strftime("%Y-%m-%d"),
            "load_average": [round(x, 2) for x in load],
            "seconds": seconds,
            "again": round(run(flags, folder), 1),
            "passes": passes(folder / "features"),
            "cells": cells(folder / "results"),
        }


def main() -> None:
    """Measure, write, print the sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--sentence", action="store_true", help="only print what the file says")
    options = parser.parse_args()
    if options.times < 1:
        parser.error("--times must be at least 1")
    if not options.sentence:
        flags = job((ROOT / "Makefile").read_text(encoding="utf-8"))
        measured = measure(flags, options.times)
        options.out.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print(sentence(json.loads(options.out.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
