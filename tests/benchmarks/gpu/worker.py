"""The process that makes steps: reads ``NAME MODULE:FUNCTION SECONDS`` lines, answers each with its outcome.

A step is a generator of (key, value), and has so many seconds. Every pair is written at once, so that a step
that is stopped keeps what it found. After a step that failed the process ends.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Read when OpenMP starts: threads that spin while they wait would starve what else is measured.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Missing(Exception):
    """What the step needs is not there: a script, or what another step finds. No failure of the program."""


def make(name: str, call: str, place: Any) -> str:
    """Make one step and write its file; the outcome."""
    from tests.benchmarks.gpu import watch

    module, _, function = call.partition(":")
    began = time.monotonic()
    found: dict[str, Any] = {}
    begun = {k: v for k, v in watch.read(place.out, name).items() if k in ("of", "beside")}
    known: dict[str, Any] = {"step": name, **begun, "outcome": "running", "found": found}
    try:
        for key, value in getattr(importlib.import_module(module), function)(place):
            found[key] = value
            watch.write(place.out, name, known)
        known["outcome"] = "ok"
    except Missing as error:
        known |= {"outcome": "missing", "error": str(error)}
    except Exception as error:
        text = (str(error).splitlines() or [""])[0]
        known |= {"outcome": "failed", "error": f"{type(error).__name__}: {text}"[:300]}
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    watch.write(place.out, name, {**known, "seconds": round(time.monotonic() - began, 1)})
    return str(known["outcome"])


def true_place(out: Path, work: Path, device: str, seconds: float) -> Any:
    """Where steps measure, and until when; loads torch."""
    from tests.benchmarks.gpu.place import Place

    return Place.of(out, work, device, seconds)


def let_go() -> None:
    """Give the device's memory back, that what a step starts in another process finds all of it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def main(place: Callable[[Path, Path, str, float], Any] = true_place) -> None:
    """Answer until the input ends or a step fails. What steps print goes where errors go: into the log."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("device")
    parser.add_argument("--half", action="store_true", help="keep to half of the cores")
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if options.half and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[len(cores) // 2 :])
    for line in sys.stdin:
        name, call, seconds = line.split()
        print(f"---- {name}", flush=True)
        outcome = make(name, call, place(options.out, options.work, options.device, float(seconds)))
        print(outcome, file=answers, flush=True)
        if outcome == "failed":  # CUDA may be in any state
            break
        let_go()


if __name__ == "__main__":
    # As a module of its own name, so that steps raise the Missing that is caught here.
    from tests.benchmarks.gpu import worker

    worker.main()
