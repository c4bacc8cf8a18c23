"""How many times faster the engine is than its own sequential path and plain loops, measured here and now.

    python -m tests.benchmarks.ratios --out FILE [--device auto|cpu|cuda] [--quick] [--only WORD,...]

Ratios are medians over interleaved repeats, so they hold on a machine that does other things too; seconds do
not. Both sides take denormal numbers for zero, and on a GPU run with TF32 off and deterministic algorithms,
as ``bench run`` does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

# Threads that spin while they wait would starve whatever else runs here; read when torch's OpenMP starts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[2]


def tower(arch: str, device: Any) -> Any:
    """A model with random weights at true size, and its text tower."""
    import open_clip

    from bench.clip import text

    model = open_clip.create_model(arch + "-quickgelu").eval().requires_grad_(False).to(device)
    first = model.transformer.resblocks[0]
    names = ("transformer.", "token_embedding.", "ln_final.", "text_projection", "positional_embedding")
    params = {n: p for n, p in model.named_parameters() if n.startswith(names)}
    layers = len(model.transformer.resblocks)
    return model, text.TextTower(
        params, first.attn.num_heads, layers, first.mlp.gelu, first.ln_1.eps, text.bpe_tokenizer(77)
    )


def sections(quick: bool, device: Any) -> Iterator[tuple[str, Callable[[], list[Any]]]]:
    """Named parts of the measurement, in the order they run."""
    from bench.clip.backbone import load, resolve
    from bench.registry import builtin

    registry = builtin()
    from bench.run import limits
    from tests.benchmarks import (
        ratios_device,
        ratios_encode,
        ratios_fits,
        ratios_optim,
        ratios_parts,
        ratios_replicas,
        ratios_steps,
    )

    pocket = load(resolve("pocket-rn"), device)
    large = cache(lambda arch: ratios_steps.random_backbone(arch, device))
    roof, gpu = limits.of(str(device)), device.type == "cuda"
    effort = ratios_device.effort(device, quick)
    fits = partial(ratios_fits.rows, pocket, steps=effort.steps, repeats=effort.repeats, roof=roof)
    for case in ratios_fits.CASES:
        yield case.title, partial(fits, case)
    linear, safe = ratios_fits.CASES[3], ratios_fits.CASES[0]
    for K, shots in () if quick else ((10, 1), (100, 1), (1000, 1), (100, 16)):
        yield (
            f"scaling K={K}",
            partial(fits, linear, steps=max(100, effort.steps), K=K, shots=shots, plain=False),
        )
    for size in ratios_steps.sizes(wide=gpu):
        shots = 16 if gpu else size.shots
        yield (
            f"step {size.arch} {size.case.title}",
            lambda s=size, n=shots: ratios_steps.rows(large(s.arch), s.case, effort, roof, 10, n),
        )
    few = 40 if gpu else 3 if quick else 10
    replicas = partial(ratios_replicas.rows, repeats=1 if quick else 5)
    yield (
        "replicas pocket",
        lambda: replicas(pocket, safe, "SAFE, pocket-rn", few, K=10, shots=16, split=True),
    )
    yield "replicas linear", lambda: replicas(pocket, linear, "Cross-Modal, linear", 5 * few, K=100, shots=16)
    if gpu or not quick:
        most, repeats = (48, 5) if gpu else (12, 3)
        yield (
            "replicas RN50",
            lambda: replicas(
                large("RN50"),
                safe,
                "SAFE, RN50",
                few if gpu else 2,
                repeats=repeats,
                K=10,
                shots=1,
                most=most,
                split=True,
            ),
        )
    width = 2048 if gpu else 256 if quick else 1024
    yield "optimiser", lambda: ratios_optim.rows(device, roof, 1 if quick else 7, 20 if gpu else 2, width)
    yield "heads", lambda: ratios_parts.head_rows(device, 1 if quick else 7)
    text = pocket.model, pocket.text
    yield "text pocket", lambda: ratios_parts.text_rows(*text, "pocket text tower", 10, 4, 2 if quick else 9)
    for K, M in () if quick else ((20, 16), (20, 4), (100, 16)):
        yield (
            f"text ViT-B/16, K={K}, M={M}",
            lambda k=K, m=M: ratios_parts.text_rows(
                *tower("ViT-B-16", device), "ViT-B/16 text tower", k, m, 3
            ),
        )
    yield "encode", lambda: list(ratios_encode.encode_rows(pocket, quick))
    volume = (100, 400, 20, (20, 20), 1) if quick else (400, 1600, 100, (200, 20), 1)
    yield "search", lambda: ratios_parts.search_rows(registry.get("tip-adapter"), device, *volume)


def commit() -> str:
    """The checkout's commit, -dirty if the measured code has uncommitted changes; 'unknown' outside one."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git(
            "status", "--porcelain", "--untracked-files=no", "--", "bench", "methods", "tests/benchmarks"
        )
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def table(rows: list[Any]) -> str:
    """The rows as text; a ratio below what is aimed at carries an exclamation mark."""
    from tabulate import tabulate

    from tests.benchmarks.page import shown

    mark = {True: "yes", False: "no", None: "-"}
    lines = [
        (
            r.name,
            r.baseline,
            mark[r.cached],
            mark[r.folded],
            shown(r.ratio) + ("!" if r.least and r.ratio < r.least else ""),
            f"{r.ours_s:.3g}",
            f"{r.baseline_s:.3g}",
            f"{r.ours_s / r.floor:.0f}x" if r.floor else "-",
            r.note,
        )
        for r in rows
    ]
    head = ("what", "against", "cached", "folded", "ratio", "ours s", "theirs s", "over limit", "notes")
    return tabulate(lines, head, disable_numparse=True)


def destination(out: Path, device: Any) -> Path:
    """The file to write: ``out``, or in a folder one named by commit and device."""
    from tests.benchmarks.ratios_device import slug

    return out / f"{commit()}-{slug(device)}.json" if out.is_dir() else out


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="write the rows as JSON: a file, or a folder for one named by commit and device",
    )
    parser.add_argument(
        "--device", default="auto", help="auto (default: CUDA where there is one), cpu or cuda"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, one repeat: seconds to minutes, rough ratios"
    )
    parser.add_argument("--only", help="comma-separated words; sections whose name contains one of them")
    options = parser.parse_args()
    import torch

    from bench.process import flushes_denormal
    from bench.run import devices
    from bench.run.session import repeatable
    from tests.benchmarks.page import shown
    from tests.benchmarks.ratios_device import label

    torch.set_flush_denormal(True)
    device = torch.device(devices.pick(options.device))
    if device.type == "cuda":
        repeatable()
    rows: list[Any] = []
    load = os.getloadavg()
    words = [w.strip().lower() for w in options.only.split(",")] if options.only else []
    for name, measure in sections(options.quick, device):
        if words and not any(w in name.lower() for w in words):
            continue
        measured = measure()
        if name.startswith("scaling"):
            measured = [replace(r, name=f"{r.name}, {name}") for r in measured]
        for r in measured:
            print(f"{r.name}: {shown(r.ratio)} against {r.baseline}", flush=True)
        rows += measured
    print()
    print(table(rows))
    if options.out:
        written = {
            "command": " ".join(["python -m tests.benchmarks.ratios", *sys.argv[1:]]),
            "commit": commit(),
            "device": label(device),
            "load_average": [round(x, 2) for x in (*load, *os.getloadavg())],
            "threads": torch.get_num_threads(),
            "flags": {
                "deterministic": torch.are_deterministic_algorithms_enabled(),
                "tf32": torch.backends.cuda.matmul.allow_tf32,
                "flush_denormal": flushes_denormal(),
            },
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "rows": [asdict(r) for r in rows],
        }
        file = destination(options.out, device)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(written, indent=1) + "\n")
        print(f"\nwritten: {file}")


if __name__ == "__main__":
    main()
