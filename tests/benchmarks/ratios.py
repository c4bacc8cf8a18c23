"""How many times faster: the engine against its own sequential path and against plain loops, measured here and now.

    python -m tests.benchmarks.ratios --out FILE [--quick] [--only WORD,...]

Ratios are medians over interleaved repeats, so they hold on a machine that does other things too; seconds do not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

# Threads that spin while they wait would starve whatever else runs here; read when torch's OpenMP starts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[2]


def tower(arch: str) -> Any:
    """A model with random weights at true size, and its text tower."""
    import open_clip

    from bench.clip import text

    model = open_clip.create_model(arch + "-quickgelu").eval().requires_grad_(False)
    first = model.transformer.resblocks[0]
    names = ("transformer.", "token_embedding.", "ln_final.", "text_projection", "positional_embedding")
    params = {n: p for n, p in model.named_parameters() if n.startswith(names)}
    layers = len(model.transformer.resblocks)
    return model, text.TextTower(
        params, first.attn.num_heads, layers, first.mlp.gelu, first.ln_1.eps, text.bpe_tokenizer(77)
    )


def sections(quick: bool) -> Iterator[tuple[str, Callable[[], list[Any]]]]:
    """Named parts of the measurement, in the order they run."""
    from bench.clip.backbone import load, resolve
    from bench.registry import builtin

    registry = builtin()
    from tests.benchmarks import ratios_encode, ratios_fits, ratios_parts

    pocket = load(resolve("pocket-rn"))
    steps, repeats = (12, 1) if quick else (60, 3)
    for case in ratios_fits.CASES:
        yield case.title, lambda case=case: ratios_fits.rows(pocket, case, steps, repeats)
    for K, shots in () if quick else ((10, 1), (100, 1), (1000, 1), (100, 16)):
        case = ratios_fits.CASES[3]
        yield f"scaling K={K}", lambda c=case, k=K, s=shots: ratios_fits.rows(pocket, c, 100, repeats, k, s, plain=False)
    yield "heads", lambda: ratios_parts.head_rows(1 if quick else 7)
    text = pocket.model, pocket.text
    yield "text pocket", lambda: ratios_parts.text_rows(*text, "pocket text tower", 10, 4, 2 if quick else 9)
    for K, M in () if quick else ((20, 16), (20, 4), (100, 16)):
        yield f"text ViT-B/16, K={K}, M={M}", lambda k=K, m=M: ratios_parts.text_rows(
            *tower("ViT-B-16"), "ViT-B/16 text tower", k, m, 3
        )
    yield "encode", lambda: list(ratios_encode.encode_rows(pocket, quick))
    size = (100, 400, 20, (20, 20), 1) if quick else (400, 1600, 100, (200, 20), 1)
    yield "search", lambda: ratios_parts.search_rows(registry.get("tip-adapter"), *size)


def device() -> str:
    """The processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0] if models else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def commit() -> str:
    """The checkout's commit, with -dirty where the measured code has uncommitted changes; 'unknown' outside one."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "bench", "methods", "tests/benchmarks")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def table(rows: list[Any]) -> str:
    """The rows as text; a ratio below what is aimed at carries an exclamation mark."""
    from tabulate import tabulate

    mark = {True: "yes", False: "no", None: "-"}
    lines = [
        (
            r.name, r.baseline, mark[r.cached], mark[r.folded],
            f"{r.ratio:.1f}x" + ("!" if r.least and r.ratio < r.least else ""),
            f"{r.ours_s:.3g}", f"{r.baseline_s:.3g}", f"{r.ours_s / r.floor:.0f}x" if r.floor else "-", r.note,
        )
        for r in rows
    ]  # fmt: skip
    head = ("what", "against", "cached", "folded", "ratio", "ours s", "theirs s", "over limit", "notes")
    return tabulate(lines, head, disable_numparse=True)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    parser.add_argument("--quick", action="store_true", help="small sizes, one repeat: seconds to minutes, rough ratios")
    parser.add_argument("--only", help="comma-separated words; sections whose name contains one of them")
    options = parser.parse_args()
    import torch

    rows: list[Any] = []
    load = os.getloadavg()
    words = [w.strip().lower() for w in options.only.split(",")] if options.only else []
    for name, measure in sections(options.quick):
        if words and not any(w in name.lower() for w in words):
            continue
        found = measure()
        if name.startswith("scaling"):
            found = [replace(r, name=f"{r.name}, {name}") for r in found]
        for r in found:
            print(f"{r.name}: {r.ratio:.1f}x against {r.baseline}", flush=True)
        rows += found
    print()
    print(table(rows))
    if options.out:
        found = {
            "command": f"python -m tests.benchmarks.ratios{' --quick' if options.quick else ''}",
            "commit": commit(),
            "device": device(),
            "load_average": [round(x, 2) for x in (*load, *os.getloadavg())],
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "rows": [asdict(r) for r in rows],
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")
        print(f"\nwritten: {options.out}")


if __name__ == "__main__":
    main()
