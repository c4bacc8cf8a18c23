"""Runs steps one after the other in worker processes, each under its limit, and writes how each ended.

A worker makes step after step. One that fails, dies or takes too long ends its worker, with all that this
started: CUDA may be left in any state. The next step gets a new one.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bench.errors import BenchError
from tests.benchmarks.gpu.steps import STEPS, Step

ROOT = Path(__file__).resolve().parents[3]
LEAST = 5.0  # seconds; with less left a step is not begun
KEPT = 40.0  # seconds kept for the closing steps
PATIENCE = {"cpu": 3.0}  # by device: limits are a GPU's, and a processor may be busy with other things
PROGRAM = (sys.executable, "-m", "tests.benchmarks.gpu.worker")


def file_of(out: Path, name: str) -> Path:
    """Where a step's findings are."""
    return out / f"{name}.json"


def read(out: Path, name: str) -> dict[str, Any]:
    """What is known of a step: ``outcome``, ``seconds``, ``found``, ``error``, ``of``; empty if nothing is.

    ``of``: what was measured, see ``origin``. ``beside``: steps that ran meanwhile.
    """
    try:
        known: dict[str, Any] = json.loads(file_of(out, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known


def write(out: Path, name: str, known: dict[str, Any]) -> None:
    """Put a step's file in place whole."""
    new = out / f".{name}.new"
    new.write_text(json.dumps(known, indent=1, default=str) + "\n", encoding="utf-8")
    new.replace(file_of(out, name))


def origin(device: str) -> dict[str, str]:
    """What is measured, ``cpu`` or ``cuda``: the device's name, the sizes, the commit. A folder holds one."""
    import torch

    from tests.benchmarks import ratios, ratios_device

    return {
        "device": ratios_device.label(torch.device(device)),
        "sizes": "true" if device == "cuda" else "tiny",
        "commit": os.environ.get("COMMIT") or ratios.commit(),
    }


def check(out: Path, of: dict[str, str]) -> None:
    """Raises BenchError where a folder holds measurements of another device, commit or size."""
    for step in STEPS:
        known = read(out, step.name)
        there = known.get("of") or (known.get("found", {}) if step.name == "machine" else {})
        for what, value in of.items():
            if there and there.get(what) != value:
                raise BenchError(
                    f"--out {out}: measurements with {what} {there.get(what)} are there, not {value}: "
                    "name another folder"
                )


@dataclass
class Worker:
    """A process that makes steps; see worker.py for what is said through its pipes."""

    out: Path
    work: Path
    device: str
    log: IO[bytes]
    program: Sequence[str] = PROGRAM
    half: bool = False
    of: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = field(default=None)
    began: float = 0.0

    def begin(self, step: Step, seconds: float, beside: Sequence[str] = ()) -> None:
        """Have the step made, within ``seconds``; the process is started when there is none."""
        if self.process is None:
            words = [*self.program, self.out, self.work, self.device]
            env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
            self.process = subprocess.Popen(
                [*map(str, words), *(["--half"] if self.half else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                env=env,
                start_new_session=True,
            )
        self.began = time.monotonic()
        known = {"step": step.name, "of": self.of, "outcome": "running", "found": {}}
        write(self.out, step.name, known | ({"beside": list(beside)} if beside else {}))
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it died: wait will say so
            self.process.stdin.write(f"{step.name} {step.call} {seconds:.1f}\n".encode())
            self.process.stdin.flush()

    def wait(self, step: Step, seconds: float) -> str:
        """The step's outcome, at the latest after ``seconds``."""
        assert self.process is not None and self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            ready = selector.select(max(0.0, seconds))
        said = self.process.stdout.readline().decode().strip() if ready else ""
        outcome, error = said, ""
        if not ready:
            outcome, error = "too long", f"not done after {time.monotonic() - self.began:.0f} s"
        elif not said:
            with suppress(subprocess.TimeoutExpired):  # a driver may hang while it is left
                self.process.wait(timeout=10)
            outcome, error = "died", f"its process ended with {self.process.returncode}"
        if outcome not in ("ok", "missing"):
            self.end()
        known = {**read(self.out, step.name), "step": step.name, "outcome": outcome}
        if error:
            known |= {"error": error, "seconds": round(time.monotonic() - self.began, 1)}
        write(self.out, step.name, known)
        return outcome

    def end(self) -> None:
        """End the process and all that it started."""
        process, self.process = self.process, None
        if process is None:
            return
        for number, patience in ((signal.SIGTERM, 4.0), (signal.SIGKILL, 10.0)):
            with suppress(ProcessLookupError, PermissionError):  # the group is gone
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def run(
    steps: Sequence[Step],
    out: Path,
    device: str,
    seconds: float,
    of: dict[str, str],
    program: Sequence[str] = PROGRAM,
) -> dict[str, str]:
    """Make the steps within ``seconds``; the outcome of each, also in ``summary.json``, written as they end.

    ``of``: what is measured (see ``origin``); every step's file holds it.

    Outcomes: ok, failed, died, too long, left out (no time), missing (what it needs is not there).
    """
    out.mkdir(parents=True, exist_ok=True)
    until, patience = time.monotonic() + seconds, PATIENCE.get(device, 1.0)
    outcomes: dict[str, str] = {}
    aside: dict[str, tuple[Step, Worker]] = {}

    def note(step: Step, outcome: str) -> None:
        outcomes[step.name] = outcome
        known = read(out, step.name)
        print(
            f"{step.name:14s} {outcome:9s} {known.get('seconds', 0):6.1f} s  {known.get('error', '')}",
            flush=True,
        )
        before = read(out, "summary")
        table = {
            **before.get("steps", {}),
            step.name: {"outcome": outcome, "seconds": known.get("seconds", 0)},
        }
        write(out, "summary", {"device": device, "steps": table})

    def gather(kept: float) -> None:
        """Wait for what runs aside, each within its limit."""
        for other, own in [aside.pop(name) for name in list(aside)]:
            took = time.monotonic() - own.began
            note(other, own.wait(other, min(patience * other.limit - took, until - time.monotonic() - kept)))
            own.end()

    with tempfile.TemporaryDirectory() as work, open(out / "log.txt", "ab") as log:
        worker = Worker(out, Path(work), device, log, program, of=of)
        try:
            for i, step in enumerate(steps):
                kept = KEPT if any(s.closing for s in steps[i:]) else 0.0
                if step.closing or step.alone:
                    gather(kept)
                left = until - time.monotonic() - (0.0 if step.closing else kept)
                if left < LEAST:
                    known = {"step": step.name, "of": of, "outcome": "left out", "seconds": 0, "found": {}}
                    write(out, step.name, known)
                    note(step, "left out")
                    continue
                most = min(patience * step.limit, left)
                if step.beside:
                    own = Worker(out, Path(work), device, log, program, half=True, of=of)
                    aside[step.name] = step, own
                    own.begin(step, most)
                    continue
                worker.begin(step, most, tuple(aside))
                note(step, worker.wait(step, most))
            gather(0.0)
        finally:
            for own in (worker, *(own for _, own in aside.values())):
                own.end()
    return outcomes
