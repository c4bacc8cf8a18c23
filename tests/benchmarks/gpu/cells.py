"""Whole runs by ``bench run`` and the tests marked cuda, each in a process of its own."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import suite
from bench.registry import builtin
from tests.benchmarks.gpu import records
from tests.benchmarks.gpu.place import ARCH, Place
from tests.benchmarks.gpu.watch import ROOT
from tests.benchmarks.gpu.worker import Missing

Found = Iterator[tuple[str, Any]]
CAP_GB = 5  # of a card, where memory is to be short
INCOMPLETE = 3  # exit code of a run whose time budget ended
END = 45.0  # seconds that a run may take beyond its time budget: 30 of grace, and its own end
METHODS = {"rn": ("RN50", "emoji", "16"), "vit": ("ViT-B/16", "flags", "4")}  # size, dataset, shots
TINY = ("digits", "1")


def bench(
    place: Place, folder: str, *flags: str, device: str = "", cap: float | None = None, budget: bool = False
) -> dict[str, Any]:
    """One ``bench run`` into ``work/folder``; its seconds and exit code. Raises RuntimeError when it refuses.

    ``cap``: GB of the card that it may use. ``budget``: end before the step is stopped, even if incomplete.
    """
    program = ["bench"] if cap is None else ["tests.benchmarks.gpu.capped", str(cap)]
    where = ["--cache", str(place.work / f"cache-{device or place.device.type}")]
    where += ["--results", str(place.work / folder)]
    minutes = f"{max(6.0, place.left - END) / 60:.2f}"
    within = ["--time-budget", minutes] if budget and place.full else []
    few = [] if place.full else ["--workers", "0"]  # for some images processes are not worth their start
    command = [sys.executable, "-m", *program, "run", "--no-targets", "--device", device or place.device.type]
    began = time.perf_counter()
    done = _process(place, [*command, *where, *within, *few, *flags])
    if done.returncode not in (0, 1, INCOMPLETE):
        raise RuntimeError(f"bench run ended with {done.returncode}: see log.txt")
    return {"seconds": round(time.perf_counter() - began, 1), "exit code": done.returncode}


def _process(place: Place, command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Run a program that finds the whole card free."""
    place.let_go()
    return subprocess.run(command, cwd=ROOT, check=False)


def methods_of_suites() -> list[str]:
    """Every method that a suite names, once; those whose steps are costly last."""
    named = sorted(suite.names(), key=lambda name: name in ("ablation", "pocket-slow"))
    return list(dict.fromkeys(m for name in named for m in suite.load(name).methods))


def backbone(place: Place, family: str) -> str:
    """``--backbone`` of true size, with random weights; the embedded one in tiny sizes."""
    if not place.full:
        return f"pocket-{family}"
    arch = f"{ARCH[family]}-quickgelu"
    file = place.work / f"{family}.safetensors"
    if not file.exists():
        import open_clip
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(0)
        model = open_clip.create_model(arch)
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    return f"{arch}@{file}"


def _small(place: Place) -> list[str]:
    """The grid that both devices run."""
    if not place.full:
        return ["--methods", "zero-shot,taskres", "--datasets", "digits", "--shots", "1", "--seeds", "1,2"]
    methods = "zero-shot,tip-adapter-f,safe,safe-a,coop,cross-modal"
    return ["--methods", methods, "--datasets", "flags,emoji,digits", "--shots", "1,16", "--seeds", "1,2"]


def processor(place: Place) -> Found:
    """The small grid on the processor. Runs beside other steps, on half of the cores."""
    jobs = max(1, len(os.sched_getaffinity(0)) // 2) if hasattr(os, "sched_getaffinity") else 1
    yield "run", bench(place, "cpu", *_small(place), "--jobs", str(min(4, jobs)), device="cpu")
    yield from _whole(place, "cpu")


def grid(place: Place) -> Found:
    """The small grid on the device to be measured."""
    yield "run", bench(place, "here", *_small(place))
    yield from _whole(place, "here")


def compare(place: Place) -> Found:
    """Accuracies and predictions of both, cell by cell."""
    for folder in ("here", "cpu"):
        if not (place.work / folder / "runs").is_dir():
            raise Missing("one of the two grids is missing: see the steps grid and processor")
    yield from records.agreement(place.work / "here", place.work / "cpu").items()


def _whole(place: Place, folder: str) -> Found:
    """Counts of a run, and how each method's steps were made; raises where a cell failed."""
    found = records.summary(place.work / folder)
    yield "cells", found["cells"]
    yield "methods", found["methods"]
    if found["failed"]:
        yield "failed", found["failed"]
        raise RuntimeError(f"{len(found['failed'])} cells failed, first: {found['failed'][0]}")


def every(place: Place) -> Found:
    """Every method of the suites on one small dataset: what fails here, and which steps were recorded."""
    methods = ",".join(place.pick(methods_of_suites(), ["zero-shot", "lp++"]))
    dataset = ["--datasets", place.pick("flags", "digits"), "--shots", place.pick("2", "1")]
    seeds = ["--seeds", place.pick("1,2", "1")]
    yield "run", bench(place, "every", "--methods", methods, *dataset, *seeds, budget=True)
    yield from _whole(place, "every")


def every_vit(place: Place) -> Found:
    """What ViTs have of their own: the folded last block, tokens, pixels, both towers."""
    own = place.pick("safe,safe-a,cross-modal,calip,calip-fs,prolip,wise-ft-full,clip-lora", "gda")
    dataset = ["--datasets", place.pick("flags", "digits"), "--shots", place.pick("2", "1"), "--seeds", "1"]
    flags = ["--methods", own, *dataset, "--backbone", "pocket-vit"]
    yield "run", bench(place, "every-vit", *flags, budget=True)
    yield from _whole(place, "every-vit")


def methods(place: Place) -> Found:
    """Seconds of a replica step of every method at RN50's size, K = 64: the cheaper budgets, three seeds."""
    some = ["zero-shot", "tip-adapter-f", "safe", "safe-a"]
    rest = [m for m in methods_of_suites() if m not in some]
    yield from _costs(place, "rn", place.pick([*some, *rest], ["zero-shot", "taskres"]), "1,2,3")


def methods_vit(place: Place) -> Found:
    """The same at ViT-B/16's size, where towers and prompts are costly."""
    some = ["safe", "safe-a", "tip-adapter-f", "coop", "prograd", "cocoop", "prolip"]
    some += ["wise-ft-full", "clip-lora"]
    yield from _costs(place, "vit", place.pick(some, ["taskres"]), "1")


def _costs(place: Place, family: str, methods: Sequence[str], seeds: str) -> Found:
    dataset, shots = place.pick(METHODS[family][1:], TINY)
    flags = ["--methods", ",".join(methods), "--datasets", dataset, "--shots", shots]
    flags += ["--seeds", place.pick(seeds, "1"), "--preset", "quick", *published_checks(methods)]
    yield (
        "run",
        bench(place, f"methods-{family}", *flags, "--backbone", backbone(place, family), budget=True),
    )
    yield "rows", collect(place, family)
    yield from _whole(place, f"methods-{family}")


def published_checks(methods: Sequence[str]) -> list[str]:
    """``--set`` flags by which the quick preset checks on validation as often as the published recipe."""
    flags = []
    for method in map(builtin().get, methods):
        every, quick = (of.get("check_every") for of in (method.settings, method.presets.get("quick", {})))
        if quick is not None and quick != every:
            flags += ["--set", f"{method.name}.check_every={every}"]
    return flags


def collect(place: Place, family: str) -> list[dict[str, Any]]:
    """The rows of what a step methods has recorded, put into methods.csv; none without records."""
    dataset, shots = place.pick(METHODS[family][1:], TINY)
    what = f"{place.pick(METHODS[family][0], f'pocket-{family}')} {dataset} {shots} shots"
    folder = place.work / f"methods-{family}"
    rows = [{"what": what, **row} for row in records.costs(folder)] if folder.is_dir() else []
    if rows:
        table(place.out / "methods.csv", rows)
    return rows


def table(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Put rows into a CSV file; of other ``what`` those that are there stay."""
    before: list[dict[str, Any]] = []
    if file.exists():
        with file.open(newline="", encoding="utf-8") as old:
            before = [r for r in csv.DictReader(old) if r["what"] not in {row["what"] for row in rows}]
    with file.open("w", newline="", encoding="utf-8") as new:
        writer = csv.DictWriter(new, ["what", *records.COSTS], lineterminator="\n")
        writer.writeheader()
        writer.writerows([*before, *rows])


def capped(place: Place) -> Found:
    """SAFE's published grid on a card of which little may be used: the predictions of a free run."""
    safe = [
        "--methods",
        "safe",
        "--datasets",
        place.pick("emoji", "digits"),
        "--shots",
        place.pick("16", "1"),
    ]
    steps = place.pick(("200", "50"), ("6", "3"))
    set_ = [
        "--set",
        f"safe.steps={steps[0]}",
        "--set",
        f"safe.check_every={steps[1]}",
        "--set",
        "safe.warmup=2",
    ]
    flags = [*safe, "--seeds", place.pick("1,2,3", "1"), *set_, "--preset", place.pick("paper", "quick")]
    flags += ["--jobs", "1", "--backbone", backbone(place, "rn")]
    for folder, cap in (("free", None), ("capped", CAP_GB)):
        ran = bench(place, folder, *flags, cap=cap)
        how = records.summary(place.work / folder)["methods"].get("safe", {})
        yield folder, {**ran, **{k: how.get(k) for k in ("waves", "halvings", "peak_GB")}}
    found = records.agreement(place.work / "capped", place.work / "free")
    yield "agreement", found
    assert found["compared"] and not found["judged_otherwise"], "the predictions of both runs differ"


def jobs(place: Place) -> Found:
    """The same grid by one process and by two on one device, features stored before."""
    methods = place.pick("safe,coop,cross-modal,tip-adapter-f", "taskres")
    data = place.pick(("flags,digits,emoji", "1,16", "1,2"), ("digits", "1", "1,2"))
    flags = ["--methods", methods, "--datasets", data[0], "--shots", data[1], "--seeds", data[2]]
    if place.full and not (place.work / "here" / "runs").is_dir():  # else the small grid has stored them
        bench(place, "stored", *flags, "--jobs", "1")
    for n in (1, 2):
        yield f"jobs {n}", bench(place, f"jobs-{n}", *flags, "--jobs", str(n))
    yield "agreement", records.agreement(place.work / "jobs-2", place.work / "jobs-1")


def tests(place: Place) -> Found:
    """The tests marked cuda, found by the mark in their files; without a GPU all are skipped."""
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    files = [f for f in found if "mark.cuda" in f.read_text(encoding="utf-8")]
    report = place.work / "tests.xml"
    words = ["-m", "cuda", "-q", "-rsfE", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = _process(place, [sys.executable, "-m", "pytest", *words, *map(str, files)])
    cases = list(ET.parse(report).getroot().iter("testcase"))
    bad = [c.get("name") for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = sum(c.find("skipped") is not None for c in cases)
    yield "passed", len(cases) - len(bad) - skipped
    yield "skipped", skipped
    yield "failed", bad
    if done.returncode:
        raise RuntimeError(f"pytest ended with {done.returncode}: {', '.join(map(str, bad[:5]))}")


def start(place: Place) -> Found:
    """Seconds of each part of a start, as ``tests.benchmarks.start`` measures them."""
    if importlib.util.find_spec("tests.benchmarks.start") is None:
        raise Missing("this checkout has no tests.benchmarks.start")
    file = place.work / "start.json"
    words = ["tests.benchmarks.start", "--device", place.device.type, "--out", str(file)]
    _process(place, [sys.executable, "-m", *words]).check_returncode()
    yield "parts", json.loads(file.read_text(encoding="utf-8"))
