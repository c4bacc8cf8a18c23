"""Training steps at true size: SAFE by replicas and lanes, a check on validation, memory, kernels, text.

Legend: R replicas, K classes, n steps.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from bench.interface import DENSE
from bench.plan import cost
from bench.train import select
from tests.benchmarks import ratios, ratios_fits, ratios_parts, ratios_steps
from tests.benchmarks.gpu import seams
from tests.benchmarks.gpu.place import Place

Found = Iterator[tuple[str, Any]]


def safe(place: Place) -> Found:
    """Steps of one replica, of the published grid of 12 and of three seeds' 36; the plain loop; the floor."""
    for family in ("rn", "vit"):
        fit, case, steps = place.steps(family)
        roof, one = place.roofline(), cost.step(ratios_fits.planned(fit))
        title = place.tower(family).spec.name
        m = place.pick(20, 1)
        plain = ratios_steps.plain_seconds(fit, case, m) / m
        floor = roof.seconds(one)
        yield f"{title} plain", {"steps_per_s": 1 / plain, "floor_s_a_replica": floor}
        for R in place.pick((12, 36, 1), (1, 3)):
            place.memory()
            n = place.pick(100, 2)
            seconds, out = steps.trained(steps.values(R), n)
            held = place.memory()
            with seams.launched():
                slow, _ = steps.trained(steps.values(R), place.pick(20, 1))
            each = seconds / n
            yield (
                f"{title} R={R}",
                {
                    "replica_steps_per_s": R / each,
                    "launched_replica_steps_per_s": R * place.pick(20, 1) / slow,
                    "times_plain": R * plain / each,
                    "share_of_roofline": R * floor / each,
                    "GBps": 1e-9 * R * one.bytes / each,
                    "graphs": out.graphs,
                    "eager": out.eager,
                    **held,
                },
            )


def lanes(place: Place) -> Found:
    """Three seeds of the published grid trained together, as ``bench run`` joins them.

    Seconds are the difference of two lengths, so that recording and what comes once drop out.
    """
    fit, _, steps = place.steps("rn")
    n = place.pick(60, 2)
    features = {tap: x[:8] for tap, x in fit.features()[1].items()}
    val = select.Labelled(features, fit.val.y_N[:8])
    cases = [
        select.Case(replace(steps.task, seed=seed), steps.consts, steps.pools, val) for seed in (1, 2, 3)
    ]
    grid = steps.recipe.grid if place.full else {**steps.recipe.grid, "lr": (1e-5,), "wd": (0.0, 1e-3)}

    def seconds(length: int) -> float:
        recipe = replace(
            steps.recipe,
            grid=grid,
            steps=length,
            epochs=None,
            check_every=length,
            select="best",
            patience=None,
        )
        began = time.perf_counter()
        kept[:] = select.fit_joined(steps.method, recipe, cases)
        if place.gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    kept: list[select.Fitted] = []
    place.memory()
    seconds(n)  # what is made on first use
    short, long = seconds(n), seconds(3 * n)
    R = 3 * len(kept[0].curve)
    yield (
        "joined",
        {
            "replicas": R,
            "replica_steps_per_s": R * 2 * n / (long - short) if long > short else None,
            "seconds": {str(n): short, str(3 * n): long},
            **{k: v for k, v in kept[0].budget.items() if k in ("graphs", "eager", "waves")},
            **place.memory(),
        },
    )


def validation(place: Place) -> Found:
    """A check of SAFE's grid of 12 in slices of several sizes, and its share of a fit's time.

    Ten classes with 40 validation images each, and a thousand with four each, as the published protocol has.
    """
    for K, each in place.pick(((10, 40), (1000, 4)), ((10, 2),)):
        fit, _, steps = place.steps("rn", shots=1, K=K)
        R, n = place.pick(12, 2), K * each
        x = next(iter(steps.pools.values())).x
        images = {DENSE: torch.randn(n, *x.shape[1:], device=place.device)}
        for tap, own in fit.features()[1].items():
            if tap != DENSE:
                images[tap] = torch.randn(n, *own.shape[1:], device=place.device)
        val = select.Labelled(images, torch.arange(n, device=place.device) % K)
        count = place.pick(60, 2)
        step = steps.trained(steps.values(R), count)[0] / count
        for name, size in (("own slices", None), ("64 MiB", 64 << 20), ("1 GiB", 1 << 30)):
            check = place.median(seams.check(steps, val, R, size), 3, 1)
            yield (
                f"K={K}, {name}",
                {
                    "images": n,
                    "replicas": R,
                    "seconds": check,
                    "share_of_a_fit": _share(check, step),
                },
            )


def _share(check: float, step: float) -> float:
    """Of a published fit's time (SAFE: its steps and its checks), what the checks take."""
    from bench.plan import settings
    from bench.registry import builtin

    method = builtin().get("safe")
    values = settings.resolve(method, "paper", "imagenet", {})
    steps, every = int(values["steps"]), int(values["check_every"])
    return check * (steps / every) / (check * (steps / every) + step * steps)


def many_fits(place: Place) -> Found:
    """What forty short fits leave on the device; the first one is not counted."""
    _, _, steps = place.steps("rn", "cross-modal-linear")
    fits, n = place.pick(40, 2), place.pick(20, 1)
    steps.trained(steps.values(3), n)
    before = place.memory()
    yield "before", before
    for _ in range(fits):
        steps.trained(steps.values(3), n)
    after = place.memory()
    yield "after", after
    yield "fits", fits
    if place.gpu:
        yield "grown_GB", after["allocated_GB"] - before["allocated_GB"]


def profile(place: Place) -> Found:
    """Fifty steps under torch.profiler, recorded and launched: kernels a step, and how long none ran."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if place.gpu else [])]
    tables = []
    cases = [("SAFE recorded", "safe", True), ("SAFE launched", "safe", False)]
    cases += [("linear recorded", "cross-modal-linear", True)]
    for title, method, record in cases:
        _, _, steps = place.steps("rn", method)
        n, made = place.pick(50, 2), profiler(activities=kinds)

        def at(check: int, made: Any = made) -> None:
            if check == 1:
                made.start()
            if check == 2:
                made.stop()

        values = steps.values(place.pick(12, 2))
        if record:
            seconds, out = steps.trained(values, n, at)
        else:
            with seams.launched():
                seconds, out = steps.trained(values, n, at)
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder, "trace.json")
            made.export_chrome_trace(str(trace))
            events = json.loads(trace.read_text())["traceEvents"]
        wanted = ("kernel", "gpu_memcpy", "gpu_memset") if place.gpu else ("cpu_op",)
        ran = [e for e in events if e.get("cat") in wanted]
        yield title, {"seconds_a_step": seconds / n, "eager": out.eager, **busy(ran, n)}
        sort = "self_cuda_time_total" if place.gpu else "self_cpu_time_total"
        tables.append(f"== {title}\n{made.key_averages().table(sort_by=sort, row_limit=25)}")
        (place.out / "profile.txt").write_text("\n\n".join(tables), encoding="utf-8")


def busy(ran: list[dict[str, Any]], n: int) -> dict[str, Any]:
    """Kernels a step, their microseconds, and the share of the time from first to last in which none ran."""
    if not ran:
        return {"kernels_a_step": 0}
    spans = sorted((float(e["ts"]), float(e["ts"]) + float(e.get("dur", 0))) for e in ran)
    covered, end = 0.0, spans[0][0]
    for a, b in spans:
        covered += max(0.0, b - max(a, end))
        end = max(end, b)
    times: Counter[str] = Counter()
    for e in ran:
        times[str(e.get("name"))[:80]] += float(e.get("dur", 0))
    return {
        "kernels_a_step": len(ran) / n,
        "kernel_us_a_step": sum(times.values()) / n,
        "idle_share": 1 - covered / max(1e-9, end - spans[0][0]),
        "most_us_a_step": {name: round(t / n, 2) for name, t in times.most_common(12)},
    }


def ratio_rows(place: Place) -> Found:
    """Sections of the ratio script that no other step measures."""
    wanted = place.pick(
        ("step RN50 Cross", "step RN50 Tip", "replicas RN50", "heads", "search"), ("text pocket",)
    )
    sections = list(ratios.sections(not place.full, place.device))
    for word in wanted:
        for name, measure in sections:
            if name.startswith(word):
                yield name, [asdict(r) for r in measure()]


def text(place: Place) -> Found:
    """Learned prompts' text tower, recorded as it trains: packed, cut at the last end token, open_clip's."""
    arch = "ViT-B-16"
    if place.full:
        model, tower = ratios.tower(arch, place.device)
    else:
        arch, backbone = "pocket-rn", place.tower("rn")
        model, tower = backbone.model, backbone.text
    for K, M in place.pick(((20, 16), (20, 4), (100, 16), (100, 4)), ((3, 2),)):
        for r in ratios_parts.text_rows(model, tower, f"{arch} text tower", K, M, place.pick(7, 1)):
            yield (
                f"K={K}, M={M}, against {r.baseline}",
                {
                    "ratio": r.ratio,
                    "ours_ms": 1e3 * r.ours_s,
                    "theirs_ms": 1e3 * r.baseline_s,
                    **(r.more or {}),
                },
            )
