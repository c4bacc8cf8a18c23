"""Measure this program on this machine's GPU, and say what was found.

    python -m tests.benchmarks.gpu --out DIR [--seconds 460] [--device cuda|cpu] [--only STEP,...] [--list]

Steps run in order of value, each under its own limit; one that fails, hangs or dies costs itself only, and
what the time does not allow is left out. DIR then holds STEP.json for each step, summary.json, methods.csv,
profile.txt, log.txt and digest.md, which is printed last. A second call with other steps adds to DIR, unless
that holds measurements of another device, commit or size. With ``--device cpu`` sizes are tiny: it shows that
the command works. COMMIT in the environment names the commit where the checkout is no git repository.

Exit codes: 0 all steps ended well, 1 one failed, 2 refused, 3 some were left out or lack what they need, 130
interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from bench.errors import BenchError
from tests.benchmarks.gpu import digest, watch
from tests.benchmarks.gpu.steps import STEPS, chosen


def main() -> None:
    """Run the steps that were asked for, then print the digest."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="folder for what is found")
    parser.add_argument("--seconds", type=float, default=460, help="for all steps together")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", default="", help="comma-separated names of steps (--list shows them)")
    parser.add_argument("--list", action="store_true", help="show the steps and stop")
    options = parser.parse_args()
    if options.list:
        for step in STEPS:
            print(f"{step.name:14s} at most {step.limit:3d} s  {step.title}")
        return
    if options.out is None:
        parser.error("--out DIR is needed")
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"--out {options.out}: not a folder")
    if options.seconds <= 0:
        parser.error("--seconds must be above 0")
    try:
        steps = chosen(options.only)
        check(options.device)
        of = watch.origin(options.device)
        watch.check(options.out, of)
    except BenchError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left running
    try:
        outcomes = watch.run(steps, options.out, options.device, options.seconds, of)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if options.out.is_dir():
            print(digest.write(options.out))
    if not set(outcomes.values()) <= {"ok", "left out", "missing"}:
        sys.exit(1)
    sys.exit(3 if {"left out", "missing"} & set(outcomes.values()) else 0)


def check(device: str) -> None:
    """Raises BenchError for a device that is not there."""
    from bench.run import devices

    devices.check(device)


if __name__ == "__main__":
    main()
