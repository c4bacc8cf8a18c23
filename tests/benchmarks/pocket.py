"""Make the records of results/pocket again: the commands of its README, one after the other.

    python -m tests.benchmarks.pocket [--list] [--only N] [--work build/pocket] [--save FOLDER] [-- --jobs 2]

The page lists commands ``bench run``, one ``bench pack`` and some ``bench plot``. The runs write to
``--work``, and words after ``--`` go to each of them. When all have ended well, the records are packed and
the figures are drawn where the page says. ``--only 2`` is the second run alone, without packing; ``--list``
runs nothing.

What is recorded is not run again, so the same command goes on after a stop. It takes hours, and ``--work``
may be lost in between: ``--save FOLDER`` packs after every run what there is, for a commit. If ``--work`` is
empty, the records are taken from there, or from the folder that ``bench pack`` writes. Only those with a
temperature and metrics are taken, because older ones have the same keys and lack what the run is for.

Ends with 0, with 3 if cells are left or failed, with 1 if the packed folder is too large, and otherwise with
the code of the command that failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cli.codes import Code
from bench.errors import BenchError
from bench.names import counted
from bench.records import packed, places
from bench.records.types import EvaluationRecord, FitRecord
from bench.records.whole import Bad
from tests.test_readme import ROOT, Command, commands

PAGE = Path("results/pocket/README.md")
MOST, LARGEST = 8e6, 6e6  # bytes of the packed folder, and of one file in it
PLAN = re.compile(r"^plan: ([\d,]+) cells? to do, ", re.M)
# Runs ``bench`` with these words in this folder; returns the exit code, and what it printed if asked to.
Bench = Callable[[Sequence[str], Path, bool], tuple[int, str]]


@dataclass(frozen=True)
class Listed:
    """The commands of the page, without ``bench``: the runs, the packing and the drawings."""

    runs: tuple[tuple[str, ...], ...]
    pack: tuple[str, ...]
    plots: tuple[tuple[str, ...], ...]

    @property
    def out(self) -> Path:
        """The folder that the page packs into."""
        return Path(self.pack[self.pack.index("--out") + 1])


def listed(page: str) -> Listed:
    """Read the commands of a page. Raises BenchError if it lists no run, or not one ``bench pack --out``."""

    def of(verb: str) -> tuple[tuple[str, ...], ...]:
        found: list[Command] = [c for c in commands(page) if c.words[:2] == ("bench", verb)]
        return tuple(c.words[1:] for c in found)

    runs, packs = of("run"), of("pack")
    if not runs or len(packs) != 1 or "--out" not in packs[0][:-1]:
        raise BenchError("the page must list commands `bench run` and one `bench pack --out FOLDER`")
    return Listed(runs, packs[0], of("plot"))


def process(words: Sequence[str], folder: Path, quiet: bool) -> tuple[int, str]:
    """Run ``bench`` in a process of its own, so that its memory is free afterwards."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout or ""


def cells_left(run: Sequence[str], work: Path, root: Path, bench: Bench) -> int:
    """Return how many cells of a run have no record in ``work``; BenchError if the plan does not say."""
    code, printed = bench([*run, "--results", str(work), "--dry-run"], root, True)
    plan = PLAN.search(printed)
    if code or plan is None:
        raise BenchError(
            f"`bench {shlex.join(run)} --dry-run` ended with {code} and named no number of cells"
        )
    return int(plan[1].replace(",", ""))


def remade(record: object) -> bool:
    """Return whether a record holds what older ones of the same key lack."""
    if isinstance(record, FitRecord):
        return record.temperature is not None
    return isinstance(record, EvaluationRecord) and bool(record.metrics)


def take(source: Path, work: Path) -> int:
    """Copy the packed records of ``source`` that were made anew into ``work``; return how many these are.

    ``work`` stays as it is if there are none. An evaluation stays behind without its fit, and so does what
    cannot be read.
    """
    found = dict(packed.records(source))
    fits = {r.key for r in found.values() if isinstance(r, FitRecord) and remade(r)}

    def whole(record: object) -> bool:
        return remade(record) and (isinstance(record, FitRecord) or getattr(record, "fit", None) in fits)

    good = {path for path, record in found.items() if not isinstance(record, Bad) and whole(record)}
    if good:
        work.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if file.name == packed.RECORDS or file.suffix == ".npz":
                shutil.copyfile(file, work / file.name)
        runs = places.runs(source)
        packed.add(work, {}, {}, {path.relative_to(runs).as_posix() for path in found.keys() - good})
    return len(good)


def sizes(folder: Path) -> str:
    """Return what is too large about a packed folder; empty if nothing is."""
    files = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    large = [f"{file}: {n / 1e6:.1f} MB" for file, n in sorted(files.items()) if n > LARGEST]
    total = sum(files.values())
    if total > MOST:
        large.append(f"{folder}: {total / 1e6:.1f} MB, at most {MOST / 1e6:.0f}")
    return "; ".join(large)


def main(argv: Sequence[str], root: Path = ROOT, bench: Bench = process) -> int:
    """Follow the command line in ``root``; return the exit code."""
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0], prog="tests.benchmarks.pocket")
    p.add_argument("--list", action="store_true", help="show the runs and how many cells are left")
    p.add_argument("--only", type=int, metavar="N", help="the N-th run alone, counted from 1")
    p.add_argument("--work", type=Path, default=Path("build/pocket"), help="results folder of the runs")
    p.add_argument("--save", type=Path, metavar="FOLDER", help="pack into this folder after every run")
    p.add_argument("more", nargs="*", help="words for every run, after --")
    a = p.parse_args(argv)
    todo = listed((root / PAGE).read_text(encoding="utf-8"))
    if a.only is not None and not 1 <= a.only <= len(todo.runs):
        p.error(f"--only: the page lists {len(todo.runs)} runs")
    work = root / a.work
    if not (work / packed.RECORDS).is_file() and not any(places.runs(work).rglob("*.json")):
        for source in (a.save, todo.out):
            if source is not None and (count := take(root / source, work)):
                print(f"{counted(count, 'record')} taken from {source}", flush=True)
                break
    numbers = [a.only] if a.only is not None else list(range(1, len(todo.runs) + 1))
    left = {n: cells_left(todo.runs[n - 1], work, root, bench) for n in numbers}
    unfinished = []
    for n in numbers:
        # Runs share cells, so the sum is the most that there can be.
        rest = sum(left[m] for m in numbers if m >= n)
        print(f"[{n}/{len(todo.runs)}] bench {shlex.join(todo.runs[n - 1])}", flush=True)
        print(f"    {counted(left[n], 'cell')} left here, at most {rest} from here on", flush=True)
        if a.list:
            continue
        code, _ = bench([*todo.runs[n - 1], "--results", str(work), *a.more], root, False)
        if code not in (Code.GOOD, Code.INCOMPLETE):
            return code
        unfinished += [n] if code else []
        if a.save is not None:
            _save(todo, work, root / a.save, root, bench)
    if a.list:
        return Code.GOOD
    if unfinished:
        print(f"not finished: {', '.join(map(str, unfinished))}; the same command goes on", flush=True)
        return Code.INCOMPLETE
    return Code.GOOD if a.only is not None else _finish(todo, work, root, bench)


def _save(todo: Listed, work: Path, folder: Path, root: Path, bench: Bench) -> None:
    """Pack what there is. If that fails, the runs go on, because nothing is lost in ``work``."""
    words = list(todo.pack)
    words[words.index("--out") + 1] = str(folder)
    code, _ = bench([*words, "--results", str(work)], root, False)
    print(
        f"    saved in {folder}" if not code else f"    NOT saved: bench pack ended with {code}", flush=True
    )


def _finish(todo: Listed, work: Path, root: Path, bench: Bench) -> int:
    """Pack, draw, and look at the sizes; return the exit code."""
    for words in ([*todo.pack, "--results", str(work)], *todo.plots):
        print(f"bench {shlex.join(words)}", flush=True)
        code, _ = bench(words, root, False)
        if code:
            return code
    if large := sizes(root / todo.out):
        print(f"too large: {large}", file=sys.stderr)
        return Code.FAILED
    print(f"next: python -m tests.docs.outputs {PAGE}", flush=True)
    return Code.GOOD


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(Code.REFUSED)
    except KeyboardInterrupt:
        sys.exit(Code.INTERRUPTED)
