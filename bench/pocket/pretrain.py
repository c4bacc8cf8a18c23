"""Pre-train an embedded CLIP: one command from public icon packages to weights.

    npm install --ignore-scripts --prefix npm PACKAGES     (without them it prints this line)
    python -m bench.pocket.pretrain --npm npm --arch rn --minutes 60 --out pocket-rn.safetensors

Training is contrastive (image to text and back) on composed scenes. An auxiliary classifier over all concepts
helps and is dropped at the end: it speeds up the image tower, for which 127 negatives are few. The command
runs on a CPU or a GPU. ``--minutes`` or ``--steps`` set the length, and a run by ``--steps`` repeats exactly
on the same machine. A ``.log.jsonl`` beside the weights keeps losses, and zero-shot accuracy on artists that
are never trained on. A ``.resume.safetensors`` keeps the state of the run, so that the same command goes on
from there after a stop.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.files import sha256_file
from bench.pocket import checkpoint, numerals, probe
from bench.pocket.arch import ARCH
from bench.pocket.iconsets import Glyphs, concepts, heldout_glyphs, training_glyphs
from bench.pocket.learner import Learner
from bench.pocket.weights import export

LR = {"rn": 2e-3, "vit": 1e-3}


def pretrain(
    learner: Learner,
    out: Path,
    facts: dict[str, Any],
    batch: int,
    minutes: float = 0,
    steps: int = 0,
    every: float = 300,
    probe_sets: Sequence[probe.ProbeSet] = (),
) -> dict[str, Any]:
    """Train for ``steps`` or ``minutes``.

    Every ``every`` seconds it writes ``out``, the state of the run, and a line of the log. A run that was
    stopped goes on from what it last wrote. Returns the last line: step, seconds, mean losses since the line
    before, zero-shot accuracy (%) by probe set. Raises BenchError if the state of another run lies beside
    ``out``.
    """
    state_file = out.with_suffix(".resume.safetensors")
    asked = {
        **facts,
        "batch": batch,
        "minutes": minutes,
        "steps": steps,
        "lr": learner.lr,
        "seen": learner.digest,
    }
    done, last = checkpoint.resume(state_file, learner, asked)
    start = time.monotonic() - last
    seen: list[dict[str, float]] = []
    while True:
        spent = time.monotonic() - start
        progress = done / steps if steps else spent / (60 * minutes)
        if spent - last > every or progress >= 1:
            last = spent
            mean = {k: round(float(np.mean([s[k] for s in seen])), 4) for k in (seen[0] if seen else {})}
            line = {
                "step": done,
                "seconds": round(spent),
                **mean,
                "zero_shot": probe.zero_shot(learner, probe_sets),
            }
            state = learner.model.state_dict()
            export(
                state, learner.ids_n, learner.config, {**facts, "steps": done, "seconds": round(spent)}, out
            )
            # The state is written before the log, so that no line is logged twice.
            checkpoint.write(state_file, learner, asked, done, spent)
            with out.with_suffix(".log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            seen = []
            if progress >= 1:
                state_file.unlink()
                return line
        seen.append(learner.step(batch, progress, done))
        done += 1


def main() -> None:
    """Run the command line."""
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--npm", type=Path, required=True, help="folder with node_modules/ of the icon packages")
    p.add_argument(
        "--datasets", type=Path, default=Path(__file__).parents[2] / "datasets", help="the suite's TOMLs"
    )
    p.add_argument("--arch", choices=list(ARCH), required=True)
    p.add_argument("--minutes", type=float, default=60)
    p.add_argument("--steps", type=int, default=0, help="a fixed number of steps instead of --minutes")
    p.add_argument("--init", type=Path, help="weights to start from, as this program writes them")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lr", type=float, help="peak learning rate")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--every", type=float, default=300, help="seconds between checkpoints")
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    icons = concepts(a.npm, a.datasets)
    drawn, digits = training_glyphs(a.npm, icons), numerals.digit_glyphs(len(icons))
    glyphs = Glyphs(
        np.concatenate([drawn.pixels, digits.pixels]), np.concatenate([drawn.concept, digits.concept])
    )
    known = [*icons, *numerals.CONCEPTS]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    learner = Learner(ARCH[a.arch], known, glyphs, a.lr or LR[a.arch], a.seed, device)
    new = learner.start_from(a.init) if a.init else len(learner.ids_n)
    print(
        f"{len(glyphs.concept)} drawings, {len(known)} concepts, {len(learner.ids_n)} tokens, {new} new",
        flush=True,
    )
    held = {artist: heldout_glyphs(a.npm, icons, artist) for artist in ("openmoji", "twemoji")}
    probe_sets = probe.probe_sets(a.datasets, icons, held, ARCH[a.arch]["vision_cfg"]["image_size"])
    init = f"{a.init.name} {sha256_file(a.init)[:12]}" if a.init else "random"
    facts = {"name": f"pocket-{a.arch}", "seed": a.seed, "batch": a.batch, "init": init}
    pretrain(learner, a.out, facts, a.batch, a.minutes, a.steps, a.every, probe_sets)


if __name__ == "__main__":
    main()
